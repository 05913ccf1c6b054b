// Attention of one block of queries over all packed keys of one head: what the driver hands to the way that fits the
// CPU.
//
// Packed keys stand in panels of ATTEND_PANEL keys, channel by channel, so that one vector load gives one channel of a
// panel; packed values are rows. In the F32 way elements are floats:
//   keys [panels, d, 16], values [16 panels, dv16]
// In the BF16 way two neighbours in the summed axis share 32 bits, as the dot product instruction wants them:
//   keys [panels, d/2, 16, 2], values [8 panels, dv16, 2]
// d is rounded up to even, dv16 is dv rounded up to 16, missing elements are zero.
#ifndef KERNELS_CPU_ATTEND_H
#define KERNELS_CPU_ATTEND_H

#include "kernels/tensor.h"

enum { ATTEND_PANEL = 16, ATTEND_ROWS = 64, ATTEND_KEYS = 256 }; // ATTEND_KEYS: keys between two rescalings

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
// Scores, queries, sums and two columns of softmax state, as F32 (the BF16 way needs less).
static inline size_t attend_tile_bytes(int64_t d, int64_t dv)
{
    return sizeof(float) * (size_t)(ATTEND_ROWS * (ATTEND_KEYS + attend_up(d, 16) + attend_up(dv, 16) + 2) + 64);
}

attend_fn attend_plain; // F32 way

#endif
