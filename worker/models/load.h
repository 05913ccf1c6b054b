// Loading a network's tensors: the first failure sticks, so a loader reads as a list of names and shapes.
#ifndef WORKER_MODELS_LOAD_H
#define WORKER_MODELS_LOAD_H

#include "kernels/ops.h"
#include "worker/weights/weights.h"

struct load {
    const struct weights *w;
    struct dev *dev;
    struct dev_arena *arena;
    enum dtype dtype; // weights are rounded to it
    struct err *e;
    int rc; // 0, or the first failure; then every call does nothing
};

// The length of an axis of a stored tensor; 0 on failure.
int64_t load_axis(struct load *l, const char *name, int axis);
// <prefix>.weight [n_out, n_in], packed, and <prefix>.bias [n_out] as F32.
void load_linear(struct load *l, tensor *w, tensor *b, int64_t n_out, int64_t n_in, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
// A vector of n values, rounded to the dtype, kept as F32; axes of 1 around it are ignored.
tensor load_vector(struct load *l, int64_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// <prefix>.weight [co, ci, kt, kh, kw] (missing axes are 1), packed, and its bias.
void load_conv(struct load *l, tensor *w, tensor *b, const int64_t shape[5], const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
// Address space for all of a set's tensors, twice as F32 (stored and packed). Costs nothing until written.
int64_t load_capacity(const struct weights *w);

#endif
