// oneDNN called alone, for what the linear op makes of it: one matmul with the library's own choice of layouts.
#ifndef BENCH_PEER_ONEDNN_H
#define BENCH_PEER_ONEDNN_H

#include "kernels/tensor.h"

struct peer;
// y [m, n] = (GELU of) x [m, k] w + bias, dense x and y of dtype; weights are random, in the library's layout.
struct peer *peer_open(int64_t m, int64_t n, int64_t k, enum dtype t, bool gelu, const void *x, void *y);
void peer_run(struct peer *p);
void peer_close(struct peer **p);
const char *peer_version(char *text, size_t n);

#endif
