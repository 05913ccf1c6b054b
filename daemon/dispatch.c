// One job at a time on one group, for now; the turn is written over the job and its group so that more of both change
// the picking, not the walk.
//
//   queued --> preparing (media are read on a thread) --> ready --> running --> finishing --> completed
//
// Running, each turn:  take all messages; OPEN once; the voice in pieces while the queue takes them; the next reference
// picture on a thread; RUN when its tail and picture are there and at most one segment would be ahead of the film.
//
// Frames are muxed where they arrive. The worker's credit comes back with each push, so what waits in memory is bounded
// whatever the encoder's speed.
//
// A group that is lost takes nothing with it: the film has its frames, the job its tails, and the same RUN goes to the
// next group, whose first frames the film then ignores. After `attempts` lost groups the job fails.
#include "daemon/dispatch.h"

#include "proto/base/clock.h"
#include "proto/base/log.h"

#include <stdlib.h>
#include <string.h>

enum { CREDIT = 32, PIECE = MSG_BLOB_MAX / sizeof(float) };

// What was said to the group about the job.
struct talk {
    bool opened;
    int speaker;      // of the next piece of voice
    int64_t sample;   // likewise
    int64_t next_run; // segment
};

struct dispatch {
    struct loop *loop;
    struct dispatch_options o;
    struct job *job;
    struct group *group;
    struct talk talk;
    bool said_bye;
    struct msg *in, *out; // large
    float *piece;         // [PIECE]
    // work under way
    struct err work_error;
    int work_rc;
    struct reel *work_reel;
    int64_t work_segment;
    uint8_t *work_picture;
};

void dispatch_new(struct dispatch **out, struct loop *l, const struct dispatch_options *o)
{
    struct dispatch *d = calloc(1, sizeof *d);
    BUG_IF(!d, "no memory for the dispatcher");
    d->loop = l;
    d->o = *o;
    if (!d->o.attempts) d->o.attempts = 1;
    d->in = malloc(sizeof *d->in);
    d->out = malloc(sizeof *d->out);
    d->piece = malloc(PIECE * sizeof *d->piece);
    BUG_IF(!d->in || !d->out || !d->piece, "no memory for the dispatcher");
    *out = d;
}

void dispatch_free(struct dispatch **pd)
{
    struct dispatch *d = *pd;
    if (!d) return;
    group_end(&d->group);
    free(d->in);
    free(d->out);
    free(d->piece);
    free(d->work_picture);
    free(d);
    *pd = NULL;
}

void dispatch_add(struct dispatch *d, struct job *j)
{
    BUG_IF(d->job && !job_is_over(d->job), "a job is under way");
    d->job = j;
}

static void changed(struct dispatch *d) { d->o.changed(d->o.ctx, d->job); }

static void job_ends(struct dispatch *d, enum job_event event, const struct err *why)
{
    if (!job_move(d->job, event)) return;
    if (why) d->job->why = *why;
    group_end(&d->group);
    changed(d);
}

static void job_fails(struct dispatch *d, const struct err *why) { job_ends(d, JOB_FAIL, why); }

void dispatch_cancel(struct dispatch *d, struct job *j)
{
    if (d->job == j) job_ends(d, JOB_CANCEL, NULL);
}

// ---- work beside the loop

static void prepare_work(void *ctx)
{
    struct dispatch *d = ctx;
    d->work_rc = reel_open(&d->work_reel, d->job->spec, d->job->model, d->o.self, &d->work_error);
}

static void prepare_done(void *ctx)
{
    struct dispatch *d = ctx;
    d->job->busy = false;
    d->job->reel = d->work_reel;
    d->work_reel = NULL;
    if (d->job->state != JOB_PREPARING) return; // cancelled meanwhile
    if (d->work_rc < 0) {
        job_fails(d, &d->work_error);
        return;
    }
    job_move(d->job, JOB_PREPARED);
    changed(d);
}

static void prepare(struct dispatch *d)
{
    job_move(d->job, JOB_PREPARE);
    d->job->busy = true;
    changed(d);
    loop_work(d->loop, prepare_work, prepare_done, d);
}

static void picture_work(void *ctx)
{
    struct dispatch *d = ctx;
    d->work_rc = reel_picture(d->job->reel, d->work_segment, d->work_picture, &d->work_error);
}

static void picture_done(void *ctx)
{
    struct dispatch *d = ctx;
    struct job *j = d->job;
    j->busy = false;
    if (d->work_rc < 0) {
        job_fails(d, &d->work_error);
        return;
    }
    free(j->picture);
    j->picture = d->work_picture;
    j->picture_of = d->work_segment;
    d->work_picture = NULL;
}

static void fetch_picture(struct dispatch *d, int64_t segment)
{
    const struct spec_render *r = &d->job->spec->r;
    d->work_picture = malloc((size_t)r->h * (size_t)r->w * 3);
    BUG_IF(!d->work_picture, "no memory for a picture");
    d->work_segment = segment;
    d->job->busy = true;
    loop_work(d->loop, picture_work, picture_done, d);
}

static void finish_work(void *ctx)
{
    struct dispatch *d = ctx;
    d->work_rc = reel_finish(d->job->reel, &d->work_error);
}

static void finish_done(void *ctx)
{
    struct dispatch *d = ctx;
    d->job->busy = false;
    if (d->work_rc < 0) {
        job_fails(d, &d->work_error);
        return;
    }
    d->job->percent = 100;
    job_move(d->job, JOB_FINISHED);
    changed(d);
}

// ---- to the group

static struct msg *message(struct dispatch *d, enum msg_kind kind)
{
    memset(d->out, 0, sizeof *d->out);
    d->out->kind = kind;
    d->out->job = d->job->id;
    return d->out;
}

static int send_credit(struct dispatch *d, int n, struct err *e)
{
    struct msg *m = message(d, MSG_CREDIT);
    m->credit = (uint32_t)n;
    return group_send(d->group, m, e);
}

static int send_open(struct dispatch *d, struct err *e)
{
    const struct job *j = d->job;
    const struct spec_render *r = &j->spec->r;
    const struct reel_info *i = reel_info(j->reel);
    size_t pixels = (size_t)r->h * (size_t)r->w;
    struct msg *m = message(d, MSG_OPEN);
    m->open.spec = *r;
    m->open.n_samples = i->n_samples;
    memcpy(m->open.voice_hash, i->voice_hash, sizeof m->open.voice_hash);
    m->bulk[0] = (struct msg_bulk){reel_colour_picture(j->reel), pixels * 3};
    m->bulk[1] = (struct msg_bulk){reel_masks(j->reel), reel_masks(j->reel) ? pixels * (size_t)r->n_speakers : 0};
    m->n_bulk = 2;
    int rc = group_send(d->group, m, e);
    if (rc >= 0) rc = send_credit(d, CREDIT, e);
    if (rc < 0) return rc;
    d->talk = (struct talk){.opened = true, .next_run = j->committed};
    return 0;
}

static bool voice_is_sent(const struct dispatch *d) { return d->talk.speaker == d->job->spec->r.n_speakers; }

static int send_voice(struct dispatch *d, struct err *e)
{
    int64_t n_samples = (int64_t)reel_info(d->job->reel)->n_samples;
    while (!voice_is_sent(d)) {
        int64_t n = n_samples - d->talk.sample < (int64_t)PIECE ? n_samples - d->talk.sample : (int64_t)PIECE;
        int rc = reel_voice(d->job->reel, d->talk.speaker, d->piece, d->talk.sample, n, e);
        if (rc < 0) return rc;
        struct msg *m = message(d, MSG_BLOB);
        m->blob.speaker = (uint32_t)d->talk.speaker;
        m->blob.offset = (uint64_t)d->talk.sample * sizeof(float);
        m->bulk[0] = (struct msg_bulk){d->piece, (size_t)n * sizeof(float)};
        m->n_bulk = 1;
        rc = group_send(d->group, m, e);
        if (rc < 0) return rc;
        d->talk.sample += n;
        if (d->talk.sample < n_samples) continue;
        d->talk.sample = 0;
        d->talk.speaker++;
    }
    return 0;
}

static int send_run(struct dispatch *d, struct err *e)
{
    struct job *j = d->job;
    int64_t k = d->talk.next_run;
    if (k >= reel_info(j->reel)->n_segments || k > j->committed + 1) return 0;
    if (j->picture_of != k) {
        if (!j->busy) fetch_picture(d, k);
        return 0;
    }
    struct plan_segment g = reel_segment(j->reel, k);
    const struct job_tail *tail = g.first ? NULL : job_tail_of(j, k - 1);
    if (!g.first && !tail) return 0;
    struct msg *m = message(d, MSG_RUN);
    m->run = (struct msg_run){.segment = k,
                              .start = g.start,
                              .keep_from = g.keep_from,
                              .keep_to = g.keep_to,
                              .first = g.first,
                              .last = g.last};
    m->bulk[0] = (struct msg_bulk){j->picture, (size_t)j->spec->r.h * (size_t)j->spec->r.w * 3};
    m->bulk[1] = (struct msg_bulk){tail ? tail->bytes : NULL, tail ? tail->n : 0};
    m->n_bulk = 2;
    int rc = group_send(d->group, m, e);
    if (rc >= 0) d->talk.next_run++;
    return rc;
}

// ---- from the group

static int on_frames(struct dispatch *d, const struct msg *m, struct err *e)
{
    struct job *j = d->job;
    const struct msg_frames *f = &m->frames;
    size_t bytes = (size_t)f->n * (size_t)j->spec->r.h * (size_t)j->spec->r.w * 3 / 2;
    if (f->segment != j->committed || m->bulk[0].n != bytes || f->first > reel_frames(j->reel))
        return err_set(e, E_LOST, "the worker sent frames %lld to %lld of segment %lld in %zu bytes, which do not fit",
                       (long long)f->first, (long long)f->first + f->n - 1, (long long)f->segment + 1, m->bulk[0].n);
    int rc = reel_push(j->reel, f->first, (int)f->n, m->bulk[0].data, e);
    return rc < 0 ? rc : send_credit(d, (int)f->n, e);
}

static int on_done(struct dispatch *d, const struct msg_done *t, struct err *e)
{
    struct job *j = d->job;
    if (t->segment != j->committed)
        return err_set(e, E_LOST, "the worker ended segment %lld where segment %lld was due", (long long)t->segment + 1,
                       (long long)j->committed + 1);
    struct plan_segment g = reel_segment(j->reel, t->segment);
    if (reel_frames(j->reel) != g.start + g.keep_to)
        return err_set(e, E_LOST, "the worker ended segment %lld after frame %lld of %lld", (long long)t->segment + 1,
                       (long long)reel_frames(j->reel), (long long)(g.start + g.keep_to));
    int rc = reel_end_segment(j->reel, e);
    if (rc < 0) return rc;
    j->committed++;
    j->condition_ms += t->condition_ms;
    j->denoise_ms += t->denoise_ms;
    j->decode_ms += t->decode_ms;
    j->tail_ms += t->tail_ms;
    if (t->drift > j->drift) j->drift = t->drift;
    job_beat(j, "done", t->segment, 0, 0);
    changed(d);
    return 0;
}

static int on_message(struct dispatch *d, const struct msg *m, struct err *e)
{
    struct job *j = d->job;
    bool known = m->job == j->id;
    switch (m->kind) {
    case MSG_HELLO:
        log_debug("group.hello", "device=\"%s\" ranks=%u", m->hello.device, m->hello.ranks);
        return 0;
    case MSG_BEAT:
        job_beat(j, m->beat.stage, m->beat.segment, m->beat.step, m->beat.n_steps);
        changed(d);
        return 0;
    case MSG_TAIL:
        if (known && m->tail_segment >= j->committed && m->tail_segment < d->talk.next_run)
            job_tail_keep(j, m->tail_segment, m->bulk[0].data, m->bulk[0].n);
        return 0;
    case MSG_FRAMES:
        return known ? on_frames(d, m, e) : 0;
    case MSG_DONE:
        return known ? on_done(d, &m->done, e) : 0;
    case MSG_FAILED: // of job 0: its weights; and but for wrong input, it is the group that cannot go on
        return known || m->job == 0 ? err_set(e, m->failed.code == E_INPUT ? E_INPUT : E_LOST, "%s", m->failed.text)
                                    : 0;
    default:
        return 0;
    }
}

// ---- the turn

// A group is lost: another one takes the job, or the job fails with what is known.
static void group_lost(struct dispatch *d, const struct err *why)
{
    struct job *j = d->job;
    struct err e = *why;
    char at[96] = "";
    if (j->stage_segment >= 0)
        snprintf(at, sizeof at, "%s, segment %lld of %lld", j->stage, (long long)j->stage_segment + 1,
                 (long long)reel_info(j->reel)->n_segments);
    else if (j->stage[0])
        snprintf(at, sizeof at, "%s", j->stage);
    if (j->n_steps && j->stage_segment >= 0) {
        size_t n = strlen(at);
        snprintf(at + n, sizeof at - n, ", step %u of %u", j->step, j->n_steps);
    }
    if (at[0]) err_set(&e, why->code, "%s (it was at: %s)", why->text, at);
    if (++j->attempts >= d->o.attempts) {
        job_fails(d, &e);
        return;
    }
    log_warn("group.lost", "job=%llu text=\"%s\"", (unsigned long long)j->id, e.text);
    group_end(&d->group);
    job_move(j, JOB_LOSE_GROUP);
    changed(d);
}

// Takes all messages. Then whatever is wrong with the group.
static int group_hear(struct dispatch *d, struct err *e)
{
    int rc = 0;
    while (rc >= 0 && group_recv(d->group, d->in) > 0) rc = on_message(d, d->in, e);
    return rc < 0 ? rc : group_check(d->group, e);
}

static int group_tell(struct dispatch *d, struct err *e)
{
    int rc = d->talk.opened ? 0 : send_open(d, e);
    if (rc >= 0) rc = send_voice(d, e);
    if (rc >= 0) rc = send_run(d, e);
    return rc;
}

static void run_turn(struct dispatch *d)
{
    struct err e = {0};
    struct job *j = d->job;
    int rc = group_hear(d, &e);
    if (rc >= 0 && j->committed == reel_info(j->reel)->n_segments) {
        group_send(d->group, message(d, MSG_CLOSE), NULL);
        job_move(j, JOB_RENDERED);
        changed(d);
        return;
    }
    if (rc >= 0 && group_is_up(d->group)) rc = group_tell(d, &e);
    if (rc >= 0) rc = group_hear(d, &e); // a send may have taken the descriptor's edge
    if (rc == E_LOST) group_lost(d, &e);
    if (rc == E_INPUT || rc == E_FATAL) job_fails(d, &e);
}

static void start_group(struct dispatch *d)
{
    struct err e = {0};
    const struct job *j = d->job;
    struct group_options o = {.worker = d->o.worker,
                              .spec = j->spec,
                              .model = j->model->dir,
                              .log = reel_info(j->reel)->log,
                              .cache = reel_info(j->reel)->folder,
                              .hello_ms = d->o.hello_ms,
                              .silence_ms = d->o.silence_ms,
                              .stall_ms = d->o.stall_ms};
    d->talk = (struct talk){0};
    if (group_start(&d->group, d->loop, &o, &e) < 0) {
        job_fails(d, &e);
        return;
    }
    job_move(d->job, JOB_START);
    changed(d);
}

void dispatch_turn(struct dispatch *d)
{
    struct job *j = d->job;
    if (!j) return;
    if (j->state == JOB_QUEUED) prepare(d);
    if (j->state == JOB_READY) start_group(d);
    if (j->state == JOB_RUNNING) run_turn(d);
    if (j->state == JOB_FINISHING && !j->busy) {
        j->busy = true;
        loop_work(d->loop, finish_work, finish_done, d);
    }
}

bool dispatch_drain(struct dispatch *d)
{
    if (!d->group) return !d->job || !d->job->busy;
    while (group_recv(d->group, d->in) > 0) continue;
    if (!d->said_bye) {
        struct msg *m = message(d, MSG_BYE);
        m->job = 0;
        d->said_bye = group_send(d->group, m, NULL) == 0;
    }
    return group_has_ended(d->group) && !d->job->busy;
}
