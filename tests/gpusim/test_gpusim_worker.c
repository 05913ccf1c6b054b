// A whole segment on gpusim, from words and voice to frames, beside the same on the CPU: 32 x 48 pixels, 17 frames, a
// tiny model of random weights with transformer and text in BF16.
//
// Both round at the same places and sum in another order, so a byte of a frame may differ by a few counts and no more.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/gpusim/sim.h"
#include "worker/render.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { H = 32, W = 48, FRAMES = 17, FRAME_BYTES = H * W * 3 / 2 };

static char top[64], model[96];

static int group_setup(void **state)
{
    (void)state;
    char command[256];
    strcpy(top, "/tmp/test_gpusim_XXXXXX");
    if (!mkdtemp(top)) return -1;
    snprintf(model, sizeof model, "%s/model", top);
    snprintf(command, sizeof command, "%s/longtake-worker weights synth --seed 1 -o %s >/dev/null 2>&1", BIN_DIR,
             model);
    return system(command);
}

static int group_teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", top);
    return system(command);
}

static void read_voice(void *ctx, float *dst, int64_t from, int64_t n)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = from + i;
        dst[i] = at < 0 || at >= FRAMES * 640 ? 0 : 0.2f * sinf((float)at * (0.02f + (float)(at / 4000 % 7) * 0.01f));
    }
}

struct film {
    uint8_t yuv[FRAMES * FRAME_BYTES];
    int64_t n_frames;
    bool has_tail;
};

static int on_step(void *ctx, const char *stage, int i, int n)
{
    (void)ctx;
    if (getenv("LOUD")) fprintf(stderr, "%s %d of %d\n", stage, i, n);
    return 0;
}

static int on_tail(void *ctx, const void *bytes, size_t n)
{
    ((struct film *)ctx)->has_tail = bytes && n > 0;
    return 0;
}

static int on_frames(void *ctx, int64_t first, int n, const uint8_t *yuv)
{
    struct film *f = ctx;
    assert_int_equal(first, f->n_frames);
    memcpy(f->yuv + first * FRAME_BYTES, yuv, (size_t)n * FRAME_BYTES);
    f->n_frames += n;
    return 0;
}

static void render_on(const char *table, struct film *f)
{
    static uint8_t picture[H * W * 3];
    struct spec_render spec = {.h = H,
                               .w = W,
                               .size = "tiny",
                               .frame_num = FRAMES,
                               .motion_frame = 9,
                               .n_frames = FRAMES,
                               .n_speakers = 1,
                               .steps = 2,
                               .shift = 7,
                               .text_scale = 1,
                               .audio_scale = 1,
                               .color_strength = 1,
                               .seed = 11,
                               .prompt = "words"};
    struct track voice = {.read = read_voice, .n_samples = FRAMES * 640};
    struct set_options o = {.model = model, .n_speakers = 1, .dtype = DT_BF16};
    struct render_order order = {.spec = &spec, .color_picture = picture, .voice = &voice, .cache_dir = top};
    struct render_sink sink = {.ctx = f, .step = on_step, .tail = on_tail, .frames = on_frames};
    struct render_run run = {.first = true, .keep_to = FRAMES, .picture = picture};
    struct render_times times;
    struct dev *d = NULL;
    struct set *s = NULL;
    struct render *r = NULL;
    struct err e = {0};
    *f = (struct film){0};
    for (int i = 0; i < H * W * 3; i++) picture[i] = (uint8_t)(i * 7 % 251);
    if (dev_open(&d, table, 0, &e) < 0 || set_open(&s, d, &o, &e) < 0 || render_open(&r, s, &order, &e) < 0 ||
        render_segment(r, &run, &sink, &times, &e) < 0)
        fail_msg("%s: %s", table, e.text);
    render_close(&r);
    set_free(&s);
    dev_close(&d);
    assert_int_equal(f->n_frames, FRAMES);
    assert_true(f->has_tail);
}

static void segment_equals_the_cpu(void **state)
{
    (void)state;
    static struct film want, got;
    render_on("cpu", &want);
    sim_seed(3);
    sim_take_counts();
    render_on("cuda", &got);
    struct sim_counts c = sim_take_counts();
    int worst = 0;
    double sum = 0;
    for (size_t i = 0; i < sizeof got.yuv; i++) {
        int off = abs((int)got.yuv[i] - (int)want.yuv[i]);
        worst = off > worst ? off : worst;
        sum += off;
    }
    print_message("%lld launches; frames differ by %.3f counts on average, %d at most\n", (long long)c.launches,
                  sum / (double)sizeof got.yuv, worst);
    assert_true(c.launches > 100);
    assert_true(worst <= 12);
    assert_true(sum / (double)sizeof got.yuv <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(segment_equals_the_cpu)};
    return cmocka_run_group_tests_name("gpusim worker", tests, group_setup, group_teardown);
}
