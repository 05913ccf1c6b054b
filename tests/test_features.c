// Voice features: which row stands for which frame, at both ends of a voice, in the default and as published.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/features.h"

#include <math.h>

enum { WINDOW = 5, LAYERS = 2, CHANNELS = 3 };

static struct dev *d;
static struct dev_arena *a;

static int open_device(void **state)
{
    (void)state;
    struct err e = {0};
    if (dev_open(&d, "ref", 1, &e) < 0) return -1;
    a = dev_arena_new(d, "test", 0);
    return 0;
}

static int close_device(void **state)
{
    (void)state;
    dev_arena_free(&a);
    dev_close(&d);
    return 0;
}

static struct spec_render render(int64_t n_frames, int speakers, enum spec_parity parity)
{
    return (struct spec_render){.frame_num = 9,
                                .motion_frame = 5,
                                .n_frames = n_frames,
                                .n_speakers = speakers,
                                .tail = parity == SPEC_PARITY_PUBLISHED ? SPEC_TAIL_MIRROR : SPEC_TAIL_SILENCE,
                                .parity = parity};
}

// The row that entry (j, o) of speaker p holds, when rows are filled with their own number.
static int row_at(tensor windows, int p, int64_t j, int o)
{
    return (int)((float *)windows.data)[(((p * windows.shape[1] + j) * WINDOW + o) * LAYERS) * CHANNELS];
}

// Rows that hold their number: in the middle, before the beginning, past the end of a segment that is or is not last.
static void mirrored_rows(void **state)
{
    (void)state;
    enum { N1 = 17, N2 = 20 };
    static float rows[2][N2 * LAYERS * CHANNELS];
    const float *given[2] = {rows[0], rows[1]};
    for (int i = 0; i < N2 * LAYERS * CHANNELS; i++) rows[0][i] = rows[1][i] = (float)(i / (LAYERS * CHANNELS));
    struct spec_render s = render(N1, 2, SPEC_PARITY_PUBLISHED);
    struct features *f = NULL;
    struct err e = {0};
    assert_int_equal(features_of_rows(&f, a, &s, LAYERS, CHANNELS, given, (int64_t[]){N1, N2}, "/tmp", &e), 0);
    static const struct {
        int64_t start;
        bool last;
    } segments[] = {{0, false}, {4, false}, {12, true}, {12, false}, {8, true}};
    for (size_t k = 0; k < sizeof segments / sizeof *segments; k++) {
        tensor w;
        int64_t start = segments[k].start, end = start + s.frame_num;
        assert_int_equal(features_windows(f, a, &w, start, WINDOW, segments[k].last, &e), 0);
        for (int p = 0; p < 2; p++)
            for (int64_t j = 0; j < s.frame_num; j++)
                for (int o = 0; o < WINDOW; o++) {
                    int n = p ? N2 : N1, at = (int)(start + j) + o - 2, want = at < 0 ? 0 : at;
                    bool extended = segments[k].last && end >= n;
                    int limit = extended ? (int)end + 3 : n; // the extended voice's length
                    if (want >= limit) want = limit - 1;
                    if (want >= n) want = 2 * n - 1 - want;
                    assert_int_equal(row_at(w, p, j, o), want);
                }
        dev_arena_reset(a, 0);
    }
    features_close(&f);
}

// ---- with a voice encoder

static const int64_t n_samples = 640 * 30 + 350;

static void read_voice(void *ctx, float *dst, int64_t from, int64_t n)
{
    (void)ctx;
    for (int64_t i = from; i < from + n; i++) {
        uint32_t h = (uint32_t)i * 2654435761u;
        h ^= h >> 15;
        h *= 2246822519u;
        dst[i - from] = i >= 0 && i < n_samples ? (float)(h >> 8) * 0x1p-24f - 0.5f : 0;
    }
}

static void read_short(void *ctx, float *dst, int64_t from, int64_t n)
{
    read_voice(ctx, dst, from, n);
    for (int64_t i = from; i < from + n; i++)
        if (i >= (ctx ? *(const int *)ctx : 10) * 640) dst[i - from] = 0;
}

static struct wav2vec2 *open_voice(struct weights **w)
{
    struct err e = {0};
    struct wav2vec2 *m = NULL;
    assert_int_equal(weights_open(w, TEST_DIR "/golden/weights_wav2vec2.safetensors", &e), 0);
    assert_int_equal(wav2vec2_new(&m, d, *w, weights_meta(*w, "config"), true, &e), 0);
    return m;
}

// Frame 0's entry and others of a segment against rows [n, layers, dim].
static void assert_rows(tensor windows, tensor rows, int64_t start, int64_t below)
{
    int64_t c = rows.shape[1] * rows.shape[2];
    for (int64_t j = 0; j < windows.shape[1]; j++)
        for (int64_t o = 0; o < WINDOW; o++) {
            int64_t at = start + j + o - 2;
            if (at < 0 || at >= below) continue;
            const float *ours = (float *)windows.data + (j * WINDOW + o) * c, *want = (float *)rows.data + at * c;
            for (int64_t i = 0; i < c; i++) assert_true(ours[i] == want[i]);
        }
}

// A limit on the frames changes no row of the published program: it encodes the whole voice.
static void published_rows_are_of_the_whole_voice(void **state)
{
    (void)state;
    struct weights *w = NULL;
    struct wav2vec2 *m = open_voice(&w);
    struct track t = {.read = read_voice, .n_samples = n_samples};
    struct err e = {0};
    int64_t n = spec_frames_published(n_samples);
    assert_int_equal(n, 30);
    struct wav2vec2_stats *stats = wav2vec2_measure(m, a, &t);
    tensor rows = dev_tensor(a, DT_F32, SHAPE(n, wav2vec2_layers(m), wav2vec2_dim(m))), windows;
    wav2vec2_encode(m, a, rows, &t, stats, n, 0, n, NULL);
    struct spec_render s = render(12, 1, SPEC_PARITY_PUBLISHED);
    struct features *f = NULL;
    assert_int_equal(features_open(&f, m, a, &s, &t, "/tmp", &e), 0);
    assert_int_equal(features_windows(f, a, &windows, 4, WINDOW, true, &e), 0);
    assert_rows(windows, rows, 4, n);
    features_close(&f);
    wav2vec2_stats_free(&stats);
    wav2vec2_free(&m);
    weights_free(&w);
    dev_arena_reset(a, 0);
}

// By default the voice is cut to whole frames, silence behind it changes none of its rows, and what the last segment
// hears past the end is that silence: not the last row again.
static void silence_behind_a_voice(void **state)
{
    (void)state;
    struct weights *w = NULL;
    struct wav2vec2 *m = open_voice(&w);
    enum { L = 30 };
    struct track t = {.read = read_voice, .n_samples = n_samples}, cut = {.read = read_voice, .n_samples = L * 640};
    struct err e = {0};
    struct wav2vec2_stats *stats = wav2vec2_measure(m, a, &cut);
    tensor rows = dev_tensor(a, DT_F32, SHAPE(L, wav2vec2_layers(m), wav2vec2_dim(m))), windows;
    wav2vec2_encode(m, a, rows, &cut, stats, L, 0, L, NULL);
    struct spec_render s = render(L, 1, SPEC_PARITY_NONE);
    struct features *f = NULL;
    assert_int_equal(features_open(&f, m, a, &s, &t, "/tmp", &e), 0);
    int64_t start = 4 * (spec_segments(L, 9, 5, SPEC_STREAMING) - 1);
    assert_int_equal(features_windows(f, a, &windows, start, WINDOW, true, &e), 0);
    assert_rows(windows, rows, start, L);
    assert_int_equal(start + 9 - 1 - L, 2); // the last frame lies two past the voice
    const float *last = (float *)windows.data + 8 * WINDOW * rows.shape[1] * rows.shape[2];
    size_t bytes = (size_t)(rows.shape[1] * rows.shape[2]) * sizeof(float);
    const float *end = (float *)rows.data + (L - 1) * rows.shape[1] * rows.shape[2];
    for (int o = 0; o < WINDOW; o++)
        assert_int_not_equal(memcmp(last + o * rows.shape[1] * rows.shape[2], end, bytes), 0);
    features_close(&f);
    wav2vec2_stats_free(&stats);
    wav2vec2_free(&m);
    weights_free(&w);
    dev_arena_reset(a, 0);
}

// Rows of a speaker's entries (j, o) that lie in [from, below), against rows [n, layers, dim]; how many were compared.
static int assert_speaker(tensor windows, int p, tensor rows, int64_t start, int64_t from, int64_t below)
{
    int64_t c = rows.shape[1] * rows.shape[2];
    int n = 0;
    for (int64_t j = 0; j < windows.shape[1]; j++)
        for (int64_t o = 0; o < WINDOW; o++) {
            int64_t at = start + j + o - 2, entry = (p * windows.shape[1] + j) * WINDOW + o;
            if (at < from || at >= below) continue;
            assert_memory_equal((float *)windows.data + entry * c, (float *)rows.data + at * c,
                                (size_t)c * sizeof(float));
            n++;
        }
    return n;
}

static tensor encode(struct wav2vec2 *m, const struct track *t, const struct wav2vec2_stats *stats, int64_t n)
{
    tensor rows = dev_tensor(a, DT_F32, SHAPE(n, wav2vec2_layers(m), wav2vec2_dim(m)));
    wav2vec2_encode(m, a, rows, t, stats, n, 0, n, NULL);
    return rows;
}

// Two voices at once, one of 10 frames and one of 30: the shorter one's rows are those of it alone, and behind it
// stands silence that was heard after it, measured by the voice.
static void the_shorter_voice_is_measured_alone(void **state)
{
    (void)state;
    enum { LONG = 30, SHORT = 10 };
    struct weights *w = NULL;
    struct wav2vec2 *m = open_voice(&w);
    struct track t[2] = {{.read = read_voice, .n_samples = LONG * 640}, {.read = read_short, .n_samples = SHORT * 640}};
    struct err e = {0};
    struct wav2vec2_stats *stats = wav2vec2_measure(m, a, &t[1]);
    struct spec_render s = render(LONG, 2, SPEC_PARITY_NONE);
    struct features *f = NULL;
    int64_t end = 4 * (spec_segments(LONG, 9, 5, SPEC_STREAMING) - 1) + 9 + 3;
    struct track padded = {.read = read_short, .n_samples = end * 640};
    tensor alone = encode(m, &t[1], stats, SHORT), silence = encode(m, &padded, stats, end), windows;
    assert_memory_not_equal(alone.data, silence.data, (size_t)tensor_bytes(alone)); // else the order would not matter
    assert_int_equal(features_open(&f, m, a, &s, t, "/tmp", &e), 0);
    int n_voice = 0, n_silence = 0;
    for (int64_t start = 0; start + 9 + 3 <= end; start += 4) {
        assert_int_equal(features_windows(f, a, &windows, start, WINDOW, start + 9 + 3 == end, &e), 0);
        n_voice += assert_speaker(windows, 1, alone, start, 0, SHORT);
        n_silence += assert_speaker(windows, 1, silence, start, SHORT, end);
    }
    assert_true(n_voice > 50 && n_silence > 200);
    features_close(&f);
    wav2vec2_stats_free(&stats);
    wav2vec2_free(&m);
    weights_free(&w);
    dev_arena_reset(a, 0);
}

// A long silence is made in windows, each with context on both sides.
static void a_long_silence_comes_in_windows(void **state)
{
    (void)state;
    enum { LONG = FEATURES_WINDOW + 300, SHORT = 4 };
    int own = SHORT;
    struct weights *w = NULL;
    struct wav2vec2 *m = open_voice(&w);
    struct track t[2] = {{.read = read_voice, .n_samples = LONG * 640},
                         {.read = read_short, .ctx = &own, .n_samples = SHORT * 640}};
    struct err e = {0};
    struct wav2vec2_stats *stats = wav2vec2_measure(m, a, &t[1]);
    struct spec_render s = render(LONG, 2, SPEC_PARITY_NONE);
    struct features *f = NULL;
    int64_t end = 4 * (spec_segments(LONG, 9, 5, SPEC_STREAMING) - 1) + 9 + 3, keep = SHORT + FEATURES_WINDOW;
    int64_t from = keep - FEATURES_CONTEXT, start = keep / 4 * 4 + 8;
    struct track padded = {.read = read_short, .ctx = &own, .n_samples = end * 640};
    tensor rows = dev_tensor(a, DT_F32, SHAPE(end, wav2vec2_layers(m), wav2vec2_dim(m))), windows;
    wav2vec2_encode(m, a, tensor_slice(rows, 0, from, end), &padded, stats, end, from, end, NULL);
    t[0].n_samples = 640; // not what is looked at: as short as can be
    assert_int_equal(features_open(&f, m, a, &s, t, "/tmp", &e), 0);
    assert_int_equal(features_windows(f, a, &windows, start, WINDOW, false, &e), 0);
    assert_int_equal(assert_speaker(windows, 1, rows, start, keep, end), 9 * WINDOW);
    features_close(&f);
    wav2vec2_stats_free(&stats);
    wav2vec2_free(&m);
    weights_free(&w);
    dev_arena_reset(a, 0);
}

static void read_nothing(void *ctx, float *dst, int64_t from, int64_t n)
{
    read_voice(ctx, dst, from, n);
    for (int64_t i = from; i < from + n; i++)
        if (i == 640 * 20) dst[i - from] = NAN;
}

// Whatever makes the encoder's values no numbers, a segment never sees them.
static void rows_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    struct weights *w = NULL;
    struct wav2vec2 *m = open_voice(&w);
    struct track t = {.read = read_nothing, .n_samples = n_samples};
    struct err e = {0};
    struct spec_render s = render(30, 1, SPEC_PARITY_NONE);
    struct features *f = NULL;
    tensor windows;
    assert_int_equal(features_open(&f, m, a, &s, &t, "/tmp", &e), 0);
    assert_int_equal(features_windows(f, a, &windows, 0, WINDOW, false, &e), E_INPUT);
    if (!strstr(e.text, "the voice encoder makes values that are no numbers (speaker 1, frame 0, layer 1)"))
        fail_msg("%s", e.text);
    features_close(&f);
    wav2vec2_free(&m);
    weights_free(&w);
    dev_arena_reset(a, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mirrored_rows),
        cmocka_unit_test(published_rows_are_of_the_whole_voice),
        cmocka_unit_test(silence_behind_a_voice),
        cmocka_unit_test(the_shorter_voice_is_measured_alone),
        cmocka_unit_test(a_long_silence_comes_in_windows),
        cmocka_unit_test(rows_that_are_no_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
