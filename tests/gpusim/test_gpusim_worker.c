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

// After the first, which meets the shapes: nothing is allocated and the host waits once, for the latents' check.
static void a_step_only_launches(void **state)
{
    (void)state;
    static struct film whole, streamed;
    render_on("cuda", (struct film_how){.frames = FILM_SHORT}, &whole);
    const struct sim_counts *c = &whole.step[FILM_STEPS - 1];
    print_message("a step: %lld launches, %lld waits, %lld allocations\n", (long long)c->launches, (long long)c->syncs,
                  (long long)c->allocations);
    assert_true(c->launches > 20);
    assert_int_equal(c->syncs, 1);
    assert_int_equal(c->allocations, 0);
    render_on("cuda", (struct film_how){.frames = FILM_SHORT, .stream_weights = true}, &streamed);
    c = &streamed.step[FILM_STEPS - 1];
    assert_int_equal(c->syncs, 1);
    assert_int_equal(c->allocations, 0);
    assert_memory_equal(streamed.yuv, whole.yuv, FILM_SHORT * FILM_FRAME_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(segment_equals_the_cpu),
                                       cmocka_unit_test(a_step_only_launches)};
    return cmocka_run_group_tests_name("gpusim worker", tests, group_setup, group_teardown);
}
