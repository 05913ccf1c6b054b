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

enum { WATCHERS = 256, TELL_MS = 200, LIST_MOST = 100, SOCKET_MAX = 107, MESSAGE_MAX = MSG_BLOB_MAX + (1 << 16) };

// Whom an answer goes to.
struct asker {
    struct chan *chan;
    struct chan_peer peer;
};

struct watcher {
    struct asker asker;
    uint64_t job; // 0: a free place
    bool due;
    int64_t told_ms;
};

// Who has submitted something that is still looked at.
struct submitter {
    struct submitter *next;
    struct asker asker;
    uint64_t ticket;
};

struct desk {
    struct submitter *submitters;
    uint64_t n_tickets;
    struct loop *loop;
    struct chan *chan[2]; // in the store's folder; over TCP, or NULL
    struct loop_watch *watch[2];
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
    rc = chan_bind_with(&d->chan[0], endpoint, &(struct chan_options){.message_max = MESSAGE_MAX}, e);
    if (rc < 0) {
        free(d);
        return rc;
    }
    d->loop = l;
    d->watch[0] = loop_watch(l, chan_fd(d->chan[0]));
    *out = d;
    return 0;
}

int desk_listen(struct desk *d, const char *endpoint, const struct chan_options *o, struct err *e)
{
    int rc = chan_bind_with(&d->chan[1], endpoint, o, e);
    if (rc < 0) return rc;
    d->watch[1] = loop_watch(d->loop, chan_fd(d->chan[1]));
    return 0;
}

void desk_allow(struct desk *d, const struct chan_friends *allowed)
{
    if (d->chan[1]) chan_allow(d->chan[1], allowed);
}

void desk_close(struct desk **pd)
{
    struct desk *d = *pd;
    if (!d) return;
    for (int i = 0; i < 2; i++) {
        loop_unwatch(&d->watch[i]);
        chan_close(&d->chan[i]);
    }
    while (d->submitters) {
        struct submitter *w = d->submitters;
        d->submitters = w->next;
        free(w);
    }
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

static int send_json(struct desk *d, const struct asker *to, uint64_t job, json_t *tree)
{
    char *text = json_dumps(tree, JSON_COMPACT | JSON_REAL_PRECISION(6));
    struct msg *m = answer(d, job);
    m->bulk[0] = (struct msg_bulk){text, strlen(text)};
    m->n_bulk = 1;
    int rc = chan_send(to->chan, &to->peer, m, NULL);
    free(text);
    json_decref(tree);
    return rc;
}

static int send_error(struct desk *d, const struct asker *to, uint64_t job, const struct err *why)
{
    struct msg *m = answer(d, job);
    m->answer.code = why->code;
    snprintf(m->answer.text, sizeof m->answer.text, "%s", why->text);
    return chan_send(to->chan, &to->peer, m, NULL);
}

static int send_status(struct desk *d, struct service *s, const struct asker *to, uint64_t job, bool *over)
{
    struct err e = {0};
    json_t *tree = NULL;
    if (service_status(s, job, &tree, over, &e) < 0) {
        *over = true;
        return send_error(d, to, job, &e);
    }
    return send_json(d, to, job, tree);
}

static int fetch(struct desk *d, struct service *s, const struct asker *to, struct err *e)
{
    int fd = -1;
    uint64_t total, offset = d->in.fetch_offset;
    int rc = service_film(s, d->in.job, &fd, &total, e);
    if (rc < 0) return rc;
    ssize_t n = pread(fd, d->piece, sizeof d->piece, (off_t)offset);
    close(fd);
    if (n < 0)
        return err_set(e, E_FATAL, "the film of job %llu cannot be read; look at the disk of the store",
                       (unsigned long long)d->in.job);
    struct msg *m = answer(d, d->in.job);
    m->answer.offset = offset;
    m->answer.total = total;
    m->bulk[0] = (struct msg_bulk){d->piece, (size_t)n};
    m->n_bulk = 1;
    chan_send(to->chan, &to->peer, m, NULL);
    return 0;
}

static int put(struct desk *d, struct service *s, const struct asker *to, struct err *e)
{
    const struct msg_put *p = &d->in.put;
    struct msg_bulk piece = d->in.n_bulk ? d->in.bulk[0] : (struct msg_bulk){0};
    uint64_t have = 0;
    int rc = service_put(s, p->hash, p->offset, p->total, piece.data, piece.n, &have, e);
    if (rc < 0) return rc;
    struct msg *m = answer(d, 0);
    m->answer.offset = have;
    m->answer.total = p->total;
    chan_send(to->chan, &to->peer, m, NULL);
    return 0;
}

static int watch(struct desk *d, const struct asker *from, uint64_t job, struct err *e)
{
    struct watcher *place = NULL;
    for (int i = 0; i < WATCHERS; i++) {
        struct watcher *w = &d->watcher[i];
        bool same = w->job == job && w->asker.chan == from->chan && w->asker.peer.n == from->peer.n &&
                    memcmp(w->asker.peer.id, from->peer.id, (size_t)from->peer.n) == 0;
        if (same || (w->job == 0 && !place)) place = w;
        if (same) break;
    }
    if (place) {
        *place = (struct watcher){.asker = *from, .job = job, .due = true};
        return 0;
    }
    return err_set(e, E_BUSY, "%d clients watch already; try again later, or ask for the status", WATCHERS);
}

static int submit(struct desk *d, struct service *s, const struct asker *from, struct err *e)
{
    uint64_t id = 0;
    bool over;
    const struct msg_submit *m = &d->in.submit;
    int rc = service_submit(s, ++d->n_tickets, m->key, m->priority, d->in.bulk[0].data, d->in.bulk[0].n, &id, e);
    if (rc == 0) send_status(d, s, from, id, &over);
    if (rc <= 0) return rc;
    struct submitter *w = calloc(1, sizeof *w);
    BUG_IF(!w, "no memory for a client");
    *w = (struct submitter){.next = d->submitters, .asker = *from, .ticket = d->n_tickets};
    d->submitters = w;
    return 0;
}

void desk_submitted(struct desk *d, struct service *s, uint64_t ticket, uint64_t id, const struct err *why)
{
    bool over;
    for (struct submitter **at = &d->submitters; *at; at = &(*at)->next) {
        struct submitter *w = *at;
        if (w->ticket != ticket) continue;
        if (why)
            send_error(d, &w->asker, 0, why);
        else
            send_status(d, s, &w->asker, id, &over);
        *at = w->next;
        free(w);
        return;
    }
}

static int list(struct desk *d, struct service *s, const struct asker *to, struct err *e)
{
    json_t *tree = NULL;
    int rc = service_list(s, d->in.list_batch, d->in.job, LIST_MOST, &tree, e);
    if (rc >= 0) send_json(d, to, 0, tree);
    return rc;
}

static int record(struct desk *d, struct service *s, const struct asker *to, struct err *e)
{
    json_t *tree = NULL;
    bool events = d->in.status.view == MSG_VIEW_EVENTS;
    int rc = events ? service_events(s, d->in.job, (int64_t)d->in.status.after, LIST_MOST, &tree, e)
                    : service_report(s, d->in.job, &tree, e);
    if (rc >= 0) send_json(d, to, d->in.job, tree);
    return rc;
}

static int serve(struct desk *d, struct service *s, const struct asker *from, struct err *e)
{
    uint64_t job = d->in.job;
    bool over;
    int rc = 0;
    switch (d->in.kind) {
    case MSG_SUBMIT:
        return submit(d, s, from, e);
    case MSG_CONTROL:
        rc = service_control(s, job, d->in.control, e);
        break;
    case MSG_STATUS:
        if (d->in.status.view != MSG_VIEW_JOB) return record(d, s, from, e);
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
        int rc = send_status(d, s, &w->asker, w->job, &over);
        if (rc == E_BUSY) continue;
        w->told_ms = now;
        w->due = false;
        if (over || rc < 0) w->job = 0;
    }
}

static void hear(struct desk *d, struct service *s, struct chan *chan)
{
    for (;;) {
        struct asker from = {.chan = chan};
        struct err e = {0};
        int rc = chan_recv(chan, &d->in, &from.peer, &e);
        if (rc == 0 || rc == E_LOST) break;
        if (rc >= 0) rc = serve(d, s, &from, &e);
        if (rc < 0 && from.peer.n > 0) send_error(d, &from, d->in.job, &e);
        if (rc < 0) log_debug("desk.refused", "text=\"%s\"", e.text);
    }
}

void desk_turn(struct desk *d, struct service *s)
{
    for (int i = 0; i < 2; i++)
        if (d->chan[i]) hear(d, s, d->chan[i]);
    tell_watchers(d, s);
    for (int i = 0; i < 2; i++) // an answer may have taken the descriptor's edge
        if (d->chan[i] && chan_ready(d->chan[i])) loop_again(d->loop);
}
