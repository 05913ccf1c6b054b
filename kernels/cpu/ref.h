// Shared by the plain loops: reading rows of any dtype as F32, storing with the dtype's rounding.
#ifndef KERNELS_CPU_REF_H
#define KERNELS_CPU_REF_H

#include "kernels/table.h"

#include <math.h>
#include <stdlib.h>

// Element i of memory `p`, as F32.
float ref_get(enum dtype t, const void *p, int64_t i);
void ref_put(enum dtype t, void *p, int64_t i, float v);
// n contiguous elements.
void ref_load(float *dst, enum dtype t, const void *p, int64_t n);
void ref_store(enum dtype t, void *p, const float *src, int64_t n);
// The address of row i, counting over all axes but the last `n_inner`.
char *ref_row(tensor t, int64_t i, int n_inner);
int64_t ref_rows(tensor t, int n_inner);
// A vector (any stride) as malloc'd F32, or NULL for no tensor. The whole of a contiguous tensor likewise.
float *ref_vector(tensor t);
float *ref_whole(tensor t);
void *ref_alloc(int64_t n, size_t size);
float ref_act(enum act a, float v);

// v as the dtype would keep it.
static inline float ref_round(enum dtype t, float v)
{
    return t == DT_BF16 ? bf16_to_f32(f32_to_bf16(v)) : t == DT_F16 ? f16_to_f32(f32_to_f16(v)) : v;
}

#endif
