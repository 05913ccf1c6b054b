// daemon/sched: who is next, who yields, how long a pause is.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/sched.h"

enum { MINUTE = SCHED_AGE_MS };

static void weight_set_and_age_decide_in_this_order(void **state)
{
    (void)state;
    struct sched_job j[] = {
        {.id = 5, .priority = 50, .set = 1}, {.id = 6, .priority = 50, .set = 2}, {.id = 7, .priority = 60, .set = 1}};
    assert_int_equal(sched_pick(j, 0, 0, 0), -1);
    assert_int_equal(sched_pick(j, 3, 2, 0), 2); // the heaviest
    assert_int_equal(sched_pick(j, 2, 2, 0), 1); // then whose weights are loaded
    assert_int_equal(sched_pick(j, 2, 9, 0), 0); // then the older one
    j[2].not_before_ms = 10;
    assert_int_equal(sched_pick(j, 3, 1, 9), 0); // not yet
    assert_int_equal(sched_pick(j, 3, 1, 10), 2);
    j[1].waiting_since_ms = -11 * MINUTE;
    assert_int_equal(sched_pick(j, 3, 1, 10), 1); // who waits grows heavier
}

// One seat, jobs that come again and again with a higher priority: the low one has its turn all the same.
static void nobody_starves(void **state)
{
    (void)state;
    struct sched_job j[2] = {{.id = 1, .priority = 0}, {.id = 2, .priority = 40}};
    int64_t now = 0;
    int turns = 0;
    for (; turns < 100; turns++, now += MINUTE) {
        int at = sched_pick(j, 2, 0, now);
        if (at == 0) break;
        j[1].waiting_since_ms = now; // a new one
    }
    assert_true(turns > 30 && turns < 45);
}

// Two equals on one seat change places, each as often as the other.
static void equals_take_turns(void **state)
{
    (void)state;
    int64_t ran[2] = {0}, since[2] = {0};
    int on = 0;
    for (int64_t now = 0; now < 600 * MINUTE; now += MINUTE / 4) {
        struct sched_job other = {.id = 1, .priority = 50, .waiting_since_ms = since[!on]};
        ran[on]++;
        if (!sched_yields(50, 1, &other, 1, now)) continue;
        since[on] = now;
        on = !on;
    }
    assert_true(ran[0] - ran[1] < 40 && ran[1] - ran[0] < 40);
}

static void only_a_margin_moves_who_runs(void **state)
{
    (void)state;
    struct sched_job j = {.id = 1, .priority = 50};
    assert_true(sched_yields(50 - SCHED_MARGIN, 1, &j, 1, 0));
    assert_false(sched_yields(51 - SCHED_MARGIN, 1, &j, 1, 0));
    j.not_before_ms = 5;
    assert_false(sched_yields(0, 1, &j, 1, 4));
    assert_false(sched_yields(0, 1, &j, 0, 9));
}

static void pauses_grow_to_a_limit(void **state)
{
    (void)state;
    assert_int_equal(sched_pause_ms(1), 250);
    assert_int_equal(sched_pause_ms(3), 1000);
    assert_int_equal(sched_pause_ms(8), 32000);
    assert_int_equal(sched_pause_ms(1000000), 32000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weight_set_and_age_decide_in_this_order),
        cmocka_unit_test(nobody_starves),
        cmocka_unit_test(equals_take_turns),
        cmocka_unit_test(only_a_margin_moves_who_runs),
        cmocka_unit_test(pauses_grow_to_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
