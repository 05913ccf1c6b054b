// Attention of one block of queries over all packed keys of one head: what the driver hands to the way that fits the
// CPU.
//
// Packed keys and values stand in panels of ATTEND_PANEL columns, one step of the summed axis after the other, so that
// a vector load gives one step of a panel:
//   keys   [key panels, steps of d, 16]       summed over channels
//   values [value panels, steps of keys, 16]  summed over keys
// In the F32 way a step is one float. In the BF16 way it is two neighbours of the summed axis in 32 bits, as the dot
// product instruction wants them. What is missing at the ends is zero.
#ifndef KERNELS_CPU_ATTEND_H
#define KERNELS_CPU_ATTEND_H

#include "kernels/tensor.h"

// ATTEND_KEYS: keys between two rescalings; ATTEND_GROUP: queries whose scores are held at a time.
enum { ATTEND_PANEL = 16, ATTEND_ROWS = 128, ATTEND_KEYS = 256, ATTEND_GROUP = 16 };

struct attend {
    const void *keys, *values; // packed
    int64_t nk, d, dv;
    const char *q; // row 0 of the block; rows of d elements of dtype, q_step bytes apart
    char *y;       // likewise, dv elements of y_dtype
    int64_t q_step, y_step;
    enum dtype dtype, y_dtype;
    int64_t n;         // queries, at most ATTEND_ROWS
    const float *bias; // rows of nk, or NULL
    float scale;
    // An unfinished softmax: sums (rows of dv) and (largest score, sum of exponentials) are read unless `first`, and
    // written in place of y. NULL: y is wanted.
    float *sum, *state;
    int64_t sum_step, state_step; // floats between rows
    bool first;
    void *tile; // attend_tile_bytes of the calling thread's own
};
typedef void attend_fn(const struct attend *a);

static inline int64_t attend_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
// Queries, sums, scores, and two columns of softmax state, as F32 (the BF16 way needs less).
static inline size_t attend_tile_bytes(int64_t d, int64_t dv)
{
    return sizeof(float) *
           (size_t)(ATTEND_ROWS * (attend_up(d, 16) + attend_up(dv, 16) + 2) + 2 * ATTEND_GROUP * ATTEND_KEYS);
}

// The F32 way, and the BF16 way.
attend_fn attend_plain, attend_avx2, attend_avx512, attend_bf16;

#endif
