// bench_models [--table cpu[:set]] [--threads N] [--only TEXT] [--seconds S]: whole networks at the sizes of the real
// model.
//
// Prints a row a network: "model,dtype,shape,calls,median_ms". Weights are random and in memory. The rows:
//   dit of one block   latents of two frames of 480x832 (3,120 tokens) to velocity: patches, one block of the 14B width
//                      with words, picture and voice, head; keys and values of the conditions are made before
//   vae decode         3 latent frames to 9 pictures, slice by slice as a segment does
//   wav2vec2-base      10 s of voice to the features of 250 video frames: statistics of the track, convolutions, layers
//   umt5 of one layer  512 ids to rows of 4,096
// bench/peer/peer_models.py calls this and PyTorch by turns.
#include "bench/roof.h"
#include "bench/twin.h"
#include "worker/models/dit.h"
#include "worker/models/umt5.h"
#include "worker/models/vae.h"
#include "worker/models/wav2vec2.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLS_MAX = 64, HEIGHT = 480, WIDTH = 832, DIT_FRAMES = 2, VAE_FRAMES = 3, VOICE_FRAMES = 250, IDS = 512 };

typedef void list_fn(struct synth_list *l, const struct synth_sizes *s);

struct net {
    struct dev *d;
    struct dev_arena *a; // inputs and contexts; scratch behind them
    struct twin twin;
    struct dit *dit;
    struct vae *vae;
    struct wav2vec2 *wav2vec2;
    struct umt5 *umt5;
    struct dit_in in;
    struct dit_words words;
    struct dit_picture picture;
    struct dit_voice voice;
    tensor x, y;
};

struct row {
    const char *name;
    enum dtype t;
    const char *shape;
    list_fn *const *lists;
    int (*open)(struct net *n, struct err *e);
    void (*run)(struct net *n);
    bool long_run; // seconds a call: one is enough to warm up the first slice
};

// Smooth values in -1..1 that no two places share.
static tensor wave(struct net *n, int axes, const int64_t *shape)
{
    tensor t = dev_tensor(n->a, DT_F32, axes, shape);
    for (int64_t i = 0; i < tensor_count(t); i++) ((float *)t.data)[i] = (float)sin(0.37 * (double)i);
    return t;
}

// ---- dit

static int dit_prepare(struct net *n, struct err *e)
{
    struct dit_config want = {.n_heads = 40};
    int rc = dit_new(&n->dit, n->d, n->twin.w, &want, DT_BF16, e);
    if (rc < 0) return rc;
    const struct dit_config *c = dit_config_of(n->dit);
    int64_t h = HEIGHT / 8, w = WIDTH / 8, frames = 1 + c->vae_scale * (DIT_FRAMES - 1);
    n->x = dev_tensor(n->a, DT_F32, SHAPE(c->out_dim, DIT_FRAMES, h, w));
    n->words = dit_words_new(n->dit, n->a, wave(n, SHAPE(64, c->text_dim)), NULL);
    n->picture = dit_picture_new(n->dit, n->a, wave(n, SHAPE(c->clip_tokens, c->clip_dim)), NULL);
    n->voice = dit_voice_new(n->dit, n->a, wave(n, SHAPE(1, frames, c->audio_window, 1, c->audio_width)), NULL);
    n->in = (struct dit_in){.x = wave(n, SHAPE(c->out_dim, DIT_FRAMES, h, w)),
                            .y = wave(n, SHAPE(c->in_dim - c->out_dim, DIT_FRAMES, h, w)),
                            .time = dit_time_new(n->dit, n->a, 500, NULL),
                            .words = &n->words,
                            .picture = &n->picture,
                            .voice = &n->voice};
    return 0;
}

static void dit_run(struct net *n) { dit_forward(n->dit, n->a, n->x, &n->in, NULL); }

// ---- vae

static int vae_prepare(struct net *n, struct err *e)
{
    n->x = wave(n, SHAPE(16, VAE_FRAMES, HEIGHT / 8, WIDTH / 8));
    n->y = dev_tensor(n->a, DT_F32, SHAPE(4, HEIGHT, WIDTH, 3));
    return vae_new(&n->vae, n->d, n->twin.w, NULL, NULL, e);
}

static void vae_frames(struct net *n, int64_t frames)
{
    int64_t mark = dev_arena_mark(n->a);
    struct vae_stream *s = vae_decode_open(n->vae, n->a, HEIGHT, WIDTH, NULL);
    for (int64_t i = 0; i < frames; i++)
        vae_decode_slice(s, i ? n->y : tensor_slice(n->y, 0, 0, 1), tensor_slice(n->x, 1, i, i + 1));
    vae_stream_close(&s);
    dev_arena_reset(n->a, mark);
}

static void vae_run(struct net *n) { vae_frames(n, VAE_FRAMES); }

// ---- wav2vec2

static void read_tone(void *ctx, float *to, int64_t from, int64_t n)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++)
        to[i] = from + i < 0 || from + i >= VOICE_FRAMES * 640 ? 0 : 0.3f * (float)sin(0.05 * (double)(from + i));
}

static int voice_prepare(struct net *n, struct err *e)
{
    int rc = wav2vec2_new(&n->wav2vec2, n->d, n->twin.w, "{}", true, e);
    if (rc == 0)
        n->x = dev_tensor(n->a, DT_F32, SHAPE(VOICE_FRAMES, wav2vec2_layers(n->wav2vec2), wav2vec2_dim(n->wav2vec2)));
    return rc;
}

static void voice_run(struct net *n)
{
    struct track t = {.read = read_tone, .n_samples = VOICE_FRAMES * 640};
    struct wav2vec2_stats *s = wav2vec2_measure(n->wav2vec2, n->a, &t);
    wav2vec2_encode(n->wav2vec2, n->a, n->x, &t, s, VOICE_FRAMES, 0, VOICE_FRAMES, NULL);
    wav2vec2_stats_free(&s);
}

// ---- umt5

static int text_prepare(struct net *n, struct err *e)
{
    int rc = umt5_new(&n->umt5, n->d, n->twin.w, NULL, DT_BF16, e);
    if (rc < 0) return rc;
    n->x = dev_tensor(n->a, DT_F32, SHAPE(IDS, umt5_dim(n->umt5)));
    n->y = dev_tensor(n->a, DT_I32, SHAPE(IDS));
    for (int i = 0; i < IDS; i++) ((int32_t *)n->y.data)[i] = i * 7 % 1000;
    return 0;
}

static void text_run(struct net *n) { umt5_encode(n->umt5, n->a, n->x, n->y, IDS, NULL); }

// ---- rows

static list_fn *const dit_lists[] = {list_dit, list_adapter, NULL}, *const vae_lists[] = {list_vae, NULL},
                      *const voice_lists[] = {list_voice, NULL}, *const text_lists[] = {list_text, NULL};
static const struct row rows[] = {
    {"dit of one block", DT_BF16, "3120x5120", dit_lists, dit_prepare, dit_run, false},
    {"vae decode", DT_F32, "9x480x832", vae_lists, vae_prepare, vae_run, true},
    {"wav2vec2-base", DT_F32, "250x768", voice_lists, voice_prepare, voice_run, false},
    {"umt5 of one layer", DT_BF16, "512x4096", text_lists, text_prepare, text_run, false},
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int measure(const struct row *r, struct dev *d, double seconds, struct err *e)
{
    struct synth_sizes sizes = twin_sizes(1);
    struct net n = {.d = d, .a = dev_arena_new(d, "bench", 0)};
    double times[CALLS_MAX];
    twin_new(&n.twin, r->t, &sizes, r->lists);
    int rc = r->open(&n, e), k = 0;
    if (rc == 0) {
        if (r->long_run)
            vae_frames(&n, 1);
        else
            r->run(&n);
        for (double start = roof_now(); k < CALLS_MAX && (k == 0 || roof_now() - start < seconds); k++) {
            double t = roof_now();
            r->run(&n);
            times[k] = roof_now() - t;
        }
        rc = dev_sync(d, e);
    }
    dit_free(&n.dit);
    vae_free(&n.vae);
    wav2vec2_free(&n.wav2vec2);
    umt5_free(&n.umt5);
    twin_free(&n.twin);
    dev_arena_free(&n.a);
    if (rc < 0) return rc;
    qsort(times, (size_t)k, sizeof *times, by_size);
    printf("%s,%s,%s,%d,%.3f\n", r->name, dtype_table[r->t].name, r->shape, k, times[k / 2] * 1e3);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    const char *table = "cpu", *only = NULL;
    double seconds = 2;
    int n_threads = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--table") == 0)
            table = argv[i + 1];
        else if (strcmp(argv[i], "--threads") == 0)
            n_threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = atof(argv[i + 1]);
        else
            argc = 0;
    }
    if (argc % 2 == 0) {
        fprintf(stderr, "usage: bench_models [--table cpu[:set]] [--threads N] [--only TEXT] [--seconds S]\n");
        return 2;
    }
    struct err e = {0};
    struct dev *d = NULL;
    int rc = dev_open(&d, table, n_threads, &e);
    printf("model,dtype,shape,calls,median_ms\n");
    for (size_t i = 0; rc == 0 && i < sizeof rows / sizeof *rows; i++)
        if (!only || strstr(rows[i].name, only)) rc = measure(&rows[i], d, seconds, &e);
    if (rc < 0) fprintf(stderr, "bench_models: %s\n", e.text);
    dev_close(&d);
    return rc < 0;
}
