// A small file as a whole, for documents: JSON, YAML.
#ifndef PROTO_FILE_H
#define PROTO_FILE_H

#include "proto/base/err.h"

#include <stddef.h>

// Reads `path`, at most `max` bytes, NUL added behind them. The caller frees *out. E_INPUT names the file and why.
int file_text(char **out, size_t *n, const char *path, size_t max, struct err *e);
// Gives a sentence about a file that people write its way out (err_way): the name, the right to read it, or what is in
// it.
int file_way(const char *path, struct err *e);

#endif
