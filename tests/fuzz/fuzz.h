// What the fuzz targets share. Each gives libFuzzer's bytes to a reader of hostile input and asks more than "no crash":
// a refusal carries one sentence, and whatever is accepted can be used to its last byte.
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "proto/base/err.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// A refusal's code and sentence; BUG when there is none, or more than a line.
void fuzz_refused(int rc, const struct err *e);
// The bytes as a file: a path that lasts until fuzz_file_end.
const char *fuzz_file(const uint8_t *data, size_t n);
void fuzz_file_end(void);
// Opens it as weights and reads every element of every tensor.
void fuzz_weights(const uint8_t *data, size_t n);

#endif
