// The link thread.
//
//   socket -> OPEN + BLOBs -> (voice whole) -> orders -> renderer
//                RUN CLOSE -------------------^
//   renderer -> queue -> credit gate for FRAMES -> socket;  BEAT each second and at each stage, past the queue
//
// One mutex guards the queues; the renderer waits on a condition, the link thread in poll() on the socket's descriptor
// and an eventfd that the renderer rings. The socket's descriptor is edge-triggered (chan.h), so every turn receives
// until nothing is there, whatever woke it.
//
// Easy to get wrong: order. TAIL, FRAMES and DONE of a segment leave as queued; a FRAMES without credit holds back all
// behind it. CANCEL drops what is queued of the job, lets the renderer find out at its next step, and only then closes
// the job: the ORDER_CLOSE it queues is what ends the cancelled state.
#include "worker/link.h"

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/chan.h"
#include "worker/kin.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BEAT_MS = 1000, RETRY_MS = 5, QUEUE_MAX = 8, CLOSE_MS = 5000, TOLD_MS = 500 };

struct outgoing {
    struct msg m;
    struct outgoing *next;
};

struct link {
    struct chan *chan;
    char cache_dir[4096];
    int bell; // eventfd
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t orders_changed, queue_changed;
    // under the mutex
    struct order *orders;
    struct outgoing *queue;
    int n_queue;
    struct msg_beat beat;
    bool over;           // no more orders will come
    bool closing;        // flush and end
    char last_word[256]; // why it is over
    // atomic: read at every step
    atomic_bool cancelled;
    // of the link thread alone
    struct order *opening; // an OPEN whose voice is not whole yet
    uint64_t job;          // the open one, 0: none
    uint64_t frame_bytes, frame_num;
    int64_t credit;
    int64_t beaten_ms;
    uint64_t beaten; // progress told last
    struct msg_hello hello;
    void (*refused)(const struct err *why);
    struct kin *kin; // NULL: nobody is watched
    void (*bereft)(const struct err *why);
    int64_t wait_ms, away_ms; // since then nobody has answered; 0: somebody does
};

// ---- orders

void order_free(struct order **po)
{
    struct order *o = *po;
    if (!o) return;
    for (int i = 0; i < MSG_BULK_MAX; i++) free(o->bulk[i]);
    voice_file_close(&o->voice);
    free(o);
    *po = NULL;
}

static struct order *order_new(enum order_kind kind, const struct msg *m)
{
    struct order *o = calloc(1, sizeof *o);
    BUG_IF(!o, "no memory for an order");
    o->kind = kind;
    if (!m) return o;
    o->job = m->job;
    for (int i = 0; i < m->n_bulk; i++) {
        if (m->bulk[i].n == 0) continue;
        o->bulk[i] = malloc(m->bulk[i].n);
        BUG_IF(!o->bulk[i], "no memory for %zu bytes of an order", m->bulk[i].n);
        memcpy(o->bulk[i], m->bulk[i].data, m->bulk[i].n);
        o->n_bulk_bytes[i] = m->bulk[i].n;
    }
    return o;
}

static void give_order(struct link *l, struct order *o)
{
    pthread_mutex_lock(&l->mutex);
    struct order **end = &l->orders;
    while (*end) end = &(*end)->next;
    *end = o;
    pthread_cond_broadcast(&l->orders_changed);
    pthread_mutex_unlock(&l->mutex);
}

// The end of all orders, told once.
static void give_up(struct link *l, const char *why)
{
    pthread_mutex_lock(&l->mutex);
    if (!l->over) snprintf(l->last_word, sizeof l->last_word, "%s", why);
    l->over = true;
    atomic_store(&l->cancelled, true);
    pthread_cond_broadcast(&l->orders_changed);
    pthread_cond_broadcast(&l->queue_changed);
    pthread_mutex_unlock(&l->mutex);
}

static void refused(struct link *l, const struct err *why)
{
    give_up(l, why->text);
    if (l->refused) l->refused(why);
}

// ---- the queue out

static void outgoing_free(struct outgoing *q)
{
    for (int i = 0; i < q->m.n_bulk; i++) free((void *)q->m.bulk[i].data);
    free(q);
}

static struct outgoing *outgoing_new(const struct msg *m)
{
    struct outgoing *q = malloc(sizeof *q);
    BUG_IF(!q, "no memory for a message");
    *q = (struct outgoing){.m = *m};
    for (int i = 0; i < m->n_bulk; i++) {
        void *copy = malloc(m->bulk[i].n ? m->bulk[i].n : 1);
        BUG_IF(!copy, "no memory for %zu bytes of a message", m->bulk[i].n);
        memcpy(copy, m->bulk[i].data, m->bulk[i].n);
        q->m.bulk[i].data = copy;
    }
    return q;
}

static void append(struct link *l, struct outgoing *q)
{
    struct outgoing **end = &l->queue;
    while (*end) end = &(*end)->next;
    *end = q;
    l->n_queue++;
}

static void ring(struct link *l)
{
    uint64_t one = 1;
    if (write(l->bell, &one, sizeof one) < 0 && errno != EAGAIN) log_warn("link.bell", "errno=%d", errno);
}

// A segment that was asked for and will not come (mutex held): every RUN has its answer.
static void answer_cancelled(struct link *l, uint64_t job, int64_t segment)
{
    struct msg m = {.kind = MSG_FAILED, .job = job, .failed = {.segment = segment, .code = E_BUSY}};
    snprintf(m.failed.text, sizeof m.failed.text, "segment %lld was cancelled", (long long)segment + 1);
    append(l, outgoing_new(&m));
}

// What is queued of `job` is dropped (mutex held): orders, tails and frames. Segments that waited, and those that were
// done but not told yet, are answered.
static void drop_job(struct link *l, uint64_t job)
{
    struct outgoing *queue = l->queue;
    l->queue = NULL;
    l->n_queue = 0;
    while (queue) {
        struct outgoing *q = queue;
        queue = q->next;
        q->next = NULL;
        bool mine = q->m.job == job;
        if (mine && q->m.kind == MSG_DONE) answer_cancelled(l, job, q->m.done.segment);
        if (mine && q->m.kind != MSG_FAILED)
            outgoing_free(q);
        else
            append(l, q);
    }
    for (struct order **o = &l->orders; *o;) {
        struct order *it = *o;
        if (it->job != job) {
            o = &it->next;
            continue;
        }
        *o = it->next;
        if (it->kind == ORDER_RUN) answer_cancelled(l, job, it->run.segment);
        order_free(&it);
    }
    pthread_cond_broadcast(&l->queue_changed);
}

// Sends what may leave. True: something waits for the peer's queue to drain.
static bool flush(struct link *l)
{
    for (;;) {
        pthread_mutex_lock(&l->mutex);
        struct outgoing *q = l->queue;
        bool gated = q && q->m.kind == MSG_FRAMES && (int64_t)q->m.frames.n > l->credit;
        struct err e = {0};
        int rc = q && !gated ? chan_send(l->chan, NULL, &q->m, &e) : E_BUSY;
        if (rc == 0) {
            if (q->m.kind == MSG_FRAMES) l->credit -= q->m.frames.n;
            l->queue = q->next;
            l->n_queue--;
            outgoing_free(q);
            pthread_cond_broadcast(&l->queue_changed);
        }
        pthread_mutex_unlock(&l->mutex);
        if (rc == E_LOST) give_up(l, e.text);
        if (rc != 0) return q && !gated && rc == E_BUSY;
    }
}

// ---- messages in

static void refuse(struct link *l, uint64_t job, int64_t segment, const struct err *why)
{
    struct msg m = {.kind = MSG_FAILED, .job = job, .failed = {.segment = segment, .code = why->code}};
    snprintf(m.failed.text, sizeof m.failed.text, "%s", why->text);
    log_warn("link.refused", "job=%llu text=\"%s\"", (unsigned long long)job, why->text);
    pthread_mutex_lock(&l->mutex);
    append(l, outgoing_new(&m));
    pthread_mutex_unlock(&l->mutex);
}

static void hand_on_opened(struct link *l)
{
    if (!l->opening || !voice_file_is_whole(l->opening->voice)) return;
    give_order(l, l->opening);
    l->opening = NULL;
}

static int on_open(struct link *l, const struct msg *m, struct err *e)
{
    const struct spec_render *s = &m->open.spec;
    if (l->job)
        return err_set(e, E_BUSY, "job %llu is open; close it before OPEN of %llu", (unsigned long long)l->job,
                       (unsigned long long)m->job);
    if (m->job == 0) return err_set(e, E_INPUT, "an OPEN without a job's number");
    struct order *o = order_new(ORDER_OPEN, m);
    o->open = m->open;
    int rc = voice_file_open(&o->voice, l->cache_dir, s->n_speakers, m->open.n_samples, e);
    if (rc < 0) {
        order_free(&o);
        return rc;
    }
    l->opening = o;
    l->job = m->job;
    l->credit = 0;
    l->frame_bytes = (uint64_t)s->h * (uint64_t)s->w * 3;
    l->frame_num = (uint64_t)s->frame_num;
    hand_on_opened(l);
    return 0;
}

static int on_blob(struct link *l, const struct msg *m, struct err *e)
{
    if (!l->opening) return err_set(e, E_INPUT, "a piece of voice that no OPEN announced");
    int rc = voice_file_put(l->opening->voice, (int)m->blob.speaker, (int64_t)m->blob.offset, m->bulk[0].data,
                            m->bulk[0].n, e);
    if (rc == 0) hand_on_opened(l);
    return rc;
}

static int on_run(struct link *l, const struct msg *m, struct err *e)
{
    const struct msg_run *r = &m->run;
    long long number = (long long)r->segment + 1;
    if (l->opening) return err_set(e, E_INPUT, "RUN of segment %lld before the voice was whole", number);
    if (m->bulk[0].n != l->frame_bytes)
        return err_set(e, E_INPUT, "the picture of segment %lld has %zu bytes, not %llu", number, m->bulk[0].n,
                       (unsigned long long)l->frame_bytes);
    if (r->keep_from > r->keep_to || (uint64_t)r->keep_to > l->frame_num)
        return err_set(e, E_INPUT, "segment %lld keeps frames %lld to %lld of %llu", number, (long long)r->keep_from,
                       (long long)r->keep_to, (unsigned long long)l->frame_num);
    struct order *o = order_new(ORDER_RUN, m);
    o->run = *r;
    give_order(l, o);
    return 0;
}

static void on_end(struct link *l, bool cancelled)
{
    pthread_mutex_lock(&l->mutex);
    if (cancelled) {
        atomic_store(&l->cancelled, true);
        drop_job(l, l->job);
    }
    pthread_mutex_unlock(&l->mutex);
    order_free(&l->opening);
    struct order *o = order_new(ORDER_CLOSE, NULL);
    o->job = l->job;
    l->job = 0;
    give_order(l, o);
}

// The coordinator refuses this group, or does not know it: it was started anew, or has given the group up meanwhile.
static void on_refusal(struct link *l, const struct msg_failed *m)
{
    struct err e = {0};
    if (m->code != E_LOST) {
        err_set(&e, m->code == E_FATAL ? E_LOST : E_INPUT, "%s", m->text);
        refused(l, &e);
        return;
    }
    struct msg hello = {.kind = MSG_HELLO, .hello = l->hello};
    if (l->job) on_end(l, true);
    pthread_mutex_lock(&l->mutex);
    append(l, outgoing_new(&hello));
    pthread_mutex_unlock(&l->mutex);
}

static void on_message(struct link *l, const struct msg *m)
{
    struct err e = {0};
    int rc = 0;
    bool of_job = m->kind == MSG_BLOB || m->kind == MSG_RUN || m->kind == MSG_CREDIT || m->kind == MSG_CANCEL ||
                  m->kind == MSG_CLOSE;
    if (of_job && (m->job != l->job || l->job == 0)) {
        log_warn("link.stray", "kind=%s job=%llu open=%llu", msg_name(m->kind), (unsigned long long)m->job,
                 (unsigned long long)l->job);
        if (m->kind != MSG_RUN) return;
        rc = err_set(&e, E_INPUT, "RUN for job %llu, which is not open here", (unsigned long long)m->job);
    }
    switch (rc == 0 ? m->kind : MSG_NONE) {
    case MSG_OPEN:
        rc = on_open(l, m, &e);
        break;
    case MSG_BLOB:
        rc = on_blob(l, m, &e);
        break;
    case MSG_RUN:
        rc = on_run(l, m, &e);
        break;
    case MSG_CREDIT:
        l->credit += m->credit;
        break;
    case MSG_CANCEL:
        on_end(l, true);
        break;
    case MSG_CLOSE:
        on_end(l, false);
        break;
    case MSG_FAILED:
        on_refusal(l, &m->failed);
        break;
    case MSG_BYE:
        give_up(l, m->bye);
        break;
    default:
        if (rc == 0) log_warn("link.stray", "kind=%s", msg_name(m->kind));
    }
    if (rc < 0) refuse(l, m->job, m->kind == MSG_RUN ? m->run.segment : -1, &e);
}

static void receive(struct link *l)
{
    struct msg *m = malloc(sizeof *m);
    BUG_IF(!m, "no memory for a message");
    for (;;) {
        struct err e = {0};
        int rc = chan_recv(l->chan, m, NULL, &e);
        if (rc == 0) break;
        if (rc == 1) {
            on_message(l, m);
        } else if (rc == E_INPUT) {
            log_warn("link.dropped", "text=\"%s\"", e.text);
        } else {
            give_up(l, e.text);
            break;
        }
    }
    free(m);
}

// ---- the thread

static void beat(struct link *l)
{
    pthread_mutex_lock(&l->mutex);
    struct msg m = {.kind = MSG_BEAT, .beat = l->beat};
    pthread_mutex_unlock(&l->mutex);
    int64_t now = clock_ms();
    if (m.beat.progress == l->beaten && now - l->beaten_ms < BEAT_MS) return;
    if (chan_send(l->chan, NULL, &m, NULL) < 0) return; // a full queue is told soon enough by what is in it
    l->beaten = m.beat.progress;
    l->beaten_ms = now;
}

// Nobody is there, or nobody who wants us.
static void trouble(struct link *l)
{
    struct err e = {0};
    int rc = chan_trouble(l->chan, &e);
    int64_t now = clock_ms();
    if (rc == E_INPUT) refused(l, &e);
    if (rc == 1) l->away_ms = 0;
    if (rc == E_LOST && l->away_ms == 0) {
        l->away_ms = now;
        log_warn("link.away", "text=\"%s\"", e.text);
    }
    if (l->away_ms == 0 || l->wait_ms == 0 || now - l->away_ms < l->wait_ms) return;
    err_set(&e, E_LOST,
            "nobody has answered for %lld s; start the daemon that --connect names, or give a longer --wait",
            (long long)(now - l->away_ms) / 1000);
    refused(l, &e);
}

// A rank has ended, and with it the group: the launcher is about to end this one too. What is queued waits for a
// renderer that gets no further; the coordinator is told at once.
static void mourn(struct link *l)
{
    struct msg m = {.kind = MSG_BYE};
    struct err e = {0};
    pthread_mutex_lock(&l->mutex);
    bool over = l->over || l->closing;
    pthread_mutex_unlock(&l->mutex);
    if (over) { // ranks end as they should
        kin_leave(l->kin);
        l->kin = NULL;
        return;
    }
    if (kin_lost(l->kin, &e) == 0) return;
    snprintf(m.bye, sizeof m.bye, "%s", e.text);
    if (chan_send(l->chan, NULL, &m, NULL) == 0) chan_linger(l->chan, TOLD_MS);
    chan_close(&l->chan);
    kin_rest(l->kin, CLOSE_MS);
    l->bereft(&e);
    BUG("a rank has ended and the program goes on");
}

static bool finished(struct link *l, int64_t *deadline)
{
    pthread_mutex_lock(&l->mutex);
    bool closing = l->closing, empty = !l->queue;
    pthread_mutex_unlock(&l->mutex);
    if (!closing) return false;
    if (*deadline == 0) *deadline = clock_ms() + CLOSE_MS;
    return empty || clock_ms() >= *deadline;
}

static void *link_run(void *ctx)
{
    struct link *l = ctx;
    int64_t deadline = 0;
    while (!finished(l, &deadline)) {
        receive(l);
        trouble(l);
        bool waiting = flush(l);
        beat(l);
        receive(l); // a send may have taken the descriptor's edge
        int64_t left = l->beaten_ms + BEAT_MS - clock_ms();
        struct pollfd fds[] = {{.fd = chan_fd(l->chan), .events = POLLIN},
                               {.fd = l->bell, .events = POLLIN},
                               {.fd = l->kin ? kin_fd(l->kin) : -1, .events = POLLIN}};
        poll(fds, 3, waiting || deadline ? RETRY_MS : left > 0 ? (int)left : 0);
        if (fds[2].revents) mourn(l);
        uint64_t rung;
        if (fds[1].revents && read(l->bell, &rung, sizeof rung) < 0) log_debug("link.bell", "errno=%d", errno);
    }
    return NULL;
}

// ---- life

static void link_free(struct link *l)
{
    chan_close(&l->chan);
    if (l->bell >= 0) close(l->bell);
    order_free(&l->opening);
    while (l->orders) {
        struct order *o = l->orders;
        l->orders = o->next;
        order_free(&o);
    }
    while (l->queue) {
        struct outgoing *q = l->queue;
        l->queue = q->next;
        outgoing_free(q);
    }
    pthread_mutex_destroy(&l->mutex);
    pthread_cond_destroy(&l->orders_changed);
    pthread_cond_destroy(&l->queue_changed);
    free(l);
}

int link_open(struct link **out, const struct link_options *o, struct err *e)
{
    struct link *l = calloc(1, sizeof *l);
    if (!l) return err_set(e, E_FATAL, "no memory for the link");
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->orders_changed, NULL);
    pthread_cond_init(&l->queue_changed, NULL);
    snprintf(l->cache_dir, sizeof l->cache_dir, "%s", o->cache_dir);
    snprintf(l->beat.stage, sizeof l->beat.stage, "load");
    l->beat.segment = -1;
    l->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->hello = *o->hello;
    l->wait_ms = o->wait_ms;
    l->kin = o->kin;
    l->bereft = o->bereft;
    l->refused = o->refused;
    int rc = l->bell < 0 ? err_set(e, E_FATAL, "no eventfd: %s", strerror(errno)) : chan_call(&l->chan, &o->call, 0, e);
    struct msg m = {.kind = MSG_HELLO, .hello = *o->hello};
    if (rc == 0) append(l, outgoing_new(&m));
    if (rc == 0 && pthread_create(&l->thread, NULL, link_run, l) != 0)
        rc = err_set(e, E_FATAL, "no thread for the link");
    if (rc < 0)
        link_free(l);
    else
        *out = l;
    return rc;
}

void link_close(struct link **pl, const char *reason)
{
    struct link *l = *pl;
    if (!l) return;
    struct msg m = {.kind = MSG_BYE};
    snprintf(m.bye, sizeof m.bye, "%s", reason);
    pthread_mutex_lock(&l->mutex);
    append(l, outgoing_new(&m));
    l->closing = true;
    bool over = l->over;
    pthread_mutex_unlock(&l->mutex);
    ring(l);
    pthread_join(l->thread, NULL);
    chan_linger(l->chan, over ? 0 : CLOSE_MS); // nobody waits for the words of a peer that has said goodbye
    link_free(l);
    *pl = NULL;
}

// ---- the renderer's side

struct order *link_take(struct link *l)
{
    pthread_mutex_lock(&l->mutex);
    while (!l->orders && !l->over) pthread_cond_wait(&l->orders_changed, &l->mutex);
    struct order *o = NULL;
    if (l->over) {
        o = order_new(ORDER_BYE, NULL);
        snprintf(o->bye, sizeof o->bye, "%s", l->last_word);
    } else {
        o = l->orders;
        l->orders = o->next;
        o->next = NULL;
        if (o->kind == ORDER_CLOSE) atomic_store(&l->cancelled, false);
    }
    pthread_mutex_unlock(&l->mutex);
    return o;
}

int link_send(struct link *l, const struct msg *m, struct err *e)
{
    int rc = 0;
    pthread_mutex_lock(&l->mutex);
    bool told = m->kind == MSG_FAILED; // goes out whatever happened
    while (!told && l->n_queue >= QUEUE_MAX && !atomic_load(&l->cancelled))
        pthread_cond_wait(&l->queue_changed, &l->mutex);
    if (!told && atomic_load(&l->cancelled))
        rc = err_set(e, E_BUSY, "the job was cancelled");
    else
        append(l, outgoing_new(m));
    pthread_mutex_unlock(&l->mutex);
    ring(l);
    return rc;
}

void link_stage(struct link *l, const char *stage, int64_t segment, int step, int n_steps)
{
    pthread_mutex_lock(&l->mutex);
    l->beat.progress++;
    snprintf(l->beat.stage, sizeof l->beat.stage, "%s", stage);
    l->beat.segment = segment;
    l->beat.step = (uint32_t)step;
    l->beat.n_steps = (uint32_t)n_steps;
    pthread_mutex_unlock(&l->mutex);
    ring(l);
}

bool link_cancelled(const struct link *l) { return atomic_load(&l->cancelled); }
