// TeaCache.
//
// Per slot: r = mean|e0 - previous| / mean|previous|, summed through a polynomial until it reaches the threshold; then
// the blocks run and the sum starts again. `previous` is the step before, skipped or not.
//
// The published counter: forwards 0, 1, 2, ... take slots 0, 1, 2, 0, ... whatever they compute, 15 forwards of
// warm-up, back to 0 after 3 x steps. With two branches that mixes the branches' residuals and carries them into the
// next segment (trap 31); a parity run reproduces it.
#include "worker/cache.h"

#include <string.h>

enum { WARM_STEPS = 5 };

void cache_init(struct cache *c, struct dev_arena *a, const struct spec_render *s, int n_slots, int64_t n_tokens,
                int64_t dim, enum dtype t)
{
    *c = (struct cache){.dev = dev_arena_dev(a),
                        .published = s->parity == SPEC_PARITY_PUBLISHED,
                        .steps = s->steps,
                        .thresh = s->teacache_thresh};
    memcpy(c->coefficient, s->teacache_poly, sizeof c->coefficient);
    if (c->published) n_slots = CACHE_SLOTS;
    for (int i = 0; i < n_slots; i++) {
        c->residual[i] = dev_tensor(a, t, SHAPE(n_tokens, dim));
        c->previous[i] = dev_tensor(a, DT_F32, SHAPE(6, dim));
    }
    c->change = dev_tensor(a, DT_F64, SHAPE(2));
}

void cache_reset(struct cache *c)
{
    if (c->published) return;
    memset(c->seen, 0, sizeof c->seen);
}

static double polynomial(const double *c, double r)
{
    double v = c[0];
    for (int i = 1; i < MODEL_POLY; i++) v = v * r + c[i];
    return v;
}

static double relative_change(struct cache *c, int slot, tensor e0)
{
    double sums[2] = {0, 1};
    op_mean_change(c->dev, c->change, e0, c->previous[slot]);
    dev_download(c->dev, sums, DT_F64, c->change);
    return sums[0] / sums[1];
}

bool cache_skips(struct cache *c, int slot, tensor e0, tensor *residual)
{
    int at = c->published ? c->count : c->seen[slot], warm = c->published ? CACHE_SLOTS * WARM_STEPS : WARM_STEPS;
    if (c->published) slot = c->count % CACHE_SLOTS;
    BUG_IF(tensor_is_none(c->previous[slot]), "step cache without slot %d", slot);
    bool skip = false;
    double change = 0, sum = 0;
    if (at < warm || dev_is_dry(c->dev))
        c->sum[slot] = 0;
    else {
        change = relative_change(c, slot, e0);
        sum = c->sum[slot] += polynomial(c->coefficient, change);
        skip = sum < c->thresh;
        if (!skip) c->sum[slot] = 0;
    }
    c->decision[0] = (float)change;
    c->decision[1] = (float)sum;
    c->decision[2] = skip;
    op_copy(c->dev, c->previous[slot], e0);
    *residual = c->residual[slot];
    c->seen[slot]++;
    if (c->published && ++c->count >= CACHE_SLOTS * c->steps) c->count = 0;
    return skip;
}

tensor cache_decision(const struct cache *c, struct dev_arena *a)
{
    tensor t = dev_tensor(a, DT_F32, SHAPE(3));
    dev_upload(c->dev, t, c->decision, DT_F32);
    return t;
}
