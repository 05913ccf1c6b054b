// One turn: an order in, its answer out.
//
// OPEN makes a `struct render`, RUN sends TAIL, FRAMES and DONE through the sink, CLOSE frees it. Whatever a job does
// wrong is answered by FAILED and the worker waits for the next order; a device fault (E_FATAL) and a rank that is lost
// are answered too, and then end the process, because nothing that comes afterwards can be trusted.
//
// With several ranks, rank 0 alone has the link. It hands every order on to all, each makes the same calls, and what
// one of them finds wrong is agreed on before the next call that they make together. The mesh is laid anew where a
// job's branches of guidance ask for another one. Voices stay with rank 0, which reads them for all.
#include "worker/serve.h"

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "worker/guide.h"
#include "worker/render.h"
#include "worker/share.h"
#include "worker/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct serve {
    struct link *link; // of rank 0; NULL
    struct ranks *ranks;
    struct set *set;
    const char *cache_dir;
    const char *advice;  // that every job is told; "": none
    struct shelf *shelf; // what jobs have made of their voices, and of their words
    struct texts *texts;
    struct order *open; // the job's order: its pictures and voices are in use until the job ends
    struct render *render;
    int64_t segment; // under way
    bool no_place;   // the ranks are laid out as the open job cannot be shared
};

// ---- the sink of a segment

static int on_stage(void *ctx, const char *stage, int i, int n)
{
    struct serve *s = ctx;
    link_stage(s->link, stage, s->segment, i, n);
    return link_cancelled(s->link) ? E_BUSY : 0;
}

static int on_tail(void *ctx, const void *bytes, size_t n)
{
    struct serve *s = ctx;
    struct msg m = {
        .kind = MSG_TAIL, .job = s->open->job, .tail_segment = s->segment, .bulk = {{bytes, n}}, .n_bulk = 1};
    link_stage(s->link, "send", s->segment, 0, 0);
    return link_send(s->link, &m, NULL);
}

static int on_frames(void *ctx, int64_t first, int n, const uint8_t *yuv)
{
    struct serve *s = ctx;
    const struct spec_render *r = &s->open->open.spec;
    size_t bytes = (size_t)n * (size_t)r->h * (size_t)r->w * 3 / 2;
    struct msg m = {.kind = MSG_FRAMES,
                    .job = s->open->job,
                    .frames = {.segment = s->segment, .first = first, .n = (uint32_t)n},
                    .bulk = {{yuv, bytes}},
                    .n_bulk = 1};
    link_stage(s->link, "send", s->segment, 0, 0);
    return link_send(s->link, &m, NULL);
}

static void on_notice(void *ctx, const char *text)
{
    struct serve *s = ctx;
    struct msg m = {.kind = MSG_NOTICE, .job = s->open->job};
    snprintf(m.notice, sizeof m.notice, "%s", text);
    log_warn("job.notice", "job=%llu text=\"%s\"", (unsigned long long)m.job, text);
    link_send(s->link, &m, NULL);
}

// ---- orders

static void tell_failed(struct serve *s, uint64_t job, int64_t segment, const struct err *why)
{
    if (!s->link) return;
    struct msg m = {
        .kind = MSG_FAILED, .job = job, .failed = {.segment = segment, .code = why->code, .setting = s->no_place}};
    snprintf(m.failed.text, sizeof m.failed.text, "%s", why->text);
    log_error("job.failed", "job=%llu segment=%lld text=\"%s\"", (unsigned long long)job, (long long)segment,
              why->text);
    link_send(s->link, &m, NULL);
}

static void tell_stage(const struct serve *s, const char *stage)
{
    if (s->link) link_stage(s->link, stage, -1, 0, 0);
}

static void close_job(struct serve *s)
{
    struct voice_file *voice = s->render ? s->open->voice : NULL;
    if (voice && voice_file_fault(voice, NULL) < 0) render_forget_voice(s->render);
    render_close(&s->render);
    if (s->open && s->link)
        log_info("job.close", "job=%llu held_bytes=%lld", (unsigned long long)s->open->job,
                 (long long)dev_memory_held(s->set->dev));
    order_free(&s->open);
}

// The published step cache counts all branches in one row, so there every rank takes all of them.
static int branches_of(const struct spec_render *spec)
{
    struct guide g;
    guide_plan(&g, spec);
    return spec->teacache && spec->parity == SPEC_PARITY_PUBLISHED ? 1 : g.n;
}

// Where the voice lies it must be whole and readable; then so it is for all.
static int check_voice(const struct serve *s, bool whole, struct err *e)
{
    const struct order *o = s->open;
    int rc = 0;
    if (o->voice && whole) rc = voice_file_check(o->voice, o->open.voice_hash, e);
    if (o->voice && rc == 0) rc = voice_file_fault(o->voice, e);
    return ranks_agree(s->ranks, rc, e);
}

static int open_job(struct serve *s, struct order **po, struct err *e)
{
    close_job(s);
    struct order *o = s->open = *po;
    s->no_place = false;
    *po = NULL;
    const struct spec_render *spec = &o->open.spec;
    struct track voice[SPEC_SPEAKERS] = {0};
    int64_t begun = clock_ms();
    tell_stage(s, "words");
    int rc = check_voice(s, true, e);
    if (rc == 0) {
        rc = ranks_lay(s->ranks, branches_of(spec), e);
        s->no_place = rc == E_INPUT;
    }
    if (rc < 0) return rc;
    for (int p = 0; p < spec->n_speakers && o->voice; p++) voice[p] = voice_file_track(o->voice, p);
    struct render_order order = {.spec = spec,
                                 .color_picture = o->bulk[0],
                                 .masks = o->bulk[1],
                                 .voice = voice,
                                 .shelf = s->shelf,
                                 .texts = s->texts,
                                 .voice_hash = o->open.voice_hash,
                                 .cache_dir = s->cache_dir,
                                 .notice = s->link ? on_notice : NULL,
                                 .ctx = s};
    if (s->link && s->advice[0]) on_notice(s, s->advice);
    rc = render_open(&s->render, s->set, &order, e);
    if (rc == 0) rc = check_voice(s, false, e);
    if (rc == 0 && s->link)
        log_info("job.open", "job=%llu size=%dx%d frames=%lld ms=%lld held_bytes=%lld", (unsigned long long)o->job,
                 spec->w, spec->h, (long long)spec->n_frames, (long long)(clock_ms() - begun),
                 (long long)dev_memory_held(s->set->dev));
    return rc;
}

static int run_segment(struct serve *s, const struct order *o, struct err *e)
{
    const struct msg_run *r = &o->run;
    struct render_run run = {.segment = r->segment,
                             .start = r->start,
                             .first = r->first,
                             .last = r->last,
                             .ends = r->ends,
                             .keep_from = r->keep_from,
                             .keep_to = r->keep_to,
                             .picture = o->bulk[0],
                             .tail = o->bulk[1],
                             .tail_bytes = o->n_bulk_bytes[1],
                             .color_picture = o->bulk[2]};
    struct render_sink sink = {.ctx = s, .step = on_stage, .tail = on_tail, .frames = on_frames, .notice = on_notice};
    struct render_times t;
    s->segment = r->segment;
    if (!s->render) return err_set(e, E_INPUT, "segment %lld of a job that did not open", (long long)r->segment + 1);
    int rc = render_segment(s->render, &run, s->link ? &sink : NULL, &t, e);
    if (rc == 0) rc = check_voice(s, false, e);
    if (rc < 0 || !s->link) return rc;
    struct msg done = {.kind = MSG_DONE,
                       .job = o->job,
                       .done = {.segment = r->segment,
                                .condition_ms = t.condition,
                                .denoise_ms = t.denoise,
                                .decode_ms = t.decode,
                                .tail_ms = t.tail,
                                .drift = t.drift}};
    log_info("segment.done", "job=%llu i=%lld condition_ms=%lld denoise_ms=%lld decode_ms=%lld tail_ms=%lld",
             (unsigned long long)o->job, (long long)r->segment, (long long)t.condition, (long long)t.denoise,
             (long long)t.decode, (long long)t.tail);
    return link_send(s->link, &done, e);
}

// One order. False: no more.
static bool serve_turn(struct serve *s, int *rc, struct err *e)
{
    struct order *o = s->link ? link_take(s->link) : NULL;
    *rc = share_order(s->ranks, &o, e);
    if (*rc < 0) {
        order_free(&o);
        return false;
    }
    uint64_t job = o->job;
    int64_t segment = o->kind == ORDER_RUN ? o->run.segment : -1;
    bool more = true;
    switch (o->kind) {
    case ORDER_OPEN:
        *rc = open_job(s, &o, e);
        break;
    case ORDER_RUN:
        *rc = run_segment(s, o, e);
        break;
    case ORDER_CLOSE:
        close_job(s);
        break;
    case ORDER_BYE:
        log_info("serve.bye", "reason=\"%s\"", o->bye);
        more = false;
        break;
    }
    order_free(&o);
    if (*rc < 0) tell_failed(s, job, segment, e);
    tell_stage(s, "idle");
    return more && *rc != E_FATAL && !ranks_lost(s->ranks);
}

int serve_run(struct link *l, struct ranks *r, struct set *set, const char *cache_dir, const char *advice,
              struct err *e)
{
    struct serve s = {.link = l, .ranks = r, .set = set, .cache_dir = cache_dir, .advice = advice};
    int rc = 0;
    shelf_new(&s.shelf);
    texts_new(&s.texts);
    tell_stage(&s, "idle");
    if (l) log_info("serve.ready", "held_bytes=%lld", (long long)dev_memory_held(set->dev));
    while (serve_turn(&s, &rc, e)) continue;
    close_job(&s);
    texts_free(&s.texts);
    shelf_free(&s.shelf);
    return rc == E_FATAL || ranks_lost(r) ? rc : 0;
}
