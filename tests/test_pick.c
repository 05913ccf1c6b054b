// Picking among ways that are made up: times and results stand in a table, so nothing here depends on a clock.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/pick.h"

#include <math.h>
#include <string.h>

struct made_up {
    double time[PICK_MOST];
    int result[PICK_MOST];
    int last; // timed last
    int n_timed, n_compared;
};

static double time_of(void *ctx, int i)
{
    struct made_up *m = ctx;
    m->last = i;
    m->n_timed++;
    return m->time[i];
}

static bool same(void *ctx, int i, int first)
{
    struct made_up *m = ctx;
    assert_int_equal(i, m->last); // its result is still there
    m->n_compared++;
    return m->result[i] == m->result[first];
}

static struct picked pick(struct made_up *m, int n)
{
    struct picked p = pick_fastest(&(struct pick_from){.n = n, .time = time_of, .same = same, .ctx = m});
    assert_int_equal(m->n_timed, n); // each once
    return p;
}

static void the_fastest_that_agrees_is_taken(void **state)
{
    (void)state;
    struct made_up m = {.time = {5, 3, 1, 4, 2}, .result = {7, 7, 8, 7, 7}};
    struct picked p = pick(&m, 5);
    assert_int_equal(p.way, 4); // 2 is faster and wrong
    assert_int_equal(p.n_other, 1);
    assert_int_equal(p.n_failed, 0);
    assert_true(p.time == 2 && p.first == 5 && p.n == 5);
    assert_int_equal(m.n_compared, 3); // the slower one is not looked at
}

static void of_equals_the_first_stays(void **state)
{
    (void)state;
    struct made_up all = {.time = {3, 3, 3}}, later = {.time = {3, 2, 2}};
    assert_int_equal(pick(&all, 3).way, 0);
    assert_int_equal(all.n_compared, 0);
    assert_int_equal(pick(&later, 3).way, 1);
}

static void what_fails_is_passed_over(void **state)
{
    (void)state;
    // The first that works says what is right, here the third.
    struct made_up m = {.time = {INFINITY, NAN, 4, -1, 3}, .result = {1, 1, 2, 2, 2}};
    struct picked p = pick(&m, 5);
    assert_int_equal(p.way, 4);
    assert_int_equal(p.n_failed, 3);
    assert_true(p.first == 4);
    struct made_up none = {.time = {INFINITY, -1}};
    assert_int_equal(pick(&none, 2).way, -1);
    struct made_up nothing = {.n_timed = 0};
    assert_int_equal(pick(&nothing, 0).way, -1);
    struct made_up instant = {.time = {1, 0}}; // under the clock's step is fast, not broken
    assert_int_equal(pick(&instant, 2).way, 1);
}

struct key { // as the products of linear.cu have it: sizes, strides, dtypes, epilogue
    int64_t m, n, k, ldx, ldy;
    int in, out, epilogue, scaled;
};

static struct key key_of(int64_t rows)
{
    struct key k;
    memset(&k, 0, sizeof k);
    k.m = rows, k.n = 4, k.k = 8, k.ldx = 8, k.ldy = 4, k.in = 1, k.out = 1, k.epilogue = 2;
    return k;
}

static void every_field_of_a_key_counts(void **state)
{
    (void)state;
    struct pick_memo m;
    pick_memo_init(&m, sizeof(struct key), sizeof(int), 64);
    struct key k = key_of(5);
    int value = 0;
    assert_null(pick_memo_find(&m, &k));
    pick_memo_keep(&m, &k, &value);
    for (int i = 1; i <= 9; i++) {
        struct key other = key_of(5);
        int64_t *const sizes[] = {&other.m, &other.n, &other.k, &other.ldx, &other.ldy};
        int *const words[] = {&other.in, &other.out, &other.epilogue, &other.scaled};
        if (i <= 5)
            ++*sizes[i - 1];
        else
            ++*words[i - 6];
        assert_null(pick_memo_find(&m, &other));
        pick_memo_keep(&m, &other, &i);
        assert_int_equal(*(const int *)pick_memo_find(&m, &other), i);
    }
    assert_int_equal(*(const int *)pick_memo_find(&m, &k), 0);
    pick_memo_release(&m);
}

static void the_oldest_goes_first(void **state)
{
    (void)state;
    enum { MOST = 4, KEPT = 11 };
    struct pick_memo m;
    pick_memo_init(&m, sizeof(struct key), sizeof(int), MOST);
    for (int i = 0; i < KEPT; i++) {
        struct key k = key_of(i);
        assert_int_equal(*(const int *)pick_memo_keep(&m, &k, &i), i);
    }
    for (int i = 0; i < KEPT; i++) {
        struct key k = key_of(i);
        const int *found = pick_memo_find(&m, &k);
        assert_true(i < KEPT - MOST ? !found : found && *found == i);
    }
    const void *key, *value;
    int rows = 0;
    while (pick_memo_row(&m, rows, &key, &value)) {
        assert_int_equal(((const struct key *)key)->m, *(const int *)value);
        rows++;
    }
    assert_int_equal(rows, MOST);
    pick_memo_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_that_agrees_is_taken),
        cmocka_unit_test(of_equals_the_first_stays),
        cmocka_unit_test(what_fails_is_passed_over),
        cmocka_unit_test(every_field_of_a_key_counts),
        cmocka_unit_test(the_oldest_goes_first),
    };
    return cmocka_run_group_tests_name("pick", tests, NULL, NULL);
}
