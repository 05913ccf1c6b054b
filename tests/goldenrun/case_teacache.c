// dit_teacache: whole sampling loops with the step cache, without motion latents: which forwards are skipped, why, and
// what comes of it. `full` is the same loop without a cache.
//
// A table has one row a forward: its number since the counter was last 0, 1 if always computed, relative change,
// accumulated value before it starts again, 1 if skipped.
#include "tests/goldenrun/dit.h"
#include "worker/denoise.h"
#include "worker/sampler.h"

#include <stdlib.h>
#include <string.h>

enum { TABLE_COLUMNS = 5 };

// What all runs of a file share.
struct loop {
    struct golden *g;
    struct dit *m;
    tensor x, y, masks, times;
    struct dit_words words, negative;
    struct dit_picture picture;
    struct dit_voice voice, silence;
};

// What one run leaves, filled by its tap.
struct record {
    struct golden *g;
    tensor preds, latents; // [steps, branches, x], [steps, x]
    float *table;          // [forwards, 5]
    int n_branches, n_steps, n_warm;
};

static void record_see(void *ctx, const char *name, tensor t)
{
    struct record *r = ctx;
    int i, k;
    char rest;
    if (sscanf(name, "step%d.pred%d%c", &i, &k, &rest) == 2)
        op_copy(r->g->dev, tensor_at(tensor_at(r->preds, i), k), t);
    else if (sscanf(name, "step%d.cache%d%c", &i, &k, &rest) == 2) {
        int at = (i * r->n_branches + k), count = at % (CACHE_SLOTS * r->n_steps);
        float *row = r->table + (int64_t)at * TABLE_COLUMNS;
        row[0] = (float)count;
        row[1] = count < r->n_warm;
        dev_download(r->g->dev, row + 2, DT_F32, t);
    } else if (sscanf(name, "step%d.latent_ou%c", &i, &rest) == 2)
        op_copy(r->g->dev, tensor_at(r->latents, i), t);
}

static tensor squeezed(tensor t, int n) // drops leading axes down to n
{
    while (t.n > n) t = tensor_at(t, 0);
    return t;
}

static void loop_open(struct loop *l, struct golden *g, struct dit *m)
{
    *l = (struct loop){.g = g, .m = m, .x = golden_get(g, "in.x"), .times = golden_get(g, "timesteps")};
    l->y = squeezed(golden_get(g, "in.y"), 4);
    l->masks = dit_masks_new(m, g->arena, golden_get(g, "in.ref_target_masks"), l->x.shape[2] / 2, l->x.shape[3] / 2);
    l->words = dit_words_new(m, g->arena, golden_get(g, "in.context"), NULL);
    l->negative = dit_words_new(m, g->arena, golden_get(g, "in.context_null"), NULL);
    l->picture = dit_picture_new(m, g->arena, squeezed(golden_get(g, "in.clip_fea"), 2), NULL);
    l->voice = dit_voice_new(m, g->arena, golden_get(g, "in.audio"), NULL);
    l->silence = dit_voice_null(m, g->arena, l->x.shape[1]);
}

static double real(const json_t *run, const char *key) { return json_number_value(json_object_get(run, key)); }

static struct spec_render render_of(const struct loop *l, const json_t *run)
{
    struct spec_render r = {.parity = SPEC_PARITY_PUBLISHED,
                            .steps = (int)l->times.shape[0] - 1,
                            .text_scale = real(run, "text_guide_scale"),
                            .audio_scale = real(run, "audio_guide_scale"),
                            .teacache_thresh = real(run, "thresh")};
    memcpy(r.teacache_poly, model_teacache(json_string_value(json_object_get(run, "size")), 0), sizeof r.teacache_poly);
    return r;
}

// Columns of the table have scales of their own.
static void check_table(struct golden *g, const struct record *r, const char *key)
{
    static const char *const name[TABLE_COLUMNS] = {"count", "forced", "change", "sum", "skipped"};
    static const double bound[TABLE_COLUMNS] = {GOLDEN_EXACT, GOLDEN_EXACT, GOLDEN_LOOP, GOLDEN_LOOP, GOLDEN_EXACT};
    tensor ref = golden_get(g, key),
           ours = tensor_of(r->table, DT_F32, SHAPE((int64_t)r->n_steps * r->n_branches, TABLE_COLUMNS));
    for (int c = 0; c < TABLE_COLUMNS; c++) {
        char what[64];
        snprintf(what, sizeof what, "%s.%s", key, name[c]);
        golden_check_part(g, what, tensor_slice(ref, 1, c, c + 1), tensor_slice(ours, 1, c, c + 1), bound[c]);
    }
}

static void check_run(struct golden *g, const struct record *r, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "%s.table", name);
    if (golden_has(g, key)) check_table(g, r, key);
    snprintf(key, sizeof key, "%s.pred", name);
    if (golden_has(g, key)) golden_check(g, key, r->preds, GOLDEN_LOOP);
    snprintf(key, sizeof key, "%s.latents", name);
    bool all = golden_get(g, key).n == r->latents.n; // after every step, or after the last
    golden_check(g, key, all ? r->latents : tensor_at(r->latents, r->n_steps - 1), GOLDEN_LOOP);
}

static void run_loop(const struct loop *l, const json_t *run, const char *name, bool cached)
{
    struct golden *g = l->g;
    int64_t mark = dev_arena_mark(g->arena);
    struct spec_render s = render_of(l, run);
    tensor x = dev_tensor(g->arena, DT_F32, l->x.n, l->x.shape);
    const int64_t *d = x.shape;
    struct guide guide;
    struct cache cache;
    guide_init(&guide, g->arena, &s, x);
    cache_init(&cache, g->arena, &s, CACHE_SLOTS, d[1] * (d[2] / 2) * (d[3] / 2), dit_config_of(l->m)->dim, DT_F32);
    struct record r = {.g = g, .n_branches = guide.n, .n_steps = s.steps, .n_warm = (int)real(run, "ret_steps")};
    r.preds = dev_tensor(g->arena, DT_F32, SHAPE(s.steps, guide.n, d[0], d[1], d[2], d[3]));
    r.latents = dev_tensor(g->arena, DT_F32, SHAPE(s.steps, d[0], d[1], d[2], d[3]));
    r.table = calloc((size_t)(s.steps * guide.n) * TABLE_COLUMNS, sizeof *r.table);
    BUG_IF(!r.table, "no memory");
    struct tap tap = {.see = record_see, .ctx = &r};
    struct denoise n = {.dit = l->m,
                        .n_steps = s.steps,
                        .t = l->times.data,
                        .y = l->y,
                        .masks = l->masks,
                        .picture = &l->picture,
                        .words = &l->words,
                        .negative = &l->negative,
                        .voice = &l->voice,
                        .silence = &l->silence,
                        .guide = &guide,
                        .cache = cached ? &cache : NULL,
                        .tap = &tap};
    struct err e = {0};
    op_copy(g->dev, x, l->x);
    if (denoise_run(&n, g->arena, x, &e) < 0)
        golden_expect(g, name, false, "%s", e.text);
    else
        check_run(g, &r, name);
    free(r.table);
    dev_arena_reset(g->arena, mark);
}

// The file does not tell its shift; the second time does.
static void check_times(struct golden *g, tensor times)
{
    int steps = (int)times.shape[0] - 1;
    if (steps < 3) return;
    double u = 1 - 0.999 / (steps - 1), v = (double)((float *)times.data)[1] / 1000;
    tensor ours = dev_tensor(g->arena, DT_F32, SHAPE(steps + 1));
    sampler_times(ours.data, steps, v * (1 - u) / (u * (1 - v)));
    golden_check(g, "timesteps", ours, GOLDEN_INPUT);
}

void golden_dit_teacache(struct golden *g)
{
    struct weights *w = NULL;
    struct dit *m = golden_dit_open(g, "dit", &w);
    json_t *runs = golden_meta(g, "runs"), *run;
    if (m) {
        struct loop l;
        size_t i;
        loop_open(&l, g, m);
        check_times(g, l.times);
        json_array_foreach(runs, i, run)
        {
            const char *name = json_string_value(json_object_get(run, "name"));
            golden_expect(g, name, json_integer_value(json_object_get(run, "sample_steps")) == l.times.shape[0] - 1,
                          "%lld steps", (long long)l.times.shape[0] - 1);
            run_loop(&l, run, name, true);
        }
        if (golden_has(g, "full.latents")) run_loop(&l, json_array_get(runs, 0), "full", false);
        golden_check_all_used(g);
    }
    json_decref(runs);
    dit_free(&m);
    weights_free(&w);
}
