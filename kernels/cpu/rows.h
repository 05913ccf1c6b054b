// Loops over one row of floats, compiled once per instruction set: what the fast norms, rotations and pointwise ops are
// made of. A row is loaded as F32, worked on in the caches, and stored with its dtype's rounding.
#ifndef KERNELS_CPU_ROWS_H
#define KERNELS_CPU_ROWS_H

#include "kernels/ops.h"

struct row_fns {
    void (*load)(float *y, enum dtype t, const void *x, int64_t n);
    void (*store)(enum dtype t, void *y, const float *x, int64_t n);
    void (*round)(enum dtype t, float *x, int64_t n);             // x = R(x)
    double (*sum)(const float *x, int64_t n);                     // of x
    double (*sum_squares)(const float *x, float mean, int64_t n); // of (x - mean)^2
    void (*affine)(float *x, float mean, float r, const float *gain, const float *bias,
                   int64_t n); // x = (x - mean) r gain + bias; either NULL
    void (*modulate)(float *x, const float *shift, const float *scale, int64_t n); // x = x (1 + scale) + shift
    void (*gate_add)(float *x, const float *y, const float *gate, int64_t n);      // x += y gate; gate may be NULL
    void (*turn)(float *x, const float *table, int64_t pairs);                     // pairs (a, b) by (cos, sin)
    void (*act)(enum act a, float *x, int64_t n);
    void (*mul)(float *x, const float *y, int64_t n);                     // x *= y
    void (*axpby)(float *x, float a, float b, const float *z, int64_t n); // x = a x + b z
    // x = (x - mean) r gain + bias, each a vector
    void (*standardise)(float *x, const float *mean, const float *r, const float *gain, const float *bias, int64_t n);
    void (*add_moments)(double *sum, double *sum_sq, const float *x, int64_t n); // += x, += x^2
};

extern const struct row_fns rows_plain, rows_avx2, rows_avx512;

#endif
