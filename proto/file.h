// A small file as a whole, for documents: JSON, YAML.
#ifndef PROTO_FILE_H
#define PROTO_FILE_H

#include "proto/base/err.h"

#include <stddef.h>

// Reads `path`, at most `max` bytes, NUL added behind them. The caller frees *out. E_INPUT names the file and why.
int file_text(char **out, size_t *n, const char *path, size_t max, struct err *e);

#endif
