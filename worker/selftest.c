// Every op at one middling size, in F32 and BF16.
//
// First the device's roofs: a copy between large buffers, and a large matrix product in each dtype; large means as
// large as it takes to last a few milliseconds. The inputs of an op lie in one block of host memory; the reference
// works there, the device on a copy of the block in its own memory. Then the op runs again for a few milliseconds for
// its rate: GFLOP/s where products count, else GB/s of what it must read and write at least, and what part of its roof
// that is. Where the device can record ops and repeat them, each is, and has the bytes of the plain run or is wrong;
// how many can be recorded is told. The sizes keep the plain reference under a second an op, so for its rate an op gets
// more rows on a device that is fast.
#include "worker/selftest.h"

#include "kernels/trial_on.h"
#include "proto/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 << 20, SEED = 1, TIMED_US = 20000, TIMED_RUNS = 50 };
// Of roofs: they grow until a run lasts ROOF_US. Rows are added up to MORE_BYTES where a copy makes FAST bytes a
// second.
enum { ROOF_US = 4000, ROOF_ROWS = 256, ROOF_ROWS_MAX = 8192, ROOF_COPY = 1 << 20, ROOF_COPY_MAX = 1 << 30 };
enum { MORE_BYTES = 256 << 20 };
static const double FAST = 200e9;

static const struct op_case rows[] = {
    {"linear", {256, 512, 512}, .how = HOW_BIAS | HOW_PACKED, .act = ACT_GELU_TANH},
    {"linear_scaled", {256, 512, 512}, .wt = DT_F8_E4M3, .how = HOW_BIAS, .act = ACT_GELU_TANH},
    {"linear_scaled", {256, 512, 512}, .wt = DT_I8, .how = HOW_BIAS, .act = ACT_GELU_TANH},
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
    struct trial_bench b;
    struct dev *d;
    struct dev_arena *arena; // of b
    FILE *to;
    int n_ops, n_bad, n_repeated;
    double copy, product[DT_BF16 + 1]; // roofs: bytes and operations a second
};

// Microseconds of one run. The device is waited for once per batch, and batches grow until one lasts long enough.
struct timed {
    void (*run)(struct self *f, void *what);
    void *what;
};
static double time_of(struct self *f, struct timed t, struct err *e)
{
    int64_t mark = dev_arena_mark(f->arena);
    for (int n = 1;; n *= 4) {
        int64_t begun = clock_us();
        for (int i = 0; i < n; i++) {
            t.run(f, t.what);
            dev_arena_reset(f->arena, mark);
        }
        if (dev_sync(f->d, e) < 0) return 0;
        int64_t spent = clock_us() - begun;
        if (n > 1 && (spent >= TIMED_US || n >= TIMED_RUNS)) return (double)(spent > 0 ? spent : 1) / n;
        if (n == 1 && spent >= TIMED_US) return (double)spent;
    }
}

// ---- roofs

static void run_copy(struct self *f, void *what)
{
    tensor *t = what;
    op_copy(f->d, t[0], t[1]);
}

static void run_product(struct self *f, void *what)
{
    tensor *t = what;
    op_linear(f->d, t[0], t[1], t[2], NO_TENSOR, ACT_NONE);
}

static int roof_copy(struct self *f, struct err *e)
{
    double us = 0;
    for (int64_t n = ROOF_COPY; us < ROOF_US && n <= ROOF_COPY_MAX && 4 * n < dev_memory_free(f->d); n *= 2) {
        tensor t[2] = {dev_tensor(f->arena, DT_BF16, SHAPE(n / 2)), dev_tensor(f->arena, DT_BF16, SHAPE(n / 2))};
        op_fill(f->d, t[1], 0.7f);
        us = time_of(f, (struct timed){run_copy, t}, e);
        dev_arena_reset(f->arena, 0);
        if (us == 0) return e->code;
        f->copy = fmax(f->copy, 2 * (double)n / us * 1e6);
    }
    return 0;
}

// f->b.block holds random values.
static int roof_product(struct self *f, enum dtype t, struct err *e)
{
    double us = 0;
    for (int64_t n = ROOF_ROWS; us < ROOF_US && n <= ROOF_ROWS_MAX && 20 * n * n < dev_memory_free(f->d); n *= 2) {
        tensor x[3];
        for (int i = 0; i < 3; i++) {
            x[i] = dev_tensor(f->arena, t, SHAPE(n, n));
            for (int64_t r = 0; r < n; r += ROOF_ROWS) // a card is faster with values that are all alike
                dev_upload(f->d, tensor_slice(x[i], 0, r, r + ROOF_ROWS), f->b.block, DT_BF16);
        }
        us = time_of(f, (struct timed){run_product, x}, e);
        dev_arena_reset(f->arena, 0);
        if (us == 0) return e->code;
        f->product[t] = fmax(f->product[t], 2 * (double)n * (double)n * (double)n / us * 1e6);
    }
    return 0;
}

// ---- ops

struct op_run {
    const struct op_case *c;
    struct trial_set *set;
};

static void run_op(struct self *f, void *what)
{
    struct op_run *r = what;
    trial_run(f->d, f->arena, r->c, r->set);
}

// The same with more rows where the device is fast, its inputs any values.
static struct op_case with_more(const struct self *f, const struct op_case *c, double bytes)
{
    struct op_case more = *c;
    if (f->copy < FAST || bytes * 2 > MORE_BYTES) return more;
    int64_t k = (int64_t)(MORE_BYTES / bytes);
    if (strncmp(c->op, "attention", 9) == 0) // in queries and keys
        for (int i = 1; i <= 3; i += 2) more.s[i] *= 8;
    else if (strcmp(c->op, "attention_map") != 0 && strncmp(c->op, "rope_", 5) != 0 &&
             strcmp(c->op, "class_pos") != 0 && strcmp(c->op, "row_range") != 0 && strcmp(c->op, "resize_cubic") != 0)
        more.s[0] *= k > 64 ? 64 : k;
    return more;
}

static int time_op(struct self *f, const struct op_case *c, struct trial_set *set, double *us, struct err *e)
{
    struct trial t = {.size = (size_t)MORE_BYTES * 4, .seed = SEED};
    struct op_case more = with_more(f, c, trial_bytes(c, set));
    struct op_run r = {.c = &more, .set = set};
    int64_t mark = dev_arena_mark(f->arena);
    if (memcmp(&more, c, sizeof more) != 0) {
        t.block = aligned_alloc(64, t.size);
        if (!t.block) return err_set(e, E_FATAL, "no memory for the self-test");
        trial_lay(&t, &more);
        int64_t used = (int64_t)t.used;
        tensor there = dev_tensor(f->arena, DT_U8, 1, &used);
        if (there.data) dev_upload(f->d, there, t.block, DT_U8);
        for (int k = 0; k < t.set.n; k++) t.set.t[k] = trial_moved(t.set.t[k], (char *)there.data - t.block);
        r.set = &t.set;
    }
    *us = time_of(f, (struct timed){run_op, &r}, e);
    double work = trial_work(&more), bytes = trial_bytes(&more, r.set);
    double rate = (work > 0 ? work : bytes) / (*us > 0 ? *us : 1) * 1e6;
    double roof = work > 0 ? f->product[c->t] : f->copy;
    fprintf(f->to, " %10.1f us  %9.2f %s  %5.1f %% of its roof", *us, rate * 1e-9, work > 0 ? "GFLOP/s" : "GB/s   ",
            roof > 0 ? 100 * rate / roof : 0);
    free(t.block);
    dev_arena_reset(f->arena, mark);
    return *us > 0 ? 0 : e->code;
}

// The op on fresh inputs: plainly, or noted and then done. The whole block comes back, gaps and inputs too; its bytes,
// or 0 where the op cannot be noted.
static size_t run_fresh(struct self *f, const struct op_case *c, bool recorded, char *back)
{
    struct trial t = {.block = f->b.block, .size = BLOCK, .seed = SEED};
    struct dev_record *record = NULL;
    trial_lay(&t, c);
    int64_t used = (int64_t)t.used;
    tensor there = dev_tensor(f->arena, DT_U8, 1, &used);
    dev_upload(f->d, there, t.block, DT_U8);
    for (int k = 0; k < t.set.n; k++) t.set.t[k] = trial_moved(t.set.t[k], (char *)there.data - t.block);
    if (recorded) dev_record_begin(f->d);
    trial_run(f->d, f->arena, c, &t.set);
    if (recorded) record = dev_record_end(f->d);
    bool done = !recorded || (record && dev_repeat(f->d, record));
    if (done) dev_download(f->d, back, DT_U8, there);
    dev_record_free(&record);
    dev_arena_reset(f->arena, 0);
    return done ? t.used : 0;
}

// Whether the op has the same bytes when it is repeated from a record, where the device has such a thing.
static int self_repeat(struct self *f, const struct op_case *c, bool *same, struct err *e)
{
    *same = true;
    if (!dev_records(f->d)) return 0;
    char *plain = malloc(BLOCK);
    if (!plain) return err_set(e, E_FATAL, "no memory for the self-test");
    run_fresh(f, c, false, plain);
    size_t n = run_fresh(f, c, true, f->b.back);
    *same = n == 0 || memcmp(plain, f->b.back, n) == 0;
    f->n_repeated += n > 0 && *same;
    if (n == 0) dev_set_records(f->d, true); // it is this op that cannot be
    free(plain);
    return dev_sync(f->d, e);
}

static int self_try(struct self *f, const struct op_case *c, struct err *e)
{
    struct trial_set ours;
    double worst = 0, us = 0;
    int rc = trial_on(&f->b, c, SEED, &ours, &worst, e);
    if (rc < 0) return rc;
    bool good = worst <= trial_bound(c);
    fprintf(f->to, "%-15s %-4s error %8.2g of %.0e", c->op,
            dtype_table[c->wt == DT_I8 || c->wt == DT_F8_E4M3 ? c->wt : c->t].name, worst, trial_bound(c));
    bool same = true;
    rc = time_op(f, c, &ours, &us, e);
    dev_arena_reset(f->arena, 0);
    if (rc == 0) rc = self_repeat(f, c, &same, e);
    fprintf(f->to, "  %s\n", !good ? "WRONG" : same ? "ok" : "WRONG when it is repeated as a graph");
    f->n_ops++;
    f->n_bad += !good || !same;
    return rc;
}

int selftest_run(struct dev *d, FILE *to, struct err *e)
{
    struct self f = {.d = d, .to = to};
    int rc = trial_bench_open(&f.b, d, BLOCK, 0, e);
    f.arena = f.b.arena;
    if (rc == 0) fprintf(to, "self-test of %s against the reference, seed %d\n", dev_name(d), SEED);
    if (rc == 0) {
        struct trial values = {.block = f.b.block, .size = BLOCK, .seed = SEED};
        trial_tensor(&values, DT_BF16, 1, SHAPE(ROOF_ROWS, ROOF_ROWS_MAX));
        memmove(f.b.block, f.b.block + values.run[0].at, values.run[0].bytes);
        rc = roof_copy(&f, e);
    }
    for (enum dtype t = DT_F32; rc == 0 && t <= DT_BF16; t++) rc = roof_product(&f, t, e);
    if (rc == 0)
        fprintf(to, "roofs: copy %.1f GB/s, products F32 %.0f BF16 %.0f GFLOP/s\n", f.copy * 1e-9,
                f.product[DT_F32] * 1e-9, f.product[DT_BF16] * 1e-9);
    for (size_t i = 0; rc == 0 && i < sizeof rows / sizeof *rows; i++)
        for (enum dtype t = DT_F32; rc == 0 && t <= DT_BF16; t++) {
            struct op_case c = rows[i];
            if (c.t && c.t != t) continue; // a row of one dtype
            c.t = t;
            rc = self_try(&f, &c, e);
        }
    if (rc == 0 && dev_records(d)) fprintf(to, "graphs: %d of %d repeat with the same bytes\n", f.n_repeated, f.n_ops);
    if (rc == 0) dev_tell(d, to);
    if (rc == 0 && f.n_bad > 0) rc = err_set(e, E_FATAL, "%d of %d ops are wrong on %s", f.n_bad, f.n_ops, dev_name(d));
    if (rc == 0) fprintf(to, "verdict: %s is right: %d of %d\n", dev_name(d), f.n_ops, f.n_ops);
    if (rc < 0) fprintf(to, "verdict: %s is wrong: %s\n", dev_name(d), e->text);
    trial_bench_close(&f.b);
    return rc;
}
