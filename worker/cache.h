// TeaCache: skipping a forward's blocks while the step time has moved little (dit.md 6.2, pipeline.md 5.6).
//
// Default: a slot per branch, five steps of warm-up, fresh at every segment. Published parity: the released program's
// one counter, taken modulo 3 whatever the number of branches, running on from segment to segment.
#ifndef WORKER_CACHE_H
#define WORKER_CACHE_H

#include "kernels/ops.h"
#include "proto/spec.h"

enum { CACHE_SLOTS = 3 };

struct cache {
    struct dev *dev;
    bool published;
    int steps;
    double thresh, coefficient[MODEL_POLY]; // highest power first
    tensor residual[CACHE_SLOTS];           // [n_tokens, dim] of the model's dtype
    tensor previous[CACHE_SLOTS];           // F32 [6, dim]
    tensor change;                          // F64 [2]
    double sum[CACHE_SLOTS];
    int count;             // forwards since the counter was last 0 (published)
    int seen[CACHE_SLOTS]; // steps of this segment
    float decision[3];     // the latest: relative change, sum before it started again, 1 if skipped
};

// Tensors live in `a`. Only `n_slots` slots are made (the guide's branches).
void cache_init(struct cache *c, struct dev_arena *a, const struct spec_render *s, int n_slots, int64_t n_tokens,
                int64_t dim, enum dtype t);
void cache_reset(struct cache *c); // at the start of a segment
// Whether the forward under way skips its blocks; *residual is what it adds or fills.
bool cache_skips(struct cache *c, int slot, tensor e0, tensor *residual);
// The latest decision as a tensor F32 [3] in `a`, for taps.
tensor cache_decision(const struct cache *c, struct dev_arena *a);

#endif
