// daemon/span and daemon/intake: tails by segment; frames that come once, twice, late, too early or of another segment.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/span.h"
#include "tests/folder.h"

#include <unistd.h>

enum { W = 32, H = 32, FRAME = W * H * 3 / 2 };

static void the_last_two_tails_are_kept(void **state)
{
    (void)state;
    struct span s;
    span_init(&s, 0, 0, 9);
    assert_null(span_tail_of(&s, 0));
    for (int64_t k = 0; k < 9; k++) {
        char bytes[9];
        memset(bytes, (int)k, sizeof bytes);
        span_tail_keep(&s, k, bytes, sizeof bytes);
        span_tail_keep(&s, k, bytes, sizeof bytes); // a replay
        memset(bytes, 99, sizeof bytes);            // a copy was kept
        const struct span_tail *t = span_tail_of(&s, k), *before = span_tail_of(&s, k - 1);
        assert_int_equal(t->n, sizeof bytes);
        assert_int_equal(((const char *)t->bytes)[8], k);
        if (k > 0) assert_int_equal(((const char *)before->bytes)[0], k - 1);
        assert_null(span_tail_of(&s, k - 2));
        assert_null(span_tail_of(&s, -1));
    }
    span_release(&s);
}

// ---- frames

struct desk {
    struct loop *loop;
    struct intake *intake;
    int n_busy;
};

static void no_turn(void *ctx) { (void)ctx; }

static struct desk desk_open(void)
{
    struct desk d = {0};
    struct err e = {0};
    assert_int_equal(loop_new(&d.loop, no_turn, NULL, &e), 0);
    return d;
}

static void desk_intake(struct desk *d)
{
    struct intake_options o = {.loop = d->loop,
                               .picture = {.w = W, .h = H, .crf = 30, .preset = "ultrafast"},
                               .folder = top,
                               .n_busy = &d->n_busy};
    intake_new(&d->intake, &o);
}

static void desk_close(struct desk *d)
{
    loop_settle(d->loop);
    intake_free(&d->intake);
    loop_free(&d->loop);
}

static int frames(struct desk *d, int64_t segment, int64_t first, int n, struct err *e)
{
    static uint8_t yuv[40 * FRAME];
    struct msg_frames f = {.segment = segment, .first = first, .n = (uint32_t)n};
    for (int i = 0; i < n * FRAME; i++) yuv[i] = (uint8_t)(first + i / FRAME);
    return intake_frames(d->intake, &f, yuv, (size_t)n * FRAME, e);
}

// Works until nothing is under way. Segments that were kept, as a number each: 3 then 4 is 34.
static int64_t settled(struct desk *d)
{
    struct err e = {0};
    struct msg_done done;
    int64_t kept = 0;
    for (int rc = 1; rc == 1 || !intake_is_idle(d->intake);) {
        loop_settle(d->loop);
        rc = intake_kept(d->intake, &done, &e);
        if (rc < 0) fail_msg("%s", e.text);
        if (rc == 1) kept = kept * 10 + done.segment;
    }
    return kept;
}

static bool has_piece(int64_t segment, int64_t n)
{
    char path[4200];
    struct piece *p = NULL;
    intake_path(path, sizeof path, top, segment);
    bool has = piece_read(&p, path, n, NULL) == 0;
    piece_free(&p);
    unlink(path);
    return has;
}

static const struct plan_segment third = {.number = 3, .start = 100, .keep_from = 5, .keep_to = 17},
                                 fourth = {.number = 4, .start = 112, .keep_from = 5, .keep_to = 9};

static void every_frame_is_taken_once(void **state)
{
    (void)state;
    struct err e = {0};
    struct desk d = desk_open();
    struct msg_done done = {.segment = 3, .drift = 0.5};
    desk_intake(&d);
    intake_expect(d.intake, &third, NULL);
    assert_int_equal(frames(&d, 3, 105, 4, &e), 1);
    assert_int_equal(frames(&d, 3, 105, 4, &e), 0); // twice
    assert_int_equal(frames(&d, 2, 90, 4, &e), 0);  // late
    assert_int_equal(frames(&d, 3, 107, 6, &e), 1); // half of it again
    assert_int_equal(frames(&d, 3, 113, 4, &e), 1);
    assert_int_equal(intake_done(d.intake, &done, &fourth, &e), 1);
    assert_int_equal(intake_done(d.intake, &done, NULL, &e), 0); // twice
    assert_int_equal(frames(&d, 3, 113, 4, &e), 0);              // late
    assert_int_equal(frames(&d, 4, 117, 4, &e), 1);              // ahead of what is on disk
    done.segment = 4;
    assert_int_equal(intake_done(d.intake, &done, NULL, &e), 1);
    assert_int_equal(intake_done(d.intake, &done, NULL, &e), 0); // twice, and the last one
    assert_int_equal(frames(&d, 4, 117, 4, &e), 0);
    assert_int_equal(settled(&d), 34);
    assert_int_equal(intake_encoded(d.intake), 16);
    assert_int_equal(intake_encoded(d.intake), 0);
    assert_int_equal(d.n_busy, 0);
    assert_true(has_piece(3, 12));
    assert_true(has_piece(4, 4));
    desk_close(&d);
}

static void what_comes_too_early_or_wrong_is_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct desk d = desk_open();
    struct msg_done done = {.segment = 3}, next = {.segment = 4};
    struct msg_frames wrong = {.segment = 3, .first = 105, .n = 2};
    desk_intake(&d);
    assert_int_equal(frames(&d, 3, 105, 4, &e), E_LOST); // nothing is due
    intake_expect(d.intake, &third, NULL);
    assert_int_equal(frames(&d, 3, 106, 4, &e), E_LOST);  // a gap
    assert_int_equal(frames(&d, 4, 117, 4, &e), E_LOST);  // the next segment's
    assert_int_equal(frames(&d, 3, 105, 13, &e), E_LOST); // past the end
    assert_int_equal(intake_frames(d.intake, &wrong, (const uint8_t *)"", FRAME, &e), E_LOST);
    assert_non_null(strstr(e.text, "do not fit"));
    assert_int_equal(intake_done(d.intake, &next, NULL, &e), E_LOST);
    assert_non_null(strstr(e.text, "where segment 4 was due"));
    assert_int_equal(frames(&d, 3, 105, 4, &e), 1);
    assert_int_equal(intake_done(d.intake, &done, NULL, &e), E_LOST);
    assert_non_null(strstr(e.text, "after frame 109 of 117"));
    desk_close(&d);
}

// The group is lost amid a segment, while its frames are encoded: nothing of them is left, and another begins anew.
static void a_lost_group_leaves_nothing(void **state)
{
    (void)state;
    struct err e = {0};
    struct desk d = desk_open();
    struct msg_done done = {.segment = 3};
    desk_intake(&d);
    intake_expect(d.intake, &third, NULL);
    assert_int_equal(frames(&d, 3, 105, 4, &e), 1);
    assert_int_equal(frames(&d, 3, 109, 4, &e), 1);
    intake_drop(d.intake);
    assert_int_equal(settled(&d), 0);
    assert_int_equal(intake_encoded(d.intake), 0);
    intake_expect(d.intake, &third, NULL);
    assert_int_equal(frames(&d, 3, 105, 12, &e), 1);
    assert_int_equal(intake_done(d.intake, &done, NULL, &e), 1);
    assert_int_equal(settled(&d), 3);
    assert_true(has_piece(3, 12));
    desk_close(&d);
}

static void a_disk_that_takes_nothing_is_told(void **state)
{
    (void)state;
    struct err e = {0};
    struct desk d = desk_open();
    struct msg_done done = {.segment = 3};
    desk_intake(&d);
    intake_free(&d.intake);
    struct intake_options o = {
        .loop = d.loop, .picture = {.w = W, .h = H, .crf = 30}, .folder = "/proc/nowhere", .n_busy = &d.n_busy};
    intake_new(&d.intake, &o);
    intake_expect(d.intake, &third, NULL);
    assert_int_equal(frames(&d, 3, 105, 12, &e), 1);
    assert_int_equal(intake_done(d.intake, &done, NULL, &e), 1);
    loop_settle(d.loop);
    assert_int_equal(intake_kept(d.intake, &done, &e), E_FATAL);
    assert_non_null(strstr(e.text, "/proc/nowhere/piece-3: cannot create"));
    desk_close(&d);
}

static int set_up(void **state)
{
    (void)state;
    return top_make("test_span");
}

static int tear_down(void **state)
{
    (void)state;
    return top_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_two_tails_are_kept),
        cmocka_unit_test(every_frame_is_taken_once),
        cmocka_unit_test(what_comes_too_early_or_wrong_is_refused),
        cmocka_unit_test(a_lost_group_leaves_nothing),
        cmocka_unit_test(a_disk_that_takes_nothing_is_told),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
