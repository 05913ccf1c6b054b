// The step loop.
//
//   x = noise
//   for i in 0 .. n-1:
//       x[:, 0:m] = motion                      clean, at every step: the only way motion gets into a later segment
//       v = guide(dit(x, t_i) per branch)
//       x = x - v (t_i - t_i+1) / 1000          v is noise minus data
//   x[:, 0:m] = motion
//
// One time value serves all latent frames although the motion frames are clean. What depends on t alone is computed
// once per step and shared by the branches. The branches run one after another and each gives its scratch back, so
// memory is that of one forward and the predictions; or as one batch, where a block's weights are dear to fetch. Over
// the guide axis of a mesh, rank g of G takes branches g, g + G, ...; then the predictions are gathered, whole, and all
// ranks combine them and step in the same order, so that all hold the same latents. The published step cache counts
// the forwards of all branches in one row, so there every rank takes all branches. The device is waited for once per
// step, and there the predictions and the latents are looked at: a NaN that came up in a step is told with step and
// branch instead of arriving as a grey video.
#include "worker/denoise.h"

#include <math.h>

static void put_motion(const struct denoise *n, struct dev *d, tensor x)
{
    if (!tensor_is_none(n->motion)) op_copy(d, tensor_slice(x, 1, 0, n->motion.shape[1]), n->motion);
}

// One number of each tells: a NaN or infinity anywhere makes the mean of |x| one.
static int check_finite(const struct denoise *n, struct dev *d, tensor means, int step, struct err *e)
{
    double mean[GUIDE_BRANCHES + 1][2] = {0};
    if (dev_is_dry(d)) return 0;
    dev_download(d, mean, DT_F64, means);
    int rc = dev_sync(d, e), i = 0, last = n->guide->n;
    if (rc < 0) return rc;
    while (i <= last && isfinite(mean[i][1])) i++;
    if (i > last) return 0;
    return err_set(e, E_INPUT, "segment %lld, step %d of %d, %s%s: values that are not finite (NaN or infinity)",
                   (long long)n->segment + 1, step + 1, n->n_steps, i < last ? "the branch with " : "the latents",
                   i < last ? guide_branch_name(&n->guide->branch[i]) : "");
}

static struct dit_in input(const struct denoise *n, struct dev_arena *a, tensor x, struct dit_time time, int step,
                           int i)
{
    const struct guide_branch *b = &n->guide->branch[i];
    struct dit_in in = {.x = x,
                        .y = n->y,
                        .masks = n->masks,
                        .time = time,
                        .words = b->negative_words ? n->negative : n->words,
                        .picture = n->picture,
                        .voice = b->no_voice ? n->silence : n->voice,
                        .wide = n->wide};
    if (n->cache) in.skip = cache_skips(n->cache, b->slot, time.e0, &in.residual);
    if (n->cache && n->tap) tap_see(n->tap, cache_decision(n->cache, a), "step%d.cache%d", step, i);
    return in;
}

// Ranks that share out the branches.
static int guide_ranks(const struct denoise *n)
{
    return n->mesh && !(n->cache && n->cache->published) ? n->mesh->n.guide : 1;
}

// This rank's predictions, into their places in p.
static void predict(const struct denoise *n, struct dev_arena *a, const tensor *p, tensor x, struct dit_time time,
                    int step)
{
    struct dit_in in[GUIDE_BRANCHES];
    tensor out[GUIDE_BRANCHES];
    int count = 0, ranks = guide_ranks(n), first = ranks > 1 ? n->mesh->i_guide : 0;
    bool alike = true;
    for (int i = first; i < n->guide->n; i += ranks) {
        in[count] = input(n, a, x, time, step, i);
        alike = alike && in[count].skip == in[0].skip;
        out[count++] = p[i];
        if (n->together) continue;
        repeat_forward(n->repeat, n->dit, n->mesh, a, out, in, 1);
        count = 0;
    }
    if (count > 0 && alike)
        repeat_forward(n->repeat, n->dit, n->mesh, a, out, in, count);
    else
        for (int i = 0; i < count; i++) repeat_forward(n->repeat, n->dit, n->mesh, a, &out[i], &in[i], 1);
}

// The other ranks' predictions; in the last round some have none.
static void gather(const struct denoise *n, const tensor *p)
{
    int ranks = guide_ranks(n);
    for (int from = 0; ranks > 1 && from < n->guide->n; from += ranks) {
        int64_t bytes[GUIDE_BRANCHES] = {0};
        int own = from + n->mesh->i_guide;
        for (int i = 0; i < ranks && from + i < n->guide->n; i++) bytes[i] = tensor_bytes(p[from + i]);
        comm_all_gatherv(n->mesh->guide, p[from].data, own < n->guide->n ? p[own].data : NULL, bytes);
    }
}

// means F64 [branches + 1, 2]: what check_finite looks at, of the predictions and of the latents.
static void step(const struct denoise *n, struct dev_arena *a, tensor x, int i, tensor means)
{
    struct dev *d = dev_arena_dev(a);
    int64_t mark = dev_arena_mark(a);
    tensor v = dev_tensor(a, DT_F32, x.n, x.shape), p[GUIDE_BRANCHES];
    tensor all = dev_tensor(a, DT_F32, SHAPE(n->guide->n, tensor_count(x)));
    for (int k = 0; k < n->guide->n; k++) p[k] = tensor_reshape(tensor_at(all, k), x.n, x.shape);
    put_motion(n, d, x);
    tap_see(n->tap, x, "step%d.latent_in", i);
    struct dit_time time = dit_time_new(n->dit, a, n->t[i], NULL);
    predict(n, a, p, x, time, i);
    gather(n, p);
    for (int k = 0; k < n->guide->n; k++) tap_see(n->tap, p[k], "step%d.pred%d", i, k);
    guide_combine(n->guide, a, v, p);
    op_axpby(d, x, 1, x, -(n->t[i] - n->t[i + 1]) / 1000, v);
    put_motion(n, d, x);
    for (int k = 0; k < n->guide->n; k++) op_mean_change(d, tensor_at(means, k), p[k], p[k]);
    op_mean_change(d, tensor_at(means, n->guide->n), x, x);
    tap_see(n->tap, x, "step%d.latent_out", i);
    dev_arena_reset(a, mark);
}

int denoise_run(const struct denoise *n, struct dev_arena *a, tensor x, struct err *e)
{
    guide_reset(n->guide);
    if (n->cache) cache_reset(n->cache);
    BUG_IF(n->mesh && n->mesh->n.guide > GUIDE_BRANCHES, "%d ranks for branches", n->mesh->n.guide);
    int64_t mark = dev_arena_mark(a);
    tensor means = dev_tensor(a, DT_F64, SHAPE(n->guide->n + 1, 2));
    int rc = 0;
    for (int i = 0; i < n->n_steps && rc == 0; i++) {
        step(n, a, x, i, means);
        rc = check_finite(n, dev_arena_dev(a), means, i, e);
        if (rc == 0 && n->step && (rc = n->step(n->ctx, i + 1, n->n_steps)) < 0)
            err_set(e, rc, "segment %lld ended at step %d", (long long)n->segment + 1, i + 1);
        if (n->mesh) rc = comm_agree(n->mesh->world, rc, NULL, e);
    }
    dev_arena_reset(a, mark);
    return rc;
}
