// ZeroMQ asks on an inproc socket, once per handshake, and waits: so the answers come from a thread of their own, which
// sleeps in between and ends when its context does. Whoever is turned away is logged with his key, which is what the
// owner of the list needs to let him in.
#include "proto/chan_guard.h"

#include "proto/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { PARTS = 7, PART_MAX = 256 }; // version, request, domain, address, identity, mechanism, key

struct guard {
    void *socket;
    pthread_t thread;
    pthread_mutex_t mutex;
    struct chan_friends allowed; // under the mutex
};

struct question {
    char part[PARTS][PART_MAX];
    int n[PARTS], n_parts;
};

// False: there will be none.
static bool question_read(struct guard *g, struct question *q)
{
    int more = 1;
    q->n_parts = 0;
    while (more) {
        char over[PART_MAX];
        bool fits = q->n_parts < PARTS;
        char *to = fits ? q->part[q->n_parts] : over;
        int n;
        do n = zmq_recv(g->socket, to, PART_MAX - 1, 0);
        while (n < 0 && errno == EINTR);
        if (n < 0) return false;
        if (n > PART_MAX - 1) n = PART_MAX - 1;
        to[n] = 0;
        if (fits) q->n[q->n_parts++] = n;
        size_t size = sizeof more;
        if (zmq_getsockopt(g->socket, ZMQ_RCVMORE, &more, &size) < 0) return false;
    }
    return true;
}

static void answer(struct guard *g, const struct question *q, const char *name)
{
    const char *const part[] = {"1.0", q->part[1], name ? "200" : "400", name ? "OK" : "unknown key", name ? name : "",
                                ""};
    for (int i = 0; i < 6; i++) {
        size_t n = i == 1 ? (size_t)q->n[1] : strlen(part[i]);
        if (zmq_send(g->socket, part[i], n, i < 5 ? ZMQ_SNDMORE : 0) < 0) return;
    }
}

static void *guard_run(void *ctx)
{
    struct guard *g = ctx;
    struct question *q = malloc(sizeof *q);
    BUG_IF(!q, "no memory for a guard");
    while (question_read(g, q)) {
        char known[CHAN_NAME_SIZE] = "", digits[2 * CHAN_KEY_BYTES + 1] = "";
        bool whole = q->n_parts == PARTS && !strcmp(q->part[5], "CURVE") && q->n[6] == CHAN_KEY_BYTES;
        pthread_mutex_lock(&g->mutex);
        const char *name = whole ? chan_friend_name(&g->allowed, (const uint8_t *)q->part[6]) : NULL;
        if (name) snprintf(known, sizeof known, "%s", name);
        pthread_mutex_unlock(&g->mutex);
        for (int i = 0; whole && i < CHAN_KEY_BYTES; i++) snprintf(digits + 2 * i, 3, "%02x", (uint8_t)q->part[6][i]);
        if (known[0])
            log_debug("chan.known", "name=%s address=%s", known, q->part[3]);
        else
            log_warn("chan.unknown", "key=%s address=%s", digits, q->n_parts > 3 ? q->part[3] : "?");
        answer(g, q, known[0] ? known : NULL);
    }
    free(q);
    int zero = 0;
    zmq_setsockopt(g->socket, ZMQ_LINGER, &zero, sizeof zero);
    zmq_close(g->socket);
    return NULL;
}

int guard_open(struct guard **out, void *context, struct err *e)
{
    struct guard *g = calloc(1, sizeof *g);
    BUG_IF(!g, "no memory for a guard");
    pthread_mutex_init(&g->mutex, NULL);
    g->socket = zmq_socket(context, ZMQ_REP);
    int rc = 0;
    if (!g->socket || zmq_bind(g->socket, "inproc://zeromq.zap.01") < 0)
        rc = err_set(e, E_FATAL, "cannot guard a socket: %s", zmq_strerror(errno));
    if (rc >= 0 && pthread_create(&g->thread, NULL, guard_run, g) != 0)
        rc = err_set(e, E_FATAL, "no thread to guard a socket");
    if (rc >= 0) {
        *out = g;
        return 0;
    }
    if (g->socket) zmq_close(g->socket);
    pthread_mutex_destroy(&g->mutex);
    free(g);
    return rc;
}

void guard_allow(struct guard *g, const struct chan_friends *f)
{
    struct chan_friend *copy = malloc((size_t)(f->n ? f->n : 1) * sizeof *copy);
    BUG_IF(!copy, "no memory for keys");
    memcpy(copy, f->v ? f->v : copy, (size_t)f->n * sizeof *copy);
    pthread_mutex_lock(&g->mutex);
    free(g->allowed.v);
    g->allowed = (struct chan_friends){copy, f->n};
    pthread_mutex_unlock(&g->mutex);
}

void guard_close(struct guard **pg)
{
    struct guard *g = *pg;
    if (!g) return;
    pthread_join(g->thread, NULL);
    pthread_mutex_destroy(&g->mutex);
    free(g->allowed.v);
    free(g);
    *pg = NULL;
}
