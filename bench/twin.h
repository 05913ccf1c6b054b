// One network of the published sizes with random weights, in memory: what the benchmarks of whole networks run.
#ifndef BENCH_TWIN_H
#define BENCH_TWIN_H

#include "worker/synth/parts.h"
#include "worker/weights/weights.h"

// The published sizes with `layers` in place of every network's own count (0: as published) and a small vocabulary.
struct synth_sizes twin_sizes(int layers);

struct twin {
    struct weights *w;
    void *values;
};
// The tensors that the lists name, in dtype t. Lists in order, ending with NULL. The twin outlives what is loaded of
// it.
void twin_new(struct twin *t, enum dtype dtype, const struct synth_sizes *s,
              void (*const *lists)(struct synth_list *l, const struct synth_sizes *s));
void twin_free(struct twin *t);

#endif
