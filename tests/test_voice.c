// daemon/media/voice: the real voices and made-up files through the media child, which is this very program.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/media/child.h"
#include "daemon/media/loudness.h"
#include "daemon/media/voice.h"
#include "tests/film_maker.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define VOICE1 TEST_DIR "/../deploy/media/voice.wav"
#define VOICE2 TEST_DIR "/../deploy/media/voice2.wav"

static char folder[] = "/tmp/voice-test-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[8][256];
    static int turn;
    char *p = path[turn++ % 8];
    snprintf(p, 256, "%s/%s", folder, name);
    return p;
}

// ---- WAV files, 32-bit float, of any shape

static void put32(FILE *f, uint32_t x)
{
    for (int i = 0; i < 4; i++) fputc((int)(x >> 8 * i & 255), f);
}

static void put16(FILE *f, uint32_t x)
{
    fputc((int)(x & 255), f);
    fputc((int)(x >> 8 & 255), f);
}

static const char *wav_write(const char *name, const float *x, int64_t n, int channels, int rate)
{
    const char *path = in_folder(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    uint32_t bytes = (uint32_t)(n * channels * 4);
    fputs("RIFF", f);
    put32(f, 36 + bytes);
    fputs("WAVEfmt ", f);
    put32(f, 16);
    put16(f, 3);
    put16(f, (uint32_t)channels);
    put32(f, (uint32_t)rate);
    put32(f, (uint32_t)(rate * channels * 4));
    put16(f, (uint32_t)channels * 4);
    put16(f, 32);
    fputs("data", f);
    put32(f, bytes);
    assert_int_equal(fwrite(x, 4, (size_t)(n * channels), f), n * channels);
    fclose(f);
    return path;
}

// Each channel a sine of its own loudness; factor[c] * sin(2 pi hz t).
static const char *sines(const char *name, int64_t n, int channels, int rate, double hz, const double *factor)
{
    float *x = malloc((size_t)(n * channels) * sizeof *x + 1);
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < channels; c++)
            x[i * channels + c] = (float)(factor[c] * sin(2 * M_PI * hz * (double)i / rate));
    const char *path = wav_write(name, x, n, channels, rate);
    free(x);
    return path;
}

// ---- opening

static struct voice_options options(const char *a, const char *b, int n_speakers, int type, bool published)
{
    return (struct voice_options){.self = "/proc/self/exe",
                                  .folder = folder,
                                  .audio = {a, b},
                                  .n_speakers = n_speakers,
                                  .audio_type = type,
                                  .published = published};
}

static struct voice *open_voice(const struct voice_options *o, struct voice_info *info)
{
    struct err e = {0};
    struct voice *v = NULL;
    if (voice_open(&v, o, info, &e) < 0) fail_msg("%s", e.text);
    return v;
}

static float *read16(struct voice *v, int speaker, int64_t n)
{
    struct err e = {0};
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t at = 0; at < n; at += 7777)
        assert_int_equal(voice_read16(v, speaker, x + at, at, n - at < 7777 ? n - at : 7777, &e), 0);
    return x;
}

static float *read_mux(struct voice *v, const struct voice_info *i)
{
    struct err e = {0};
    float *x = malloc((size_t)(i->n_mux * i->mux_channels) * sizeof *x);
    assert_int_equal(voice_read_audio(v, x, 0, i->n_mux, &e), 0); // longer than a piece
    return x;
}

static double lufs16(const float *x, int64_t n)
{
    struct loudness *l = loudness_new(VOICE_RATE);
    loudness_push(l, x, n);
    double lufs = loudness_lufs(l);
    loudness_free(l);
    return lufs;
}

static bool all_zero(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0) return false;
    return true;
}

// The samples of a 16-bit PCM file as floats, read here without FFmpeg.
static float *wav_samples(const char *path, int64_t *n, int *rate, int *channels)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t h[12], c[8], fmt[64] = {0};
    assert_int_equal(fread(h, 1, 12, f), 12);
    while (fread(c, 1, 8, f) == 8) {
        uint32_t size = (uint32_t)c[4] | (uint32_t)c[5] << 8 | (uint32_t)c[6] << 16 | (uint32_t)c[7] << 24;
        if (!memcmp(c, "fmt ", 4)) {
            assert_int_equal(fread(fmt, 1, size, f), size);
        } else if (!memcmp(c, "data", 4)) {
            *channels = fmt[2];
            *rate = fmt[4] | fmt[5] << 8 | fmt[6] << 16;
            assert_int_equal(fmt[14], 16);
            *n = size / 2 / *channels;
            float *x = malloc(size / 2 * sizeof *x);
            for (uint32_t i = 0; i < size / 2; i++) {
                int lo = fgetc(f), hi = fgetc(f);
                x[i] = (float)(int16_t)(lo | hi << 8) / 32768.0f;
            }
            fclose(f);
            return x;
        } else
            fseek(f, (long)(size + (size & 1)), SEEK_CUR);
    }
    fail_msg("%s has no data", path);
    return NULL;
}

// ---- one speaker

static void one_voice(void **state)
{
    (void)state;
    struct voice_options o = options(VOICE1, NULL, 1, SPEC_AUDIO_NONE, false);
    struct voice_info i;
    struct voice *v = open_voice(&o, &i);
    int64_t n = 0;
    int rate = 0, channels = 0;
    float *want = wav_samples(VOICE1, &n, &rate, &channels);
    printf("voice.wav: %lld samples at %d Hz, %d channels, %.2f LUFS, L %lld\n", (long long)n, rate, channels,
           i.lufs[0], (long long)i.n_frames);
    assert_int_equal(i.n_frames, spec_frames(n, rate));
    assert_int_equal(i.n_samples16, i.n_frames * 640);
    assert_true(i.n_mux == n && i.mux_rate == rate && i.mux_channels == channels);
    assert_true(fabs(i.seconds - (double)n / rate) < 1e-9);
    assert_string_equal(i.warnings, "");
    float *mux = read_mux(v, &i), *x = read16(v, 0, i.n_samples16);
    assert_memory_equal(mux, want, (size_t)(n * channels) * sizeof *mux); // the original, untouched
    assert_true(fabs(lufs16(x, i.n_samples16) - LOUDNESS_TARGET) < 0.05); // cut and padding move it a little
    if (rate == VOICE_RATE && channels == 1) {
        float gain = (float)loudness_gain(lufs16(want, n));
        for (int64_t k = 0; k < i.n_samples16; k++) assert_true(x[k] == (k < n ? gain * want[k] : 0));
    }
    voice_close(v);
    free(x);
    free(mux);
    free(want);
}

static void published_voice(void **state)
{
    (void)state;
    // 29 frames exactly: the published formula finds 28 in it
    double half = 0.5;
    const char *path = sines("exact.wav", 29 * 640, 1, 16000, 300, &half);
    struct voice_options o = options(path, NULL, 1, SPEC_AUDIO_NONE, true);
    struct voice_info i;
    struct voice *v = open_voice(&o, &i);
    assert_int_equal(i.n_frames, 28);
    assert_int_equal(i.n_samples16, 29 * 640);
    assert_true(i.n_mux == 28 * 640 && i.mux_rate == 16000 && i.mux_channels == 1);
    float *x = read16(v, 0, i.n_samples16), *mux = read_mux(v, &i);
    assert_memory_equal(mux, x, (size_t)i.n_mux * sizeof *x); // the normalised track itself
    assert_true(fabs(lufs16(x, i.n_samples16) - LOUDNESS_TARGET) < 1e-4);
    voice_close(v);
    free(x);
    free(mux);
    o.published = false;
    v = open_voice(&o, &i);
    assert_int_equal(i.n_frames, 29);
    voice_close(v);
}

static void rates_and_channels(void **state)
{
    (void)state;
    static const struct {
        int rate, channels, mux_rate, mux_channels;
    } cases[] = {{8000, 1, 8000, 1},   {44100, 2, 44100, 2}, {192000, 2, 48000, 2},
                 {37800, 1, 48000, 1}, {48000, 6, 48000, 6}, {22050, 7, 22050, 2}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        double f[8] = {.2, .2, .2, .2, .2, .2, .2, .2};
        int64_t n = cases[k].rate * 3 / 2 + 7;
        const char *path = sines("tone.wav", n, cases[k].channels, cases[k].rate, 440, f);
        struct voice_options o = options(path, NULL, 1, SPEC_AUDIO_NONE, false);
        struct voice_info i;
        struct voice *v = open_voice(&o, &i);
        assert_int_equal(i.mux_rate, cases[k].mux_rate);
        assert_int_equal(i.mux_channels, cases[k].mux_channels);
        assert_int_equal(i.n_mux, (n * i.mux_rate + cases[k].rate - 1) / cases[k].rate);
        assert_int_equal(i.n_frames, spec_frames(n, cases[k].rate));
        float *x = read16(v, 0, i.n_samples16), *mux = read_mux(v, &i);
        double worst = 0, worst_mux = 0, gain = loudness_gain(i.lufs[0]);
        // away from the ends, whose step is no tone
        for (int64_t t = 2000; t < 20000; t++)
            worst = fmax(worst, fabs(x[t] / gain - 0.2 * sin(2 * M_PI * 440 * (double)t / 16000)));
        for (int64_t t = i.mux_rate / 10; t < i.mux_rate; t++)
            worst_mux =
                fmax(worst_mux, fabs(mux[t * i.mux_channels] - 0.2 * sin(2 * M_PI * 440 * (double)t / i.mux_rate)));
        if (worst > 2e-4 || worst_mux > 2e-4)
            fail_msg("%d Hz, %d channels: off by %g and %g", cases[k].rate, cases[k].channels, worst, worst_mux);
        assert_true(!!strstr(i.warnings, "narrow band") == (cases[k].rate == 8000));
        voice_close(v);
        free(x);
        free(mux);
    }
}

static void odd_channels(void **state)
{
    (void)state;
    struct voice_info i;
    // opposite phase: the mean is silent, the left one speaks
    const char *path = sines("phase.wav", 32000, 2, 16000, 440, (double[]){.2, -.2});
    struct voice_options o = options(path, NULL, 1, SPEC_AUDIO_NONE, false);
    struct voice *v = open_voice(&o, &i);
    assert_true(fabs(i.lufs[0] - (-23.7383 + 6.0206)) < 1e-3);
    assert_non_null(strstr(i.warnings, "cancel"));
    voice_close(v);
    o.published = true;
    v = open_voice(&o, &i);
    assert_true(i.lufs[0] == -INFINITY);
    assert_non_null(strstr(i.warnings, "is silent"));
    voice_close(v);
    // speech in the centre of 5.1
    path = sines("center.wav", 32000, 6, 16000, 440, (double[]){.01, .01, .1, .3, .01, .01});
    o = options(path, NULL, 1, SPEC_AUDIO_NONE, false);
    v = open_voice(&o, &i);
    assert_true(fabs(i.lufs[0] - -23.7383) < 1e-3);
    voice_close(v);
}

static void quiet_loud_short(void **state)
{
    (void)state;
    struct voice_info i;
    const char *path = sines("quiet.wav", 32000, 1, 16000, 440, (double[]){.0005});
    struct voice_options o = options(path, NULL, 1, SPEC_AUDIO_NONE, false);
    struct voice *v = open_voice(&o, &i);
    float *x = read16(v, 0, i.n_samples16);
    assert_true(fabs(lufs16(x, i.n_samples16) - (i.lufs[0] + 30)) < 1e-3 && i.lufs[0] < -60);
    assert_non_null(strstr(i.warnings, "very quiet"));
    voice_close(v);
    free(x);
    path = sines("loud.wav", 32000, 1, 16000, 440, (double[]){3}); // floats beyond full scale
    o.audio[0] = path;
    v = open_voice(&o, &i);
    float *mux = read_mux(v, &i);
    for (int64_t t = 0; t < i.n_mux; t++) assert_true(fabsf(mux[t]) <= 1);
    assert_non_null(strstr(i.warnings, "lowered"));
    voice_close(v);
    free(mux);
    path = sines("short.wav", 640, 1, 16000, 440, (double[]){.5}); // too short to measure, a frame all the same
    o.audio[0] = path;
    v = open_voice(&o, &i);
    assert_true(i.n_frames == 1 && i.n_samples16 == 640 && isnan(i.lufs[0]));
    voice_close(v);
    float bad[3200] = {0};
    for (int t = 0; t < 3200; t++) bad[t] = (float)(0.3 * sin(t * 0.1));
    bad[5] = NAN;
    bad[7] = INFINITY;
    o.audio[0] = wav_write("bad.wav", bad, 3200, 1, 16000);
    v = open_voice(&o, &i);
    assert_non_null(strstr(i.warnings, "2 samples were no numbers"));
    x = read16(v, 0, i.n_samples16);
    for (int64_t t = 0; t < i.n_samples16; t++) assert_true(isfinite(x[t]));
    voice_close(v);
    free(x);
}

// ---- two speakers

static void two_in_parallel(void **state)
{
    (void)state;
    for (int published = 0; published < 2; published++) {
        struct voice_options o = options(VOICE1, VOICE2, 2, SPEC_PARA, published);
        struct voice_info i, one[2];
        struct voice *v = open_voice(&o, &i);
        float *x[2], *mux = read_mux(v, &i);
        for (int p = 0; p < 2; p++) {
            struct voice_options alone = options(p ? VOICE2 : VOICE1, NULL, 1, SPEC_AUDIO_NONE, published);
            struct voice *w = open_voice(&alone, &one[p]);
            int64_t n = one[p].n_samples16 < i.n_samples16 ? one[p].n_samples16 : i.n_samples16;
            float *same = read16(w, 0, n);
            x[p] = read16(v, p, i.n_samples16);
            assert_memory_equal(x[p], same, (size_t)n * sizeof *same);
            n += 640; // alone, what passes its last frame was cut
            if (n < i.n_samples16) assert_true(all_zero(x[p] + n, i.n_samples16 - n));
            free(same);
            voice_close(w);
        }
        for (int p = 0; p < 2; p++) { // the worker hears of each what is its own, to the end of its last frame
            uint64_t most = published ? (uint64_t)i.n_samples16 : one[p].own16[0] + 640;
            assert_true(i.own16[p] <= most && i.own16[p] + 1280 > most && i.own16[p] % (published ? 1 : 640) == 0);
        }
        assert_true(published ? i.own16[0] == i.own16[1] : i.own16[0] != i.own16[1]);
        assert_int_equal(i.n_frames, one[0].n_frames > one[1].n_frames ? one[0].n_frames : one[1].n_frames);
        assert_int_equal(i.n_samples16,
                         one[0].n_samples16 > one[1].n_samples16 ? one[0].n_samples16 : one[1].n_samples16);
        double ratio = 0, peak = 0;
        for (int64_t t = 0; t < i.n_mux * i.mux_channels; t++) peak = fmax(peak, fabs((double)mux[t]));
        assert_true(peak > 0.01 && peak <= (published ? 1 : 0.8911));
        if (i.mux_rate == 16000 && i.mux_channels == 1) // the sum, and one factor at most
            for (int64_t t = 0; t < i.n_mux && t < i.n_samples16; t++) {
                double sum = (double)x[0][t] + (double)x[1][t];
                if (ratio == 0 && fabs(sum) > 0.05) ratio = mux[t] / sum;
                if (ratio != 0) assert_true(fabs(mux[t] - ratio * sum) < 1e-4);
            }
        printf("para%s: L %lld, mux %d Hz x %d, peak %.3f\n", published ? " published" : "", (long long)i.n_frames,
               i.mux_rate, i.mux_channels, peak);
        voice_close(v);
        free(x[0]);
        free(x[1]);
        free(mux);
    }
}

static void two_in_turn(void **state)
{
    (void)state;
    double f = 0.2;
    const char *a = sines("a.wav", 30001, 1, 16000, 440, &f), *b = sines("b.wav", 44100, 1, 44100, 440, &f);
    struct voice_options o = options(a, b, 2, SPEC_ADD, false);
    struct voice_info i;
    struct voice *v = open_voice(&o, &i);
    assert_int_equal(i.n_frames, 72); // 1.875 s + 1 s = 71.9 frames
    assert_true(i.mux_rate == 44100 && i.mux_channels == 1);
    assert_int_equal(i.n_mux, (30001LL * 44100 + 15999) / 16000 + 44100);
    float *x = read16(v, 0, i.n_samples16), *y = read16(v, 1, i.n_samples16), *mux = read_mux(v, &i);
    assert_true(all_zero(x + 30001, i.n_samples16 - 30001) && !all_zero(x + 29990, 11));
    assert_true(all_zero(y, 30001) && !all_zero(y + 30001, 20));
    // the muxer's second voice starts where the worker's does
    int64_t start = (30001LL * 44100 + 15999) / 16000;
    double worst = 0, level = loudness_gain(i.lufs[1]) * 0.2;
    for (int64_t t = 1000; t < 40000; t++)
        worst = fmax(worst, fabs(mux[start + t] - level * sin(2 * M_PI * 440 * (double)t / 44100)));
    assert_true(worst < 1e-4);
    voice_close(v);
    free(x);
    free(y);
    free(mux);
}

static void a_silent_partner(void **state)
{
    (void)state;
    double f = 0.2;
    const char *b = sines("b.wav", 32000, 1, 16000, 440, &f);
    for (int published = 0; published < 2; published++)
        for (int type = SPEC_PARA; type <= SPEC_ADD; type++) {
            struct voice_options o = options(NULL, b, 2, type, published);
            struct voice_info i;
            struct voice *v = open_voice(&o, &i);
            int64_t start = published && type == SPEC_ADD ? 32000 : 0; // the published program waits for silence
            assert_int_equal(i.n_samples16, 32000 + start);
            assert_int_equal(i.n_frames, (32000 + start) / 640);
            float *x = read16(v, 0, i.n_samples16), *y = read16(v, 1, i.n_samples16);
            assert_true(all_zero(x, i.n_samples16) && all_zero(y, start) && !all_zero(y + start, 10));
            voice_close(v);
            free(x);
            free(y);
        }
}

static void limits_and_hashes(void **state)
{
    (void)state;
    struct voice_info i, j;
    struct voice_options o = options(VOICE1, NULL, 1, SPEC_AUDIO_NONE, false);
    voice_close(open_voice(&o, &i));
    voice_close(open_voice(&o, &j));
    assert_memory_equal(i.hash, j.hash, sizeof i.hash);
    o.max_frames = 50;
    voice_close(open_voice(&o, &j));
    assert_true(j.n_frames == 50 && j.n_samples16 == 50 * 640 && j.n_mux == 2 * j.mux_rate);
    assert_non_null(strstr(j.warnings, "50 frames"));
    assert_memory_not_equal(i.hash, j.hash, sizeof i.hash);
    o = options(VOICE1, VOICE2, 2, SPEC_PARA, false);
    voice_close(open_voice(&o, &i));
    o = options(VOICE2, VOICE1, 2, SPEC_PARA, false);
    voice_close(open_voice(&o, &j));
    assert_memory_not_equal(i.hash, j.hash, sizeof i.hash);
}

// ---- refusals, and videos as voices

static const char *film_write(const char *name, struct voice *v, const struct voice_info *i)
{
    struct err e = {0};
    struct mux *m = NULL;
    const char *path = in_folder(name);
    struct mux_options o = {.path = in_folder("growing.mp4"),
                            .picture = {.w = 64, .h = 64, .crf = 30, .preset = "ultrafast"},
                            .n_frames = 50,
                            .read_audio = voice_read_audio,
                            .audio = v,
                            .rate = v ? i->mux_rate : 0,
                            .channels = v ? i->mux_channels : 0,
                            .n_audio = v ? i->n_mux : 0};
    if (mux_open(&m, &o, &e) < 0) fail_msg("%s", e.text);
    uint8_t *yuv = calloc(50, 64 * 96);
    struct maker k = {.mux = m, .picture = o.picture};
    assert_int_equal(maker_push(&k, 50, yuv, &e), 0);
    assert_int_equal(maker_end_segment(&k, in_folder("piece"), &e), 0);
    free(yuv);
    if (mux_finish(m, path, &e) < 0) fail_msg("%s", e.text);
    return path;
}

static void videos_are_voices(void **state)
{
    (void)state;
    struct voice_info i, j;
    struct voice_options o = options(sines("t.wav", 88200, 2, 44100, 440, (double[]){.2, .2}), NULL, 1, 0, false);
    struct voice *v = open_voice(&o, &i);
    o.audio[0] = film_write("with.mp4", v, &i);
    voice_close(v);
    v = open_voice(&o, &j);
    printf("a film of 88200 samples: %lld\n", (long long)j.n_mux);
    assert_true(j.n_frames == 50 && j.mux_rate == 44100 && j.mux_channels == 2 && j.n_mux == 88200);
    float *x = read_mux(v, &j);
    double dot = 0, power = 0;
    for (int64_t t = 4000; t < 80000; t++) { // in place to the sample: AAC's priming is gone
        double s = 0.2 * sin(2 * M_PI * 440 * (double)t / 44100);
        dot += s * x[2 * t];
        power += s * s;
    }
    assert_true(fabs(dot / power - 1) < 0.01);
    voice_close(v);
    free(x);
}

static void refusals_are_sentences(void **state)
{
    (void)state;
    const char *text = in_folder("text.wav");
    FILE *f = fopen(text, "w");
    for (int k = 0; k < 1000; k++) fputs("this is a text, not a voice\n", f);
    fclose(f);
    const char *empty = in_folder("empty.wav");
    fclose(fopen(empty, "w"));
    const struct {
        const char *path, *says;
    } cases[] = {
        {in_folder("nowhere.wav"), "no such file"},
        {folder, "is a folder"},
        {text, "is not a"},
        {empty, "is empty"},
        {TEST_DIR "/../deploy/media/portrait.png", "is not a sound or video file"},
        {film_write("silent.mp4", NULL, NULL), "pictures but no sound track"},
        {wav_write("none.wav", (float[1]){0}, 0, 1, 16000), "holds no samples"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct err e = {0};
        struct voice *v = NULL;
        struct voice_info i;
        struct voice_options o = options(cases[k].path, NULL, 1, SPEC_AUDIO_NONE, false);
        int rc = voice_open(&v, &o, &i, &e);
        printf("%s\n", e.text);
        assert_int_equal(rc, E_INPUT);
        assert_non_null(strstr(e.text, cases[k].says));
        assert_non_null(strstr(e.text, cases[k].path));
    }
    struct err e = {0};
    struct voice *v = NULL;
    struct voice_info i;
    struct voice_options o = options(NULL, NULL, 2, SPEC_PARA, false);
    assert_int_equal(voice_open(&v, &o, &i, &e), E_INPUT);
    assert_non_null(strstr(e.text, "nobody speaks"));
    o = options(VOICE1, VOICE2, 2, SPEC_AUDIO_NONE, false);
    assert_int_equal(voice_open(&v, &o, &i, &e), E_INPUT);
    assert_non_null(strstr(e.text, "para"));
    o = options(VOICE1, NULL, 1, SPEC_AUDIO_NONE, false);
    o.self = "/nowhere/longtake";
    assert_int_equal(voice_open(&v, &o, &i, &e), E_FATAL);
    assert_non_null(strstr(e.text, "/nowhere/longtake"));
}

// Cut files and files with broken bytes end in a voice or a sentence, never in a crash of this process.
static void broken_files_end_well(void **state)
{
    (void)state;
    FILE *f = fopen(in_folder("with.mp4"), "rb");
    assert_non_null(f);
    static uint8_t d[1 << 20];
    size_t n = fread(d, 1, sizeof d, f);
    fclose(f);
    unsigned seed = 11;
    printf("seed %u\n", seed);
    int voices = 0;
    for (int k = 0; k < 12; k++) {
        static uint8_t b[sizeof d];
        memcpy(b, d, n);
        size_t m = k < 4 ? n * (size_t)(k + 1) / 5 : n;
        for (int j = 0; k >= 4 && j < 40; j++) {
            seed = seed * 1664525u + 1013904223u;
            b[(seed >> 4) % n] ^= (uint8_t)(1u << (seed >> 29));
        }
        const char *path = in_folder("broken.mp4");
        f = fopen(path, "wb");
        assert_int_equal(fwrite(b, 1, m, f), m);
        fclose(f);
        struct err e = {0};
        struct voice *v = NULL;
        struct voice_info i;
        struct voice_options o = options(path, NULL, 1, SPEC_AUDIO_NONE, false);
        int rc = voice_open(&v, &o, &i, &e);
        if (rc == 0) voices++;
        if (rc < 0) assert_int_equal(rc, E_INPUT);
        if (rc < 0) assert_true(strlen(e.text) > 0);
        voice_close(v);
    }
    printf("%d of 12 broken files are still voices\n", voices);
}

static int folder_make(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int folder_remove(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return getenv("KEEP") ? 0 : system(command);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "__media")) return media_child_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_voice),
        cmocka_unit_test(published_voice),
        cmocka_unit_test(rates_and_channels),
        cmocka_unit_test(odd_channels),
        cmocka_unit_test(quiet_loud_short),
        cmocka_unit_test(two_in_parallel),
        cmocka_unit_test(two_in_turn),
        cmocka_unit_test(a_silent_partner),
        cmocka_unit_test(limits_and_hashes),
        cmocka_unit_test(videos_are_voices),
        cmocka_unit_test(refusals_are_sentences),
        cmocka_unit_test(broken_files_end_well),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
