// The pipeline of one job on a worker.
//
//   open:  words -> keys of all blocks          tracks -> features on demand        picture, masks -> struct segment
//   run k: features -> windows of segment k     picture k, tail k-1 -> segment_run -> tail k, frames
//
// Before the first real segment one is run dry: the same code, nothing computed. It tells how much memory a segment
// takes, and a job that does not fit is refused before an hour was spent on it. The dry segment has its own handle,
// because a handle remembers which picture it has encoded.
//
// Three arenas by lifetime: `keep` of the job, `picture` of one reference picture, `work` of a segment.
#include "worker/render.h"

#include "proto/base/log.h"
#include "worker/features.h"
#include "worker/segment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_HELD = 3 };

struct render {
    struct set *set;
    struct spec_render spec;
    struct track voice[SPEC_SPEAKERS];
    struct dev_arena *keep, *picture, *work;
    void *held[N_HELD]; // what of them messages know
    struct dit_words words, negative;
    struct features *features;
    struct shelf *shelf; // where they go; NULL: nowhere. Borrowed
    struct shelf_key shelf_key;
    bool voice_failed; // they are not to be used again
    struct segment *segment;
};

// ---- open

static void tell_cut(const struct render_order *o, const char *what, int n_kept, int n_lost)
{
    char text[256];
    if (n_lost == 0 || !o->notice) return;
    snprintf(text, sizeof text,
             "the %s is longer than the model takes: the last %d of its %d tokens are left out; shorten it", what,
             n_lost, n_kept + n_lost);
    o->notice(o->ctx, text);
}

static int read_text(struct render *r, const struct render_order *o, struct dit_words *to, const char *what,
                     const char *text, struct err *e)
{
    const struct set *s = r->set;
    struct condition_reader reader = {
        .unigram = s->unigram, .umt5 = s->umt5, .dit = s->dit, .texts = o->texts, .what = what};
    if (s->mesh) {
        reader.world = s->mesh->world;
        reader.rank = s->words_rank;
    }
    int n = 0, n_lost = 0, rc = condition_words(to, &reader, r->keep, r->work, text, &n, &n_lost, e);
    if (rc == 0) tell_cut(o, what, n, n_lost);
    return rc;
}

static int read_words(struct render *r, const struct render_order *o, struct err *e)
{
    int rc = read_text(r, o, &r->words, "prompt", r->spec.prompt, e);
    if (rc < 0 || !segment_wants_negative(&r->spec)) return rc;
    const char *text = r->spec.negative[0] ? r->spec.negative : condition_negative;
    return read_text(r, o, &r->negative, "negative prompt", text, e);
}

static struct segment_job job_of(struct render *r, const struct render_order *o)
{
    return (struct segment_job){.dit = r->set->dit,
                                .vae = r->set->vae,
                                .clip = r->set->clip,
                                .clip_rank = r->set->picture_rank,
                                .spec = &r->spec,
                                .words = &r->words,
                                .negative = &r->negative,
                                .color_picture = o->color_picture,
                                .masks = o->masks,
                                .mesh = r->set->mesh,
                                .together = r->set->together,
                                .keep = r->keep,
                                .picture = r->picture,
                                .work = r->work};
}

static tensor windows_new(const struct render *r)
{
    const struct dit_config *c = dit_config_of(r->set->dit);
    return dev_tensor(r->work, DT_F32,
                      SHAPE(r->spec.n_speakers, r->spec.frame_num, c->audio_window, 1, c->audio_width));
}

// What a segment will take of the device, learned by running one without computing.
static int foretell(struct render *r, const struct render_order *o, int64_t *bytes, struct err *e)
{
    struct dev *d = r->set->dev;
    int64_t kept = dev_arena_mark(r->keep);
    struct segment_job job = job_of(r, o);
    struct segment *s = NULL;
    dev_set_dry(d, true);
    int rc = segment_open(&s, &job, e);
    if (rc == 0) {
        struct render_times times;
        struct segment_in in = {
            .keep_to = r->spec.frame_num, .want_tail = true, .picture = o->color_picture, .windows = windows_new(r)};
        rc = segment_run(s, &in, NULL, &times, e);
    }
    segment_close(&s);
    dev_set_dry(d, false);
    dev_arena_reset(r->keep, kept);
    dev_arena_reset(r->picture, 0);
    dev_arena_reset(r->work, 0);
    *bytes = dev_arena_peak(r->work) + dev_arena_peak(r->picture) + dev_arena_peak(r->keep) - kept;
    return rc;
}

// A device's memory is taken before the first segment, and its messages know it.
static void hold_memory(struct render *r)
{
    struct dev_arena *all[] = {r->keep, r->picture, r->work};
    for (int i = 0; i < N_HELD; i++) {
        r->held[i] = dev_arena_hold(all[i], dev_arena_peak(all[i]));
        mesh_keep(r->set->mesh, r->held[i], dev_arena_peak(all[i]));
    }
}

static int check_memory(struct render *r, const struct render_order *o, struct err *e)
{
    struct dev *d = r->set->dev;
    int ranks = dev_shares_host(d) ? r->set->here : 1;
    int64_t needed = 0, has = dev_memory_free(d) / ranks;
    char of[48] = "";
    int rc = foretell(r, o, &needed, e);
    if (rc < 0) return rc;
    log_info("render.memory", "needs_mb=%lld free_mb=%lld", (long long)(needed >> 20), (long long)(has >> 20));
    if (needed <= has) {
        hold_memory(r);
        return 0;
    }
    if (ranks > 1) snprintf(of, sizeof of, " for each of %d ranks", ranks);
    return err_set(e, E_INPUT,
                   "a segment of %d frames at %dx%d needs %.1f GB of memory and %.1f GB are free%s; take a smaller "
                   "size, fewer frames (--frame-num) or --dtype bf16",
                   r->spec.frame_num, r->spec.w, r->spec.h, (double)needed / 1e9, (double)has / 1e9, of);
}

// Those of an earlier job with the same voices, or new ones. Voices are read where their encoder lives.
static int open_features(struct render *r, const struct render_order *o, struct err *e)
{
    if (set_lives_elsewhere(r->set, r->set->voice_rank)) return 0;
    if (o->shelf) {
        shelf_key_make(&r->shelf_key, &r->spec, o->voice_hash);
        r->features = shelf_take(o->shelf, &r->shelf_key);
    }
    r->shelf = o->shelf;
    log_info("render.voice", "known=%d", r->features != NULL);
    if (!r->features)
        return features_open(&r->features, r->set->wav2vec2, r->work, &r->spec, r->voice, o->cache_dir, e);
    features_lend(r->features, r->work, r->voice);
    return 0;
}

static int open_all(struct render *r, const struct render_order *o, struct err *e)
{
    int rc = set_agree(r->set, read_words(r, o, e), e);
    if (rc == 0) rc = set_agree(r->set, check_memory(r, o, e), e);
    if (rc == 0) rc = open_features(r, o, e);
    struct segment_job job = job_of(r, o);
    rc = set_agree(r->set, rc, e);
    if (rc == 0) rc = segment_open(&r->segment, &job, e);
    if (rc == 0) rc = dev_sync(r->set->dev, e);
    return set_agree(r->set, rc, e);
}

int render_open(struct render **out, struct set *s, const struct render_order *o, struct err *e)
{
    struct render *r = calloc(1, sizeof *r);
    if (!r) return err_set(e, E_FATAL, "no memory for a job");
    r->set = s;
    r->spec = *o->spec;
    memcpy(r->voice, o->voice, (size_t)r->spec.n_speakers * sizeof *r->voice);
    r->keep = dev_arena_new(s->dev, "job", 0);
    r->picture = dev_arena_new(s->dev, "picture", 0);
    r->work = dev_arena_new(s->dev, "segment", 0);
    int rc = open_all(r, o, e);
    if (rc < 0)
        render_close(&r);
    else
        *out = r;
    return rc;
}

void render_forget_voice(struct render *r) { r->voice_failed = true; }

void render_close(struct render **pr)
{
    struct render *r = *pr;
    if (!r) return;
    segment_close(&r->segment);
    if (r->shelf && r->features && !r->voice_failed) shelf_put(r->shelf, &r->shelf_key, &r->features);
    features_close(&r->features);
    for (int i = 0; i < N_HELD; i++) mesh_forget(r->set->mesh, r->held[i]);
    dev_arena_free(&r->keep);
    dev_arena_free(&r->picture);
    dev_arena_free(&r->work);
    free(r);
    *pr = NULL;
}

// ---- run

// An empty range is fine: of a last segment that published parity plans, nothing may be delivered.
static int check_run(const struct render *r, const struct render_run *run, struct err *e)
{
    if (run->keep_from < 0 || run->keep_from > run->keep_to || run->keep_to > r->spec.frame_num)
        return err_set(e, E_INPUT, "segment %lld keeps frames %lld to %lld of %d", (long long)run->segment + 1,
                       (long long)run->keep_from, (long long)run->keep_to, r->spec.frame_num);
    if (run->start < 0 || run->first != !run->tail)
        return err_set(e, E_INPUT, "segment %lld starts at frame %lld %s a tail", (long long)run->segment + 1,
                       (long long)run->start, run->tail ? "with" : "without");
    return 0;
}

// The voice of a segment, from the rank that reads it to all.
static int hear(struct render *r, const struct render_run *run, tensor *windows, struct err *e)
{
    const struct set *s = r->set;
    int window = dit_config_of(s->dit)->audio_window, rc = 0;
    if (set_lives_elsewhere(s, s->voice_rank))
        *windows = windows_new(r);
    else
        rc = features_windows(r->features, r->work, windows, run->start, window, run->last && run->segment > 0, e);
    if (rc < 0) r->voice_failed = true;
    rc = set_agree(s, rc, e);
    if (rc == 0 && s->mesh) comm_bcast(s->mesh->world, s->voice_rank, windows->data, tensor_bytes(*windows));
    return rc;
}

int render_segment(struct render *r, const struct render_run *run, const struct render_sink *sink,
                   struct render_times *t, struct err *e)
{
    *t = (struct render_times){0};
    int rc = check_run(r, run, e);
    if (rc == 0 && sink && sink->step && (rc = sink->step(sink->ctx, "condition", 0, 1)) < 0)
        err_set(e, rc, "segment %lld ended before its first step", (long long)run->segment + 1);
    rc = set_agree(r->set, rc, e);
    if (rc < 0) return rc;
    if (run->color_picture) segment_match(r->segment, run->color_picture);
    int64_t mark = dev_arena_mark(r->work);
    struct segment_in in = {.number = run->segment,
                            .start = run->start,
                            .keep_from = run->keep_from,
                            .keep_to = run->keep_to,
                            .want_tail = !run->last && !run->ends,
                            .picture = run->picture,
                            .tail = run->tail,
                            .tail_bytes = run->tail_bytes};
    rc = hear(r, run, &in.windows, e);
    if (rc == 0) rc = segment_run(r->segment, &in, sink, t, e);
    dev_arena_reset(r->work, mark);
    return rc;
}
