// A trial on a device, beside the reference on the host.
#ifndef KERNELS_TRIAL_ON_H
#define KERNELS_TRIAL_ON_H

#include "kernels/trial.h"

// Where trials are laid out. `block` and `back` have `size` bytes each, aligned to 64; the arena is of the device.
struct trial_bench {
    struct dev *d, *ref;
    struct dev_arena *arena;
    char *block, *back;
    size_t size;
};

// A reference and memory for trials of `d`, of whose own an arena takes up to `arena_bytes` (0: any). The caller closes
// it, whatever came back.
int trial_bench_open(struct trial_bench *b, struct dev *d, size_t size, int64_t arena_bytes, struct err *e);
void trial_bench_close(struct trial_bench *b);

// Runs the case on both; *worst is the largest error of any output. The device's tensors stay in the arena, as *ours
// (may be NULL), until the caller resets it. A fault of the device comes back as its code, with the op's name.
int trial_on(struct trial_bench *b, const struct op_case *c, uint64_t seed, struct trial_set *ours, double *worst,
             struct err *e);
// A tensor whose bytes lie elsewhere.
tensor trial_moved(tensor t, ptrdiff_t by);

#endif
