// Every row of op_cases.h on the fast table against the reference, and the contracts that stand above all tables.
//
// A case lays its tensors in one block of memory; the block is doubled, the reference works on the first and the table
// under test on the second. Outputs must agree within the bound, and every other byte (inputs, gaps between rows, what
// lies beside) must be the same in both: a write out of bounds or into an input shows.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/table.h"
#include "tests/op_cases.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 48 << 20, SEED = 20240607 };

// ---- running

static void wipe(tensor t)
{
    for (int64_t i = 0; i < tensor_count(t); i++) memset(trial_element(t, i), 0, (size_t)dtype_size(t.dtype));
}

static tensor moved(tensor t, ptrdiff_t by)
{
    if (t.data) t.data = (char *)t.data + by;
    return t;
}

// All rows on `table`, each against the reference.
static void try_table(const char *table, int n_threads)
{
    struct dev *ref, *d;
    struct err e = {0};
    assert_int_equal(dev_open(&ref, "ref", 1, &e), 0);
    if (dev_open(&d, table, n_threads, &e) < 0) fail_msg("%s", e.text);
    struct dev_arena *a = dev_arena_new(d, "ops", 0);
    char *blocks = aligned_alloc(64, 2 * (size_t)BLOCK), text[200];
    assert_non_null(blocks);
    print_message("table %s, seed %d\n", dev_name(d), SEED);
    int n_bad = 0;
    for (size_t i = 0; i < sizeof op_cases / sizeof *op_cases; i++) {
        const struct op_case *c = &op_cases[i];
        struct trial b = {.block = blocks, .size = BLOCK, .seed = SEED + i};
        trial_lay(&b, c);
        struct trial_set ours = b.set;
        memcpy(blocks + BLOCK, blocks, b.used);
        for (int k = 0; k < ours.n; k++) ours.t[k] = moved(ours.t[k], BLOCK);
        trial_run(ref, NULL, c, &b.set);
        trial_run(d, a, c, &ours);
        if (dev_sync(d, &e) < 0) fail_msg("%s: %s", trial_text(c, text, sizeof text), e.text);
        for (int k = 0; k < ours.n_out; k++) {
            double error = trial_error(ours.t[k], b.set.t[k]);
            if (!(error <= trial_bound(c))) {
                print_error("%s: output %d is off by %.3g, bound %.3g\n", trial_text(c, text, sizeof text), k, error,
                            trial_bound(c));
                n_bad++;
            }
            double unlike = trial_unlike(c, ours.t[k], b.set.t[k]);
            if (unlike > 0.01) {
                print_error("%s: %.3g of output %d is rounded otherwise\n", trial_text(c, text, sizeof text), unlike,
                            k);
                n_bad++;
            }
            wipe(ours.t[k]);
            wipe(b.set.t[k]);
        }
        if (memcmp(blocks, blocks + BLOCK, b.used) != 0) {
            print_error("%s: wrote beside its output\n", trial_text(c, text, sizeof text));
            n_bad++;
        }
        dev_arena_reset(a, 0);
    }
    free(blocks);
    dev_arena_free(&a);
    dev_close(&d);
    dev_close(&ref);
    assert_int_equal(n_bad, 0);
}

static void cpu_agrees_with_ref(void **state)
{
    (void)state;
    try_table("cpu", 2);
}

static void cpu_agrees_on_one_thread(void **state)
{
    (void)state;
    try_table("cpu", 1);
}

// Lesser instruction sets, where the CPU has them: what a table for a better one falls back to elsewhere.
static void lesser_sets_agree(void **state)
{
    (void)state;
    static const char *const tables[] = {"cpu:plain", "cpu:avx2", "cpu:avx512"};
    for (int i = 0; i < 3; i++) {
        struct dev *d = NULL;
        struct err e = {0};
        if (dev_open(&d, tables[i], 1, &e) < 0) {
            assert_int_equal(e.code, E_INPUT);
            print_message("skipped: %s\n", e.text);
            continue;
        }
        dev_close(&d);
        try_table(tables[i], 2);
    }
}

static void check_runs_every_op(void **state)
{
    (void)state;
    try_table("check", 2);
}

// Every op of the table has a row.
static void every_op_has_a_case(void **state)
{
    (void)state;
    const char *done = "attention_done"; // ends each attention_more row
    int found;
#define LOOK(name)                                                                                                     \
    found = strcmp(#name, done) == 0;                                                                                  \
    for (size_t i = 0; i < sizeof op_cases / sizeof *op_cases; i++) found |= strcmp(op_cases[i].op, #name) == 0;       \
    if (!found) fail_msg("no row for op_%s", #name);
    OPS_LIST(LOOK)
#undef LOOK
}

// ---- contracts

// Runs f in a child; true when it ended by BUG().
static bool is_refused(void (*f)(struct dev *d))
{
    pid_t pid = fork();
    if (pid == 0) {
        struct dev *d;
        struct err e = {0};
        if (!freopen("/dev/null", "w", stderr) || dev_open(&d, "ref", 1, &e) < 0) _exit(3);
        signal(SIGABRT, SIG_DFL);
        f(d);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static float memory[256];
static tensor of(int64_t a, int64_t b) { return tensor_of(memory, DT_F32, SHAPE(a, b)); }
static tensor at(int from, int64_t a, int64_t b) { return tensor_of(memory + from, DT_F32, SHAPE(a, b)); }

static void overlap(struct dev *d) { op_linear(d, of(2, 4), of(2, 4), at(32, 4, 4), NO_TENSOR, ACT_NONE); }
static void wrong_width(struct dev *d) { op_linear(d, of(2, 4), at(32, 2, 5), at(64, 4, 4), NO_TENSOR, ACT_NONE); }
static void wrong_bias(struct dev *d)
{
    op_linear(d, of(2, 4), at(32, 2, 4), at(64, 4, 4), tensor_of(memory, DT_F32, SHAPE(3)), ACT_NONE);
}
static void no_keys(struct dev *d)
{
    tensor q = tensor_of(memory, DT_F32, SHAPE(1, 2, 1, 4)), y = tensor_of(memory + 32, DT_F32, SHAPE(1, 2, 1, 4));
    tensor k = tensor_of(memory + 64, DT_F32, SHAPE(1, 0, 1, 4));
    op_attention(d, y, q, k, k, (struct attn){0});
}
static void mixed_dtypes(struct dev *d)
{
    op_mul(d, of(2, 4), at(32, 2, 4), tensor_of(memory + 64, DT_BF16, SHAPE(2, 4)));
    op_norm(d, of(2, 4), tensor_of(memory + 64, DT_BF16, SHAPE(2, 4)), (struct norm){.eps = 1});
}
static void odd_picture(struct dev *d)
{
    op_yuv420(d, tensor_of(memory + 64, DT_U8, SHAPE(1, 9)), tensor_of(memory, DT_F32, SHAPE(1, 3, 2, 3)));
}
static void good_call(struct dev *d) { op_linear(d, of(2, 4), at(32, 2, 4), at(64, 4, 4), NO_TENSOR, ACT_NONE); }

static void misuse_is_refused(void **state)
{
    (void)state;
    assert_true(is_refused(overlap));
    assert_true(is_refused(wrong_width));
    assert_true(is_refused(wrong_bias));
    assert_true(is_refused(no_keys));
    assert_true(is_refused(mixed_dtypes));
    assert_true(is_refused(odd_picture));
    assert_false(is_refused(good_call));
}

static void dry_run_counts_and_computes_nothing(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 1, &e), 0);
    dev_set_dry(d, true);
    struct dev_arena *a = dev_arena_new(d, "dry", 1 << 20);
    tensor w = dev_tensor(a, DT_F32, SHAPE(64, 64));
    int64_t before = dev_arena_peak(a);
    memory[0] = 7;
    w = op_pack(d, a, w, PACK_LINEAR);
    op_fill(d, of(2, 4), 1);
    assert_true(memory[0] == 7);
    assert_true(dev_arena_peak(a) >= before);
    assert_int_equal(dev_sync(d, &e), 0);
    dev_arena_free(&a);
    dev_close(&d);
}

static void a_fault_stops_the_ops_and_stays(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 1, &e), 0);
    struct dev_arena *a = dev_arena_new(d, "small", 4096);
    tensor t = dev_tensor(a, DT_F32, SHAPE(1 << 20));
    assert_null(t.data);
    op_fill(d, t, 1); // would crash if it ran
    dev_fault(d, "second");
    assert_int_equal(dev_sync(d, &e), E_FATAL);
    assert_non_null(strstr(e.text, "arena small"));
    dev_arena_free(&a);
    dev_close(&d);
}

static void wrong_mul(struct dev *d, tensor y, tensor a, tensor b)
{
    (void)d, (void)b;
    for (int64_t i = 0; i < tensor_count(y); i++) ((float *)y.data)[i] = ((float *)a.data)[i];
}

static void check_names_the_op_that_drifts(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "check", 1, &e), 0);
    for (int i = 0; i < 64; i++) memory[i] = (float)(i + 1);
    op_mul(d, at(128, 2, 4), of(2, 4), at(32, 2, 4));
    assert_int_equal(dev_sync(d, &e), 0);
    check_fast_of(d)->ops.mul = wrong_mul;
    op_mul(d, at(128, 2, 4), of(2, 4), at(32, 2, 4));
    assert_int_equal(dev_sync(d, &e), E_FATAL);
    assert_non_null(strstr(e.text, "op_mul"));
    assert_non_null(strstr(e.text, "[2, 4] F32"));
    dev_close(&d);
}

static void tables_are_named(void **state)
{
    (void)state;
    struct dev *d = NULL;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "gpu9", 1, &e), E_INPUT);
    assert_non_null(strstr(e.text, "gpu9"));
    assert_int_equal(dev_open(&d, "cpu:mmx", 1, &e), E_INPUT);
    assert_non_null(strstr(e.text, "avx2"));
    assert_null(d);
    assert_int_equal(dev_open(&d, "cpu", 3, &e), 0);
    assert_int_equal(dev_threads(d), 3);
    assert_non_null(strstr(dev_name(d), "x3"));
    dev_close(&d);
    assert_null(d);
    assert_int_equal(dev_open(&d, "cpu", 0, &e), 0);
    assert_true(dev_threads(d) >= 1);
    dev_close(&d);
}

// The same call gives the same bytes, whatever ran between.
static void ops_repeat_exactly(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 2, &e), 0);
    struct trial b = {.block = aligned_alloc(64, BLOCK), .size = BLOCK, .seed = SEED};
    assert_non_null(b.block);
    tensor q = trial_tensor(&b, DT_BF16, 2, SHAPE(1, 333, 2, 64)), w = trial_tensor(&b, DT_BF16, 1, SHAPE(200, 128));
    tensor x = tensor_reshape(q, SHAPE(333, 128));
    tensor y[2], z[2];
    for (int i = 0; i < 2; i++) {
        y[i] = trial_tensor(&b, DT_BF16, 1, SHAPE(1, 333, 2, 64));
        z[i] = trial_tensor(&b, DT_BF16, 1, SHAPE(333, 200));
        op_attention(d, y[i], q, q, q, (struct attn){0});
        op_linear(d, z[i], x, w, NO_TENSOR, ACT_GELU_TANH);
        op_linear(d, trial_tensor(&b, DT_BF16, 1, SHAPE(10, 200)), tensor_slice(x, 0, 0, 10), w, NO_TENSOR, ACT_NONE);
    }
    assert_memory_equal(y[0].data, y[1].data, tensor_bytes(y[0]));
    assert_memory_equal(z[0].data, z[1].data, tensor_bytes(z[0]));
    free(b.block);
    dev_close(&d);
}

// Wide attention of BF16 is that of the same numbers in F32, rounded once.
static void wide_attention_works_in_f32(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 2, &e), 0);
    struct trial b = {.block = aligned_alloc(64, BLOCK), .size = BLOCK, .seed = SEED};
    assert_non_null(b.block);
    tensor q = trial_tensor(&b, DT_BF16, 2, SHAPE(1, 333, 2, 64)),
           y = trial_tensor(&b, DT_BF16, 1, SHAPE(1, 333, 2, 64));
    tensor q32 = trial_tensor(&b, DT_F32, 1, SHAPE(1, 333, 2, 64)),
           y32 = trial_tensor(&b, DT_F32, 1, SHAPE(1, 333, 2, 64));
    tensor z = trial_tensor(&b, DT_BF16, 1, SHAPE(1, 333, 2, 64));
    op_copy(d, q32, q);
    op_attention(d, y, q, q, q, (struct attn){.wide = true});
    op_attention(d, y32, q32, q32, q32, (struct attn){0});
    op_copy(d, z, y32);
    assert_memory_equal(y.data, z.data, tensor_bytes(z));
    free(b.block);
    dev_close(&d);
}

// A weight that is taken leaves one copy in the arena.
static void a_taken_weight_is_held_once(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 1, &e), 0);
    struct dev_arena *a = dev_arena_new(d, "weights", 0);
    tensor w = dev_tensor(a, DT_F32, SHAPE(512, 512));
    op_fill(d, w, 1);
    int64_t plain = dev_arena_mark(a);
    w = op_pack_take(d, a, 0, w, PACK_LINEAR);
    int64_t held = dev_arena_mark(a);
    assert_true(held < plain + plain / 4);
    assert_true(w.packed ? w.data == NULL : w.data != NULL);
    dev_arena_reset(a, 0);
    dev_set_dry(d, true); // foretells the same
    op_pack_take(d, a, 0, dev_tensor(a, DT_F32, SHAPE(512, 512)), PACK_LINEAR);
    assert_int_equal(dev_arena_mark(a), held);
    dev_arena_free(&a);
    dev_close(&d);
}

// More shapes than the library's primitives are kept for.
static void many_shapes_stay_right(void **state)
{
    (void)state;
    struct dev *d, *ref;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 1, &e), 0);
    assert_int_equal(dev_open(&ref, "ref", 1, &e), 0);
    struct trial b = {.block = aligned_alloc(64, BLOCK), .size = BLOCK, .seed = SEED};
    assert_non_null(b.block);
    tensor x = trial_tensor(&b, DT_F32, 1, SHAPE(150, 16)), w = trial_tensor(&b, DT_F32, 1, SHAPE(8, 16));
    tensor y = trial_tensor(&b, DT_F32, 1, SHAPE(150, 8)), z = trial_tensor(&b, DT_F32, 1, SHAPE(150, 8));
    for (int round = 0; round < 2; round++)
        for (int64_t n = 1; n <= 150; n++) {
            op_linear(d, tensor_slice(y, 0, 0, n), tensor_slice(x, 0, 0, n), w, NO_TENSOR, ACT_NONE);
            op_linear(ref, tensor_slice(z, 0, 0, n), tensor_slice(x, 0, 0, n), w, NO_TENSOR, ACT_NONE);
            assert_true(trial_error(tensor_slice(y, 0, 0, n), tensor_slice(z, 0, 0, n)) < 1e-5);
        }
    free(b.block);
    dev_close(&d);
    dev_close(&ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_has_a_case),
        cmocka_unit_test(cpu_agrees_with_ref),
        cmocka_unit_test(cpu_agrees_on_one_thread),
        cmocka_unit_test(lesser_sets_agree),
        cmocka_unit_test(check_runs_every_op),
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(dry_run_counts_and_computes_nothing),
        cmocka_unit_test(a_fault_stops_the_ops_and_stays),
        cmocka_unit_test(check_names_the_op_that_drifts),
        cmocka_unit_test(tables_are_named),
        cmocka_unit_test(ops_repeat_exactly),
        cmocka_unit_test(wide_attention_works_in_f32),
        cmocka_unit_test(a_taken_weight_is_held_once),
        cmocka_unit_test(many_shapes_stay_right),
    };
    return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
