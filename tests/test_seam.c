// Films of a few grey pictures whose steps are known.
#include "daemon/seam.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

enum { N = 96 };

static void see(struct seam *s, int level)
{
    uint8_t picture[N];
    memset(picture, level, sizeof picture);
    seam_see(s, picture, N);
}

static void segment(struct seam *s, int from, int by, int n)
{
    for (int i = 0; i < n; i++) see(s, from + by * i);
}

static void is(double score, double wanted)
{
    if (!(fabs(score - wanted) < 1e-9)) fail_msg("%g instead of %g", score, wanted);
}

static void a_jump_counts_in_usual_steps(void **state)
{
    (void)state;
    struct seam s = {0};
    segment(&s, 10, 2, 5);
    is(seam_end(&s), -1); // the first has no border
    segment(&s, 20, 2, 5);
    is(seam_end(&s), 1); // 18 to 20
    segment(&s, 40, 4, 5);
    is(seam_end(&s), 3); // 28 to 40, by steps of 4
    segment(&s, 16, -4, 3);
    is(seam_end(&s), 10); // 56 to 16
    seam_free(&s);
}

static void stillness_is_no_jump(void **state)
{
    (void)state;
    struct seam s = {0};
    segment(&s, 50, 0, 4);
    seam_end(&s);
    segment(&s, 50, 0, 4);
    is(seam_end(&s), 0);
    segment(&s, 51, 0, 4);
    is(seam_end(&s), 2); // a level, where half a level is stillness
    segment(&s, 80, 0, 1);
    is(seam_end(&s), -1); // nothing to compare with
    seam_free(&s);
}

static void what_was_forgotten_is_no_border(void **state)
{
    (void)state;
    struct seam s = {0};
    segment(&s, 10, 1, 3);
    seam_end(&s);
    segment(&s, 100, 1, 2);
    seam_forget(&s); // amid a segment
    segment(&s, 200, 1, 4);
    is(seam_end(&s), -1);
    segment(&s, 204, 1, 4);
    is(seam_end(&s), 1);
    seam_free(&s);
}

static void what_was_kept_is_followed(void **state)
{
    (void)state;
    struct seam s = {0}, other = {0};
    assert_null(seam_last(&s));
    segment(&s, 10, 2, 5);
    seam_end(&s);
    segment(&other, 100, 1, 3); // whatever it has seen
    seam_follow(&other, seam_last(&s), N);
    segment(&s, 40, 4, 5);
    segment(&other, 40, 4, 5);
    is(seam_end(&other), 5.5); // 18 to 40, by steps of 4
    is(seam_end(&s), 5.5);
    seam_forget(&s);
    assert_null(seam_last(&s));
    seam_free(&s);
    seam_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_jump_counts_in_usual_steps),
        cmocka_unit_test(stillness_is_no_jump),
        cmocka_unit_test(what_was_forgotten_is_no_border),
        cmocka_unit_test(what_was_kept_is_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
