// What the two writers share: the head of a tensor, and a file written from front to back by large writes.
#ifndef WORKER_WEIGHTS_OUTFILE_H
#define WORKER_WEIGHTS_OUTFILE_H

#include "kernels/tensor.h"
#include "proto/base/err.h"

enum { TENSOR_NAME_MAX = 128 };

struct tensor_head {
    char name[TENSOR_NAME_MAX];
    enum dtype dtype;
    int n;
    int64_t shape[TENSOR_DIMS];
};
int64_t head_bytes(const struct tensor_head *h);

// A file that is only appended to. `size` counts what was put so far.
struct outfile;
int outfile_create(struct outfile **out, const char *path, struct err *e); // an existing file is truncated
int outfile_put(struct outfile *f, const void *bytes, size_t n, struct err *e);
int64_t outfile_size(const struct outfile *f);
const char *outfile_path(const struct outfile *f);
int outfile_close(struct outfile **f, struct err *e); // flushes; the handle is gone in any case
void outfile_free(struct outfile **f);                // gives up: closes without a word

#endif
