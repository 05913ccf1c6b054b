// bench_segment --model FOLDER [--size WxH] [--frames F] [--steps N] [--speakers 1|2] [--dtype f32|bf16]
//               [--table cpu[:set]] [--threads N]: time per stage of one segment.
//
// Prints "stage,i,ms" rows in the order of a segment: load, words, voice, picture (of which its latent and its tokens
// are timed alone once more), then what segment_run does: keys, each denoise step, and per slice decode, colour and
// frames, at last the tail. Sizes and steps are the model's unless given; picture and voice are made up. Guidance is as
// a job has it by default, so a step holds as many evaluations as it would there.
//
// Stages inside of segment_run are told apart by what it tells its listeners: the sink after each step and slice, the
// tap when a slice is decoded and when its colours are matched.
#include "bench/roof.h"
#include "worker/features.h"
#include "worker/segment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
    struct dev *d;
    struct set *set;
    struct spec_render spec;
    struct dev_arena *keep, *picture, *work;
    uint8_t *rgb;
    double last; // when the stage before ended
    int slice;
};

static void row(const char *stage, int i, double seconds)
{
    printf("%s,%d,%.3f\n", stage, i, seconds * 1e3);
    fflush(stdout);
}

// The time since the last row, as stage i.
static void lap(struct bench *b, const char *stage, int i)
{
    double now = roof_now();
    row(stage, i, now - b->last);
    b->last = roof_now();
}

// ---- listening to a segment

static void on_tap(void *ctx, const char *name, tensor t)
{
    struct bench *b = ctx;
    (void)t;
    if (strcmp(name, "step0.latent_in") == 0) lap(b, "keys", 0);
    if (strncmp(name, "decoded", 7) == 0) lap(b, "decode", b->slice);
    if (strncmp(name, "corrected", 9) == 0) lap(b, "colour", b->slice);
}

static int on_step(void *ctx, const char *stage, int i, int n)
{
    struct bench *b = ctx;
    (void)n;
    if (strcmp(stage, "denoise") == 0) lap(b, "denoise step", i);
    if (strcmp(stage, "decode") == 0) lap(b, "frames", b->slice++);
    return 0;
}

static int on_tail(void *ctx, const void *bytes, size_t n)
{
    (void)bytes, (void)n;
    lap(ctx, "tail", 0);
    return 0;
}

static int on_frames(void *ctx, int64_t first, int n, const uint8_t *yuv)
{
    (void)ctx, (void)first, (void)n, (void)yuv;
    return 0;
}

// ---- conditions

static void read_tone(void *ctx, float *to, int64_t from, int64_t n)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++)
        to[i] = 0.3f * (float)(sin(0.05 * (double)(from + i)) * sin(0.0007 * (double)(from + i)));
}

static int read_words(struct bench *b, struct dit_words *words, struct dit_words *negative, struct err *e)
{
    struct condition_reader r = {.unigram = b->set->unigram, .umt5 = b->set->umt5, .dit = b->set->dit};
    int n, n_lost, rc = condition_words(words, &r, b->keep, b->work, b->spec.prompt, &n, &n_lost, e);
    if (rc == 0 && segment_wants_negative(&b->spec))
        rc = condition_words(negative, &r, b->keep, b->work, condition_negative, &n, &n_lost, e);
    if (rc == 0) lap(b, "words", 0);
    return rc;
}

static int hear(struct bench *b, struct features **f, tensor *windows, struct err *e)
{
    struct track t[SPEC_SPEAKERS];
    for (int i = 0; i < SPEC_SPEAKERS; i++)
        t[i] = (struct track){.read = read_tone, .n_samples = b->spec.n_frames * 640};
    const char *dir = getenv("TMPDIR");
    int rc = features_open(f, b->set->wav2vec2, b->work, &b->spec, t, dir ? dir : "/tmp", e);
    if (rc == 0) rc = features_windows(*f, b->work, windows, 0, dit_config_of(b->set->dit)->audio_window, false, e);
    if (rc == 0) lap(b, "voice", 0);
    return rc;
}

// The picture's parts, each once more by itself.
static void see(struct bench *b)
{
    struct condition_picture p = {0};
    int64_t mark = dev_arena_mark(b->work);
    condition_picture_open(&p, b->picture, b->spec.h, b->spec.w, b->spec.frame_num);
    struct condition_eye eye = {.dit = b->set->dit, .vae = b->set->vae, .clip = b->set->clip};
    condition_picture_set(&p, &eye, b->work, b->rgb);
    lap(b, "picture", 0);
    tensor tokens = dev_tensor(b->work, DT_F32, SHAPE(clip_tokens(b->set->clip), clip_dim(b->set->clip)));
    clip_encode(b->set->clip, b->work, tokens, p.pixels, NULL);
    lap(b, "of which tokens", 0);
    tensor one = dev_tensor(b->work, DT_F32, SHAPE(vae_latent_channels(b->set->vae), 1, b->spec.h / 8, b->spec.w / 8));
    vae_encode(b->set->vae, b->work, one, tensor_reshape(p.pixels, SHAPE(1, b->spec.h, b->spec.w, 3)), NULL);
    lap(b, "of which the latent of one frame", 0);
    condition_picture_close(&p);
    dev_arena_reset(b->work, mark);
}

// ---- the whole

static int run_segment(struct bench *b, struct err *e)
{
    struct dit_words words, negative = {0};
    struct features *f = NULL;
    struct segment *s = NULL;
    struct tap tap = {on_tap, b};
    struct render_sink sink = {.ctx = b, .step = on_step, .tail = on_tail, .frames = on_frames};
    struct render_times times = {0};
    tensor windows = NO_TENSOR;
    uint8_t *masks = calloc(SPEC_SPEAKERS, (size_t)b->spec.h * (size_t)b->spec.w);
    BUG_IF(!masks, "no memory for masks");
    for (int k = 0; k < SPEC_SPEAKERS; k++) // the left and the right half
        for (int i = 0; i < b->spec.h; i++)
            memset(masks + ((size_t)(k * b->spec.h + i) * (size_t)b->spec.w) + k * b->spec.w / 2, 255,
                   (size_t)b->spec.w / 2);
    int rc = read_words(b, &words, &negative, e);
    if (rc == 0) rc = hear(b, &f, &windows, e);
    if (rc == 0) see(b);
    struct segment_job job = {.dit = b->set->dit,
                              .vae = b->set->vae,
                              .clip = b->set->clip,
                              .spec = &b->spec,
                              .words = &words,
                              .negative = &negative,
                              .color_picture = b->rgb,
                              .masks = masks,
                              .keep = b->keep,
                              .picture = b->picture,
                              .work = b->work,
                              .tap = &tap};
    if (rc == 0) rc = segment_open(&s, &job, e);
    if (rc == 0) lap(b, "open", 0);
    struct segment_in in = {.keep_to = b->spec.frame_num, .want_tail = true, .picture = b->rgb, .windows = windows};
    if (rc == 0) rc = segment_run(s, &in, &sink, &times, e);
    if (rc == 0) lap(b, "sent", 0);
    segment_close(&s);
    features_close(&f);
    free(masks);
    return rc;
}

// What a job would have: the model's defaults where nothing was asked.
static int settle(struct spec_render *s, const struct model *m, int w, int h, int frames, int steps)
{
    const struct bucket_table *t = &m->size[0];
    const struct bucket *k = model_bucket(t, 1, 1);
    s->w = w ? w : k->w;
    s->h = h ? h : k->h;
    s->frame_num = frames ? frames : m->frame_num;
    s->motion_frame = m->motion_frame < s->frame_num ? m->motion_frame : 1;
    s->n_frames = s->frame_num;
    s->steps = steps ? steps : m->steps;
    s->shift = t->shift;
    s->text_scale = m->text_scale;
    s->audio_scale = m->audio_scale;
    s->color_strength = m->color_strength;
    snprintf(s->size, sizeof s->size, "%s", t->name);
    snprintf(s->prompt, sizeof s->prompt, "A woman talks to the camera with a calm voice.");
    return s->w % 16 || s->h % 16 || s->w < 16 || s->h < 16 || s->frame_num % 4 != 1 ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct bench b = {.spec = {.n_speakers = 1}};
    struct set_options o = {.n_speakers = 1, .dtype = DT_F32};
    const char *table = "cpu";
    int w = 0, h = 0, frames = 0, steps = 0, n_threads = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--model") == 0)
            o.model = argv[i + 1];
        else if (strcmp(argv[i], "--table") == 0)
            table = argv[i + 1];
        else if (strcmp(argv[i], "--frames") == 0)
            frames = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--steps") == 0)
            steps = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--speakers") == 0)
            b.spec.n_speakers = o.n_speakers = strcmp(argv[i + 1], "2") == 0 ? 2 : 1;
        else if (strcmp(argv[i], "--threads") == 0)
            n_threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--dtype") == 0)
            o.dtype = strcmp(argv[i + 1], "bf16") == 0 ? DT_BF16 : DT_F32;
        else if (strcmp(argv[i], "--size") != 0 || sscanf(argv[i + 1], "%dx%d", &w, &h) != 2)
            argc = 0;
    }
    if (argc % 2 == 0 || !o.model) {
        fprintf(stderr, "usage: bench_segment --model FOLDER [--size WxH] [--frames F] [--steps N] [--speakers 1|2] "
                        "[--dtype f32|bf16] [--table cpu[:set]] [--threads N]\n");
        return 2;
    }
    struct err e = {0};
    int rc = dev_open(&b.d, table, n_threads, &e);
    b.last = roof_now();
    if (rc == 0) rc = set_open(&b.set, b.d, &o, &e);
    if (rc == 0 && settle(&b.spec, &b.set->model, w, h, frames, steps) < 0)
        rc = err_set(&e, E_INPUT, "a segment of %d frames at %dx%d: sides are multiples of 16, frames 4n + 1",
                     b.spec.frame_num, b.spec.w, b.spec.h);
    if (rc == 0) {
        printf("# segment: %d frames at %dx%d, %d steps, %d speakers, %s, table %s\nstage,i,ms\n", b.spec.frame_num,
               b.spec.w, b.spec.h, b.spec.steps, b.spec.n_speakers, dtype_table[o.dtype].name, dev_name(b.d));
        lap(&b, "load", 0);
        b.keep = dev_arena_new(b.d, "job", 0);
        b.picture = dev_arena_new(b.d, "picture", 0);
        b.work = dev_arena_new(b.d, "segment", 0);
        b.rgb = malloc((size_t)b.spec.h * (size_t)b.spec.w * 3);
        BUG_IF(!b.rgb, "no memory for a picture");
        for (int64_t i = 0; i < (int64_t)b.spec.h * b.spec.w * 3; i++) b.rgb[i] = (uint8_t)(i * 7 / 3);
        rc = run_segment(&b, &e);
    }
    if (rc < 0) fprintf(stderr, "bench_segment: %s\n", e.text);
    free(b.rgb);
    dev_arena_free(&b.keep);
    dev_arena_free(&b.picture);
    dev_arena_free(&b.work);
    set_free(&b.set);
    dev_close(&b.d);
    return rc < 0;
}
