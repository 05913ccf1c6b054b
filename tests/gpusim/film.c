// The scene that gpusim's tests of the worker render.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/gpusim/film.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char top[64], model[96];

int film_begin(void)
{
    char command[256];
    strcpy(top, "/tmp/test_gpusim_XXXXXX");
    if (!mkdtemp(top)) return -1;
    snprintf(model, sizeof model, "%s/model", top);
    snprintf(command, sizeof command, "%s/longtake-worker weights synth --seed 1 -o %s >/dev/null 2>&1", BIN_DIR,
             model);
    return system(command);
}

void film_end(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", top);
    if (system(command) != 0) printf("%s stays\n", top);
}

static void read_voice(void *ctx, float *dst, int64_t from, int64_t n)
{
    int64_t end = *(int *)ctx * 640;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = from + i;
        dst[i] = at < 0 || at >= end ? 0 : 0.2f * sinf((float)at * (0.02f + (float)(at / 4000 % 7) * 0.01f));
    }
}

static int on_step(void *ctx, const char *stage, int i, int n)
{
    struct film *f = ctx;
    (void)n;
    if (strcmp(stage, "denoise") != 0 || i == 0) return 0;
    f->step[i - 1] = sim_take_counts();
    return i == f->ends ? E_BUSY : 0;
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
    memcpy(f->yuv + first * FILM_FRAME_BYTES, yuv, (size_t)n * FILM_FRAME_BYTES);
    f->n_frames += n;
    return 0;
}

void film_render(struct dev *d, struct film_how how, struct film *f)
{
    static uint8_t picture[FILM_H * FILM_W * 3];
    int frames = how.frames ? how.frames : FILM_FRAMES;
    struct spec_render spec = {.h = FILM_H,
                               .w = FILM_W,
                               .size = "tiny",
                               .frame_num = frames,
                               .motion_frame = frames / 2 + 1,
                               .n_frames = frames,
                               .n_speakers = 1,
                               .steps = how.steps ? how.steps : FILM_STEPS,
                               .shift = 7,
                               .text_scale = 1,
                               .audio_scale = 1,
                               .color_strength = 1,
                               .seed = 11,
                               .prompt = "words"};
    struct track voice = {.read = read_voice, .ctx = &frames, .n_samples = frames * 640};
    struct set_options o = {.model = model,
                            .n_speakers = 1,
                            .dtype = DT_BF16,
                            .mesh = how.mesh,
                            .sharers = how.share_weights && how.mesh ? how.mesh->heads : NULL,
                            .stream_weights = how.stream_weights};
    struct render_order order = {.spec = &spec, .color_picture = picture, .voice = &voice, .cache_dir = top};
    struct render_sink sink = {.ctx = f, .step = on_step, .tail = on_tail, .frames = on_frames};
    struct render_run run = {.first = true, .keep_to = frames, .picture = picture};
    struct render_times times;
    struct set *s = NULL;
    struct render *r = NULL;
    struct err e = {0};
    for (int i = 0; i < FILM_H * FILM_W * 3; i++) picture[i] = (uint8_t)(i * 7 % 251);
    if (f) *f = (struct film){.ends = how.ends};
    if (set_open(&s, d, &o, &e) < 0) fail_msg("%s: %s", dev_name(d), e.text);
    int64_t held = dev_memory_held(d), left = dev_memory_free(d);
    int rc = render_open(&r, s, &order, &e);
    if (rc == 0) rc = render_segment(r, &run, f ? &sink : NULL, &times, &e);
    if (rc != (how.ends ? E_BUSY : 0)) fail_msg("%s: %d %s", dev_name(d), rc, e.text);
    assert_true(dev_memory_held(d) > held);
    render_close(&r);
    assert_int_equal(dev_memory_held(d), held); // what a job took it gives back, by the arenas' count
    if (!dev_shares_host(d)) assert_int_equal(dev_memory_free(d), left); // and by the driver's
    set_free(&s);
    if (!f || how.ends) return;
    assert_int_equal(f->n_frames, frames);
    assert_true(f->has_tail);
}

int film_apart(const struct film *a, const struct film *b, double *average)
{
    int worst = 0;
    double sum = 0;
    size_t n = (size_t)a->n_frames * FILM_FRAME_BYTES;
    for (size_t i = 0; i < n; i++) {
        int off = abs((int)a->yuv[i] - (int)b->yuv[i]);
        worst = off > worst ? off : worst;
        sum += off;
    }
    *average = sum / (double)n;
    return worst;
}
