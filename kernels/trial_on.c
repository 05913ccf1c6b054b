// The case's block goes over as one run of bytes and comes back as one, so strides and gaps are the same on both sides.
#include "kernels/trial_on.h"

#include <stdlib.h>

int trial_bench_open(struct trial_bench *b, struct dev *d, size_t size, int64_t arena_bytes, struct err *e)
{
    *b = (struct trial_bench){.d = d, .size = size, .block = aligned_alloc(64, size), .back = aligned_alloc(64, size)};
    if (!b->block || !b->back) return err_set(e, E_FATAL, "no memory to try the ops of %s", dev_name(d));
    b->arena = dev_arena_new(d, "trials", arena_bytes);
    return dev_open(&b->ref, "ref", 0, e);
}

void trial_bench_close(struct trial_bench *b)
{
    dev_arena_free(&b->arena);
    dev_close(&b->ref);
    free(b->block);
    free(b->back);
}

tensor trial_moved(tensor t, ptrdiff_t by)
{
    if (t.data) t.data = (char *)t.data + by;
    return t;
}

int trial_on(struct trial_bench *b, const struct op_case *c, uint64_t seed, struct trial_set *ours, double *worst,
             struct err *e)
{
    struct trial t = {.block = b->block, .size = b->size, .seed = seed};
    trial_lay(&t, c);
    int64_t used = (int64_t)t.used;
    tensor there = dev_tensor(b->arena, DT_U8, 1, &used);
    if (there.data) dev_upload(b->d, there, t.block, DT_U8);
    struct trial_set own = t.set;
    for (int k = 0; k < own.n; k++) own.t[k] = trial_moved(own.t[k], (char *)there.data - t.block);
    trial_run(b->d, b->arena, c, &own);
    int rc = dev_sync(b->d, e);
    if (rc < 0) return err_wrap(e, "op_%s", c->op);
    dev_download(b->d, b->back, DT_U8, there);
    trial_run(b->ref, NULL, c, &t.set);
    *worst = 0;
    for (int k = 0; k < own.n_out; k++) {
        double error = trial_error(trial_moved(own.t[k], b->back - (char *)there.data), t.set.t[k]);
        if (!(error <= *worst)) *worst = error;
    }
    if (ours) *ours = own;
    return dev_sync(b->d, e);
}
