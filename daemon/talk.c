// Each turn: take all messages; OPEN once; the voice in pieces while the queue takes them; RUN when its tail and
// picture are there and at most one segment would be ahead of the film.
//
// Frames are muxed where they arrive. The worker's credit comes back with each push, so what waits in memory is bounded
// whatever the encoder's speed. A segment is committed when its frames are on disk: only then may the job forget the
// tail before it.
//
// A group that is lost takes nothing with it: the film has its frames, the job its tails, and the same RUN goes to the
// next group, whose first frames the film then ignores.
#include "daemon/talk.h"

#include "proto/base/log.h"

#include <stdlib.h>
#include <string.h>

// Frames of credit, and samples of a piece of voice. Pieces are small because a long voice fills the worker's queue of
// messages while it reads: with the largest that are allowed it held 30 MB more after ten minutes of voice.
enum { CREDIT = 32, PIECE = 8192 };
_Static_assert(PIECE * sizeof(float) <= MSG_BLOB_MAX, "a piece of voice fits its message");

struct talk_room {
    uint64_t n_talks;
    struct msg in, out;
    float piece[PIECE];
};

void talk_room_new(struct talk_room **out)
{
    *out = calloc(1, sizeof **out);
    BUG_IF(!*out, "no memory for messages");
}

void talk_room_free(struct talk_room **r)
{
    free(*r);
    *r = NULL;
}

void talk_begin(struct talk *t, struct job *j, struct talk_room *r)
{
    *t = (struct talk){.job = j, .id = ++r->n_talks};
}

// What all functions here look at.
struct ear {
    struct talk *t;
    struct group *g;
    struct store *s;
    struct talk_room *r;
};

// ---- to the group

static struct msg *message(const struct ear *d, enum msg_kind kind)
{
    struct msg *m = &d->r->out;
    memset(m, 0, sizeof *m);
    m->kind = kind;
    m->job = d->t->id;
    return m;
}

static int send_credit(const struct ear *d, struct err *e)
{
    if (d->t->credit == 0) return 0;
    struct msg *m = message(d, MSG_CREDIT);
    m->credit = d->t->credit;
    int rc = group_send(d->g, m, e);
    if (rc >= 0) d->t->credit = 0;
    return rc;
}

static int send_open(const struct ear *d, struct err *e)
{
    const struct job *j = d->t->job;
    const struct spec_render *r = &j->spec->r;
    const struct reel_info *i = reel_info(j->reel);
    size_t pixels = (size_t)r->h * (size_t)r->w;
    struct msg *m = message(d, MSG_OPEN);
    m->open.spec = *r;
    memcpy(m->open.n_samples, i->n_samples, sizeof m->open.n_samples);
    memcpy(m->open.voice_hash, i->voice_hash, sizeof m->open.voice_hash);
    m->bulk[0] = (struct msg_bulk){reel_colour_picture(j->reel), pixels * 3};
    m->bulk[1] = (struct msg_bulk){reel_masks(j->reel), reel_masks(j->reel) ? pixels * (size_t)r->n_speakers : 0};
    m->n_bulk = 2;
    int rc = group_send(d->g, m, e);
    if (rc < 0) return rc;
    d->t->opened = d->t->changed = true;
    d->t->next_run = j->committed;
    d->t->credit = CREDIT;
    return 0;
}

static bool voice_is_sent(const struct ear *d) { return d->t->speaker == d->t->job->spec->r.n_speakers; }

static int send_voice(const struct ear *d, struct err *e)
{
    while (!voice_is_sent(d)) {
        int64_t n_samples = (int64_t)reel_info(d->t->job->reel)->n_samples[d->t->speaker];
        int64_t n = n_samples - d->t->sample < (int64_t)PIECE ? n_samples - d->t->sample : (int64_t)PIECE;
        int rc = reel_voice(d->t->job->reel, d->t->speaker, d->r->piece, d->t->sample, n, e);
        if (rc < 0) return rc;
        struct msg *m = message(d, MSG_BLOB);
        m->blob.speaker = (uint32_t)d->t->speaker;
        m->blob.offset = (uint64_t)d->t->sample * sizeof(float);
        m->bulk[0] = (struct msg_bulk){d->r->piece, (size_t)n * sizeof(float)};
        m->n_bulk = 1;
        rc = group_send(d->g, m, e);
        if (rc < 0) return rc;
        d->t->sample += n;
        if (d->t->sample < n_samples) continue;
        d->t->sample = 0;
        d->t->speaker++;
    }
    return 0;
}

static int send_run(const struct ear *d, struct err *e)
{
    struct job *j = d->t->job;
    int64_t k = d->t->next_run;
    if (k >= reel_info(j->reel)->n_segments || k > j->committed + 1) return 0;
    if (j->picture_of != k) {
        j->picture_wanted = k;
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
    int rc = group_send(d->g, m, e);
    if (rc >= 0) d->t->next_run++;
    return rc;
}

// ---- from the group

static int on_frames(const struct ear *d, const struct msg *m, struct err *e)
{
    struct job *j = d->t->job;
    const struct msg_frames *f = &m->frames;
    size_t bytes = (size_t)f->n * (size_t)j->spec->r.h * (size_t)j->spec->r.w * 3 / 2;
    if (f->segment != j->committed || m->bulk[0].n != bytes || f->first > reel_frames(j->reel))
        return err_set(e, E_LOST, "the worker sent frames %lld to %lld of segment %lld in %zu bytes, which do not fit",
                       (long long)f->first, (long long)f->first + f->n - 1, (long long)f->segment + 1, m->bulk[0].n);
    int rc = reel_push(j->reel, f->first, (int)f->n, m->bulk[0].data, e);
    if (rc < 0) return rc;
    d->t->credit += f->n;
    rc = send_credit(d, e);
    return rc == E_BUSY ? 0 : rc; // it stays due
}

// The film first, then the word that it is there.
static int commit(const struct ear *d, const struct msg_done *t, struct err *e)
{
    struct job *j = d->t->job;
    const struct job_tail *tail = job_tail_of(j, t->segment);
    struct store_segment g = {.job = j->id,
                              .number = t->segment,
                              .frames = reel_frames(j->reel),
                              .tail = tail ? tail->bytes : NULL,
                              .n_tail = tail ? tail->n : 0,
                              .condition_ms = t->condition_ms,
                              .denoise_ms = t->denoise_ms,
                              .decode_ms = t->decode_ms,
                              .tail_ms = t->tail_ms,
                              .drift = t->drift};
    int rc = reel_end_segment(j->reel, &g.media_bytes, e);
    if (rc >= 0) rc = store_commit(d->s, &g, e);
    if (rc < 0) return rc;
    j->frames = g.frames;
    j->bytes = g.media_bytes;
    return 0;
}

static int on_done(const struct ear *d, const struct msg_done *t, struct err *e)
{
    struct job *j = d->t->job;
    if (t->segment != j->committed)
        return err_set(e, E_LOST, "the worker ended segment %lld where segment %lld was due", (long long)t->segment + 1,
                       (long long)j->committed + 1);
    struct plan_segment g = reel_segment(j->reel, t->segment);
    if (reel_frames(j->reel) != g.start + g.keep_to)
        return err_set(e, E_LOST, "the worker ended segment %lld after frame %lld of %lld", (long long)t->segment + 1,
                       (long long)reel_frames(j->reel), (long long)(g.start + g.keep_to));
    int rc = commit(d, t, e);
    if (rc < 0) return rc;
    j->committed++;
    j->attempts = 0;
    j->condition_ms += t->condition_ms;
    j->denoise_ms += t->denoise_ms;
    j->decode_ms += t->decode_ms;
    j->tail_ms += t->tail_ms;
    if (t->drift > j->drift) j->drift = t->drift;
    job_beat(j, "done", t->segment, 0, 0);
    d->t->changed = true;
    return 0;
}

static int on_message(const struct ear *d, const struct msg *m, struct err *e)
{
    struct job *j = d->t->job;
    bool known = m->job == d->t->id;
    switch (m->kind) {
    case MSG_HELLO:
        log_debug("group.hello", "device=\"%s\" ranks=%u", m->hello.device, m->hello.ranks);
        return 0;
    case MSG_BEAT: // of a segment that is none of this talk's: the last one's echo
        if (m->beat.segment >= 0 && (m->beat.segment < j->committed || m->beat.segment >= d->t->next_run)) return 0;
        job_beat(j, m->beat.stage, m->beat.segment, m->beat.step, m->beat.n_steps);
        d->t->changed = true;
        return 0;
    case MSG_NOTICE:
        d->t->changed = known;
        return known ? job_note(j, d->s, m->notice, e) : 0;
    case MSG_TAIL:
        if (known && m->tail_segment >= j->committed && m->tail_segment < d->t->next_run)
            job_tail_keep(j, m->tail_segment, m->bulk[0].data, m->bulk[0].n);
        return 0;
    case MSG_FRAMES:
        return known ? on_frames(d, m, e) : 0;
    case MSG_DONE:
        return known ? on_done(d, &m->done, e) : 0;
    case MSG_FAILED: // of job 0: its weights; and but for wrong input, it is the group that cannot go on
        if (m->job == 0 && m->failed.code == E_INPUT) j->bad_model = true;
        return known || m->job == 0 ? err_set(e, m->failed.code == E_INPUT ? E_INPUT : E_LOST, "%s", m->failed.text)
                                    : 0;
    default:
        return 0;
    }
}

// ---- the turn

// Takes all messages. Then whatever is wrong with the group.
static int hear(const struct ear *d, struct err *e)
{
    int rc = 0;
    while (rc >= 0 && group_recv(d->g, &d->r->in) > 0) rc = on_message(d, &d->r->in, e);
    return rc < 0 ? rc : group_check(d->g, e);
}

static int tell(const struct ear *d, bool hold, struct err *e)
{
    int rc = d->t->opened ? 0 : send_open(d, e);
    if (rc >= 0) rc = send_credit(d, e);
    if (rc >= 0) rc = send_voice(d, e);
    if (rc >= 0 && !hold) rc = send_run(d, e);
    return rc == E_BUSY ? 0 : rc; // another turn comes
}

int talk_turn(struct talk *t, struct group *g, struct store *s, struct talk_room *r, bool hold, struct err *e)
{
    struct ear d = {t, g, s, r};
    int rc = hear(&d, e);
    if (rc >= 0 && !talk_is_done(t) && group_is_up(g)) {
        rc = tell(&d, hold, e);
        if (rc >= 0) rc = hear(&d, e); // a send may have taken the descriptor's edge
    }
    return rc;
}

bool talk_is_done(const struct talk *t) { return t->job->committed == reel_info(t->job->reel)->n_segments; }

bool talk_is_idle(const struct talk *t) { return !t->opened || t->next_run == t->job->committed; }

void talk_end(struct talk *t, struct group *g, struct talk_room *r)
{
    struct ear d = {t, g, NULL, r};
    if (t->opened) group_send(g, message(&d, talk_is_idle(t) ? MSG_CLOSE : MSG_CANCEL), NULL);
}

int talk_hear(struct group *g, struct talk_room *r, struct err *e)
{
    while (group_recv(g, &r->in) > 0)
        if (r->in.kind == MSG_FAILED && r->in.job == 0) return err_set(e, E_LOST, "%s", r->in.failed.text);
    return group_check(g, e);
}

void talk_bye(struct group *g, struct talk_room *r)
{
    memset(&r->out, 0, sizeof r->out);
    r->out.kind = MSG_BYE;
    group_send(g, &r->out, NULL);
}
