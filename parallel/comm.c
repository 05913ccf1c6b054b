// The front door of comm: life, tickets, waiting, faults, agreement, splits. The collectives are in comm_verbs.c.
//
// The idea: a transport only moves groups of messages between world ranks. A communicator is a list of world ranks and
// a context number that keeps its messages apart from all others'; so a split is one exchange of (colour, key, number)
// and needs nothing of the transport.
//
// The trap is the wait. Nobody tells a rank that another one died inside a collective, so every wait has a deadline,
// and after it this end is at fault for good: what comes later on the wire could not be told from what was missed.
#include "parallel/comm.h"

#include "kernels/dev.h"
#include "parallel/comm_self.h"
#include "parallel/comm_table.h"
#ifdef LONGTAKE_MPI
#include "parallel/comm_mpi.h"
#endif

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DEADLINE_MS = 600000, TURN_US = 20000, TURN_MAX_US = 1000000 };

static const struct {
    const char *name;
    int (*open)(struct comm **out, struct err *e);
} transports[] = {
    {"self", comm_self_open},
#ifdef LONGTAKE_MPI
    {"mpi", comm_mpi_open},
#endif
};

const char *comm_verb_name(enum comm_verb v)
{
    static const char *const names[COMM_VERBS] = {"trade",      "bcast",   "gather", "all_gather", "all_reduce",
                                                  "all_to_all", "barrier", "agree",  "split"};
    return names[v];
}

// ---- life

int comm_open(struct comm **out, const char *transport, struct err *e)
{
    for (size_t i = 0; i < sizeof transports / sizeof transports[0]; i++)
        if (strcmp(transports[i].name, transport) == 0) return transports[i].open(out, e);
    return err_set(e, E_INPUT, "this build has no transport '%s' between ranks; it has%s%s", transport, " self",
                   sizeof transports / sizeof transports[0] > 1 ? " and mpi" : "");
}

struct comm *comm_world_new(const struct comm_table *table, int rank, int n, void *end_state)
{
    struct comm *c = calloc(1, sizeof *c);
    struct comm_end *end = calloc(1, sizeof *end);
    int *world = calloc((size_t)n, sizeof *world);
    if (!c || !end || !world) {
        free(c);
        free(end);
        free(world);
        return NULL;
    }
    *end = (struct comm_end){.rank = rank, .n = n, .n_contexts = 1, .deadline_ms = DEADLINE_MS, .state = end_state};
    for (int i = 0; i < n; i++) world[i] = i;
    *c = (struct comm){.table = table, .end = end, .root = true, .rank = rank, .n = n, .world = world};
    return c;
}

static void tickets_free(struct comm *c)
{
    while (c->spare) {
        struct comm_ticket *t = c->spare;
        c->spare = t->next;
        if (c->table->ticket_free) c->table->ticket_free(t);
        free(t->parts);
        free(t);
    }
}

void comm_close(struct comm **pc)
{
    struct comm *c = *pc;
    if (!c) return;
    tickets_free(c);
    if (c->table->close) c->table->close(c);
    comm_close(&c->host);
    if (c->root) free(c->end);
    free(c->world);
    free(c->scratch);
    free(c);
    *pc = NULL;
}

void comm_abort(struct comm *c)
{
    comm_fault(c->end, "this rank gave up");
    if (c->table->abort) c->table->abort(c);
    if (c->host) comm_abort(c->host);
}

int comm_rank(const struct comm *c) { return c->rank; }
int comm_size(const struct comm *c) { return c->n; }
const char *comm_transport(const struct comm *c) { return c->table->name; }
void comm_set_deadline_ms(struct comm *c, int64_t ms) { c->end->deadline_ms = ms; }
int64_t comm_deadline_ms(const struct comm *c) { return c->end->deadline_ms; }
void comm_set_dry(struct comm *c, bool dry) { c->end->dry = dry; }
void comm_follow(struct comm *c, const struct dev *d) { c->end->dev = d; }
bool comm_dry(const struct comm *c) { return c->end->dry || (c->end->dev && dev_is_dry(c->end->dev)); }

struct comm *comm_host(struct comm *c) { return c->host ? c->host : c; }

void comm_keep(struct comm *c, void *at, int64_t bytes)
{
    if (c->table->keep && at && bytes > 0 && c->n > 1 && c->end->fault.code == 0) c->table->keep(c, at, bytes);
}

void comm_forget(struct comm *c, const void *at)
{
    if (c->table->forget) c->table->forget(c, at);
}

// ---- faults

int comm_fault(struct comm_end *end, const char *fmt, ...)
{
    if (end->fault.code < 0) return E_LOST;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(end->fault.text, sizeof end->fault.text, fmt, ap);
    va_end(ap);
    end->fault.code = E_LOST;
    return E_LOST;
}

bool comm_idle(const struct comm *c) { return comm_dry(c) || c->end->fault.code < 0; }

int comm_check(struct comm *c, struct err *e)
{
    if (c->table->sync && !comm_idle(c)) c->table->sync(c);
    if (c->end->fault.code == 0) return 0;
    return err_set(e, c->end->fault.code, "%s", c->end->fault.text);
}

// ---- tickets

struct comm_ticket *comm_ticket_new(struct comm *c, enum comm_verb v)
{
    struct comm_ticket *t = c->spare;
    if (t)
        c->spare = t->next;
    else
        t = calloc(1, sizeof *t);
    BUG_IF(!t, "no memory for a message");
    t->comm = c;
    t->verb = v;
    t->n = 0;
    t->posted = false;
    t->next = NULL;
    return t;
}

void comm_ticket_add(struct comm_ticket *t, bool receive, int peer, const void *at, int64_t bytes)
{
    struct comm *c = t->comm;
    BUG_IF(peer < 0 || peer >= c->n || peer == c->rank, "%s between rank %d and rank %d of %d", comm_verb_name(t->verb),
           c->rank, peer, c->n);
    BUG_IF(bytes < 0, "a message of %lld bytes", (long long)bytes);
    if (bytes == 0) return; // on the other side too
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 16;
        t->parts = realloc(t->parts, (size_t)t->room * sizeof *t->parts);
        BUG_IF(!t->parts, "no memory for %d messages", t->room);
    }
    t->parts[t->n++] = (struct comm_part){.receive = receive,
                                          .peer = peer,
                                          .world = c->world[peer],
                                          .at = (void *)at,
                                          .bytes = bytes,
                                          .context = c->context};
}

void comm_count_add(struct comm *c, enum comm_verb v, int64_t sent, int64_t received)
{
    c->count[v].sent_bytes += sent;
    c->count[v].received_bytes += received;
}

void comm_ticket_post(struct comm_ticket *t)
{
    struct comm *c = t->comm;
    for (int i = 0; i < t->n; i++)
        comm_count_add(c, t->verb, t->parts[i].receive ? 0 : t->parts[i].bytes,
                       t->parts[i].receive ? t->parts[i].bytes : 0);
    if (comm_idle(c) || t->n == 0) return;
    c->table->post(t);
    t->posted = true;
}

int64_t comm_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void comm_wait(struct comm_ticket **pt)
{
    struct comm_ticket *t = *pt;
    if (!t) return;
    struct comm *c = t->comm;
    if (t->posted) {
        int64_t from = comm_now_us(), until = from + c->end->deadline_ms * 1000;
        int rc = c->end->fault.code < 0 ? E_LOST : c->table->test(t, 0);
        // Who has waited long may wait more idly.
        for (int64_t turn = TURN_US; rc == 0; turn = turn < TURN_MAX_US ? 2 * turn : turn) {
            int64_t left = until - comm_now_us();
            rc = c->table->test(t, turn < left ? turn : left > 0 ? left : 1);
            if (rc == 0 && comm_now_us() > until)
                rc = comm_fault(c->end, "rank %d waited %lld ms in %s for rank %d, which does not answer", c->end->rank,
                                (long long)c->end->deadline_ms, comm_verb_name(t->verb), c->table->late(t));
        }
        if (rc < 0) c->table->drop(t);
        c->count[t->verb].wait_us += comm_now_us() - from;
    }
    t->next = c->spare;
    c->spare = t;
    *pt = NULL;
}

void comm_poll(struct comm *c)
{
    if (c->table->poll && !comm_idle(c)) c->table->poll(c);
}

void *comm_scratch(struct comm *c, int64_t bytes)
{
    if (bytes > c->n_scratch) {
        free(c->scratch);
        c->scratch = malloc((size_t)bytes);
        BUG_IF(!c->scratch, "no memory for %lld bytes of a reduction", (long long)bytes);
        c->n_scratch = bytes;
    }
    return c->scratch;
}

// ---- counters

struct comm_count comm_counted(const struct comm *c, enum comm_verb v) { return c->count[v]; }

struct comm_count comm_counted_all(const struct comm *c)
{
    struct comm_count all = {0};
    for (int v = 0; v < COMM_VERBS; v++) {
        all.calls += c->count[v].calls;
        all.sent_bytes += c->count[v].sent_bytes;
        all.received_bytes += c->count[v].received_bytes;
        all.wait_us += c->count[v].wait_us;
    }
    return all;
}

void comm_count_reset(struct comm *c) { memset(c->count, 0, sizeof c->count); }

// ---- host exchanges of small records, for agreement and splits

static void exchange(struct comm *c, enum comm_verb v, void *all, int64_t bytes)
{
    c->count[v].calls++;
    struct comm_ticket *t = comm_ticket_new(c, v);
    for (int i = 1; i < c->n; i++) {
        int to = (c->rank + i) % c->n, from = (c->rank - i + c->n) % c->n;
        comm_ticket_add(t, false, to, (char *)all + c->rank * bytes, bytes);
        comm_ticket_add(t, true, from, (char *)all + from * bytes, bytes);
    }
    comm_ticket_post(t);
    comm_wait(&t);
}

// The sentence of the lowest rank that has the worst code, told to the others by that rank, with its number in the
// world: nobody outside knows those of a part.
static void share_sentence(struct comm *c, int teller, struct err *e)
{
    char text[sizeof e->text];
    memset(text, 0, sizeof text);
    if (c->rank == teller) snprintf(text, sizeof text, "%s", e->text);
    struct comm_ticket *t = comm_ticket_new(c, COMM_AGREE);
    if (c->rank != teller)
        comm_ticket_add(t, true, teller, text, sizeof text);
    else
        for (int i = 0; i < c->n; i++)
            if (i != teller) comm_ticket_add(t, false, i, text, sizeof text);
    comm_ticket_post(t);
    comm_wait(&t);
    text[sizeof text - 1] = 0;
    bool told = strncmp(text, "rank ", 5) == 0; // agreed on before, or a fault: it names its rank
    if (told)
        err_set(e, e->code, "%s", text);
    else if (c->n > 1)
        err_set(e, e->code, "rank %d: %s", c->world[teller], text);
}

int comm_agree(struct comm *c, int code, bool *cancel, struct err *e)
{
    if (c->host) return comm_agree(c->host, code, cancel, e);
    struct err own = {.code = code};
    if (code < 0) snprintf(own.text, sizeof own.text, "%s", e ? e->text : err_name(code));
    int32_t *all = calloc((size_t)c->n, 2 * sizeof *all);
    BUG_IF(!all, "no memory to agree");
    all[2 * c->rank] = code;
    all[2 * c->rank + 1] = cancel && *cancel;
    exchange(c, COMM_AGREE, all, 2 * sizeof *all);
    int teller = 0;
    bool stop = false;
    for (int i = 0; i < c->n; i++) {
        if (all[2 * i] < all[2 * teller]) teller = i;
        stop |= all[2 * i + 1] != 0;
    }
    int agreed = all[2 * teller];
    free(all);
    if (c->end->fault.code < 0) return comm_check(c, e);
    own.code = agreed;
    if (agreed < 0 && !comm_dry(c)) share_sentence(c, teller, &own);
    if (c->end->fault.code < 0) return comm_check(c, e);
    if (cancel) *cancel = stop;
    return agreed < 0 ? err_set(e, agreed, "%s", own.text) : 0;
}

// ---- splits

struct claim { // of one rank, to all
    int32_t colour, key, context, world;
};

// Members of our colour by (key, rank), into `child`.
static void join(struct comm *c, struct comm *child, const struct claim *all)
{
    const struct claim *own = &all[c->rank];
    int first = -1;
    for (int i = 0; i < c->n; i++) {
        if (all[i].colour != own->colour) continue;
        int place = 0;
        for (int k = 0; k < c->n; k++)
            place += all[k].colour == own->colour && (all[k].key < all[i].key || (all[k].key == all[i].key && k < i));
        child->world[place] = all[i].world;
        if (i == c->rank) child->rank = place;
        if (place == 0) first = i;
        child->n++;
    }
    child->context = all[first].context;
}

static int split(struct comm *c, struct comm **out, int colour, int key, struct err *e)
{
    struct comm *child = calloc(1, sizeof *child), *host = NULL;
    struct claim *all = calloc((size_t)c->n, sizeof *all);
    int *world = calloc((size_t)c->n, sizeof *world), rc = 0;
    if (!child || !all || !world) rc = err_set(e, E_FATAL, "no memory for a communicator");
    if (rc == 0 && c->host) rc = split(c->host, &host, colour, key, e);
    if (rc == 0) {
        struct comm *wire = c->host ? c->host : c;
        *child = (struct comm){.table = c->table, .end = c->end, .host = host, .world = world};
        all[c->rank] = (struct claim){.colour = colour,
                                      .key = key,
                                      .context = c->end->n_contexts++ * c->end->n + c->end->rank,
                                      .world = c->world[c->rank]};
        exchange(wire, COMM_SPLIT, all, sizeof *all);
        rc = wire->end->fault.code < 0 ? comm_check(wire, e) : 0;
    }
    if (rc == 0) {
        join(c, child, all);
        if (c->table->open_child) rc = c->table->open_child(child, c, e);
    }
    free(all);
    if (rc < 0) {
        free(child);
        free(world);
        comm_close(&host);
        return rc;
    }
    *out = child; // and `world` with it: NOLINT(clang-analyzer-unix.Malloc)
    return 0;
}

int comm_split(struct comm *c, struct comm **out, int colour, int key, struct err *e)
{
    struct comm_end *end = c->end;
    bool dry = end->dry;
    const struct dev *dev = end->dev;
    end->dry = false;
    end->dev = NULL;
    int rc = split(c, out, colour, key, e);
    end->dry = dry;
    end->dev = dev;
    return rc;
}
