// bench_forward --model FOLDER [--size WxH] [--frames F] [--dtype f32|bf16] [--table cpu[:set]] [--threads N]: memory
// of one forward of the diffusion transformer, foretold and taken.
//
// First everything runs dry: the network is loaded into an arena that only counts, conditions and one forward into
// another. Then the same for real, in this process. Prints "what,bytes" rows: what the dry run foretold, what the
// arenas counted, and what the process grew by (anonymous pages, at their peak), then the ratio of the last to the
// first. Pages of the weight files are none of it: they are let go once they are packed.
#include "proto/model.h"
#include "worker/models/dit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *model, *table;
    int w, h, frames, n_threads;
    enum dtype dtype;
};

// Anonymous pages that this process holds.
static int64_t pages_held(void)
{
    char line[256];
    long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %lld", &kib) == 1) break;
    if (f) fclose(f);
    return (int64_t)kib << 10;
}

// Loads, conditions, runs once. Arenas keep the pages that they touched, so what is held at the end was the most.
static int forward(struct dev *d, const struct weights *w, const struct model *m, const struct options *o,
                   int64_t *counted, int64_t *held, struct err *e)
{
    struct dit *dit = NULL;
    struct dit_config want = {.n_heads = m->dit_heads, .eps = (float)m->dit_eps, .text_len = m->text_len};
    int rc = dit_new(&dit, d, w, &want, o->dtype, e);
    if (rc < 0) return rc;
    const struct dit_config *c = dit_config_of(dit);
    struct dev_arena *a = dev_arena_new(d, "forward", 0);
    int64_t t = 1 + (o->frames - 1) / 4, lh = o->h / 8, lw = o->w / 8;
    tensor text = dev_tensor(a, DT_F32, SHAPE(c->text_len, c->text_dim));
    tensor clip = dev_tensor(a, DT_F32, SHAPE(c->clip_tokens, c->clip_dim));
    tensor x = dev_tensor(a, DT_F32, SHAPE(c->out_dim, t, lh, lw)), out = dev_tensor(a, DT_F32, x.n, x.shape);
    tensor y = dev_tensor(a, DT_F32, SHAPE(c->in_dim - c->out_dim, t, lh, lw));
    tensor inputs[] = {text, clip, x, y};
    for (int i = 0; i < 4; i++) op_fill(d, inputs[i], 0.5f);
    struct dit_words words = dit_words_new(dit, a, text, NULL);
    struct dit_picture picture = dit_picture_new(dit, a, clip, NULL);
    struct dit_voice voice = dit_voice_null(dit, a, t);
    struct dit_in in = {
        .x = x, .y = y, .time = dit_time_new(dit, a, 500, NULL), .words = &words, .picture = &picture, .voice = &voice};
    dit_forward(dit, a, out, &in, NULL);
    rc = dev_sync(d, e);
    *counted = dev_arena_peak(a) + dit_bytes(dit);
    *held = pages_held();
    dev_arena_free(&a);
    dit_free(&dit);
    return rc;
}

static int measure(const struct options *o, struct err *e)
{
    struct dev *d = NULL;
    struct weights *w = NULL;
    struct model m;
    int64_t foretold = 0, counted = 0, held = 0, none, before;
    int rc = model_open(&m, o->model, e);
    if (rc == 0) rc = dev_open(&d, o->table, o->n_threads, e);
    if (rc == 0) rc = weights_open(&w, m.dit, e);
    if (rc == 0) rc = weights_add(w, m.adapter, e);
    if (rc == 0) {
        dev_set_dry(d, true);
        rc = forward(d, w, &m, o, &foretold, &none, e);
        dev_set_dry(d, false);
    }
    before = pages_held();
    if (rc == 0) rc = forward(d, w, &m, o, &counted, &held, e);
    if (rc == 0)
        printf("what,bytes\nforetold by the dry run,%lld\ncounted by the arenas,%lld\ntaken by the process,%lld\n"
               "# taken over foretold: %.4f\n",
               (long long)foretold, (long long)counted, (long long)(held - before),
               (double)(held - before) / (double)foretold);
    weights_free(&w);
    dev_close(&d);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o = {.table = "cpu", .w = 256, .h = 256, .frames = 81, .dtype = DT_BF16};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--model") == 0)
            o.model = argv[i + 1];
        else if (strcmp(argv[i], "--table") == 0)
            o.table = argv[i + 1];
        else if (strcmp(argv[i], "--frames") == 0)
            o.frames = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--threads") == 0)
            o.n_threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--dtype") == 0)
            o.dtype = strcmp(argv[i + 1], "f32") == 0 ? DT_F32 : DT_BF16;
        else if (strcmp(argv[i], "--size") != 0 || sscanf(argv[i + 1], "%dx%d", &o.w, &o.h) != 2)
            argc = 0;
    }
    if (argc % 2 == 0 || !o.model || o.w < 16 || o.h < 16 || o.w % 16 || o.h % 16 || o.frames < 1) {
        fprintf(stderr, "usage: bench_forward --model FOLDER [--size WxH] [--frames F] [--dtype f32|bf16] "
                        "[--table cpu[:set]] [--threads N]\n");
        return 2;
    }
    struct err e = {0};
    int rc = measure(&o, &e);
    if (rc < 0) fprintf(stderr, "bench_forward: %s\n", e.text);
    return rc < 0;
}
