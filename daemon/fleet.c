// The socket is one ROUTER; who spoke is told by the name that ZeroMQ gives each connection, so a group that connects
// again is another guest, and the one before it falls silent.
//
// Who says HELLO is looked at: another version, or another model than this daemon's, is refused with a sentence
// (FAILED), and nothing else of it is heard. Weights are compared by their mark (proto/mark.h). Groups that have loaded
// the same set are held against each other, too: one build of the program, one fingerprint of what is in the files. The
// first of them decides, because the daemon itself reads no weights. A group that beats and is not known, because this
// daemon was started after it or gave it up while it was silent, is asked to begin with HELLO.
//
// Messages go to the group's inbox at once, all that are there: the socket's descriptor is edge-triggered. A bound on
// the messages of one turn keeps the loop's other work going.
#include "daemon/fleet.h"

#include "proto/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURN_MAX = 512, GUESTS_MAX = 4096 };

struct guest {
    struct chan_peer peer;
    struct group *group;
    uint8_t set[32], weights[32];
    bool has_weights;
    char build[48]; // "", "none": not told
};

struct fleet {
    struct fleet_options o;
    struct chan *chan;
    struct loop_watch *watch;
    struct guest *guest;
    int n_guests;
    struct msg in, out;
    uint8_t model[32];
};

int fleet_open(struct fleet **out, struct loop *l, const struct fleet_options *o, struct err *e)
{
    struct fleet *f = calloc(1, sizeof *f);
    BUG_IF(!f, "no memory for a fleet");
    f->o = *o;
    memcpy(f->model, o->model, sizeof f->model);
    int rc = chan_bind_with(&f->chan, o->endpoint, &o->chan, e);
    if (rc < 0) {
        free(f);
        return rc;
    }
    f->watch = loop_watch(l, chan_fd(f->chan));
    *out = f;
    return 0;
}

void fleet_close(struct fleet **pf)
{
    struct fleet *f = *pf;
    if (!f) return;
    BUG_IF(f->n_guests > 0, "%d groups outlive their fleet", f->n_guests);
    loop_unwatch(&f->watch);
    chan_close(&f->chan);
    free(f->guest);
    free(f);
    *pf = NULL;
}

bool fleet_ready(const struct fleet *f) { return chan_ready(f->chan); }

void fleet_allow(struct fleet *f, const struct chan_friends *allowed) { chan_allow(f->chan, allowed); }

// ---- joining

static struct guest *guest_of(const struct fleet *f, const struct chan_peer *p)
{
    for (int i = 0; i < f->n_guests; i++)
        if (f->guest[i].peer.n == p->n && memcmp(f->guest[i].peer.id, p->id, (size_t)p->n) == 0) return &f->guest[i];
    return NULL;
}

static void on_ended(void *ctx, struct group *g)
{
    struct fleet *f = ctx;
    int i = 0;
    while (f->guest[i].group != g) i++;
    f->guest[i] = f->guest[--f->n_guests];
}

static void answer(struct fleet *f, const struct chan_peer *to, const struct err *why)
{
    struct msg *m = &f->out;
    memset(m, 0, sizeof *m);
    m->kind = MSG_FAILED;
    m->failed.segment = -1;
    m->failed.code = why->code;
    snprintf(m->failed.text, sizeof m->failed.text, "%s", why->text);
    chan_send(f->chan, to, m, NULL);
}

static void refuse(struct fleet *f, const struct chan_peer *to, const struct err *why)
{
    log_warn("group.refused", "text=\"%s\"", why->text);
    answer(f, to, why);
}

static bool builds_differ(const char *a, const char *b)
{
    bool told = a[0] && b[0] && strcmp(a, "none") != 0 && strcmp(b, "none") != 0;
    return told && strcmp(a, b) != 0;
}

// Jobs of one set go from group to group, and must not change on the way.
static int fellows_check(const struct fleet *f, const struct msg_hello *h, struct err *e)
{
    for (int i = 0; i < f->n_guests; i++) {
        const struct guest *g = &f->guest[i];
        if (memcmp(g->set, h->set, sizeof g->set) != 0) continue;
        if (builds_differ(g->build, h->build))
            return err_set(e, E_INPUT,
                           "the group on %s is another build (%.8s) of the worker than %s (%.8s): install the same on "
                           "both, or end all of the other build first",
                           h->host, h->build, group_name(g->group), g->build);
        if (g->has_weights && h->has_weights && memcmp(g->weights, h->weights, sizeof g->weights) != 0)
            return err_set(e, E_INPUT,
                           "the files of the group on %s have other numbers (%02x%02x%02x%02x) than those of %s "
                           "(%02x%02x%02x%02x): give both copies of one model folder",
                           h->host, h->weights[0], h->weights[1], h->weights[2], h->weights[3], group_name(g->group),
                           g->weights[0], g->weights[1], g->weights[2], g->weights[3]);
    }
    return 0;
}

static int hello_check(const struct fleet *f, const struct msg_hello *h, struct err *e)
{
    static const uint8_t none[32];
    if (strcmp(h->version, LONGTAKE_VERSION) != 0)
        return err_set(e, E_INPUT, "the daemon is longtake %s and the group on %s is %s: install the same on both",
                       LONGTAKE_VERSION, h->host, h->version);
    if (memcmp(h->model, none, sizeof none) == 0)
        return err_set(e, E_INPUT, "the group on %s does not tell which weights it has", h->host);
    if (memcmp(h->model, f->model, sizeof none) != 0)
        return err_set(e, E_INPUT,
                       "the group on %s has other weights (mark %02x%02x%02x%02x) than the daemon (%02x%02x%02x%02x): "
                       "give both copies of one model folder",
                       h->host, h->model[0], h->model[1], h->model[2], h->model[3], f->model[0], f->model[1],
                       f->model[2], f->model[3]);
    if (f->n_guests >= GUESTS_MAX) return err_set(e, E_INPUT, "%d groups have joined already", f->n_guests);
    return fellows_check(f, h, e);
}

static void on_hello(struct fleet *f, const struct chan_peer *from)
{
    struct err e = {0};
    const struct msg_hello *h = &f->in.hello;
    if (hello_check(f, h, &e) < 0) {
        refuse(f, from, &e);
        return;
    }
    f->guest = realloc(f->guest, (size_t)(f->n_guests + 1) * sizeof *f->guest);
    BUG_IF(!f->guest, "no memory for a group");
    struct group_guest o = {.chan = f->chan,
                            .peer = from,
                            .hello = h,
                            .silence_ms = f->o.silence_ms,
                            .stall_ms = f->o.stall_ms,
                            .ended = on_ended,
                            .ctx = f};
    struct guest *g = &f->guest[f->n_guests++];
    *g = (struct guest){.peer = *from, .has_weights = h->has_weights};
    memcpy(g->set, h->set, sizeof g->set);
    memcpy(g->weights, h->weights, sizeof g->weights);
    snprintf(g->build, sizeof g->build, "%s", h->build);
    group_welcome(&g->group, &o);
    log_info("group.joined", "name=\"%s\" n=%d", group_name(g->group), f->n_guests);
    f->o.joined(f->o.ctx, g->group, h->set);
}

// ---- the turn

static void on_message(struct fleet *f, const struct chan_peer *from)
{
    struct err e = {0};
    struct guest *g = guest_of(f, from);
    if (!g && f->in.kind == MSG_HELLO)
        on_hello(f, from);
    else if (!g && f->in.kind == MSG_BEAT) {
        err_set(&e, E_LOST, "the daemon does not know this group, or no more: it has to say HELLO");
        answer(f, from, &e);
    } else if (!g)
        log_debug("group.stranger", "kind=%s", msg_name(f->in.kind));
    else if (group_bring(g->group, &f->in, &e) < 0)
        log_warn("group.dropped", "name=\"%s\" text=\"%s\"", group_name(g->group), e.text);
}

bool fleet_turn(struct fleet *f)
{
    for (int i = 0; i < TURN_MAX; i++) {
        struct chan_peer from = {0};
        struct err e = {0};
        int rc = chan_recv(f->chan, &f->in, &from, &e);
        if (rc == 0 || rc == E_LOST) return false;
        if (rc == 1) {
            on_message(f, &from);
            continue;
        }
        log_warn("group.dropped", "text=\"%s\"", e.text);
        if (from.n > 0 && !guest_of(f, &from)) refuse(f, &from, &e);
    }
    return true;
}
