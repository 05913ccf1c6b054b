// A binary heap. Weights grow with time, but all alike: a job that came a minute later weighs one less for ever, so its
// order among the others never changes and `since - priority x minute` is a key that stays.
#include "daemon/queue.h"

#include "daemon/sched.h"
#include "proto/base/err.h"

#include <stdlib.h>

struct queue {
    struct queue_item *v;
    int64_t n, room;
};

void queue_new(struct queue **out)
{
    *out = calloc(1, sizeof **out);
    BUG_IF(!*out, "no memory for a queue");
}

void queue_free(struct queue **q)
{
    if (*q) free((*q)->v);
    free(*q);
    *q = NULL;
}

static int64_t key(const struct queue_item *i) { return i->since_ms - (int64_t)i->priority * SCHED_AGE_MS; }

static bool before(const struct queue_item *a, const struct queue_item *b)
{
    return key(a) != key(b) ? key(a) < key(b) : a->id < b->id;
}

static void swap(struct queue_item *a, struct queue_item *b)
{
    struct queue_item t = *a;
    *a = *b;
    *b = t;
}

static void rise(struct queue *q, int64_t at)
{
    for (; at > 0 && before(&q->v[at], &q->v[(at - 1) / 2]); at = (at - 1) / 2) swap(&q->v[at], &q->v[(at - 1) / 2]);
}

static void sink(struct queue *q, int64_t at)
{
    for (;;) {
        int64_t first = at, left = 2 * at + 1;
        for (int64_t i = left; i < left + 2 && i < q->n; i++)
            if (before(&q->v[i], &q->v[first])) first = i;
        if (first == at) return;
        swap(&q->v[at], &q->v[first]);
        at = first;
    }
}

void queue_add(struct queue *q, struct queue_item item)
{
    if (q->n == q->room) {
        q->room = q->room ? 2 * q->room : 64;
        q->v = realloc(q->v, (size_t)q->room * sizeof *q->v);
        BUG_IF(!q->v, "no memory for a queue");
    }
    q->v[q->n] = item;
    rise(q, q->n++);
}

bool queue_top(const struct queue *q, struct queue_item *item)
{
    if (q->n > 0) *item = q->v[0];
    return q->n > 0;
}

static int64_t find(const struct queue *q, uint64_t id)
{
    for (int64_t i = 0; i < q->n; i++)
        if (q->v[i].id == id) return i;
    return -1;
}

bool queue_remove(struct queue *q, uint64_t id)
{
    int64_t at = find(q, id);
    if (at < 0) return false;
    q->v[at] = q->v[--q->n];
    if (at == q->n) return true;
    rise(q, at);
    sink(q, at);
    return true;
}

int64_t queue_length(const struct queue *q) { return q->n; }

int64_t queue_position(const struct queue *q, uint64_t id)
{
    int64_t at = find(q, id), n = 0;
    if (at < 0) return -1;
    for (int64_t i = 0; i < q->n; i++) n += before(&q->v[i], &q->v[at]);
    return n;
}
