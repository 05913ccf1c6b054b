// Starting, hearing and burying a worker.
//
// What is told of its death is put together from all that is known: how the process ended, its last words (BYE, or the
// last line of its log), and nothing that is not known. Its place in the job is the dispatcher's to add.
//
// The socket's path must be short (a Unix socket's name has 108 bytes), so its folder lies in /tmp or XDG_RUNTIME_DIR,
// not beside the output.
#include "daemon/group.h"

#include "daemon/inbox.h"
#include "daemon/leftovers.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/chan.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HELLO_MS = 60000, SILENCE_MS = 3000, STALL_MS = 3600000, AWAY_MS = 1000, FOLDER_MAX = 80 };
enum { STATUS_INPUT = 3 }; // with which a worker ends whose weights or flags are wrong

struct group {
    struct group_options o; // strings are gone; times hold
    struct loop_child *child;
    struct chan *chan;
    struct loop_watch *watch;
    char folder[FOLDER_MAX + 32], socket[FOLDER_MAX + 64], log[4200];
    struct chan_peer peer;
    bool has_peer, said_bye;
    char layout[128];
    int ranks;
    char build[48], version[32]; // as it told them
    uint8_t weights[32];
    bool has_weights;
    char bye[256];
    int64_t started_ms, heard_ms, progress_ms, checked_ms;
    uint64_t progress;
    char name[256];
    // a guest's
    bool guest, gone, stuck;
    struct err flood; // it sends more than it may, or is not wanted
    struct inbox inbox;
    void (*ended)(void *ctx, struct group *g);
    void *ctx;
};

static void hello_keep(struct group *g, const struct msg_hello *h)
{
    snprintf(g->layout, sizeof g->layout, "%s", h->layout);
    snprintf(g->build, sizeof g->build, "%s", h->build);
    snprintf(g->version, sizeof g->version, "%s", h->version);
    memcpy(g->weights, h->weights, sizeof g->weights);
    g->has_weights = h->has_weights;
    g->ranks = (int)h->ranks;
}

static void times_default(struct group *g)
{
    if (!g->o.hello_ms) g->o.hello_ms = HELLO_MS;
    if (!g->o.silence_ms) g->o.silence_ms = SILENCE_MS;
    if (!g->o.stall_ms) g->o.stall_ms = STALL_MS;
    g->started_ms = g->heard_ms = g->progress_ms = g->checked_ms = clock_ms();
}

static void name_make(struct group *g, const struct msg_hello *h)
{
    snprintf(g->name, sizeof g->name, "%s, process %llu on %s, %u rank%s", h->device, (unsigned long long)h->pid,
             h->host[0] ? h->host : "this machine", h->ranks, h->ranks == 1 ? "" : "s");
    for (char *c = g->name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127 || *c == '"') *c = ' ';
}

// ---- starting

static int socket_open(struct group *g, struct loop *l, struct err *e)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    char endpoint[FOLDER_MAX + 80];
    if (!base || strlen(base) > FOLDER_MAX || access(base, W_OK) < 0) base = "/tmp";
    leftovers_sweep(base);
    snprintf(g->folder, sizeof g->folder, "%s/longtake-XXXXXX", base);
    if (!mkdtemp(g->folder)) { // mode 0700
        int why = errno;
        g->folder[0] = 0;
        return err_set(e, E_FATAL,
                       "cannot make a folder in %s for the worker's socket: %s; free some there, or name another place "
                       "in XDG_RUNTIME_DIR",
                       base, strerror(why));
    }
    snprintf(g->socket, sizeof g->socket, "%s/socket", g->folder);
    snprintf(endpoint, sizeof endpoint, "ipc://%s", g->socket);
    int rc = chan_bind(&g->chan, endpoint, e);
    if (rc >= 0) g->watch = loop_watch(l, chan_fd(g->chan));
    return rc;
}

static int process_start(struct group *g, struct loop *l, const struct group_options *o, struct err *e)
{
    struct arena a = {0};
    char *argv[LAUNCH_ARGS];
    struct launch how = {.self = o->self,
                         .worker = o->worker,
                         .folder = g->folder,
                         .model = o->model,
                         .cache = o->cache,
                         .spec = o->spec,
                         .ranks = o->ranks};
    int log = -1, rc = launch_arguments(argv, &a, &how, e);
    snprintf(g->log, sizeof g->log, "%s", o->log);
    if (rc >= 0 && (log = open(o->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
        rc = err_set(e, E_FATAL, "cannot write the worker's log %s: %s; give yourself the right to write there", o->log,
                     strerror(errno));
    if (rc >= 0) rc = loop_spawn(&g->child, l, argv, log, e);
    if (log >= 0) close(log);
    arena_free(&a);
    return rc;
}

int group_start(struct group **out, struct loop *l, const struct group_options *o, struct err *e)
{
    struct group *g = calloc(1, sizeof *g);
    BUG_IF(!g, "no memory for a group");
    g->o = *o;
    times_default(g);
    snprintf(g->name, sizeof g->name, "the daemon's own");
    int rc = socket_open(g, l, e);
    if (rc >= 0) rc = process_start(g, l, o, e);
    if (rc < 0) {
        group_end(&g);
        return rc;
    }
    log_debug("group.start", "pid=%d socket=%s", (int)loop_child_pid(g->child), g->socket);
    *out = g;
    return 0;
}

// ---- guests

void group_welcome(struct group **out, const struct group_guest *o)
{
    struct group *g = calloc(1, sizeof *g);
    BUG_IF(!g, "no memory for a group");
    g->o = (struct group_options){.silence_ms = o->silence_ms, .stall_ms = o->stall_ms};
    g->chan = o->chan;
    g->peer = *o->peer;
    g->guest = g->has_peer = true;
    g->ended = o->ended;
    g->ctx = o->ctx;
    times_default(g);
    name_make(g, o->hello);
    hello_keep(g, o->hello);
    *out = g;
}

static void note(struct group *g, const struct msg *m);

int group_bring(struct group *g, const struct msg *m, struct err *e)
{
    int rc = inbox_put(&g->inbox, m, e);
    if (rc < 0)
        g->flood = *e;
    else
        note(g, m);
    return rc;
}

// One that hangs is told to end: who started it will start it anew. One that fell silent is told that it is not known
// any more when it is heard again (fleet.c), and joins anew.
static void stuck_tell(struct group *g)
{
    struct msg *m = calloc(1, sizeof *m); // large
    BUG_IF(!m, "no memory for a message");
    m->kind = MSG_FAILED;
    m->failed.segment = -1;
    m->failed.code = E_FATAL;
    snprintf(m->failed.text, sizeof m->failed.text, "%s",
             g->flood.code < 0 ? g->flood.text : "the daemon has given this group up, which does not get on");
    chan_send(g->chan, &g->peer, m, NULL);
    free(m);
}

static void guest_end(struct group *g)
{
    if (g->stuck) stuck_tell(g);
    inbox_clear(&g->inbox);
    g->ended(g->ctx, g);
    free(g);
}

static int guest_check(struct group *g, int64_t now, struct err *e)
{
    if (g->said_bye) return err_set(e, E_LOST, "the group (%s) left: %s", g->name, g->bye);
    if (g->gone) return err_set(e, E_LOST, "the group (%s) is gone", g->name);
    g->stuck = g->flood.code < 0 || now - g->progress_ms > g->o.stall_ms;
    if (g->flood.code < 0) return err_set(e, E_LOST, "the group (%s) was given up: %s", g->name, g->flood.text);
    if (now - g->heard_ms > g->o.silence_ms)
        return err_set(e, E_LOST, "the group (%s) has been silent for %.1f s%s", g->name,
                       (double)(now - g->heard_ms) / 1000,
                       g->ranks > 1 ? ": its rank 0, which speaks for it, has ended or hangs" : "");
    if (g->stuck)
        return err_set(e, E_LOST, "the group (%s) has not got on for %.1f s", g->name,
                       (double)(now - g->progress_ms) / 1000);
    return 0;
}

bool group_is_guest(const struct group *g) { return g->guest; }
const char *group_name(const struct group *g) { return g->name; }

void group_end(struct group **pg)
{
    struct group *g = *pg;
    if (!g) return;
    *pg = NULL;
    if (g->guest) {
        guest_end(g);
        return;
    }
    loop_child_kill(&g->child);
    loop_unwatch(&g->watch);
    chan_close(&g->chan);
    if (g->folder[0]) leftovers_remove(g->folder); // MPI's files are there too
    free(g);
}

// ---- hearing

static void note(struct group *g, const struct msg *m)
{
    int64_t now = clock_ms();
    g->heard_ms = now;
    bool on = m->kind != MSG_BEAT || m->beat.progress != g->progress;
    if (on) g->progress_ms = now;
    switch (m->kind) {
    case MSG_BEAT:
        g->progress = m->beat.progress;
        break;
    case MSG_BYE:
        g->said_bye = true;
        snprintf(g->bye, sizeof g->bye, "%s", m->bye);
        break;
    default:
        break;
    }
}

bool group_woke(struct group *g)
{
    if (g->guest) return g->inbox.first || group_has_ended(g);
    return loop_woke(g->watch) || group_has_ended(g);
}

static bool same_peer(const struct chan_peer *a, const struct chan_peer *b)
{
    return a->n == b->n && memcmp(a->id, b->id, (size_t)a->n) == 0;
}

int group_recv(struct group *g, struct msg *m)
{
    if (g->guest) return inbox_take(&g->inbox, m);
    for (;;) {
        struct chan_peer from;
        struct err e = {0};
        int rc = chan_recv(g->chan, m, &from, &e);
        if (rc == 0) return 0;
        if (rc == E_INPUT) {
            log_warn("group.dropped", "text=\"%s\"", e.text);
            continue;
        }
        if (rc < 0) return 0; // the channel broke; the silence that follows tells
        if (!g->has_peer && m->kind == MSG_HELLO) {
            g->peer = from;
            g->has_peer = true;
            name_make(g, &m->hello);
            hello_keep(g, &m->hello);
        }
        if (!g->has_peer || !same_peer(&g->peer, &from)) {
            log_warn("group.stranger", "kind=%s", msg_name(m->kind));
            continue;
        }
        note(g, m);
        return 1;
    }
}

int group_send(struct group *g, const struct msg *m, struct err *e)
{
    if (!g->has_peer) return err_set(e, E_BUSY, "the worker has not called yet");
    int rc = chan_send(g->chan, &g->peer, m, e);
    if (rc == E_LOST && g->guest) g->gone = true;
    return rc == E_LOST ? E_BUSY : rc; // it has closed its end: why, is known when its process has ended
}

bool group_is_known(const struct group *g) { return g->has_peer; }

bool group_is_up(const struct group *g) { return g->has_peer && !g->said_bye && !group_has_ended(g); }

const char *group_layout(const struct group *g) { return g->layout; }
int group_ranks(const struct group *g) { return g->ranks; }

static bool is_told(const char *build) { return build[0] && strcmp(build, "none") != 0; }

int group_differs(const struct group *g, const struct group *other, struct err *e)
{
    if (is_told(g->build) && is_told(other->build) && strcmp(g->build, other->build) != 0)
        return err_set(e, E_INPUT,
                       "the worker of %s is another build (%.8s) than that of %s (%.8s): install the same, and restart "
                       "the daemon where its own was replaced",
                       g->name, g->build, other->name, other->build);
    if (g->has_weights && other->has_weights && memcmp(g->weights, other->weights, sizeof g->weights) != 0)
        return err_set(
            e, E_INPUT,
            "the files of %s have other numbers (%02x%02x%02x%02x) than those of %s (%02x%02x%02x%02x): give "
            "both copies of one model folder, and restart the daemon where its own was changed",
            g->name, g->weights[0], g->weights[1], g->weights[2], g->weights[3], other->name, other->weights[0],
            other->weights[1], other->weights[2], other->weights[3]);
    return 0;
}

int group_version(const struct group *g, struct err *e)
{
    if (strcmp(g->version, LONGTAKE_VERSION) == 0) return 0;
    return err_set(e, E_INPUT, "the daemon is longtake %s and its worker is %s: install the same of both",
                   LONGTAKE_VERSION, g->version);
}

void group_refuse(struct group *g, const struct err *why) { g->flood = *why; }

bool group_has_ended(const struct group *g)
{
    return g->guest ? g->gone || g->said_bye : loop_child_end(g->child).ended;
}

void group_rests(struct group *g) { g->progress_ms = clock_ms(); }

// ---- burying

static int tell_end(const struct group *g, struct loop_child_end end, struct err *e)
{
    char said[384];
    if (launch_last_words(g->log, said, sizeof said))
        return err_set(e, E_LOST, "the group of %d ranks ended: %s", g->o.ranks.n, said);
    if (!said[0] && g->said_bye) snprintf(said, sizeof said, "%s", g->bye);
    const char *sep = said[0] ? "; its last words: " : "";
    if (end.signal == SIGKILL)
        return err_set(e, E_LOST,
                       "the worker was killed (signal 9); if nobody did that, the machine ran out of memory%s%s", sep,
                       said);
    if (end.signal) return err_set(e, E_LOST, "the worker crashed (%s)%s%s", strsignal(end.signal), sep, said);
    if (end.status == STATUS_INPUT && said[0]) return err_set(e, E_INPUT, "%s", said);
    return err_set(e, E_LOST, "the worker ended (status %d)%s%s", end.status, sep, said);
}

int group_check(struct group *g, struct err *e)
{
    int64_t now = clock_ms(), away = now - g->checked_ms;
    g->checked_ms = now;
    if (away > AWAY_MS) { // this program slept, was stopped or was busy: not the worker's silence
        g->started_ms += away;
        g->heard_ms += away;
        g->progress_ms += away;
    }
    if (g->guest) return guest_check(g, now, e);
    struct loop_child_end end = loop_child_end(g->child);
    if (end.ended) return tell_end(g, end, e);
    if (!g->has_peer && now - g->started_ms > g->o.hello_ms)
        return err_set(e, E_LOST, "the worker did not call within %.1f s of its start", (double)g->o.hello_ms / 1000);
    if (g->has_peer && now - g->heard_ms > g->o.silence_ms)
        return err_set(e, E_LOST, "the worker has been silent for %.1f s and was ended",
                       (double)(now - g->heard_ms) / 1000);
    if (g->has_peer && now - g->progress_ms > g->o.stall_ms)
        return err_set(e, E_LOST, "the worker has not got on for %.1f s and was ended",
                       (double)(now - g->progress_ms) / 1000);
    return 0;
}
