// daemon/media/shots: hard cuts, fades through black, flashes and slow changes, at the picture where a shot begins.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/media/shots.h"

enum { W = 160, H = 90, FRAME_US = 40000 };

// A picture of one shot: a pattern of its own, which moves a little.
static void draw(AVFrame *f, unsigned shot, int i, double light)
{
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            for (int c = 0; c < 3; c++) {
                unsigned v = (unsigned)((x + i / 4) / 20 * 7 + y / 15 * 13 + c * 31) * (shot * 2654435761u + 97u);
                f->data[0][y * f->linesize[0] + x * 3 + c] = (uint8_t)(light * (60 + (v >> 9) % 180));
            }
}

struct found {
    int64_t *us;
    int n;
};

// `shot` and `light` of picture i; returns when shots begin.
static struct found look(int n, unsigned (*shot)(int i), double (*light)(int i))
{
    struct shots *s = shots_new();
    AVFrame *f = av_frame_alloc();
    struct found out;
    f->format = AV_PIX_FMT_RGB24;
    f->width = W;
    f->height = H;
    assert_int_equal(av_frame_get_buffer(f, 0), 0);
    for (int i = 0; i < n; i++) {
        draw(f, shot(i), i, light(i));
        shots_see(s, f, (int64_t)i * FRAME_US);
    }
    av_frame_free(&f);
    out.n = shots_end(s, &out.us, 100);
    return out;
}

static double full(int i) { return i >= 0; }
static unsigned thirds(int i) { return i < 40 ? 1 : i < 75 ? 2 : 3; }
static unsigned one(int i) { return i < 0; }
static double fading(int i)
{
    return i < 30 ? 1 : i < 40 ? (40 - i) / 10.0 : i < 50 ? 0 : i < 60 ? (i - 50) / 10.0 : 1;
}
static double dimming(int i) { return 1 - i / 400.0; }
static double dark(int i) { return i < 0; }

static void hard_cuts_are_found_where_they_are(void **state)
{
    (void)state;
    struct found f = look(120, thirds, full);
    assert_int_equal(f.n, 2);
    assert_int_equal(f.us[0], 40 * FRAME_US);
    assert_int_equal(f.us[1], 75 * FRAME_US);
    free(f.us);
}

static void one_shot_has_no_cut(void **state)
{
    (void)state;
    struct found f = look(200, one, full);
    assert_int_equal(f.n, 0);
    free(f.us);
    f = look(200, one, dimming);
    assert_int_equal(f.n, 0);
    free(f.us);
    f = look(100, one, dark);
    assert_int_equal(f.n, 0);
    free(f.us);
    f = look(0, one, full);
    assert_int_equal(f.n, 0);
    free(f.us);
}

static void a_fade_through_black_is_cut_in_its_middle(void **state)
{
    (void)state;
    struct found f = look(100, one, fading);
    bool middle = false;
    for (int i = 0; i < f.n; i++) middle |= f.us[i] >= 42 * FRAME_US && f.us[i] <= 48 * FRAME_US;
    assert_true(middle);
    free(f.us);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hard_cuts_are_found_where_they_are),
        cmocka_unit_test(one_shot_has_no_cut),
        cmocka_unit_test(a_fade_through_black_is_cut_in_its_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
