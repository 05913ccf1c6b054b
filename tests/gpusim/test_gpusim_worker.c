// A whole segment on gpusim, from words and voice to frames, beside the same on the CPU.
//
// Both round at the same places and sum in another order, so a byte of a frame may differ by a few counts and no more.
// Weights that are fetched from the host a block ahead are the same weights: there not a byte may differ.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/gpusim/film.h"
#include "tests/gpusim/sim.h"

#include <string.h>

static int group_setup(void **state)
{
    (void)state;
    sim_card_bytes((int64_t)2 << 30); // addresses are never used twice, and a card's worth goes to each arena
    return film_begin();
}

static int group_teardown(void **state)
{
    (void)state;
    film_end();
    return 0;
}

static void render_on(const char *table, struct film_how how, struct film *f)
{
    struct dev *d = NULL;
    struct err e = {0};
    if (dev_open(&d, table, 0, &e) < 0) fail_msg("%s: %s", table, e.text);
    film_render(d, how, f);
    dev_close(&d);
}

static void segment_equals_the_cpu(void **state)
{
    (void)state;
    static struct film want, got;
    double average = 0;
    render_on("cpu", (struct film_how){0}, &want);
    sim_seed(3);
    render_on("cuda", (struct film_how){0}, &got);
    int worst = film_apart(&got, &want, &average);
    print_message("frames differ by %.3f counts on average, %d at most\n", average, worst);
    assert_true(worst <= 12);
    assert_true(average <= 1);
}

// After the first, which meets the shapes, and the second, whose graph is compared: nothing is allocated and the host
// waits once, for the latents' check.
static void a_step_only_launches(void **state)
{
    (void)state;
    static struct film whole, streamed;
    render_on("cuda", (struct film_how){.frames = FILM_SHORT, .steps = FILM_STEPS_MOST}, &whole);
    const struct sim_counts *c = &whole.step[FILM_STEPS_MOST - 1];
    print_message("a step: %lld launches, %lld waits, %lld allocations\n", (long long)c->launches, (long long)c->syncs,
                  (long long)c->allocations);
    assert_true(c->launches > 20);
    assert_int_equal(c->syncs, 1);
    assert_int_equal(c->allocations, 0);
    render_on("cuda", (struct film_how){.frames = FILM_SHORT, .steps = FILM_STEPS_MOST, .stream_weights = true},
              &streamed);
    c = &streamed.step[FILM_STEPS_MOST - 1];
    assert_int_equal(c->syncs, 1);
    assert_int_equal(c->allocations, 0);
    assert_memory_equal(streamed.yuv, whole.yuv, FILM_SHORT * FILM_FRAME_BYTES);
}

// The second step is recorded, later ones repeat it at their own times: a number of one step that stood in the record
// would show in the next. What is recorded neither allocates nor waits, or there would be no graph.
static void repeated_steps_have_the_bytes_of_plain_ones(void **state)
{
    (void)state;
    static struct film plain, repeated;
    const struct film_how how = {.frames = FILM_SHORT, .steps = FILM_STEPS_MOST};
    struct dev *d = NULL;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cuda", 0, &e), 0);
    dev_set_records(d, false);
    film_render(d, how, &plain);
    dev_close(&d);
    render_on("cuda", how, &repeated);
    for (int i = 0; i < FILM_STEPS_MOST; i++) {
        const struct sim_counts *p = &plain.step[i], *r = &repeated.step[i];
        assert_int_equal(p->graphs, 0);
        assert_int_equal(r->graphs, i > 0);
        if (i < 2) continue; // with all that went before; with the device's first repeat, which is compared
        assert_int_equal(r->launches, p->launches);
        assert_int_equal(r->syncs, 1);
        assert_int_equal(r->allocations, 0);
    }
    assert_string_equal(sim_capture_broken_by(), "");
    assert_memory_equal(repeated.yuv, plain.yuv, FILM_SHORT * FILM_FRAME_BYTES);
    // a driver that makes something else of a graph is found out by the first, and there is no second
    sim_graphs_fail(true);
    render_on("cuda", how, &repeated);
    sim_graphs_fail(false);
    for (int i = 0; i < FILM_STEPS_MOST; i++) assert_int_equal(repeated.step[i].graphs, i == 1);
    assert_memory_equal(repeated.yuv, plain.yuv, FILM_SHORT * FILM_FRAME_BYTES);
}

// What a job took of the card is given back when it ends, in the middle of its steps too. What stays is the device's
// own, taken once.
static void a_job_that_ends_early_leaves_no_memory_behind(void **state)
{
    (void)state;
    static struct film f;
    struct dev *d = NULL;
    struct err e = {0};
    int64_t left[3];
    assert_int_equal(dev_open(&d, "cuda", 0, &e), 0);
    int64_t fresh = dev_memory_free(d);
    for (int i = 0; i < 3; i++) {
        // the first in whole, which meets all shapes; the others end before and after a step was recorded
        film_render(d, (struct film_how){.frames = FILM_SHORT, .steps = FILM_STEPS_MOST, .ends = i}, &f);
        left[i] = dev_memory_free(d);
    }
    print_message("the device keeps %lld bytes of its own\n", (long long)(fresh - left[0]));
    assert_int_equal(left[1], left[0]);
    assert_int_equal(left[2], left[0]);
    dev_close(&d);
    assert_int_equal(dev_open(&d, "cuda", 0, &e), 0);
    assert_int_equal(dev_memory_free(d), fresh);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(segment_equals_the_cpu), cmocka_unit_test(a_step_only_launches),
                                       cmocka_unit_test(repeated_steps_have_the_bytes_of_plain_ones),
                                       cmocka_unit_test(a_job_that_ends_early_leaves_no_memory_behind)};
    return cmocka_run_group_tests_name("gpusim worker", tests, group_setup, group_teardown);
}
