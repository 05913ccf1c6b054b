// daemon/job: every event in every state, beats as they may be shown, time left.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/job.h"
#include "proto/base/clock.h"

static void only_the_moves_of_the_chart_are_made(void **state)
{
    (void)state;
    static const struct {
        enum job_state from;
        enum job_event event;
        enum job_state to;
    } chart[] = {
        {JOB_QUEUED, JOB_PREPARE, JOB_PREPARING},   {JOB_PREPARING, JOB_PREPARED, JOB_READY},
        {JOB_READY, JOB_START, JOB_RUNNING},        {JOB_RUNNING, JOB_LOSE_GROUP, JOB_READY},
        {JOB_RUNNING, JOB_RENDERED, JOB_FINISHING}, {JOB_FINISHING, JOB_FINISHED, JOB_COMPLETED},
        {JOB_PREPARING, JOB_FAIL, JOB_FAILED},      {JOB_READY, JOB_FAIL, JOB_FAILED},
        {JOB_RUNNING, JOB_FAIL, JOB_FAILED},        {JOB_FINISHING, JOB_FAIL, JOB_FAILED},
        {JOB_READY, JOB_RENDERED, JOB_FINISHING},   {JOB_QUEUED, JOB_PAUSE, JOB_PAUSED},
        {JOB_PREPARING, JOB_PAUSE, JOB_PAUSED},     {JOB_READY, JOB_PAUSE, JOB_PAUSED},
        {JOB_RUNNING, JOB_PAUSE, JOB_PAUSED},       {JOB_PAUSED, JOB_RESUME, JOB_QUEUED},
        {JOB_PAUSED, JOB_CANCEL, JOB_CANCELLED},    {JOB_FAILED, JOB_RETRY, JOB_QUEUED},
        {JOB_CANCELLED, JOB_RETRY, JOB_QUEUED},     {JOB_QUEUED, JOB_CANCEL, JOB_CANCELLED},
        {JOB_PREPARING, JOB_CANCEL, JOB_CANCELLED}, {JOB_READY, JOB_CANCEL, JOB_CANCELLED},
        {JOB_RUNNING, JOB_CANCEL, JOB_CANCELLED},
    };
    size_t n_moved = 0;
    for (int s = 0; s < JOB_STATES; s++)
        for (int event = 0; event < JOB_EVENTS; event++) {
            struct job j;
            job_init(&j, 1, NULL, NULL, "");
            j.state = (enum job_state)s;
            bool moved = job_move(&j, (enum job_event)event);
            int want = s;
            for (size_t i = 0; i < sizeof chart / sizeof *chart; i++)
                if ((int)chart[i].from == s && (int)chart[i].event == event) want = (int)chart[i].to;
            assert_int_equal(j.state, want);
            assert_int_equal(moved, want != s);
            n_moved += moved;
            job_release(&j);
        }
    assert_int_equal(n_moved, sizeof chart / sizeof *chart);
}

static void what_is_over_stays_over_unless_retried(void **state)
{
    (void)state;
    static const enum job_state ends[] = {JOB_COMPLETED, JOB_FAILED, JOB_CANCELLED};
    for (size_t i = 0; i < 3; i++)
        for (int event = 0; event < JOB_EVENTS; event++) {
            struct job j;
            job_init(&j, 1, NULL, NULL, "");
            j.state = ends[i];
            assert_true(job_is_over(&j));
            assert_int_equal(job_move(&j, (enum job_event)event), event == JOB_RETRY && ends[i] != JOB_COMPLETED);
            job_release(&j);
        }
}

static void beats_are_cleaned_before_they_are_shown(void **state)
{
    (void)state;
    struct job j;
    job_init(&j, 1, NULL, NULL, "");
    job_beat(&j, NULL, "lo\033[2Jad\n", -1, 0, 0);
    assert_string_equal(j.stage, "lo-[2Jad-");
    job_beat(&j, NULL, "far", INT64_MIN, 1, 2); // no such segment: nothing is taken
    assert_string_equal(j.stage, "lo-[2Jad-");
    job_release(&j);
}

static void time_left_follows_the_steps(void **state)
{
    (void)state;
    struct job j;
    clock_set_us(1000000);
    job_init(&j, 1, NULL, NULL, "");
    assert_true(job_seconds_left(&j) < 0);
    j.stepped_ms = clock_ms();
    j.stepped_percent = j.percent = 20;
    assert_true(job_seconds_left(&j) < 0);
    clock_set_us(11000000);
    j.percent = 40; // 20 in 10 s
    assert_true(job_seconds_left(&j) > 29.9 && job_seconds_left(&j) < 30.1);
    job_release(&j);
    clock_set_us(-1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_moves_of_the_chart_are_made),
        cmocka_unit_test(what_is_over_stays_over_unless_retried),
        cmocka_unit_test(beats_are_cleaned_before_they_are_shown),
        cmocka_unit_test(time_left_follows_the_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
