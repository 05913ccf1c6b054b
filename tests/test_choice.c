// What ranks take of themselves: from given figures always the same layouts, another one than usual only for a clear
// lead, one that fits before one that does not; the advice that fewer would be faster; the refusal with its numbers;
// and that what is written down is what counts, whoever measures something else later.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/base/log.h"
#include "tests/folder.h"
#include "worker/plan/choice.h"
#include "worker/plan/rates.h"
#include "worker/plan/sizes.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct choice_for of_14b(int n)
{
    struct choice_for f = {.n = n,
                           .job = {.frames = 21,
                                   .gh = 28,
                                   .gw = 56,
                                   .pictures = 81,
                                   .motion = 9,
                                   .branches = 3,
                                   .texts = 2,
                                   .speakers = 1,
                                   .steps = 40,
                                   .silence = true}};
    sizes_of_list(&f.net, &synth_published, 2);
    return f;
}

static struct plan_rates h100(void)
{
    const struct rates_device *d = NULL;
    struct err e = {0};
    assert_int_equal(rates_stated(&d, "h100", &e), 0);
    return d->rates;
}

static void expect(const struct choice_for *f, const struct plan_rates *r, const char *layouts, const char *advice)
{
    struct choice c;
    struct err e = {0};
    char text[64];
    if (choice_make(&c, f, r, &e) < 0) fail_msg("%d ranks: %s", f->n, e.text);
    assert_string_equal(choice_text(&c, text, sizeof text), layouts);
    if (advice[0] ? !strstr(c.advice, advice) : c.advice[0] != 0) fail_msg("%d ranks: advice \"%s\"", f->n, c.advice);
}

static void fast_wires_and_slow_ones(void **state)
{
    (void)state;
    struct plan_rates r = h100();
    struct choice_for f = of_14b(8);
    expect(&f, &r, "1x1x8 2x1x4 1x1x8", "");
    f.n = 16;
    expect(&f, &r, "1x2x8 2x1x8 1x2x8", "");
    f.n = 2;
    expect(&f, &r, "1x1x2 2x1x1 1x1x2", "");
    r.near = 20e9; // what hides behind attention is taken, though heads are usual
    expect(&f, &r, "1x2x1 2x1x1 1x2x1", "");
    r.near = 0.5e9; // a ring would win by 2 %: too little to leave the usual for
    expect(&f, &r, "1x1x2 2x1x1 1x1x2", "of the model's own size and steps, where these 2 as 1x1x2");
    f.n = 7; // 7 ranks share no 40 heads
    r.near = 300e9;
    expect(&f, &r, "1x7x1 1x7x1 1x7x1", "");
}

// The same figures but for the noise of two measurements.
static void noise_decides_nothing(void **state)
{
    (void)state;
    for (int n = 2; n <= 16; n++) {
        struct choice_for f = of_14b(n);
        struct plan_rates r = h100();
        struct choice first, again;
        struct err e = {0};
        r.hides = false, r.near = 60e9, r.far = 60e9;
        assert_int_equal(choice_make(&first, &f, &r, &e), 0);
        for (int i = 0; i < 8; i++) {
            struct plan_rates other = r;
            other.linear *= i & 1 ? 1.03 : 0.97;
            other.attention *= i & 2 ? 1.03 : 0.97;
            other.near *= i & 4 ? 1.03 : 0.97;
            assert_int_equal(choice_make(&again, &f, &other, &e), 0);
            assert_memory_equal(again.of, first.of, sizeof first.of);
        }
    }
}

static void wishes(void **state)
{
    (void)state;
    struct plan_rates r = h100();
    struct choice_for f = of_14b(8);
    f.wish.shape.ring = 2;
    expect(&f, &r, "1x2x4 2x2x2 1x2x4", "");
    f.wish.shape = (struct mesh_shape){.guide = 2};
    expect(&f, &r, "0x0x0 2x1x4 0x0x0", ""); // one for each of two branches
    f.wish = (struct plan_wish){.spread = true};
    expect(&f, &r, "1x1x8 1x1x8 1x1x8", ""); // who spreads weights has one copy
    assert_int_equal(plan_choices(8, f.wish, &f.net, 2), 4);
    f.wish.spread = false;
    assert_int_equal(plan_choices(8, f.wish, &f.net, 2), 7);
    assert_int_equal(plan_choices(7, f.wish, &f.net, 2), 1);
    f.wish.shape = (struct mesh_shape){1, 1, 8};
    assert_int_equal(plan_choices(8, f.wish, &f.net, 3), 1);
    f.wish.shape.heads = 3;
    assert_int_equal(plan_choices(8, f.wish, &f.net, 3), 0);
}

static void what_does_not_fit(void **state)
{
    (void)state;
    struct plan_rates r = h100();
    struct choice_for f = of_14b(4);
    struct choice c;
    struct err e = {0};
    r.memory = 24000000000;
    assert_int_equal(choice_make(&c, &f, &r, &e), E_INPUT);
    assert_non_null(strstr(e.text, "the weights do not fit: a rank of 1x1x4 needs 38.3 GB for them alone and 24.0 GB"));
    f.wish.spread = true;
    assert_int_equal(choice_make(&c, &f, &r, &e), 0); // 12 GB of them
    r.memory = 8000000000;
    assert_int_equal(choice_make(&c, &f, &r, &e), E_INPUT);
    assert_non_null(strstr(e.text, "node needs 12.3 GB for them alone and 8.0 GB"));
}

// What was kept where there was room is held against what there is.
static void a_machine_with_less_memory(void **state)
{
    (void)state;
    struct choice_for f = of_14b(8);
    struct choice c = {.of = {{1, 1, 8}, {2, 1, 4}, {1, 1, 8}}}, some = {.of = {{0, 0, 0}, {2, 1, 4}, {0, 0, 0}}};
    struct err e = {0};
    assert_int_equal(choice_fits(&c, &f, 8, 80000000000, &e), 0);
    assert_int_equal(e.code, 0);
    assert_int_equal(choice_fits(&c, &f, 8, 24000000000, &e), E_INPUT);
    assert_non_null(strstr(e.text, "a rank of 1x1x8 needs 38.3 GB for them alone and 24.0 GB are there"));
    assert_int_equal(choice_fits(&some, &f, 8, 24000000000, &e), E_INPUT);
    assert_non_null(strstr(e.text, "a rank of 2x1x4"));
    f.wish.spread = true;
    c.of[1] = c.of[0];
    assert_int_equal(choice_fits(&c, &f, 8, 24000000000, &e), 0);
    assert_int_equal(choice_fits(&c, &f, 1, 24000000000, &e),
                     E_INPUT); // each rank has a machine, and there all of them
    f.streamed = true;
    assert_int_equal(choice_fits(&c, &f, 1, 1000, &e), 0);
}

static void touch(const char *file, const char *text, int days)
{
    FILE *to = fopen(file, "w");
    struct timespec then[2] = {{.tv_sec = time(NULL) - (time_t)days * 24 * 3600}};
    then[1] = then[0];
    assert_non_null(to);
    fputs(text, to);
    fclose(to);
    assert_int_equal(utimensat(AT_FDCWD, file, then, 0), 0);
}

// The folder may be one that many write into.
static void others_in_the_folder(void **state)
{
    (void)state;
    char file[400], old[400], young[400], half[400], alike[400], mine[400];
    struct choice_for f = of_14b(8);
    struct choice a = {.of = {{1, 1, 8}, {2, 1, 4}, {1, 1, 8}}}, got;
    const char *good = "1x1x8 2x1x4 1x1x8\n\n";
    snprintf(file, sizeof file, "%s/layout-0123456789abcdef", top);
    snprintf(old, sizeof old, "%s/layout-1123456789abcdef", top);
    snprintf(young, sizeof young, "%s/layout-2123456789abcdef", top);
    snprintf(half, sizeof half, "%s/layout-0123456789abcdef.Xy12Z0", top);
    snprintf(alike, sizeof alike, "%s/layout-of-my-kitchen", top);
    snprintf(mine, sizeof mine, "%s/mine", top);
    touch(mine, good, 0);
    assert_int_equal(symlink(mine, file), 0);
    assert_false(choice_read(&got, &f, file)); // a link is not followed
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mkfifo(file, 0600), 0);
    assert_false(choice_read(&got, &f, file)); // nor a pipe waited for
    assert_int_equal(unlink(file), 0);
    touch(old, good, 100);
    touch(half, good, 100);
    touch(alike, good, 100);
    touch(young, good, 100);
    assert_true(choice_read(&got, &f, young)); // it is in use
    choice_keep(&a, &f, file);
    assert_int_not_equal(access(old, F_OK), 0);
    assert_int_not_equal(access(half, F_OK), 0);
    const char *const stay[] = {file, young, alike, mine};
    for (int i = 0; i < 4; i++) assert_int_equal(unlink(stay[i]), 0);
}

static void the_first_decides(void **state)
{
    (void)state;
    char file[400];
    struct choice_for f = of_14b(8);
    struct choice a = {.of = {{1, 1, 8}, {2, 1, 4}, {1, 1, 8}}, .advice = "fewer"}, got;
    struct choice b = {.of = {{1, 2, 4}, {2, 2, 2}, {1, 4, 2}}}, none = {.of = {{0, 0, 0}, {2, 1, 4}, {0, 0, 0}}};
    snprintf(file, sizeof file, "%s/layout", top);
    assert_false(choice_read(&got, &f, file));
    choice_keep(&a, &f, file);
    assert_true(choice_read(&got, &f, file));
    assert_memory_equal(&got, &a, sizeof a);
    choice_keep(&b, &f, file); // comes too late
    assert_memory_equal(&b, &a, sizeof a);
    assert_int_equal(remove(file), 0);
    choice_keep(&none, &f, file);
    assert_true(choice_read(&got, &f, file));
    assert_memory_equal(&got, &none, sizeof none);
    // What another set of ranks could not lay, or nobody has written, is not read; and written over.
    static const char *const wrong[] = {"1x1x8 2x1x4\n",     "1x1x8 2x1x4 1x1x4\n\n",  "1x1x8 3x1x4 1x1x8\n\n", "8", "",
                                        "1x1x8 2x1x4 1x1x8", "-1x1x8 2x1x4 1x1x8\n\n", "0x1x8 2x1x4 1x1x8\n\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        FILE *to = fopen(file, "w");
        assert_non_null(to);
        fputs(wrong[i], to);
        fclose(to);
        if (choice_read(&got, &f, file)) fail_msg("\"%s\" was read", wrong[i]);
        choice_keep(&a, &f, file);
        assert_true(choice_read(&got, &f, file));
    }
    choice_keep(&a, &f, "/nowhere/layout"); // nothing is kept, and nothing is the worse for it
    f.n = 4;
    assert_false(choice_read(&got, &f, file));
    assert_int_equal(remove(file), 0);
}

static int set_up(void **state)
{
    (void)state;
    log_init(LOG_ERROR, "test", 0);
    return top_make("test_choice");
}

static int tear_down(void **state)
{
    (void)state;
    return top_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_wires_and_slow_ones),
        cmocka_unit_test(noise_decides_nothing),
        cmocka_unit_test(wishes),
        cmocka_unit_test(what_does_not_fit),
        cmocka_unit_test(a_machine_with_less_memory),
        cmocka_unit_test(others_in_the_folder),
        cmocka_unit_test(the_first_decides),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
