// All sockets share one ZeroMQ context with one thread, so a thousand groups cost two descriptors each and no threads;
// proto/chan.h would give each a context. The codec is the product's.
//
// A group: nothing --HELLO--> idle --OPEN, CREDIT, BLOB, RUN--> at work --time is over--> painting --DONE--> idle.
// Every job has one segment here, so a group is free when it has said DONE.
//
// Trap: a socket's descriptor tells of commands inside ZeroMQ, not of messages, and a send may take such a command:
// whoever has sent listens afterwards.
#include "bench/crowd.h"

#include "proto/base/clock.h"
#include "proto/mark.h"
#include "proto/msg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <zmq.h>

enum { BEAT_US = 1000000, MOST_FRAMES = 4, STRIPES = 16, QUEUE = 64, PARTS = MSG_BULK_MAX + 1, EVENTS = 256 };

struct member {
    void *socket;
    int64_t join_us, beat_us;
    uint64_t progress;
    // the talk under way
    uint64_t talk;
    int h, w;
    uint32_t steps;
    int64_t credit;
    bool fed, busy; // busy: from RUN to DONE
    struct msg_run run;
    int64_t due_us, next; // first frame at; next frame
    bool waits;           // the queue was full, or there was no credit
    // of the last talk
    int64_t done_us, closed_us; // 0: not yet
};

struct crowd {
    struct crowd_options o;
    void *context;
    int epoll;
    struct member *member;
    struct msg in, out;
    struct msg_hello hello;
    uint8_t *yuv; // MOST_FRAMES of them
    bool recording;
    uint64_t random;
    struct crowd_counts count;
    struct crowd_times since_done, since_close;
};

static uint64_t random_next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

int crowd_new(struct crowd **out, const struct crowd_options *o, struct err *e)
{
    struct crowd *c = calloc(1, sizeof *c);
    BUG_IF(!c, "no memory for a crowd");
    c->o = *o;
    c->context = zmq_ctx_new();
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->member = calloc((size_t)o->n, sizeof *c->member);
    BUG_IF(!c->context || c->epoll < 0 || !c->member, "no memory for %d groups", o->n);
    *out = c;
    if (zmq_ctx_set(c->context, ZMQ_MAX_SOCKETS, o->n + 1) < 0)
        return err_set(e, E_FATAL, "%d sockets are more than this machine has: raise ulimit -n", o->n);
    snprintf(c->hello.version, sizeof c->hello.version, "%s", LONGTAKE_VERSION);
    snprintf(c->hello.device, sizeof c->hello.device, "nothing");
    snprintf(c->hello.layout, sizeof c->hello.layout, "fake");
    snprintf(c->hello.host, sizeof c->hello.host, "crowd");
    c->hello.ranks = 1;
    mark_weights(c->hello.model, o->model);
    mark_set(c->hello.set, o->model, &(struct mark_set){.n_speakers = 1});
    c->random = o->seed;
    for (int i = 0; i < o->n; i++) c->member[i].join_us = INT64_MAX;
    return 0;
}

void crowd_join(struct crowd *c, int n, int64_t within_us)
{
    int64_t now = clock_us();
    for (int i = 0; i < n && i < c->o.n; i++)
        if (c->member[i].join_us == INT64_MAX)
            c->member[i].join_us = now + (int64_t)(random_next(&c->random) % (uint64_t)(within_us + 1));
}

void crowd_free(struct crowd **pc)
{
    struct crowd *c = *pc;
    if (!c) return;
    for (int i = 0; i < c->o.n; i++)
        if (c->member[i].socket) zmq_close(c->member[i].socket);
    zmq_ctx_term(c->context);
    close(c->epoll);
    free(c->member);
    free(c->yuv);
    free(c->since_done.us);
    free(c->since_close.us);
    free(c);
    *pc = NULL;
}

void crowd_record(struct crowd *c, bool on) { c->recording = on; }
const struct crowd_counts *crowd_counted(const struct crowd *c) { return &c->count; }
const struct crowd_times *crowd_since_done(const struct crowd *c) { return &c->since_done; }
const struct crowd_times *crowd_since_close(const struct crowd *c) { return &c->since_close; }

void crowd_pace(struct crowd *c, int64_t segment_us)
{
    int64_t latest = clock_us() + segment_us;
    c->o.segment_us = segment_us;
    for (int i = 0; i < c->o.n; i++)
        if (c->member[i].busy && c->member[i].due_us > latest) c->member[i].due_us = latest;
}

static void times_add(struct crowd_times *t, int64_t us)
{
    if ((t->n & (t->n - 1)) == 0) t->us = realloc(t->us, (t->n ? 2 * t->n : 1) * sizeof *t->us);
    BUG_IF(!t->us, "no memory for %zu times", t->n);
    t->us[t->n++] = us;
}

// ---- out

static struct msg *message(struct crowd *c, const struct member *m, enum msg_kind kind)
{
    memset(&c->out, 0, sizeof c->out);
    c->out.kind = kind;
    c->out.job = kind == MSG_HELLO || kind == MSG_BEAT ? 0 : m->talk;
    return &c->out;
}

// False: the queue is full; all of the message goes later.
static bool send(struct crowd *c, struct member *m)
{
    void *bytes;
    size_t n;
    msg_encode(&c->out, &bytes, &n);
    int rc = zmq_send(m->socket, bytes, n, ZMQ_DONTWAIT | (c->out.n_bulk ? ZMQ_SNDMORE : 0));
    free(bytes);
    if (rc < 0) return false;
    if (c->out.n_bulk) zmq_send(m->socket, c->out.bulk[0].data, c->out.bulk[0].n, ZMQ_DONTWAIT);
    return true;
}

static void hello(struct crowd *c, struct member *m)
{
    message(c, m, MSG_HELLO)->hello = c->hello;
    c->out.hello.pid = (uint64_t)(m - c->member + 1);
    send(c, m);
}

static int join(struct crowd *c, struct member *m, struct err *e)
{
    const int zero = 0, queue = QUEUE;
    int fd = -1;
    size_t n = sizeof fd;
    m->socket = zmq_socket(c->context, ZMQ_DEALER);
    if (!m->socket)
        return err_set(e, E_FATAL, "no socket for group %lld: %s", (long long)c->count.n_joined + 1,
                       zmq_strerror(errno));
    zmq_setsockopt(m->socket, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(m->socket, ZMQ_SNDHWM, &queue, sizeof queue);
    zmq_setsockopt(m->socket, ZMQ_RCVHWM, &queue, sizeof queue);
    zmq_getsockopt(m->socket, ZMQ_FD, &fd, &n);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = m};
    if (zmq_connect(m->socket, c->o.endpoint) < 0 || epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return err_set(e, E_FATAL, "cannot connect to %s: %s", c->o.endpoint, zmq_strerror(errno));
    hello(c, m);
    m->beat_us = clock_us() + BEAT_US;
    c->count.n_joined++;
    return 0;
}

static void beat(struct crowd *c, struct member *m, int64_t now)
{
    struct msg_beat b = {.progress = ++m->progress, .segment = m->busy ? m->run.segment : -1};
    int64_t left = m->due_us > now ? m->due_us - now : 0;
    snprintf(b.stage, sizeof b.stage, "%s", m->busy ? "denoise" : "idle");
    if (m->busy) {
        b.n_steps = m->steps;
        b.step = m->steps - (uint32_t)(left * m->steps / (c->o.segment_us + 1));
    }
    message(c, m, MSG_BEAT)->beat = b;
    send(c, m);
    m->beat_us = now + BEAT_US;
}

static void frame_paint(uint8_t *yuv, int h, int w, int64_t number)
{
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) yuv[y * w + x] = number >> (STRIPES - 1 - x * STRIPES / w) & 1 ? 220 : 30;
    memset(yuv + h * w, 128, (size_t)h * (size_t)w / 2);
}

// Frames under credit, then DONE; what cannot go now goes in a later turn.
static void paint(struct crowd *c, struct member *m)
{
    size_t bytes = (size_t)m->h * (size_t)m->w * 3 / 2;
    int64_t end = m->run.start + m->run.keep_to;
    m->waits = false;
    while (m->next < end && !m->waits) {
        int64_t n = end - m->next < MOST_FRAMES ? end - m->next : MOST_FRAMES;
        for (int64_t i = 0; i < n && m->credit >= n; i++)
            frame_paint(c->yuv + (size_t)i * bytes, m->h, m->w, m->next + i);
        struct msg *out = message(c, m, MSG_FRAMES);
        out->frames = (struct msg_frames){.segment = m->run.segment, .first = m->next, .n = (uint32_t)n};
        out->bulk[0] = (struct msg_bulk){c->yuv, (size_t)n * bytes};
        out->n_bulk = 1;
        m->waits = m->credit < n || !send(c, m);
        if (m->waits) return;
        m->credit -= n;
        m->next += n;
    }
    message(c, m, MSG_DONE)->done = (struct msg_done){.segment = m->run.segment, .denoise_ms = c->o.segment_us / 1000};
    m->waits = !send(c, m);
    if (m->waits) return;
    m->busy = false;
    m->done_us = clock_us();
    m->closed_us = 0;
    c->count.n_done++;
}

// ---- in

static void on_open(struct crowd *c, struct member *m)
{
    const struct spec_render *s = &c->in.open.spec;
    if (!c->yuv || s->h != m->h || s->w != m->w)
        c->yuv = realloc(c->yuv, (size_t)MOST_FRAMES * (size_t)s->h * (size_t)s->w * 3 / 2);
    BUG_IF(!c->yuv, "no memory for frames");
    m->talk = c->in.job;
    m->h = s->h;
    m->w = s->w;
    m->steps = (uint32_t)s->steps;
    m->credit = 0;
    m->busy = false;
}

static int on_run(struct crowd *c, struct member *m, struct err *e)
{
    int64_t now = clock_us();
    if (m->busy || !c->in.run.ends)
        return err_set(e, E_INPUT, "segment %lld is not the only one of its job; give a shorter voice",
                       (long long)c->in.run.segment + 1);
    if (c->recording && m->done_us) times_add(&c->since_done, now - m->done_us);
    if (c->recording && m->closed_us) times_add(&c->since_close, now - m->closed_us);
    m->run = c->in.run;
    c->count.n_fed += !m->fed;
    m->fed = m->busy = true;
    m->next = m->run.start + m->run.keep_from;
    m->due_us = now + c->o.segment_us;
    m->done_us = m->closed_us = 0;
    c->count.n_runs++;
    return 0;
}

static int on_failed(struct crowd *c, struct member *m, struct err *e)
{
    const struct msg_failed *f = &c->in.failed;
    if (f->code != E_LOST) return err_set(e, E_INPUT, "a group is refused: %s", f->text);
    c->count.n_lost++;
    snprintf(c->count.trouble, sizeof c->count.trouble, "%s", f->text);
    m->busy = false;
    m->done_us = m->closed_us = 0;
    hello(c, m);
    return 0;
}

static int on_message(struct crowd *c, struct member *m, struct err *e)
{
    switch (c->in.kind) {
    case MSG_OPEN:
        on_open(c, m);
        return 0;
    case MSG_RUN:
        return on_run(c, m, e);
    case MSG_CREDIT:
        m->credit += c->in.credit;
        return 0;
    case MSG_CLOSE:
        if (c->in.job != m->talk || !m->done_us) return 0;
        m->closed_us = clock_us();
        c->count.n_kept++;
        return 0;
    case MSG_CANCEL:
        m->busy = false;
        c->count.n_lost++;
        return 0;
    case MSG_FAILED:
        return on_failed(c, m, e);
    default:
        return 0;
    }
}

// 1: c->in is filled, from parts that the caller closes; 0: nothing there.
static int receive(struct crowd *c, struct member *m, zmq_msg_t *part, int *n_parts, struct err *e)
{
    struct msg_bulk bulk[MSG_BULK_MAX];
    int more = 1;
    for (*n_parts = 0; more; ++*n_parts) {
        if (*n_parts == PARTS) return err_set(e, E_INPUT, "the daemon sends a message of more than %d parts", PARTS);
        zmq_msg_init(&part[*n_parts]);
        if (zmq_msg_recv(&part[*n_parts], m->socket, ZMQ_DONTWAIT) < 0) return 0;
        more = zmq_msg_more(&part[*n_parts]);
        if (*n_parts)
            bulk[*n_parts - 1] = (struct msg_bulk){zmq_msg_data(&part[*n_parts]), zmq_msg_size(&part[*n_parts])};
    }
    int rc = msg_decode(&c->in, zmq_msg_data(&part[0]), zmq_msg_size(&part[0]), bulk, *n_parts - 1, e);
    return rc < 0 ? rc : 1;
}

static int take(struct crowd *c, struct member *m, struct err *e)
{
    for (;;) {
        zmq_msg_t part[PARTS];
        int n_parts, rc = receive(c, m, part, &n_parts, e);
        if (rc > 0) rc = on_message(c, m, e) < 0 ? e->code : 1;
        while (n_parts > 0) zmq_msg_close(&part[--n_parts]);
        if (rc <= 0) return rc;
    }
}

// ---- the turn

static int member_turn(struct crowd *c, struct member *m, int64_t now, struct err *e)
{
    bool was_busy = m->busy;
    if (!m->socket) return now < m->join_us ? 0 : join(c, m, e);
    bool due = m->busy && now >= m->due_us;
    if (now < m->beat_us && !due) return 0;
    if (due) paint(c, m);
    if (now >= m->beat_us || was_busy != m->busy) beat(c, m, now);
    return take(c, m, e);
}

static int64_t member_next(const struct member *m, int64_t now)
{
    if (!m->socket) return m->join_us;
    int64_t next = m->beat_us, due = m->waits ? now + 1000 : m->due_us;
    return m->busy && due < next ? due : next;
}

int crowd_run(struct crowd *c, int64_t until_us, void (*each_second)(void *ctx), void *ctx, struct err *e)
{
    int64_t second = clock_us() + 1000000;
    for (int64_t now = clock_us(); now < until_us; now = clock_us()) {
        struct epoll_event event[EVENTS];
        int64_t next = until_us < second ? until_us : second;
        int rc = 0;
        for (int i = 0; i < c->o.n && rc >= 0; i++) {
            rc = member_turn(c, &c->member[i], now, e);
            int64_t at = member_next(&c->member[i], now);
            if (at < next) next = at;
        }
        if (rc < 0) return rc;
        if (now >= second) {
            if (each_second) each_second(ctx);
            second += 1000000;
        }
        now = clock_us();
        int n = epoll_wait(c->epoll, event, EVENTS, next <= now ? 0 : (int)((next - now + 999) / 1000));
        for (int i = 0; i < n && rc >= 0; i++) rc = take(c, event[i].data.ptr, e);
        if (rc < 0) return rc;
    }
    return 0;
}
