// Every op at one middling size, in F32 and BF16.
//
// The inputs lie in one block of host memory; the reference works there, the device on a copy of the block in its own
// memory. Then the op runs again for a few milliseconds for its rate: GFLOP/s where products count, else GB/s of what
// it must read and write at least. The sizes keep the plain reference under a second an op, so a large card is not
// filled: the rates say that the op runs as fast as it should on this machine or far from it, no more; bench_ops
// measures.
#include "worker/selftest.h"

#include "kernels/trial.h"
#include "proto/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 << 20, SEED = 1, TIMED_US = 20000, TIMED_RUNS = 50 };

static const struct op_case rows[] = {
    {"linear", {256, 512, 512}, .how = HOW_BIAS | HOW_PACKED, .act = ACT_GELU_TANH},
    {"attention", {1, 256, 4, 320, 128, 128}},
    {"attention_more", {1, 192, 4, 256, 128, 128}, .how = HOW_MILD},
    {"attention_map", {256, 4, 128, 256, 3}},
    {"norm", {256, 5120}, .how = HOW_MODULATED},
    {"add_norm", {256, 5120}, .how = HOW_MODULATED | HOW_GATE},
    {"gate_add", {256, 5120}, .how = HOW_GATE},
    {"rms_norm", {256, 5120}},
    {"l2_norm", {4096, 96}, .act = ACT_SILU},
    {"col_sums", {4096, 512}},
    {"col_norm", {4096, 512}, .act = ACT_GELU_ERF},
    {"rope_grid", {4, 16, 16, 0, 1024, 128}, .t = DT_F32},
    {"rope_line", {1024, 128}, .t = DT_F32},
    {"rope", {1, 256, 40, 128}},
    {"qk_norm_rope", {128, 40, 128}},
    {"row_range", {3, 32760}, .t = DT_F32},
    {"class_pos", {3, 32760}},
    {"conv", {3, 24, 24, 96, 96, 3, 3, 3, 1, 1, 1, 2, 1}, .how = HOW_BIAS | HOW_PACKED},
    {"upsample2", {4, 32, 32, 96}},
    {"copy", {64, 80, 512}, .how = HOW_STRIDED},
    {"fill", {64, 80, 512}},
    {"embed", {512, 4096, 1000}},
    {"lerp_rows", {1000, 500, 768}},
    {"act", {1 << 20}, .act = ACT_GELU_TANH},
    {"mul", {1 << 20}},
    {"axpby", {1 << 20}},
    {"project_out", {1 << 20}, .t = DT_F32},
    {"mean_change", {1 << 20}, .t = DT_F32},
    {"resize_cubic", {120, 208, 240, 416, 3}, .t = DT_F32},
    {"lab_stats", {2, 120, 208}, .t = DT_F32},
    {"lab_match", {2, 120, 208}, .t = DT_F32},
    {"yuv420", {4, 240, 416}, .t = DT_F32},
};

struct self {
    struct dev *d, *ref;
    struct dev_arena *arena;
    char *block, *back;
    FILE *to;
    int n_ops, n_bad;
};

// Multiplications and additions of the op; 0 where memory is what counts.
static double work_of(const struct op_case *c)
{
    const int64_t *s = c->s;
    if (strcmp(c->op, "linear") == 0) return 2.0 * (double)(s[0] * s[1] * s[2]);
    if (strncmp(c->op, "attention", 9) == 0 && strcmp(c->op, "attention_map") != 0)
        return 2.0 * (double)(s[0] * s[1] * s[2] * s[3] * (s[4] + s[5]));
    if (strcmp(c->op, "attention_map") == 0) return 2.0 * (double)(s[0] * s[1] * s[2] * s[3]);
    if (strcmp(c->op, "conv") == 0) // causal and same padding, stride 1: as many positions as the input has
        return 2.0 * (double)(s[0] * s[1] * s[2] * s[3] * s[4] * s[5] * s[6] * s[7]);
    return 0;
}

// Each input read once, each output written once.
static double bytes_of(const struct op_case *c, const struct trial_set *set)
{
    double n = 0;
    for (int k = 0; k < set->n; k++)
        n += (double)tensor_bytes(set->t[k]) * (k < set->n_out && trial_reads(c, k) ? 2 : 1);
    return n;
}

static tensor moved(tensor t, ptrdiff_t by)
{
    if (t.data) t.data = (char *)t.data + by;
    return t;
}

// Microseconds of one run, over several.
static double time_op(struct self *f, const struct op_case *c, struct trial_set *set, struct err *e)
{
    int64_t mark = dev_arena_mark(f->arena), begun = clock_us(), spent = 0;
    int n = 0;
    while (spent < TIMED_US && n < TIMED_RUNS) {
        trial_run(f->d, f->arena, c, set);
        dev_arena_reset(f->arena, mark);
        n++;
        if (dev_sync(f->d, e) < 0) return 0;
        spent = clock_us() - begun;
    }
    return (double)spent / n;
}

static int self_try(struct self *f, const struct op_case *c, struct err *e)
{
    struct trial t = {.block = f->block, .size = BLOCK, .seed = SEED};
    trial_lay(&t, c);
    int64_t used = (int64_t)t.used;
    tensor there = dev_tensor(f->arena, DT_U8, 1, &used);
    if (there.data) dev_upload(f->d, there, t.block, DT_U8);
    struct trial_set ours = t.set;
    for (int k = 0; k < ours.n; k++) ours.t[k] = moved(ours.t[k], (char *)there.data - t.block);
    trial_run(f->d, f->arena, c, &ours);
    int rc = dev_sync(f->d, e);
    if (rc < 0) return err_wrap(e, "op_%s", c->op);
    dev_download(f->d, f->back, DT_U8, there);
    trial_run(f->ref, NULL, c, &t.set);
    double worst = 0;
    for (int k = 0; k < ours.n_out; k++) {
        double error = trial_error(moved(ours.t[k], f->back - (char *)there.data), t.set.t[k]);
        if (!(error <= worst)) worst = error;
    }
    double bytes = bytes_of(c, &t.set), work = work_of(c), us = time_op(f, c, &ours, e);
    bool good = worst <= trial_bound(c);
    fprintf(f->to, "%-15s %-4s error %8.2g of %.0e  %10.1f us  %9.2f %s  %s\n", c->op, dtype_table[c->t].name, worst,
            trial_bound(c), us, (work > 0 ? work : bytes) / (us > 0 ? us : 1) * 1e-3, work > 0 ? "GFLOP/s" : "GB/s   ",
            good ? "ok" : "WRONG");
    f->n_ops++;
    f->n_bad += !good;
    dev_arena_reset(f->arena, 0);
    return us > 0 ? 0 : dev_sync(f->d, e);
}

int selftest_run(struct dev *d, FILE *to, struct err *e)
{
    struct self f = {.d = d, .to = to, .block = aligned_alloc(64, BLOCK), .back = aligned_alloc(64, BLOCK)};
    int rc = f.block && f.back ? dev_open(&f.ref, "ref", 0, e) : err_set(e, E_FATAL, "no memory for the self-test");
    if (rc == 0) f.arena = dev_arena_new(d, "selftest", 0);
    if (rc == 0) fprintf(to, "self-test of %s against the reference, seed %d\n", dev_name(d), SEED);
    for (size_t i = 0; rc == 0 && i < sizeof rows / sizeof *rows; i++)
        for (enum dtype t = DT_F32; rc == 0 && t <= DT_BF16; t++) {
            struct op_case c = rows[i];
            if (c.t && c.t != t) continue; // a row of one dtype
            c.t = t;
            rc = self_try(&f, &c, e);
        }
    if (rc == 0 && f.n_bad > 0) rc = err_set(e, E_FATAL, "%d of %d ops are wrong on %s", f.n_bad, f.n_ops, dev_name(d));
    if (rc == 0) fprintf(to, "verdict: %s is right: %d of %d\n", dev_name(d), f.n_ops, f.n_ops);
    if (rc < 0) fprintf(to, "verdict: %s is wrong: %s\n", dev_name(d), e->text);
    dev_arena_free(&f.arena);
    dev_close(&f.ref);
    free(f.block);
    free(f.back);
    return rc;
}
