// One turn: an order in, its answer out.
//
// OPEN makes a `struct render`, RUN sends TAIL, FRAMES and DONE through the sink, CLOSE frees it. Whatever a job does
// wrong is answered by FAILED and the worker waits for the next order; a device fault (E_FATAL) is answered too, and
// then ends the process, because nothing the device does afterwards can be trusted.
#include "worker/serve.h"

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "worker/render.h"
#include "worker/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct serve {
    struct link *link;
    struct set *set;
    const char *cache_dir;
    struct shelf *shelf; // what jobs have made of their voices, and of their words
    struct texts *texts;
    struct order *open; // the job's order: its pictures and voices are in use until the job ends
    struct render *render;
    int64_t segment; // under way
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
    struct msg m = {.kind = MSG_FAILED, .job = job, .failed = {.segment = segment, .code = why->code}};
    snprintf(m.failed.text, sizeof m.failed.text, "%s", why->text);
    log_error("job.failed", "job=%llu segment=%lld text=\"%s\"", (unsigned long long)job, (long long)segment,
              why->text);
    link_send(s->link, &m, NULL);
}

static void close_job(struct serve *s)
{
    if (s->render && voice_file_fault(s->open->voice, NULL) < 0) render_forget_voice(s->render);
    render_close(&s->render);
    order_free(&s->open);
}

static int open_job(struct serve *s, struct order **po, struct err *e)
{
    close_job(s);
    struct order *o = s->open = *po;
    *po = NULL;
    const struct spec_render *spec = &o->open.spec;
    struct track voice[SPEC_SPEAKERS];
    int64_t begun = clock_ms();
    link_stage(s->link, "words", -1, 0, 1);
    int rc = voice_file_check(o->voice, o->open.voice_hash, e);
    if (rc < 0) return rc;
    for (int p = 0; p < spec->n_speakers; p++) voice[p] = voice_file_track(o->voice, p);
    struct render_order order = {.spec = spec,
                                 .color_picture = o->bulk[0],
                                 .masks = o->bulk[1],
                                 .voice = voice,
                                 .shelf = s->shelf,
                                 .texts = s->texts,
                                 .voice_hash = o->open.voice_hash,
                                 .cache_dir = s->cache_dir,
                                 .notice = on_notice,
                                 .ctx = s};
    rc = render_open(&s->render, s->set, &order, e);
    if (rc == 0) rc = voice_file_fault(o->voice, e);
    if (rc == 0)
        log_info("job.open", "job=%llu size=%dx%d frames=%lld ms=%lld", (unsigned long long)o->job, spec->w, spec->h,
                 (long long)spec->n_frames, (long long)(clock_ms() - begun));
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
    struct render_sink sink = {.ctx = s, .step = on_stage, .tail = on_tail, .frames = on_frames};
    struct render_times t;
    s->segment = r->segment;
    if (!s->render) return err_set(e, E_INPUT, "segment %lld of a job that did not open", (long long)r->segment + 1);
    int rc = render_segment(s->render, &run, &sink, &t, e);
    if (rc == 0) rc = voice_file_fault(s->open->voice, e);
    if (rc < 0) return rc;
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
    struct order *o = link_take(s->link);
    uint64_t job = o->job;
    int64_t segment = o->kind == ORDER_RUN ? o->run.segment : -1;
    bool more = true;
    *rc = 0;
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
    link_stage(s->link, "idle", -1, 0, 0);
    return more && *rc != E_FATAL;
}

int serve_run(struct link *l, struct set *set, const char *cache_dir, struct err *e)
{
    struct serve s = {.link = l, .set = set, .cache_dir = cache_dir};
    int rc = 0;
    shelf_new(&s.shelf);
    texts_new(&s.texts);
    link_stage(l, "idle", -1, 0, 0);
    while (serve_turn(&s, &rc, e)) continue;
    close_job(&s);
    texts_free(&s.texts);
    shelf_free(&s.shelf);
    return rc == E_FATAL ? rc : 0;
}
