// Who owns what: rows of a sequence, heads, lines of a picture, frames under a run of rows. Pure arithmetic.
#ifndef PARALLEL_SPLIT_H
#define PARALLEL_SPLIT_H

#include <stdint.h>

struct span {
    int64_t from, to;
};
static inline int64_t span_length(struct span s) { return s.to - s.from; }

// Rows: every rank holds `each` = ceil(total / n) rows, so that all exchanges have one size. The real ones are `own`;
// what lacks at the very end is padding, which must never be seen as keys. Late ranks may own nothing.
struct split_rows {
    int64_t total, each;
    struct span own;
};
struct split_rows split_rows(int64_t total, int n, int i);

// As even as can be, no padding, the longer shares first; with fewer than n, the last ranks have none.
struct span split_even(int64_t total, int n, int i);

// The frames of `frame_rows` rows each that a run of rows touches: a cut one, whole ones, a cut one; at most three.
struct split_group {
    int64_t row, rows;       // from this local row, rows of each frame
    int64_t frame, n_frames; // whole frames stand together
};
int split_groups(struct split_group out[3], struct span rows, int64_t frame_rows);

#endif
