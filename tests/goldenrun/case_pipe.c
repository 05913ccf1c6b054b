// pipe_*: whole jobs. The file's metadata become a spec, the coordinator's parts (plan, bucket, crop, masks, choice of
// source pictures) are ours, its pictures, words, voice features and noise go in, and every value that it holds on the
// way to the film is compared.
//
//   metadata -> spec, plan, masks, pictures (case_pipe_job.c)
//   per segment: noise, windows, picture, tail -> segment_run; its tap and its sink feed the record
//   (case_pipe_record.c)
//
// The job is run by the published program's rules: it has no mode of its own, a limit of up to F frames is one segment.
#include "tests/goldenrun/clip.h"
#include "tests/goldenrun/dit.h"
#include "tests/goldenrun/pipe.h"
#include "tests/goldenrun/vae.h"
#include "worker/guide.h"

#include <stdlib.h>
#include <string.h>

struct models {
    struct dit *dit;
    struct vae *vae;
    struct clip *clip;
    struct weights *files[3];
};

static bool models_open(struct models *m, struct golden *g)
{
    *m = (struct models){0};
    m->dit = golden_dit_open(g, "dit", &m->files[0]);
    m->vae = golden_vae_open(g, &m->files[1]);
    m->clip = golden_clip_open(g, &m->files[2]);
    return m->dit && m->vae && m->clip;
}

static void models_close(struct models *m)
{
    dit_free(&m->dit);
    vae_free(&m->vae);
    clip_free(&m->clip);
    for (int i = 0; i < 3; i++) weights_free(&m->files[i]);
}

// ---- what is decided before the first segment

static void check_branches(struct golden *g, const struct guide *guide)
{
    static const char *const name[2][2] = {{"cond", "drop_audio"}, {"drop_text", "uncond"}}; // [negative][no voice]
    json_t *want = golden_meta(g, "branches");
    bool same = json_array_size(want) == (size_t)guide->n;
    for (int i = 0; same && i < guide->n; i++) {
        const struct guide_branch *b = &guide->branch[i];
        same = strcmp(json_string_value(json_array_get(want, (size_t)i)), name[b->negative_words][b->no_voice]) == 0;
    }
    golden_expect(g, "branches", same, "%d forwards a step", guide->n);
    json_decref(want);
}

static void check_plan(struct golden *g, const struct pipe_job *j)
{
    int64_t n = plan_segments_count(&j->plan);
    bool same = n == j->n_segments;
    golden_expect(g, "clips", same, "%lld segments", (long long)n);
    for (int64_t k = 0; same && k < n; k++) same = plan_segments_at(&j->plan, k).start == j->starts[k];
    golden_expect(g, "source_frame_index", same, "the last segment begins at %lld",
                  (long long)plan_segments_at(&j->plan, n - 1).start);
}

// Our time grid against the times that the network got, in every segment.
static void check_times(struct golden *g, const struct pipe_job *j)
{
    const struct spec_render *r = &j->r;
    int64_t mark = dev_arena_mark(g->arena);
    tensor t = dev_tensor(g->arena, DT_F32, SHAPE(r->steps + 1));
    sampler_times(t.data, r->steps, r->shift);
    for (int k = 0; k < j->n_segments; k++)
        for (int i = 0; i < r->steps; i++) {
            char key[48];
            snprintf(key, sizeof key, "clip%d.step%d.t", k, i);
            golden_check(g, key, tensor_slice(t, 0, i, i + 1), GOLDEN_INPUT);
        }
    dev_arena_reset(g->arena, mark);
}

// The published program draws noise for motion frames that it never uses. We draw none; the file must hold as many
// draws, of the size of our tails, as would keep its generator in step (with a step cache only the first is kept).
static void check_motion_noise(struct golden *g, const struct pipe_job *j, int64_t channels)
{
    const struct spec_render *r = &j->r;
    int64_t mark = dev_arena_mark(g->arena);
    for (int k = 0; k < j->n_segments; k++)
        for (int i = 0; i <= r->steps + 1; i++) {
            char key[48], text[64];
            snprintf(key, sizeof key, "clip%d.motion_noise%d", k, i);
            bool wanted = k > 0 && i <= (r->teacache ? 0 : r->steps);
            if (!wanted && !golden_has(g, key)) continue;
            tensor t = golden_get(g, key);
            bool same = wanted && t.n == 4 && t.shape[0] == channels && t.shape[1] == 1 + (r->motion_frame - 1) / 4 &&
                        t.shape[2] == r->h / 8 && t.shape[3] == r->w / 8;
            golden_expect(g, key, same, "%s", tensor_text(t, text, sizeof text));
        }
    dev_arena_reset(g->arena, mark);
}

// ---- the run

struct run {
    struct golden *g;
    const struct pipe_job *j;
    struct segment *segment;
    struct pipe_record record;
    int window; // audio frames around each
};

static bool run_segment(struct run *u, int64_t k)
{
    struct golden *g = u->g;
    const struct spec_render *r = &u->j->r;
    struct plan_segment p = plan_segments_at(&u->j->plan, k);
    char key[48];
    struct err e = {0};
    struct render_times times = {0};
    struct render_sink sink = pipe_record_sink(&u->record);
    uint8_t *picture = malloc((size_t)r->h * (size_t)r->w * 3);
    BUG_IF(!picture, "no memory");
    pipe_job_picture(u->j, p.start, picture);
    snprintf(key, sizeof key, "clip%lld.noise", (long long)k);
    struct segment_in in = {.number = k,
                            .start = p.start,
                            .keep_from = p.keep_from,
                            .keep_to = p.keep_to,
                            .want_tail = p.wants_tail,
                            .picture = picture,
                            .tail = p.first ? NULL : u->record.tail,
                            .tail_bytes = p.first ? 0 : u->record.tail_bytes,
                            .noise = golden_get(g, key)};
    u->record.segment = p;
    int rc = features_windows(u->j->voice, g->arena, &in.windows, p.start, u->window, p.last, &e);
    if (rc == 0) {
        snprintf(key, sizeof key, "clip%lld.audio_windows", (long long)k);
        if (golden_has(g, key)) golden_check(g, key, in.windows, GOLDEN_EXACT);
        rc = segment_run(u->segment, &in, &sink, &times, &e);
    }
    snprintf(key, sizeof key, "clip%lld", (long long)k);
    golden_expect(g, key, rc == 0, "%s", rc == 0 ? "rendered" : e.text);
    if (rc == 0) pipe_record_segment(&u->record, picture);
    free(picture);
    return rc == 0;
}

static void run_job(struct golden *g, const struct pipe_job *j, const struct models *m)
{
    struct guide guide;
    struct err e = {0};
    guide_plan(&guide, &j->r);
    check_branches(g, &guide);
    check_times(g, j);
    check_motion_noise(g, j, vae_latent_channels(m->vae));
    struct run u = {.g = g, .j = j, .window = dit_config_of(m->dit)->audio_window};
    pipe_record_open(&u.record, g, j, guide.n);
    struct tap tap = pipe_record_tap(&u.record);
    struct dit_words words = dit_words_new(m->dit, g->arena, golden_get(g, "in.context"), NULL),
                     negative = dit_words_new(m->dit, g->arena, golden_get(g, "in.context_null"), NULL);
    uint8_t *color = malloc((size_t)j->r.h * (size_t)j->r.w * 3);
    BUG_IF(!color, "no memory");
    pipe_job_picture(j, 0, color);
    struct segment_job job = {.dit = m->dit,
                              .vae = m->vae,
                              .clip = m->clip,
                              .spec = &j->r,
                              .words = &words,
                              .negative = &negative,
                              .color_picture = color,
                              .masks = j->masks,
                              .keep = dev_arena_new(g->dev, "job", 0),
                              .picture = dev_arena_new(g->dev, "picture", 0),
                              .work = dev_arena_new(g->dev, "segment", 0),
                              .tap = &tap};
    bool ok = segment_open(&u.segment, &job, &e) == 0;
    if (!ok) golden_expect(g, "open", false, "%s", e.text);
    for (int64_t k = 0; ok && k < j->n_segments; k++) {
        int64_t mark = dev_arena_mark(g->arena);
        ok = run_segment(&u, k);
        dev_arena_reset(g->arena, mark);
    }
    if (ok) pipe_record_end(&u.record);
    segment_close(&u.segment);
    dev_arena_free(&job.keep);
    dev_arena_free(&job.picture);
    dev_arena_free(&job.work);
    free(color);
    pipe_record_close(&u.record);
}

void golden_pipe(struct golden *g)
{
    struct pipe_job j;
    struct models m;
    bool ok = pipe_job_open(&j, g);
    if (models_open(&m, g) && ok) {
        check_plan(g, &j);
        if (plan_segments_count(&j.plan) == j.n_segments) run_job(g, &j, &m);
        golden_check_all_used(g);
    }
    models_close(&m);
    pipe_job_close(&j);
}
