// JSON by jansson, the tree type of every document we read: duplicate keys refused, depth and size limited.
#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include "proto/base/err.h"

#include <jansson.h>
#include <stddef.h>

// Parses `n` bytes; `what` names the document in messages ("job.json"). A UTF-8 byte-order mark is skipped. E_INPUT
// gives line and column. The caller owns *out (json_decref).
int json_parse(json_t **out, const char *what, const void *text, size_t n, struct err *e);
// Reads and parses a file (at most 64 MiB).
int json_read(json_t **out, const char *path, struct err *e);

#endif
