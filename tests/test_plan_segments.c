// The timeline: the worked examples of the published program, films at any rate, and what must hold for any job.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/plan_segments.h"

static struct spec_render render(int f, int m, enum spec_mode mode, enum spec_parity parity)
{
    return (struct spec_render){.frame_num = f, .motion_frame = m, .mode = mode, .parity = parity};
}

struct example {
    int f, m;
    enum spec_mode mode;
    enum spec_parity parity;
    int64_t limit, voice[2];
    int n_voices;
    int64_t n, last_start, delivered, kept_last;
};

#define DEFAULT   SPEC_STREAMING, SPEC_PARITY_NONE
#define PUBLISHED SPEC_STREAMING, SPEC_PARITY_PUBLISHED

static void examples(void **state)
{
    (void)state;
    static const struct example table[] = {
        // the published program's examples, without its limit
        {81, 9, DEFAULT, 0, {82}, 1, 2, 72, 82, 1},
        {81, 9, DEFAULT, 0, {100}, 1, 2, 72, 100, 19},
        {81, 9, DEFAULT, 0, {153}, 1, 2, 72, 153, 72},
        {81, 9, DEFAULT, 0, {154}, 1, 3, 144, 154, 1},
        {81, 9, DEFAULT, 0, {213}, 1, 3, 144, 213, 60},
        {81, 9, DEFAULT, 0, {250}, 1, 4, 216, 250, 25},
        {81, 9, DEFAULT, 0, {267}, 1, 4, 216, 267, 42},
        {81, 9, DEFAULT, 0, {1500}, 1, 21, 1440, 1500, 51},
        {81, 9, DEFAULT, 0, {7500}, 1, 105, 7488, 7500, 3},
        {81, 9, DEFAULT, 0, {90000}, 1, 1250, 89928, 90000, 63},
        {81, 5, DEFAULT, 0, {90000}, 1, 1185, 89984, 90000, 11},
        {81, 13, DEFAULT, 0, {90000}, 1, 1324, 89964, 90000, 23},
        {81, 17, DEFAULT, 0, {90000}, 1, 1406, 89920, 90000, 63},
        {81, 25, DEFAULT, 0, {90000}, 1, 1607, 89936, 90000, 39},
        {81, 9, PUBLISHED, 1000, {1500}, 1, 14, 936, 1000, 55},
        {81, 9, PUBLISHED, 1000, {250}, 1, 4, 216, 250, 25},
        {81, 9, PUBLISHED, 0, {90000}, 1, 1250, 89928, 90000, 63},
        // short voices, limits, clip mode
        {81, 9, DEFAULT, 0, {1}, 1, 1, 0, 1, 1},
        {81, 9, DEFAULT, 0, {81}, 1, 1, 0, 81, 81},
        {81, 9, DEFAULT, 100, {250}, 1, 2, 72, 100, 19},
        {81, 9, DEFAULT, 40, {250}, 1, 1, 0, 40, 40},
        {81, 9, SPEC_CLIP, SPEC_PARITY_NONE, 0, {250}, 1, 1, 0, 81, 81},
        {81, 9, SPEC_CLIP, SPEC_PARITY_NONE, 0, {50}, 1, 1, 0, 50, 50},
        {81, 9, SPEC_CLIP, SPEC_PARITY_PUBLISHED, 1000, {250}, 1, 1, 0, 81, 81},
        {81, 9, PUBLISHED, 40, {250}, 1, 1, 0, 40, 40},
        // voices of unequal length: the longest decides; published: the first stops, the last cuts
        {17, 9, DEFAULT, 0, {30, 27}, 2, 3, 16, 30, 5},
        {17, 9, PUBLISHED, 1000, {30, 27}, 2, 3, 16, 27, 2},
        {17, 9, PUBLISHED, 1000, {26, 40}, 2, 3, 16, 33, 8},
        {17, 9, PUBLISHED, 1000, {40, 20}, 2, 4, 24, 20, 0},
        {17, 9, PUBLISHED, 20, {44, 44}, 2, 2, 8, 20, 3},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct example *x = &table[i];
        struct spec_render r = render(x->f, x->m, x->mode, x->parity);
        struct plan_segments p;
        plan_segments_init(&p, &r, x->limit, x->voice, x->n_voices);
        int64_t n = plan_segments_count(&p);
        struct plan_segment g = plan_segments_at(&p, n - 1);
        if (n != x->n || g.start != x->last_start || p.n_frames != x->delivered)
            print_error("example %zu: %lld segments, the last at %lld, %lld frames\n", i, (long long)n,
                        (long long)g.start, (long long)p.n_frames);
        assert_int_equal(n, x->n);
        assert_int_equal(g.start, x->last_start);
        assert_int_equal(p.n_frames, x->delivered);
        assert_int_equal(g.keep_to - g.keep_from, x->kept_last);
        assert_true(g.last && !g.wants_tail);
    }
}

static uint64_t seed = 20;
static int64_t draw(int64_t low, int64_t high) // xorshift
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return low + (int64_t)(seed % (uint64_t)(high - low + 1));
}

// Walks a plan: order, chains, and that kept frames are 0, 1, 2, ... n_frames - 1.
static void walk(const struct plan_segments *p)
{
    int64_t n = plan_segments_count(p), next = 0, before = 0;
    for (int64_t k = 0; k < n; k++) {
        struct plan_segment g = plan_segments_at(p, k);
        assert_int_equal(g.number, k);
        assert_int_equal(g.start + g.keep_from, next);
        assert_true(g.keep_to > g.keep_from && g.keep_to <= p->frame_num);
        assert_int_equal(g.keep_from, g.first ? 0 : p->motion_frame);
        assert_int_equal(g.last, k == n - 1);
        assert_int_equal(g.span_start, g.span ? p->cut[g.span - 1] : 0);
        if (g.first)
            assert_int_equal(g.start, g.span_start);
        else
            assert_int_equal(g.start - before, p->frame_num - p->motion_frame);
        if (k + 1 < n)
            assert_int_equal(g.wants_tail, !plan_segments_at(p, k + 1).first);
        else
            assert_false(g.wants_tail);
        if (g.wants_tail) assert_int_equal(g.keep_to, p->frame_num); // the tail's frames are real ones
        before = g.start;
        next = g.start + g.keep_to;
    }
    assert_int_equal(next, p->n_frames);
}

static void every_frame_once(void **state)
{
    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < 3000; i++) {
        int f = 4 * (int)draw(1, 40) + 1, m = 4 * (int)draw(0, (f - 5) / 4) + 1;
        enum spec_parity parity = draw(0, 1) ? SPEC_PARITY_PUBLISHED : SPEC_PARITY_NONE;
        struct spec_render r = render(f, m, draw(0, 4) ? SPEC_STREAMING : SPEC_CLIP, parity);
        int64_t voice = draw(1, 2000), limit = draw(0, 1) ? draw(1, 2000) : 0;
        if (parity == SPEC_PARITY_PUBLISHED && voice <= f) voice += f; // that program refuses shorter voices
        struct plan_segments p;
        plan_segments_init(&p, &r, limit, (int64_t[]){voice, voice}, (int)draw(1, 2));
        int64_t want = voice;
        if (limit && limit < want) want = limit;
        if (r.mode == SPEC_CLIP && f < want) want = f;
        assert_int_equal(p.n_frames, want);
        assert_int_equal(plan_segments_count(&p), spec_segments(want, f, m, r.mode));
        walk(&p);
        int64_t cut[12];
        int n = (int)draw(0, 12);
        for (int k = 0; k < n; k++) cut[k] = draw(-5, 2100);
        p.cut = cut;
        p.n_cuts = plan_cuts_tidy(cut, n, p.n_frames);
        walk(&p);
        for (int k = 0; k < p.n_cuts; k++) assert_true(cut[k] - (k ? cut[k - 1] : 0) >= 13);
    }
}

static struct plan_film film(int64_t n, int64_t num, int64_t den, enum spec_video_end end)
{
    return (struct plan_film){.n_frames = n, .rate_num = num, .rate_den = den, .end = end};
}

static void films_are_looked_at_by_time(void **state)
{
    (void)state;
    struct plan_film f25 = film(1000, 25, 1, SPEC_END_HOLD), f30 = film(1000, 30, 1, SPEC_END_HOLD),
                     f2997 = film(100000, 30000, 1001, SPEC_END_HOLD), f24 = film(1000, 24, 1, SPEC_END_HOLD),
                     f60 = film(1000, 60, 1, SPEC_END_HOLD), f1 = film(1, 25, 1, SPEC_END_LOOP);
    for (int i = 0; i < 1000; i++) assert_int_equal(plan_film_picture(&f25, i), i);
    assert_int_equal(plan_film_picture(&f30, 72), 86);  // 2.88 s x 30 = 86.4
    assert_int_equal(plan_film_picture(&f60, 72), 172); // 172.8
    assert_int_equal(plan_film_picture(&f24, 72), 69);  // 69.12
    assert_int_equal(plan_film_picture(&f30, 5), 6);    // 0.2 s is exactly picture 6
    assert_int_equal(plan_film_picture(&f2997, 25 * 1001), 30000);
    assert_int_equal(plan_film_picture(&f2997, 25), 30); // picture 30 begins at 1.001 s: within the grace
    assert_int_equal(plan_film_picture(&f1, 12345), 0);
    f30.by_index = true;
    assert_int_equal(plan_film_picture(&f30, 72), 72);
    assert_int_equal(plan_film_picture(&f30, 5000), 999);
    f30.by_index = false;
    assert_int_equal(plan_film_length(&f25), 1000);
    assert_int_equal(plan_film_length(&f30), 834); // 33.33 s
    assert_int_equal(plan_film_length(&f1), 1);
}

static void ends_of_films(void **state)
{
    (void)state;
    static const int64_t hold[] = {0, 1, 2, 3, 3, 3, 3, 3, 3, 3}, loop[] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1},
                         turn[] = {0, 1, 2, 3, 2, 1, 0, 1, 2, 3};
    struct plan_film f[] = {film(4, 25, 1, SPEC_END_HOLD), film(4, 25, 1, SPEC_END_LOOP),
                            film(4, 25, 1, SPEC_END_PINGPONG), film(4, 25, 1, SPEC_END_STOP)};
    const int64_t *want[] = {hold, loop, turn, hold};
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 10; i++) assert_int_equal(plan_film_picture(&f[k], i), want[k][i]);
    assert_int_equal(plan_film_us(100000, SPEC_END_HOLD, 2), 80000);
    assert_int_equal(plan_film_us(100000, SPEC_END_HOLD, 9), 99999);
    assert_int_equal(plan_film_us(100000, SPEC_END_LOOP, 3), 20000);
    assert_int_equal(plan_film_us(100000, SPEC_END_PINGPONG, 3), 80000);
    assert_int_equal(plan_film_us(100000, SPEC_END_PINGPONG, 5), 0);
}

// Pictures never go back while the film lasts, and a cut stands at the first frame of its shot.
static void any_film(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        struct plan_film f = film(draw(1, 3000), draw(1, 240000), draw(1, 2002), SPEC_END_HOLD);
        int64_t before = 0;
        for (int64_t k = 0; k < 200; k++) {
            int64_t j = plan_film_picture(&f, k);
            assert_true(j >= before && j < f.n_frames);
            before = j;
        }
        for (int k = 0; k < 20; k++) {
            int64_t j = draw(0, f.n_frames - 1), at = plan_film_frame(&f, j);
            assert_true(plan_film_picture(&f, at) >= j);
            if (at > 0) assert_true(plan_film_picture(&f, at - 1) < j);
        }
        int64_t n = plan_film_length(&f);
        assert_true(25 * f.n_frames * f.rate_den <= n * f.rate_num && n >= 1);
    }
}

// The published program counts a voice's frames in doubles and rounds down; ours round to nearest.
static void frames_of_a_voice(void **state)
{
    (void)state;
    static const struct {
        int64_t n, ours, published;
    } table[] = {{160000, 250, 250}, {51840, 81, 81}, {170905, 267, 267}, {136348, 213, 213},
                 {18560, 29, 28},    {36480, 57, 56}, {100, 1, 1}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(spec_frames(table[i].n, 16000), table[i].ours);
        assert_int_equal(spec_frames_published(table[i].n), table[i].published);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples),
        cmocka_unit_test(every_frame_once),
        cmocka_unit_test(films_are_looked_at_by_time),
        cmocka_unit_test(ends_of_films),
        cmocka_unit_test(any_film),
        cmocka_unit_test(frames_of_a_voice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
