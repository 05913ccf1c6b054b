// A tap sees values on the way: a network calls it with the name of each intermediate result. Tests and `golden`
// listen; in production it is NULL and costs one comparison. The tensor is only valid during the call and must not be
// changed.
#ifndef KERNELS_TAP_H
#define KERNELS_TAP_H

#include "kernels/tensor.h"

struct tap {
    void (*see)(void *ctx, const char *name, tensor t);
    void *ctx;
};

// printf-style name; does nothing when `tap` is NULL.
void tap_see(const struct tap *tap, tensor t, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
