// Each turn: take all messages; OPEN once; the voice in pieces while the queue takes them; RUN when its tail and
// picture are there and at most one segment would be ahead of what is kept.
//
// Frames go into the span's intake, which encodes them beside the loop; the worker's credit comes back for frames that
// were encoded, so what waits in memory is bounded whatever the encoder's speed. A segment is committed when its piece
// is on disk: only then may the job forget the tail before it.
//
// A group that is lost takes nothing with it: the store has the segments, the span its tails, and the same RUN goes to
// the next group. What comes twice or late is ignored, what comes too early loses the group.
#include "daemon/talk.h"

#include "proto/base/log.h"

#include <stdio.h>
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

static void span_begin(struct talk *t, struct span *s)
{
    struct job *j = t->job;
    struct plan_segment g = reel_segment(j->reel, s->committed);
    t->span = s;
    t->next_run = s->committed;
    j->n_taken++;
    intake_expect(s->intake, &g, s->last);
    t->allowed = t->opened ? t->allowed : 0;
}

static void span_end(struct talk *t)
{
    if (!t->span) return;
    span_leave(t->span);
    t->job->n_taken--;
    t->span = NULL;
}

void talk_begin(struct talk *t, struct job *j, struct span *s, struct talk_room *r)
{
    *t = (struct talk){.job = j, .id = ++r->n_talks, .colour_of = s->number};
    span_begin(t, s);
}

void talk_next(struct talk *t, struct span *s)
{
    span_end(t);
    span_begin(t, s);
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
    if (rc < 0) return rc;
    d->t->allowed += d->t->credit;
    d->t->credit = 0;
    return rc;
}

static int send_open(const struct ear *d, struct err *e)
{
    const struct job *j = d->t->job;
    const struct spec_render *r = &j->spec->r;
    const struct reel_info *i = reel_info(j->reel);
    size_t pixels = (size_t)r->h * (size_t)r->w;
    if (!d->t->span->colour) return E_BUSY; // it is being read
    struct msg *m = message(d, MSG_OPEN);
    m->open.spec = *r;
    memcpy(m->open.n_samples, i->n_samples, sizeof m->open.n_samples);
    memcpy(m->open.voice_hash, i->voice_hash, sizeof m->open.voice_hash);
    m->bulk[0] = (struct msg_bulk){d->t->span->colour, pixels * 3};
    m->bulk[1] = (struct msg_bulk){reel_masks(j->reel), reel_masks(j->reel) ? pixels * (size_t)r->n_speakers : 0};
    m->n_bulk = 2;
    int rc = group_send(d->g, m, e);
    if (rc < 0) return rc;
    d->t->opened = d->t->changed = true;
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
    struct span *s = d->t->span;
    int64_t k = d->t->next_run;
    if (k >= s->end || k > s->committed + 1) return 0;
    if (s->picture_of != k) {
        s->picture_wanted = k;
        return 0;
    }
    struct plan_segment g = reel_segment(j->reel, k);
    const struct span_tail *tail = g.first ? NULL : span_tail_of(s, k - 1);
    if (!g.first && !tail) return 0;
    struct msg *m = message(d, MSG_RUN);
    size_t bytes = (size_t)j->spec->r.h * (size_t)j->spec->r.w * 3;
    bool other = d->t->colour_of != s->number;
    m->run = (struct msg_run){.segment = k,
                              .start = g.start,
                              .keep_from = g.keep_from,
                              .keep_to = g.keep_to,
                              .first = g.first,
                              .last = g.last,
                              .ends = k + 1 == s->end};
    m->bulk[0] = (struct msg_bulk){s->picture, bytes};
    m->bulk[1] = (struct msg_bulk){tail ? tail->bytes : NULL, tail ? tail->n : 0};
    m->bulk[2] = (struct msg_bulk){other ? s->colour : NULL, other ? bytes : 0};
    m->n_bulk = 3;
    int rc = group_send(d->g, m, e);
    if (rc < 0) return rc;
    d->t->next_run++;
    d->t->colour_of = s->number;
    return 0;
}

// ---- from the group

static int on_frames(const struct ear *d, const struct msg *m, struct err *e)
{
    const struct msg_frames *f = &m->frames;
    d->t->allowed -= f->n;
    if (d->t->allowed < 0)
        return err_set(e, E_LOST, "the worker sent %lld frames more than it was allowed", (long long)-d->t->allowed);
    int rc = intake_frames(d->t->span->intake, f, m->bulk[0].data, m->bulk[0].n, e);
    if (rc == 0) d->t->credit += f->n; // had before
    return rc;
}

static int on_done(const struct ear *d, const struct msg_done *t, struct err *e)
{
    struct span *s = d->t->span;
    struct plan_segment next;
    bool more = t->segment + 1 < s->end;
    if (t->segment < s->first || t->segment >= s->end)
        return err_set(e, E_LOST, "the worker ended segment %lld, which it was not given", (long long)t->segment + 1);
    if (more) next = reel_segment(d->t->job->reel, t->segment + 1);
    return intake_done(s->intake, t, more ? &next : NULL, e);
}

// The piece is on disk: now the word that it is.
static int commit(const struct ear *d, const struct msg_done *t, struct err *e)
{
    struct job *j = d->t->job;
    struct span *s = d->t->span;
    const char *layout = group_layout(d->g);
    const struct span_tail *tail = t->segment + 1 < s->end ? span_tail_of(s, t->segment) : NULL;
    if (t->segment + 1 < s->end && !tail)
        return err_set(e, E_LOST, "the worker ended segment %lld and sent no tail of it", (long long)t->segment + 1);
    size_t n_last;
    const uint8_t *last = intake_last(s->intake, &n_last);
    struct store_segment g = {.job = j->id,
                              .number = t->segment,
                              .first = t->segment == s->first,
                              .layout = layout,
                              .tail = tail ? tail->bytes : NULL,
                              .n_tail = tail ? tail->n : 0,
                              .last = tail ? last : NULL,
                              .n_last = n_last,
                              .condition_ms = t->condition_ms,
                              .denoise_ms = t->denoise_ms,
                              .decode_ms = t->decode_ms,
                              .tail_ms = t->tail_ms,
                              .drift = t->drift,
                              .ranks = group_ranks(d->g),
                              .seam = intake_seam(s->intake)};
    int rc = store_commit(d->s, &g, e);
    if (rc < 0) return rc;
    if (!j->layout[0]) snprintf(j->layout, sizeof j->layout, "%s", layout);
    if (strcmp(j->layout, layout) != 0) j->mixed = true;
    if (g.last) span_last_keep(s, last, n_last);
    s->committed++;
    j->committed++;
    j->attempts = 0;
    j->condition_ms += t->condition_ms;
    j->denoise_ms += t->denoise_ms;
    j->decode_ms += t->decode_ms;
    j->tail_ms += t->tail_ms;
    if (t->drift > j->drift) j->drift = t->drift;
    job_beat(j, s, "done", t->segment, 0, 0);
    d->t->changed = true;
    return 0;
}

// What the intake has done meanwhile.
static int keep(const struct ear *d, struct err *e)
{
    struct msg_done done;
    int rc;
    d->t->credit += intake_encoded(d->t->span->intake);
    while ((rc = intake_kept(d->t->span->intake, &done, e)) == 1) {
        rc = commit(d, &done, e);
        if (rc < 0) return rc;
    }
    return rc;
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
        if (m->beat.segment >= 0 && (m->beat.segment < d->t->span->committed || m->beat.segment >= d->t->next_run))
            return 0;
        job_beat(j, d->t->span, m->beat.stage, m->beat.segment, m->beat.step, m->beat.n_steps);
        d->t->changed = true;
        return 0;
    case MSG_NOTICE:
        d->t->changed = known;
        return known ? job_note(j, d->s, m->notice, e) : 0;
    case MSG_TAIL:
        if (known && m->tail_segment >= d->t->span->committed && m->tail_segment < d->t->next_run)
            span_tail_keep(d->t->span, m->tail_segment, m->bulk[0].data, m->bulk[0].n);
        return 0;
    case MSG_FRAMES:
        return known ? on_frames(d, m, e) : 0;
    case MSG_DONE:
        return known ? on_done(d, &m->done, e) : 0;
    case MSG_FAILED: // of job 0: its weights; and but for wrong input, it is the group that cannot go on
        if ((m->job == 0 || (known && m->failed.setting)) && m->failed.code == E_INPUT) j->bad_model = true;
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
    if (rc < 0) return rc;
    rc = group_check(d->g, e);
    if (rc == E_INPUT) d->t->job->bad_model = true;
    return rc;
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
    int rc = keep(&d, e);
    if (rc >= 0 && !t->over) rc = hear(&d, e);
    if (rc >= 0 && !t->over && !talk_is_done(t) && group_is_up(g)) {
        rc = tell(&d, hold, e);
        if (rc >= 0) rc = hear(&d, e); // a send may have taken the descriptor's edge
    }
    if (rc < 0 && !t->over) {
        t->over = true;
        t->why = (struct err){0};
        err_set(&t->why, rc, "%s", e->text);
    }
    if (!t->over || intake_owes(t->span->intake)) return 0;
    return err_set(e, t->why.code, "%s", t->why.text);
}

bool talk_is_done(const struct talk *t) { return span_is_done(t->span); }

bool talk_is_idle(const struct talk *t) { return !t->opened || t->next_run == t->span->committed; }

void talk_end(struct talk *t, struct group *g, struct talk_room *r)
{
    struct ear d = {t, g, NULL, r};
    if (t->opened && g) group_send(g, message(&d, talk_is_idle(t) ? MSG_CLOSE : MSG_CANCEL), NULL);
    span_end(t);
}

int talk_hear(struct group *g, struct talk_room *r, struct err *e)
{
    while (group_recv(g, &r->in) > 0)
        if (r->in.kind == MSG_FAILED && r->in.job == 0) return err_set(e, E_LOST, "%s", r->in.failed.text);
    group_rests(g);
    int rc = group_check(g, e);
    if (rc != E_INPUT) return rc;
    if (e) e->code = E_LOST;
    return E_LOST;
}

void talk_bye(struct group *g, struct talk_room *r)
{
    memset(&r->out, 0, sizeof r->out);
    r->out.kind = MSG_BYE;
    group_send(g, &r->out, NULL);
}
