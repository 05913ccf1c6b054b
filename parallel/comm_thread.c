// Messages between threads: a send and a receive meet, and whoever comes second copies.
//
// Each message is one copy, from the sender's buffer to the receiver's, with no buffer between and nothing to progress
// in the background. Unmatched messages wait in one list per receiving rank; two messages pair when sender, receiver
// and context agree, oldest first. One lock guards the lists; the copy itself runs outside it, on messages that are
// already off the list and marked as taken.
//
// The trap: a rank that gives up (deadline, peer gone) owns buffers that a peer may be copying at that moment. So
// dropping a ticket takes its waiting messages off the lists, and stays until its taken ones are copied.
#include "parallel/comm_thread.h"

#include "parallel/comm_table.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WAITING = 1, TAKEN, DONE };

struct place { // of one rank
    pthread_cond_t woken;
    struct comm_part *first, *last; // messages to this rank that nobody met yet: sends, or its own receives
    bool gone;
};

struct threads {
    pthread_mutex_t lock;
    int n;
    struct place *place;
};

static struct threads *threads_of(const struct comm *c) { return c->end->state; }

static int receiver_of(const struct comm_part *p) { return p->receive ? p->owner : p->world; }

// The oldest waiting message that pairs with `p`, taken off the list; or NULL.
static struct comm_part *meet(struct place *to, const struct comm_part *p)
{
    struct comm_part *before = NULL;
    for (struct comm_part *m = to->first; m; before = m, m = m->next) {
        if (m->receive == p->receive || m->owner != p->world || m->world != p->owner || m->context != p->context)
            continue;
        if (before)
            before->next = m->next;
        else
            to->first = m->next;
        if (to->last == m) to->last = before;
        return m;
    }
    return NULL;
}

static void leave(struct place *to, const struct comm_part *p)
{
    struct comm_part *before = NULL, *m = to->first;
    while (m != p) before = m, m = m->next;
    if (before)
        before->next = p->next;
    else
        to->first = p->next;
    if (to->last == p) to->last = before;
}

static void post_part(struct threads *w, struct comm_part *p)
{
    struct place *to = &w->place[receiver_of(p)];
    pthread_mutex_lock(&w->lock);
    struct comm_part *m = meet(to, p);
    if (!m) {
        p->state = WAITING;
        p->next = NULL;
        if (to->last)
            to->last->next = p;
        else
            to->first = p;
        to->last = p;
        pthread_mutex_unlock(&w->lock);
        return;
    }
    m->state = TAKEN;
    BUG_IF(m->bytes != p->bytes, "rank %d has a message of %lld bytes for %lld bytes of rank %d", p->owner,
           (long long)p->bytes, (long long)m->bytes, m->owner);
    pthread_mutex_unlock(&w->lock);
    memcpy(p->receive ? p->at : m->at, p->receive ? m->at : p->at, (size_t)p->bytes);
    pthread_mutex_lock(&w->lock);
    p->state = m->state = DONE;
    pthread_cond_signal(&w->place[m->owner].woken);
    pthread_mutex_unlock(&w->lock);
}

static void thread_post(struct comm_ticket *t)
{
    for (int i = 0; i < t->n; i++) {
        t->parts[i].owner = t->comm->end->rank;
        post_part(threads_of(t->comm), &t->parts[i]);
    }
}

// Under the lock. 1: done; 0: something is open; E_LOST: it waits for a rank that is gone.
static int look(struct comm_ticket *t)
{
    struct threads *w = threads_of(t->comm);
    int rc = 1;
    for (int i = 0; i < t->n; i++) {
        const struct comm_part *p = &t->parts[i];
        if (p->state == DONE) continue;
        if (p->state == WAITING && w->place[p->world].gone)
            return comm_fault(t->comm->end, "rank %d waited in %s for rank %d, which is gone", p->owner,
                              comm_verb_name(t->verb), p->world);
        rc = 0;
    }
    return rc;
}

static int thread_test(struct comm_ticket *t, int64_t wait_us)
{
    struct threads *w = threads_of(t->comm);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += wait_us % 1000000 * 1000;
    until.tv_sec += wait_us / 1000000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&w->lock);
    int rc = look(t), waited = wait_us > 0 ? 0 : -1;
    while (rc == 0 && waited == 0) {
        waited = pthread_cond_timedwait(&w->place[t->comm->end->rank].woken, &w->lock, &until);
        rc = look(t);
    }
    pthread_mutex_unlock(&w->lock);
    return rc;
}

static int thread_late(const struct comm_ticket *t)
{
    int i = 0;
    pthread_mutex_lock(&threads_of(t->comm)->lock);
    while (i < t->n - 1 && t->parts[i].state == DONE) i++;
    pthread_mutex_unlock(&threads_of(t->comm)->lock);
    return t->parts[i].world;
}

static void thread_drop(struct comm_ticket *t)
{
    struct threads *w = threads_of(t->comm);
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < t->n; i++) {
        struct comm_part *p = &t->parts[i];
        if (p->state == WAITING) {
            leave(&w->place[receiver_of(p)], p);
            p->state = DONE;
        }
        while (p->state == TAKEN) pthread_cond_wait(&w->place[p->owner].woken, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

static void go(struct threads *w, int rank)
{
    pthread_mutex_lock(&w->lock);
    w->place[rank].gone = true;
    for (int i = 0; i < w->n; i++) pthread_cond_signal(&w->place[i].woken);
    pthread_mutex_unlock(&w->lock);
}

static void thread_abort(struct comm *c) { go(threads_of(c), c->end->rank); }

static void thread_copy(struct comm *c, void *to, const void *from, int64_t bytes)
{
    (void)c;
    memmove(to, from, (size_t)bytes);
}

static const struct comm_table thread_table = {.name = "thread",
                                               .copy = thread_copy,
                                               .post = thread_post,
                                               .test = thread_test,
                                               .late = thread_late,
                                               .drop = thread_drop,
                                               .abort = thread_abort};

struct seat {
    struct threads *world;
    int rank, rc;
    int (*run)(struct comm *world, void *ctx, struct err *e);
    void *ctx;
    struct err e;
};

static void *sit(void *ctx)
{
    struct seat *s = ctx;
    struct comm *c = comm_world_new(&thread_table, s->rank, s->world->n, s->world);
    s->rc = c ? s->run(c, s->ctx, &s->e) : err_set(&s->e, E_FATAL, "no memory for a communicator");
    go(s->world, s->rank);
    comm_close(&c);
    return NULL;
}

int comm_thread_run(int n, int (*rank)(struct comm *world, void *ctx, struct err *e), void *ctx, struct err *e)
{
    struct threads w = {.n = n, .place = calloc((size_t)n, sizeof *w.place)};
    struct seat *seats = calloc((size_t)n, sizeof *seats);
    pthread_t *ids = calloc((size_t)n, sizeof *ids);
    BUG_IF(n < 1 || !w.place || !seats || !ids, "no memory for %d ranks", n);
    pthread_mutex_init(&w.lock, NULL);
    for (int i = 0; i < n; i++) pthread_cond_init(&w.place[i].woken, NULL);
    int worst = 0;
    for (int i = 0; i < n; i++) {
        seats[i] = (struct seat){.world = &w, .rank = i, .run = rank, .ctx = ctx};
        BUG_IF(pthread_create(&ids[i], NULL, sit, &seats[i]) != 0, "cannot start the thread of rank %d", i);
    }
    for (int i = 0; i < n; i++) pthread_join(ids[i], NULL);
    for (int i = n - 1; i >= 0; i--)
        if (seats[i].rc < 0 && (seats[i].rc <= seats[worst].rc)) worst = i;
    int rc = seats[worst].rc < 0 ? err_set(e, seats[worst].rc, "%s", seats[worst].e.text) : 0;
    for (int i = 0; i < n; i++) pthread_cond_destroy(&w.place[i].woken);
    pthread_mutex_destroy(&w.lock);
    free(w.place);
    free(seats);
    free(ids);
    return rc;
}
