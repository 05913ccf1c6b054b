// Counted, not guessed: what each op of the element-wise set moves through the card's memory, against the least that it
// could: each input once, each output once.
//
// Every load and store of a kernel passes through gpusim, which counts them. What all rows share (gains, shifts, gates,
// tables of rotations) is read by each block anew and comes out of the card's cache; it counts once, and all else as
// often as it is asked for. Ops of one launch are held to one.
//
//   test_gpusim_bytes --csv     prints the table instead, for bench/roofline.sh
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/trial.h"
#include "tests/gpusim/sim.h"

#include <stdio.h>

enum { BLOCK = 8 << 20, SEED = 20240611 };
static const double most = 1.1;

struct counted {
    struct op_case c;
    int shared_from; // tensors from here on are shared by all rows
    int n;           // tensors that the op takes; 0: all
    bool other;      // not of the set: bytes are told and not judged
};

static const struct counted rows[] = {
    {{"norm", {16, 5120}, .how = HOW_MODULATED}, 4, 0, false},
    {{"norm", {16, 5120}, .how = HOW_BIAS | HOW_STRIDED | HOW_EVEN}, 4, 0, false},
    {{"norm", {64, 768}, .how = HOW_BIAS}, 4, 0, false},
    {{"norm", {33, 257}, .how = HOW_BIAS | HOW_STRIDED}, 4, 0, false},
    {{"add_norm", {16, 5120}, .how = HOW_MODULATED | HOW_GATE}, 3, 0, false},
    {{"add_norm", {16, 5120}, .how = HOW_BIAS}, 3, 0, false},
    {{"gate_add", {16, 5120}, .how = HOW_GATE}, 2, 0, false},
    {{"rms_norm", {16, 5120}, .how = HOW_INPLACE}, 2, 0, false},
    {{"rms_norm", {16, 5120}}, 2, 0, false},
    {{"l2_norm", {64, 384}, .act = ACT_SILU}, 2, 0, false},
    {{"col_norm", {64, 512}, .act = ACT_GELU_ERF}, 2, 0, false},
    {{"rope", {1, 16, 8, 128}}, 1, 0, false},
    {{"qk_norm_rope", {8, 40, 128}}, 2, 0, false},
    {{"upsample2", {2, 8, 8, 96}}, 2, 0, false},
    {{"copy", {16, 40, 128}}, 2, 0, false},
    {{"copy", {16, 40, 128}, .how = HOW_STRIDED}, 2, 0, false},
    {{"fill", {16, 40, 128}}, 1, 1, false},
    {{"act", {40000}, .act = ACT_GELU_TANH}, 2, 2, false},
    {{"act", {40000}, .act = ACT_SILU, .how = HOW_INPLACE}, 2, 1, false},
    {{"mul", {40000}}, 3, 0, false},
    {{"axpby", {40000}}, 3, 0, false},
    {{"axpby", {40000}, .how = HOW_INPLACE}, 3, 0, false},
    {{"lab_stats", {2, 16, 24}, .t = DT_F32}, 2, 0, true},
    {{"lab_match", {2, 16, 24}, .t = DT_F32}, 2, 0, true},
    {{"yuv420", {2, 16, 24}, .t = DT_F32}, 2, 0, true},
    {{"mean_change", {40000}, .t = DT_F32}, 3, 0, true},
    {{"project_out", {40000}, .t = DT_F32}, 3, 0, true},
};

static bool csv;

struct bed {
    struct dev *d;
    struct dev_arena *arena;
    char *block;
};

static tensor moved(tensor t, ptrdiff_t by)
{
    if (t.data) t.data = (char *)t.data + by;
    return t;
}

// Each tensor that is read once and each that is written once; in place it is both.
static double least(const struct op_case *c, const struct trial_set *s, int n)
{
    double bytes = 0;
    bool inside = c->how & HOW_INPLACE;
    for (int k = 0; k < n; k++) {
        if (inside && k == s->n_out) continue; // the input is output 0, which counts twice
        if (!tensor_is_none(s->t[k]))
            bytes += (double)tensor_bytes(s->t[k]) * (k < s->n_out && trial_reads(c, k) ? 2 : 1);
    }
    return bytes;
}

static struct sim_counts run(struct bed *b, const struct op_case *c, struct trial_set *s)
{
    struct err e = {0};
    assert_int_equal(dev_sync(b->d, &e), 0);
    sim_take_counts();
    trial_run(b->d, b->arena, c, s);
    if (dev_sync(b->d, &e) < 0) fail_msg("%s: %s", c->op, e.text);
    return sim_take_counts();
}

static bool count(struct bed *b, const struct counted *row, enum dtype t)
{
    struct op_case c = row->c;
    c.t = t;
    struct trial lay = {.block = b->block, .size = BLOCK, .seed = SEED};
    trial_lay(&lay, &c);
    tensor there = dev_tensor(b->arena, DT_U8, SHAPE((int64_t)lay.used));
    dev_upload(b->d, there, lay.block, DT_U8);
    struct trial_set s = lay.set;
    for (int k = 0; k < s.n; k++) s.t[k] = moved(s.t[k], (char *)there.data - lay.block);
    int n = row->n ? row->n : s.n;
    run(b, &c, &s); // scratch memory is taken the first time
    for (int k = row->shared_from; k < n; k++)
        if (!tensor_is_none(s.t[k])) sim_watch(s.t[k].data, tensor_bytes(s.t[k]));
    struct sim_counts got = run(b, &c, &s);
    sim_watch(NULL, 0);
    double once = least(&c, &s, n), moves = (double)(got.loaded + got.stored - got.watched);
    for (int k = row->shared_from; k < n; k++)
        if (!tensor_is_none(s.t[k])) moves += (double)tensor_bytes(s.t[k]);
    bool good = row->other || (moves <= most * once && got.launches == 1);
    char text[200];
    if (csv)
        printf("%s,%s,%lldx%lld,%.0f,%.0f,%.3f,%lld\n", c.op, dtype_table[t].name, (long long)c.s[0],
               (long long)(c.s[1] ? c.s[1] : 1), once, moves, moves / once, (long long)got.launches);
    if (!good)
        print_error("%s: moves %.0f bytes in %lld launches, and %.0f in one would do: %.2f of at most %.2f\n",
                    trial_text(&c, text, sizeof text), moves, (long long)got.launches, once, moves / once, most);
    dev_arena_reset(b->arena, 0);
    return good;
}

static void nothing_moves_twice(void **state)
{
    (void)state;
    struct bed b = {.block = aligned_alloc(64, BLOCK)};
    struct err e = {0};
    int n_bad = 0;
    assert_non_null(b.block);
    if (dev_open(&b.d, "cuda", 0, &e) < 0) fail_msg("%s", e.text);
    b.arena = dev_arena_new(b.d, "ops", 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (enum dtype t = DT_F32; t <= DT_BF16; t++)
            if (!rows[i].c.t || rows[i].c.t == t) n_bad += !count(&b, &rows[i], t);
    free(b.block);
    dev_arena_free(&b.arena);
    dev_close(&b.d);
    assert_int_equal(n_bad, 0);
}

// The counter is no judge that lets all pass: an op that takes a detour over scratch memory is seen to.
static void a_detour_is_seen(void **state)
{
    (void)state;
    struct bed b = {0};
    struct err e = {0};
    if (dev_open(&b.d, "cuda", 0, &e) < 0) fail_msg("%s", e.text);
    b.arena = dev_arena_new(b.d, "ops", 0);
    tensor x = dev_tensor(b.arena, DT_F32, SHAPE(16, 256)), y = dev_tensor(b.arena, DT_F32, SHAPE(16, 256));
    tensor gate = dev_tensor(b.arena, DT_BF16, SHAPE(256));
    op_fill(b.d, x, 1);
    op_fill(b.d, y, 1);
    op_fill(b.d, gate, 1);
    op_gate_add(b.d, x, y, gate);
    sim_take_counts();
    op_gate_add(b.d, x, y, gate); // the gate is widened first
    struct sim_counts c = sim_take_counts();
    assert_int_equal(dev_sync(b.d, &e), 0);
    assert_int_equal(c.launches, 2);
    assert_true(c.loaded + c.stored > 3 * 16 * 256 * 4 + 256 * 2 + 256 * 4);
    dev_arena_free(&b.arena);
    dev_close(&b.d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_moves_twice),
        cmocka_unit_test(a_detour_is_seen),
    };
    csv = argc > 1 && strcmp(argv[1], "--csv") == 0;
    if (csv) printf("op,dtype,size,least_bytes,moved_bytes,of_least,launches\n");
    return cmocka_run_group_tests_name("gpusim bytes", tests, NULL, NULL);
}
