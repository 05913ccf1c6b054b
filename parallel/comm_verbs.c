// The collectives, made of groups of messages, once for every transport.
//
// Each is one group of messages wherever that can be (all to all, gathers), so that all of it is under way at once;
// a broadcast goes down a binomial tree. A reduction is shared out: rank j adds up piece j of everybody, in the order
// of ranks, and the finished pieces are gathered. So every rank ends with the same bits, which do not depend on who
// was early, and a rank sends 2 (P-1)/P of the buffer.
//
// The trap: peers are visited in a rotated order, or all ranks would send to rank 0 first.
#include "parallel/comm.h"

#include "parallel/comm_table.h"

#include <math.h>

static void copy(struct comm *c, void *to, const void *from, int64_t bytes)
{
    if (bytes > 0 && to != from && !comm_dry(c)) c->table->copy(c, to, from, bytes);
}

static void finish(struct comm_ticket *t)
{
    comm_ticket_post(t);
    comm_wait(&t);
}

static int ahead(const struct comm *c, int i) { return (c->rank + i) % c->n; }
static int behind(const struct comm *c, int i) { return (c->rank - i + c->n) % c->n; }

// ---- messages

struct comm_ticket *comm_start_trade(struct comm *c, const struct comm_move *moves, int n)
{
    c->count[COMM_TRADE].calls++;
    struct comm_ticket *t = comm_ticket_new(c, COMM_TRADE);
    for (int i = 0; i < n; i++) comm_ticket_add(t, moves[i].receive, moves[i].peer, moves[i].at, moves[i].bytes);
    comm_ticket_post(t);
    return t;
}

void comm_trade(struct comm *c, const struct comm_move *moves, int n)
{
    struct comm_ticket *t = comm_start_trade(c, moves, n);
    comm_wait(&t);
}

void comm_send(struct comm *c, int to, const void *at, int64_t bytes)
{
    comm_trade(c, &(struct comm_move){.peer = to, .at = (void *)at, .bytes = bytes}, 1);
}

void comm_recv(struct comm *c, int from, void *at, int64_t bytes)
{
    comm_trade(c, &(struct comm_move){.receive = true, .peer = from, .at = at, .bytes = bytes}, 1);
}

// ---- one to all, all to one

void comm_barrier(struct comm *c)
{
    // Rounds of doubling reach: after round k everybody has heard of 2^k ranks before it.
    c->count[COMM_BARRIER].calls++;
    if (c->host) {
        comm_barrier(c->host);
        return;
    }
    for (int reach = 1; reach < c->n; reach *= 2) {
        char out = 1, in = 0;
        struct comm_ticket *t = comm_ticket_new(c, COMM_BARRIER);
        comm_ticket_add(t, false, ahead(c, reach), &out, 1);
        comm_ticket_add(t, true, behind(c, reach), &in, 1);
        finish(t);
    }
}

void comm_bcast(struct comm *c, int root, void *at, int64_t bytes)
{
    c->count[COMM_BCAST].calls++;
    if (c->table->bcast) {
        c->table->bcast(c, root, at, bytes);
        return;
    }
    int place = behind(c, root), reach = 1; // the root has place 0
    while (reach < c->n && !(place & reach)) reach *= 2;
    if (place) {
        struct comm_ticket *t = comm_ticket_new(c, COMM_BCAST);
        comm_ticket_add(t, true, (place - reach + root) % c->n, at, bytes);
        finish(t);
    }
    struct comm_ticket *t = comm_ticket_new(c, COMM_BCAST);
    for (reach /= 2; reach > 0; reach /= 2)
        if (place + reach < c->n) comm_ticket_add(t, false, (place + reach + root) % c->n, at, bytes);
    finish(t);
}

void comm_gather(struct comm *c, int root, void *all, const void *mine, int64_t bytes)
{
    c->count[COMM_GATHER].calls++;
    struct comm_ticket *t = comm_ticket_new(c, COMM_GATHER);
    if (c->rank != root)
        comm_ticket_add(t, false, root, mine, bytes);
    else
        for (int i = 0; i < c->n; i++)
            if (i != root)
                comm_ticket_add(t, true, i, (char *)all + i * bytes, bytes);
            else
                copy(c, (char *)all + i * bytes, mine, bytes);
    finish(t);
}

void comm_gatherv(struct comm *c, int root, void *all, const void *mine, const int64_t *bytes)
{
    c->count[COMM_GATHER].calls++;
    struct comm_ticket *t = comm_ticket_new(c, COMM_GATHER);
    int64_t at = 0;
    if (c->rank != root) comm_ticket_add(t, false, root, mine, bytes[c->rank]);
    for (int i = 0; i < c->n && c->rank == root; at += bytes[i++])
        if (i != root)
            comm_ticket_add(t, true, i, (char *)all + at, bytes[i]);
        else
            copy(c, (char *)all + at, mine, bytes[i]);
    finish(t);
}

// ---- all to all of one piece

struct comm_ticket *comm_start_all_gather(struct comm *c, void *all, const void *mine, int64_t bytes)
{
    c->count[COMM_ALL_GATHER].calls++;
    struct comm_ticket *t = comm_ticket_new(c, COMM_ALL_GATHER);
    if (c->table->all_gather) {
        comm_count_add(c, COMM_ALL_GATHER, (c->n - 1) * bytes, (c->n - 1) * bytes);
        if (!comm_idle(c)) c->table->all_gather(t, all, mine, bytes);
        return t;
    }
    copy(c, (char *)all + c->rank * bytes, mine, bytes);
    for (int i = 1; i < c->n; i++) {
        comm_ticket_add(t, false, ahead(c, i), mine, bytes);
        comm_ticket_add(t, true, behind(c, i), (char *)all + behind(c, i) * bytes, bytes);
    }
    comm_ticket_post(t);
    return t;
}

void comm_all_gather(struct comm *c, void *all, const void *mine, int64_t bytes)
{
    struct comm_ticket *t = comm_start_all_gather(c, all, mine, bytes);
    comm_wait(&t);
}

static int64_t before(const int64_t *bytes, int i)
{
    int64_t sum = 0;
    for (int k = 0; k < i; k++) sum += bytes[k];
    return sum;
}

void comm_all_gatherv(struct comm *c, void *all, const void *mine, const int64_t *bytes)
{
    c->count[COMM_ALL_GATHER].calls++;
    struct comm_ticket *t = comm_ticket_new(c, COMM_ALL_GATHER);
    copy(c, (char *)all + before(bytes, c->rank), mine, bytes[c->rank]);
    for (int i = 1; i < c->n; i++) {
        int from = behind(c, i);
        comm_ticket_add(t, false, ahead(c, i), mine, bytes[c->rank]);
        comm_ticket_add(t, true, from, (char *)all + before(bytes, from), bytes[from]);
    }
    finish(t);
}

// ---- reductions

// The NaN of either side wins, so that no rank count hides one.
#define PICK(a, b, op) ((op) == COMM_SUM ? (a) + (b) : ((op) == COMM_MAX) == ((a) > (b)) ? (a) : (b))
#define FOLD(type)                                                                                                     \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type *x = (type *)into + i, y = ((const type *)from)[i];                                                       \
        *x = PICK(*x, y, op);                                                                                          \
    }
#define FOLD_REAL(type)                                                                                                \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type *x = (type *)into + i, y = ((const type *)from)[i];                                                       \
        *x = isnan(*x) ? *x : isnan(y) ? y : PICK(*x, y, op);                                                          \
    }

static void fold(void *into, const void *from, int64_t n, enum dtype t, enum comm_op op)
{
    switch (t) {
    case DT_F32:
        FOLD_REAL(float);
        break;
    case DT_F64:
        FOLD_REAL(double);
        break;
    case DT_I32:
        FOLD(int32_t);
        break;
    case DT_I64:
        FOLD(int64_t);
        break;
    default:
        BUG("no reduction of %s", dtype_table[t].name);
    }
}

// Elements [share_from(i), share_from(i + 1)) are rank i's to add up.
static int64_t share_from(const struct comm *c, int64_t n, int i)
{
    int64_t from = (n + c->n - 1) / c->n * i;
    return from < n ? from : n;
}

void comm_all_reduce(struct comm *c, void *at, int64_t n, enum dtype t, enum comm_op op)
{
    c->count[COMM_ALL_REDUCE].calls++;
    if (c->table->all_reduce) {
        c->table->all_reduce(c, at, n, t, op);
        return;
    }
    if (c->n == 1) return;
    int64_t size = dtype_size(t), own = share_from(c, n, c->rank + 1) - share_from(c, n, c->rank);
    char *piece = (char *)at + share_from(c, n, c->rank) * size, *got = comm_scratch(c, own * size * c->n);
    struct comm_ticket *tk = comm_ticket_new(c, COMM_ALL_REDUCE);
    for (int i = 1; i < c->n; i++) {
        int64_t to = share_from(c, n, ahead(c, i)), end = share_from(c, n, ahead(c, i) + 1);
        comm_ticket_add(tk, false, ahead(c, i), (char *)at + to * size, (end - to) * size);
        comm_ticket_add(tk, true, behind(c, i), got + behind(c, i) * own * size, own * size);
    }
    finish(tk);
    copy(c, got + c->rank * own * size, piece, own * size);
    for (int i = 1; i < c->n && !comm_idle(c); i++) fold(got, got + i * own * size, own, t, op);
    copy(c, piece, got, own * size);
    tk = comm_ticket_new(c, COMM_ALL_REDUCE);
    for (int i = 1; i < c->n; i++) {
        int64_t from = share_from(c, n, behind(c, i)), end = share_from(c, n, behind(c, i) + 1);
        comm_ticket_add(tk, false, ahead(c, i), piece, own * size);
        comm_ticket_add(tk, true, behind(c, i), (char *)at + from * size, (end - from) * size);
    }
    finish(tk);
}

// ---- all to all

void comm_all_to_all(struct comm *c, void *recv, const void *send, int64_t bytes, int runs)
{
    c->count[COMM_ALL_TO_ALL].calls++;
    struct comm_ticket *t = comm_ticket_new(c, COMM_ALL_TO_ALL);
    for (int r = 0; r < runs; r++) {
        const char *out = (const char *)send + r * c->n * bytes;
        char *in = (char *)recv + r * c->n * bytes;
        copy(c, in + c->rank * bytes, out + c->rank * bytes, bytes);
        for (int i = 1; i < c->n; i++) {
            comm_ticket_add(t, false, ahead(c, i), out + ahead(c, i) * bytes, bytes);
            comm_ticket_add(t, true, behind(c, i), in + behind(c, i) * bytes, bytes);
        }
    }
    finish(t);
}

void comm_all_to_allv(struct comm *c, void *recv, const int64_t *recv_bytes, const void *send,
                      const int64_t *send_bytes)
{
    c->count[COMM_ALL_TO_ALL].calls++;
    struct comm_ticket *t = comm_ticket_new(c, COMM_ALL_TO_ALL);
    BUG_IF(recv_bytes[c->rank] != send_bytes[c->rank], "%lld bytes from this rank to itself, %lld wanted",
           (long long)send_bytes[c->rank], (long long)recv_bytes[c->rank]);
    copy(c, (char *)recv + before(recv_bytes, c->rank), (const char *)send + before(send_bytes, c->rank),
         send_bytes[c->rank]);
    for (int i = 1; i < c->n; i++) {
        int to = ahead(c, i), from = behind(c, i);
        comm_ticket_add(t, false, to, (const char *)send + before(send_bytes, to), send_bytes[to]);
        comm_ticket_add(t, true, from, (char *)recv + before(recv_bytes, from), recv_bytes[from]);
    }
    finish(t);
}
