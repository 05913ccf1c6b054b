// A client that does not take its answers loses them (its queue is bounded, and it may ask again); a watcher whose
// queue is full is told at a later turn, with what is true then.
#include "daemon/desk.h"

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/chan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WATCHERS = 256, TELL_MS = 200, LIST_MOST = 100, SOCKET_MAX = 107 };

struct watcher {
    struct chan_peer peer;
    uint64_t job; // 0: a free place
    bool due;
    int64_t told_ms;
};

struct desk {
    struct chan *chan;
    struct loop_watch *watch;
    struct msg in, out;
    struct watcher watcher[WATCHERS];
    uint8_t piece[MSG_BLOB_MAX];
};

int desk_endpoint(char *endpoint, size_t n, const char *folder, struct err *e)
{
    size_t length = strlen(folder) + strlen("/socket");
    snprintf(endpoint, n, "ipc://%s/socket", folder);
    if (length <= SOCKET_MAX) return 0;
    return err_set(e, E_INPUT, "the store's path %s is too long for a socket by %zu bytes; choose a shorter --store",
                   folder, length - SOCKET_MAX);
}

int desk_open(struct desk **out, struct loop *l, const char *folder, struct err *e)
{
    char endpoint[256];
    int rc = desk_endpoint(endpoint, sizeof endpoint, folder, e);
    if (rc < 0) return rc;
    struct desk *d = calloc(1, sizeof *d);
    BUG_IF(!d, "no memory for the desk");
    unlink(endpoint + strlen("ipc://")); // a dead daemon's; a living one holds the store
    rc = chan_bind(&d->chan, endpoint, e);
    if (rc < 0) {
        free(d);
        return rc;
    }
    d->watch = loop_watch(l, chan_fd(d->chan));
    *out = d;
    return 0;
}

void desk_close(struct desk **pd)
{
    struct desk *d = *pd;
    if (!d) return;
    loop_unwatch(&d->watch);
    chan_close(&d->chan);
    free(d);
    *pd = NULL;
}

void desk_changed(struct desk *d, uint64_t id)
{
    for (int i = 0; i < WATCHERS; i++)
        if (d->watcher[i].job == id) d->watcher[i].due = true;
}

// ---- answers

static struct msg *answer(struct desk *d, uint64_t job)
{
    memset(&d->out, 0, sizeof d->out);
    d->out.kind = MSG_ANSWER;
    d->out.job = job;
    return &d->out;
}

static int send_json(struct desk *d, const struct chan_peer *to, uint64_t job, json_t *tree)
{
    char *text = json_dumps(tree, JSON_COMPACT | JSON_REAL_PRECISION(6));
    struct msg *m = answer(d, job);
    m->bulk[0] = (struct msg_bulk){text, strlen(text)};
    m->n_bulk = 1;
    int rc = chan_send(d->chan, to, m, NULL);
    free(text);
    json_decref(tree);
    return rc;
}

static int send_error(struct desk *d, const struct chan_peer *to, uint64_t job, const struct err *why)
{
    struct msg *m = answer(d, job);
    m->answer.code = why->code;
    snprintf(m->answer.text, sizeof m->answer.text, "%s", why->text);
    return chan_send(d->chan, to, m, NULL);
}

static int send_status(struct desk *d, struct service *s, const struct chan_peer *to, uint64_t job, bool *over)
{
    struct err e = {0};
    json_t *tree = NULL;
    if (service_status(s, job, &tree, over, &e) < 0) {
        *over = true;
        return send_error(d, to, job, &e);
    }
    return send_json(d, to, job, tree);
}

static int fetch(struct desk *d, struct service *s, const struct chan_peer *to, struct err *e)
{
    int fd = -1;
    uint64_t total, offset = d->in.fetch_offset;
    int rc = service_film(s, d->in.job, &fd, &total, e);
    if (rc < 0) return rc;
    ssize_t n = pread(fd, d->piece, sizeof d->piece, (off_t)offset);
    close(fd);
    if (n < 0) return err_set(e, E_FATAL, "the film of job %llu cannot be read", (unsigned long long)d->in.job);
    struct msg *m = answer(d, d->in.job);
    m->answer.offset = offset;
    m->answer.total = total;
    m->bulk[0] = (struct msg_bulk){d->piece, (size_t)n};
    m->n_bulk = 1;
    chan_send(d->chan, to, m, NULL);
    return 0;
}

static int put(struct desk *d, struct service *s, const struct chan_peer *to, struct err *e)
{
    const struct msg_put *p = &d->in.put;
    struct msg_bulk piece = d->in.n_bulk ? d->in.bulk[0] : (struct msg_bulk){0};
    uint64_t have = 0;
    int rc = service_put(s, p->hash, p->offset, p->total, piece.data, piece.n, &have, e);
    if (rc < 0) return rc;
    struct msg *m = answer(d, 0);
    m->answer.offset = have;
    m->answer.total = p->total;
    chan_send(d->chan, to, m, NULL);
    return 0;
}

static int watch(struct desk *d, const struct chan_peer *from, uint64_t job, struct err *e)
{
    struct watcher *place = NULL;
    for (int i = 0; i < WATCHERS; i++) {
        struct watcher *w = &d->watcher[i];
        bool same = w->job == job && w->peer.n == from->n && memcmp(w->peer.id, from->id, (size_t)from->n) == 0;
        if (same || (w->job == 0 && !place)) place = w;
        if (same) break;
    }
    if (place) {
        *place = (struct watcher){.peer = *from, .job = job, .due = true};
        return 0;
    }
    return err_set(e, E_BUSY, "%d clients watch already; try again later, or ask for the status", WATCHERS);
}

static int list(struct desk *d, struct service *s, const struct chan_peer *to, struct err *e)
{
    json_t *tree = NULL;
    int rc = service_list(s, d->in.job, LIST_MOST, &tree, e);
    if (rc >= 0) send_json(d, to, 0, tree);
    return rc;
}

static int serve(struct desk *d, struct service *s, const struct chan_peer *from, struct err *e)
{
    uint64_t job = d->in.job;
    bool over;
    int rc = 0;
    switch (d->in.kind) {
    case MSG_SUBMIT:
        rc = service_submit(s, d->in.submit.key, d->in.submit.priority, d->in.bulk[0].data, d->in.bulk[0].n, &job, e);
        break;
    case MSG_CONTROL:
        rc = service_control(s, job, d->in.control, e);
        break;
    case MSG_STATUS:
        break;
    case MSG_PUT:
        return put(d, s, from, e);
    case MSG_FETCH:
        return fetch(d, s, from, e);
    case MSG_LIST:
        return list(d, s, from, e);
    case MSG_WATCH:
        return watch(d, from, job, e);
    default:
        return err_set(e, E_INPUT, "%s is nothing that a client says", msg_name(d->in.kind));
    }
    if (rc >= 0) send_status(d, s, from, job, &over);
    return rc;
}

static void tell_watchers(struct desk *d, struct service *s)
{
    int64_t now = clock_ms();
    for (int i = 0; i < WATCHERS; i++) {
        struct watcher *w = &d->watcher[i];
        bool over = false;
        if (w->job == 0 || !w->due || now - w->told_ms < TELL_MS) continue;
        int rc = send_status(d, s, &w->peer, w->job, &over);
        if (rc == E_BUSY) continue;
        w->told_ms = now;
        w->due = false;
        if (over || rc < 0) w->job = 0;
    }
}

void desk_turn(struct desk *d, struct service *s)
{
    for (;;) {
        struct chan_peer from = {0};
        struct err e = {0};
        int rc = chan_recv(d->chan, &d->in, &from, &e);
        if (rc == 0 || rc == E_LOST) break;
        if (rc >= 0) rc = serve(d, s, &from, &e);
        if (rc < 0 && from.n > 0) send_error(d, &from, d->in.job, &e);
        if (rc < 0) log_debug("desk.refused", "text=\"%s\"", e.text);
    }
    tell_watchers(d, s);
}
