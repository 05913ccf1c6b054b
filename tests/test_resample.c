// daemon/media/resample: lengths, alignment, flatness, what lies beyond the band, and pieces that do not matter.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/media/resample.h"

#include <math.h>
#include <stdio.h>

struct heard {
    float *x;
    int64_t n, room;
    int channels;
};

static int hear(void *ctx, const float *x, int64_t n, struct err *e)
{
    (void)e;
    struct heard *h = ctx;
    assert_true(h->n + n <= h->room);
    memcpy(h->x + h->n * h->channels, x, (size_t)(n * h->channels) * sizeof *x);
    h->n += n;
    return 0;
}

static struct heard run(const float *x, int64_t n, int from, int to, int channels, int64_t piece)
{
    struct err e = {0};
    struct heard h = {.room = resample_length(n, from, to), .channels = channels};
    h.x = malloc((size_t)(h.room * channels) * sizeof(float) + 1);
    struct resample *r = NULL;
    if (resample_new(&r, from, to, channels, hear, &h, &e) < 0) fail_msg("%s", e.text);
    for (int64_t at = 0; at < n; at += piece)
        assert_int_equal(resample_push(r, x + at * channels, n - at < piece ? n - at : piece, &e), 0);
    assert_int_equal(resample_end(r, &e), 0);
    resample_free(r);
    assert_int_equal(h.n, h.room);
    return h;
}

static const int rates[] = {8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000, 192000};
enum { N_RATES = sizeof rates / sizeof *rates };

static void lengths_are_exact(void **state)
{
    (void)state;
    assert_int_equal(resample_length(441, 44100, 16000), 160);
    assert_int_equal(resample_length(442, 44100, 16000), 161);
    static const int64_t lengths[] = {1, 2, 159, 16384, 40001};
    float *x = calloc(2 * 40001, sizeof *x);
    for (int i = 0; i < N_RATES; i++)
        for (size_t j = 0; j < 5; j++) free(run(x, lengths[j], rates[i], 16000, 2, 5000).x);
    free(x);
}

// A tone stays the same function of time: level, phase and no delay, the middle and the very start alike.
static void tones_keep_level_and_place(void **state)
{
    (void)state;
    for (int i = 0; i < N_RATES; i++)
        for (int k = 1; k <= 3; k++) {
            double low = rates[i] < 16000 ? rates[i] : 16000, hz = low / 2 * 0.3 * k; // to 0.9 of the band
            int64_t n = rates[i];
            float *x = malloc((size_t)n * sizeof *x);
            for (int64_t t = 0; t < n; t++) {
                double s = (double)t / rates[i], fade = s < 0.2 ? 0.5 - 0.5 * cos(M_PI * s / 0.2) : 1;
                x[t] = (float)(0.5 * fade * sin(2 * M_PI * hz * s));
            }
            struct heard h = run(x, n, rates[i], 16000, 1, n);
            double worst = 0;
            for (int64_t t = 0; t < 15000; t++) {
                double s = (double)t / 16000, fade = s < 0.2 ? 0.5 - 0.5 * cos(M_PI * s / 0.2) : 1;
                worst = fmax(worst, fabs(h.x[t] - 0.5 * fade * sin(2 * M_PI * hz * s)));
            }
            if (worst > 0.5 * 1.15e-3) // 0.01 dB
                fail_msg("%d Hz, tone of %.0f Hz: off by %g", rates[i], hz, worst);
            free(h.x);
            free(x);
        }
}

static void what_lies_above_is_gone(void **state)
{
    (void)state;
    for (int i = 0; i < N_RATES; i++) {
        if (rates[i] <= 16000) continue;
        double worst = 0;
        int64_t n = rates[i];
        float *x = malloc((size_t)n * sizeof *x);
        for (double hz = 8200; hz < rates[i] / 2.0; hz *= 1.15) {
            for (int64_t t = 0; t < n; t++) {
                double s = (double)t / rates[i], edge = fmin(fmin(s, 1 - s) / 0.2, 1);
                x[t] = (float)(0.5 * (0.5 - 0.5 * cos(M_PI * edge)) * sin(2 * M_PI * hz * s));
            }
            struct heard h = run(x, n, rates[i], 16000, 1, n);
            for (int64_t t = 0; t < h.n; t++) worst = fmax(worst, fabs((double)h.x[t]));
            free(h.x);
        }
        printf("%d Hz: %.1f dB\n", rates[i], 20 * log10(worst / 0.5));
        assert_true(20 * log10(worst / 0.5) < -100);
        free(x);
    }
}

static void pieces_do_not_matter(void **state)
{
    (void)state;
    enum { N = 60000 };
    float *x = malloc(2 * N * sizeof *x);
    unsigned seed = 3;
    for (int i = 0; i < 2 * N; i++) x[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 16777216.0f - 0.5f;
    struct heard whole = run(x, N, 44100, 16000, 2, N);
    static const int64_t pieces[] = {1, 777, 16384};
    for (int i = 0; i < 3; i++) {
        struct heard h = run(x, N, 44100, 16000, 2, pieces[i]);
        assert_memory_equal(h.x, whole.x, (size_t)h.n * 2 * sizeof(float));
        free(h.x);
    }
    free(whole.x);
    struct heard same = run(x, N, 16000, 16000, 2, 999); // equal rates: the same floats
    assert_memory_equal(same.x, x, 2 * N * sizeof *x);
    free(same.x);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_are_exact),
        cmocka_unit_test(tones_keep_level_and_place),
        cmocka_unit_test(what_lies_above_is_gone),
        cmocka_unit_test(pieces_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
