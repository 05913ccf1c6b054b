// Every row of op_cases.h on the CUDA table, run by gpusim, against the reference; small rows in five orders of warps.
//
// A case's block is copied to the device; there only the tensors may be touched, not the gaps between them, and outputs
// that the op does not read count as never written, so that a value which is left out is found.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/table.h"
#include "tests/gpusim/sim.h"
#include "tests/op_cases.h"

#include <stdio.h>

enum { BLOCK = 48 << 20, SEED = 20240607, ORDERS = 5, SMALL = 20000 };

struct bed {
    struct dev *ref, *cuda;
    struct dev_arena *arena;
    char *blocks; // reference's, ours
    int n_bad;
};

static tensor moved(tensor t, ptrdiff_t by)
{
    if (t.data) t.data = (char *)t.data + by;
    return t;
}

static void wipe(tensor t)
{
    for (int64_t i = 0; i < tensor_count(t); i++) memset(trial_element(t, i), 0, (size_t)dtype_size(t.dtype));
}

// The block on the device, with nothing but its tensors in reach.
static char *put_block(struct bed *b, const struct trial *t)
{
    tensor whole = dev_tensor(b->arena, DT_U8, SHAPE((int64_t)t->used));
    struct err e = {0};
    dev_upload(b->cuda, whole, t->block, DT_U8);
    assert_int_equal(dev_sync(b->cuda, &e), 0); // it has landed before its gaps go
    size_t free_from = 0;
    for (int i = 0; i < t->n_runs; i++) {
        sim_memory_given_back((char *)whole.data + free_from, (int64_t)(t->run[i].at - free_from));
        free_from = t->run[i].at + t->run[i].bytes;
    }
    sim_memory_given_back((char *)whole.data + free_from, (int64_t)(t->used - free_from));
    return whole.data;
}

static int64_t n_elements_unwritten(tensor t)
{
    int64_t n = 0;
    for (int64_t i = 0; i < tensor_count(t); i++) n += sim_unwritten(trial_element(t, i), dtype_size(t.dtype)) > 0;
    return n;
}

static void say(struct bed *b, const struct op_case *c, const char *what, int k, double got, double allowed)
{
    char text[200];
    print_error("%s: output %d %s: %.3g, allowed %.3g\n", trial_text(c, text, sizeof text), k, what, got, allowed);
    b->n_bad++;
}

static void try_case(struct bed *b, const struct op_case *c, uint64_t seed, uint64_t order)
{
    struct trial t = {.block = b->blocks, .size = BLOCK, .seed = seed};
    struct err e = {0};
    char text[200];
    trial_lay(&t, c);
    memcpy(b->blocks + BLOCK, b->blocks, t.used);
    char *there = put_block(b, &t);
    struct trial_set ours = t.set;
    for (int k = 0; k < ours.n; k++) ours.t[k] = moved(ours.t[k], there - t.block);
    for (int k = 0; k < ours.n_out; k++)
        for (int64_t i = 0; !trial_reads(c, k) && i < tensor_count(ours.t[k]); i++)
            sim_forget(trial_element(ours.t[k], i), dtype_size(ours.t[k].dtype));
    sim_seed(order);
    trial_run(b->ref, NULL, c, &t.set);
    trial_run(b->cuda, b->arena, c, &ours);
    if (dev_sync(b->cuda, &e) < 0) fail_msg("%s: %s", trial_text(c, text, sizeof text), e.text);
    for (int k = 0; k < ours.n_out; k++) {
        int64_t n = n_elements_unwritten(ours.t[k]);
        if (n > 0) {
            say(b, c, "has values that nothing wrote", k, (double)n, 0);
            return;
        }
    }
    for (int i = 0; i < t.n_runs; i++) {
        int64_t n = (int64_t)t.run[i].bytes;
        if (n > 0)
            dev_download(b->cuda, b->blocks + BLOCK + t.run[i].at, DT_U8, tensor_of(there + t.run[i].at, DT_U8, 1, &n));
    }
    if (dev_sync(b->cuda, &e) < 0) fail_msg("%s: %s", trial_text(c, text, sizeof text), e.text);
    for (int k = 0; k < ours.n_out; k++) {
        tensor got = moved(ours.t[k], b->blocks + BLOCK - there);
        double error = trial_error(got, t.set.t[k]);
        if (!(error <= trial_bound(c))) say(b, c, "is off", k, error, trial_bound(c));
        double unlike = trial_unlike(c, got, t.set.t[k]);
        if (unlike > 0.01) say(b, c, "has values rounded otherwise", k, unlike, 0.01);
        wipe(got);
        wipe(t.set.t[k]);
    }
    if (memcmp(b->blocks, b->blocks + BLOCK, t.used) != 0) say(b, c, "has neighbours that changed", 0, 1, 0);
    dev_arena_reset(b->arena, 0);
}

// All rows of op_cases.h, or those of one op.
static void agree(const char *only, int arch)
{
    struct bed b = {.blocks = aligned_alloc(64, 2 * (size_t)BLOCK)};
    struct err e = {0};
    assert_non_null(b.blocks);
    sim_cards(1, arch);
    assert_int_equal(dev_open(&b.ref, "ref", 0, &e), 0);
    if (dev_open(&b.cuda, "cuda", 0, &e) < 0) fail_msg("%s", e.text);
    b.arena = dev_arena_new(b.cuda, "ops", 0);
    print_message("table %s, seed %d\n", dev_name(b.cuda), SEED);
    for (size_t i = 0; i < sizeof op_cases / sizeof *op_cases; i++) {
        const struct op_case *c = &op_cases[i];
        if (only && strcmp(only, c->op) != 0) continue;
        int64_t size = 1;
        for (int k = 0; k < 6; k++) size *= c->s[k] > 0 ? c->s[k] : 1;
        for (int order = 1; order <= (size < SMALL ? ORDERS : 1); order++) try_case(&b, c, SEED + i, (uint64_t)order);
    }
    free(b.blocks);
    dev_arena_free(&b.arena);
    dev_close(&b.cuda);
    dev_close(&b.ref);
    assert_int_equal(b.n_bad, 0);
}

static void every_row_agrees(void **state) { agree(*state, 80); }

// Products of bytes go other ways on later cards: e4m3 as it is from sm_89 on, with its factors inside on sm_90.
static void quantised_products_agree_on_later_cards(void **state)
{
    (void)state;
    agree("linear_scaled", 89);
    agree("linear_scaled", 90);
    agree("linear_scaled", 100);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(every_row_agrees, argc > 1 ? argv[1] : NULL), // the name of one op
        cmocka_unit_test(quantised_products_agree_on_later_cards),
    };
    return cmocka_run_group_tests_name("gpusim ops", tests, NULL, NULL);
}
