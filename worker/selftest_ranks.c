// Verbs between devices.
//
// Each verb runs twice with the same random bytes, on the host's communicator and on the device's; the results must be
// the same bytes (sums are of small whole numbers, so their order does not show). Then it runs with a large buffer for
// its rate: bytes that a rank sends in a second. Beside an op, a gather must not be seen before it is waited for.
#include "worker/selftest_ranks.h"

#include "kernels/ops.h"
#include "proto/base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { N = 480, RANKS_MAX = 64, SMALL = 1 << 10, LARGE = 64 << 20, RUNS = 5, LONG_US = 5000 };

struct ranks_test {
    struct dev *d;
    struct dev_arena *a;
    struct comm *host, *card;
    int n, rank;
    int64_t count; // elements of a piece under test
    float *mine, *want;
    tensor x, y; // F32 [n count]
};

// A verb from x to `out` on a communicator of either kind.
struct verb {
    const char *name;
    void (*run)(const struct ranks_test *t, struct comm *c, void *out, void *x);
    bool in_place; // the result is x
    int64_t (*results)(const struct ranks_test *t);
};

static int64_t all(const struct ranks_test *t) { return t->n * t->count; }
static int64_t one(const struct ranks_test *t) { return t->count; }
static int64_t on_root(const struct ranks_test *t) { return t->rank == 0 ? t->n * t->count : 0; }
static int64_t bytes_of(const struct ranks_test *t) { return t->count * (int64_t)sizeof(float); }

static void sizes(const struct ranks_test *t, int64_t *bytes)
{
    for (int i = 0; i < t->n; i++) bytes[i] = i % 3 == 1 ? 0 : bytes_of(t) / (1 + i % 3);
}

static int64_t uneven(const struct ranks_test *t)
{
    int64_t bytes[RANKS_MAX], sum = 0;
    sizes(t, bytes);
    for (int i = 0; i < t->n; i++) sum += bytes[i];
    return sum / (int64_t)sizeof(float);
}

static void all_gather(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    comm_all_gather(c, out, x, bytes_of(t));
}
static void all_gatherv(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    int64_t bytes[RANKS_MAX];
    sizes(t, bytes);
    comm_all_gatherv(c, out, x, bytes);
}
static void gather(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    comm_gather(c, 0, out, x, bytes_of(t));
}
static void bcast(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    (void)out;
    comm_bcast(c, t->n - 1, x, bytes_of(t));
}
static void sum(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    (void)out;
    comm_all_reduce(c, x, t->count, DT_F32, COMM_SUM);
}
static void most(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    (void)out;
    comm_all_reduce(c, x, t->count, DT_F32, COMM_MAX);
}
static void least(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    (void)out;
    comm_all_reduce(c, x, t->count, DT_F32, COMM_MIN);
}
static void all_to_all(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    comm_all_to_all(c, out, x, bytes_of(t) / 2, 2);
}
static void neighbours(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    struct comm_move m[] = {{.peer = (t->rank + 1) % t->n, .at = x, .bytes = bytes_of(t)},
                            {.receive = true, .peer = (t->rank + t->n - 1) % t->n, .at = out, .bytes = bytes_of(t)}};
    comm_trade(c, m, 2);
}
// With an op between start and wait, on a device that may run it beside the messages.
static void beside_an_op(const struct ranks_test *t, struct comm *c, void *out, void *x)
{
    struct comm_ticket *k = comm_start_all_gather(c, out, x, bytes_of(t));
    tensor mine = tensor_of(x, DT_F32, SHAPE(t->count)), other = dev_tensor(t->a, DT_F32, SHAPE(t->count));
    if (c == t->card) op_axpby(t->d, other, 2, mine, 0, mine);
    comm_wait(&k);
}

static const struct verb verbs[] = {{"all_gather", all_gather, false, all}, {"all_gatherv", all_gatherv, false, uneven},
                                    {"gather", gather, false, on_root},     {"bcast", bcast, true, one},
                                    {"all_reduce sum", sum, true, one},     {"all_reduce max", most, true, one},
                                    {"all_reduce min", least, true, one},   {"all_to_all", all_to_all, false, all},
                                    {"neighbours", neighbours, false, one}, {"beside an op", beside_an_op, false, all}};

static int expect_same(struct ranks_test *t, const struct verb *v, const float *want, tensor got, struct err *e)
{
    int64_t n = v->results(t);
    float *have = calloc((size_t)(n > 0 ? n : 1), sizeof *have);
    BUG_IF(!have, "no memory for the self-test");
    dev_download(t->d, have, DT_F32, tensor_of(got.data, DT_F32, SHAPE(n)));
    int rc = dev_sync(t->d, e);
    if (rc == 0) rc = comm_check(t->card, e);
    for (int64_t i = 0; i < n && rc == 0; i++)
        if (have[i] != want[i])
            rc = err_set(e, E_FATAL, "%s: value %lld is %g where the host's is %g", v->name, (long long)i,
                         (double)have[i], (double)want[i]);
    free(have);
    return rc;
}

static int try_verb(struct ranks_test *t, const struct verb *v, struct err *e)
{
    t->count = N;
    for (int64_t i = 0; i < all(t); i++) {
        t->mine[i] = (float)((i * 7 + t->rank * 31) % 97) - 48;
        t->want[i] = -1;
    }
    dev_upload(t->d, tensor_of(t->x.data, DT_F32, SHAPE(all(t))), t->mine, DT_F32);
    op_fill(t->d, tensor_of(t->y.data, DT_F32, SHAPE(all(t))), -1);
    int64_t mark = dev_arena_mark(t->a);
    v->run(t, t->card, t->y.data, t->x.data);
    dev_arena_reset(t->a, mark);
    v->run(t, t->host, t->want, t->mine);
    dev_arena_reset(t->a, mark);
    int rc = expect_same(t, v, v->in_place ? t->mine : t->want, v->in_place ? t->x : t->y, e);
    return comm_agree(t->host, rc, NULL, e);
}

// Gigabytes a second that this rank sends, with pieces of t->count, and how long that took.
static int time_some(struct ranks_test *t, const struct verb *v, double *rate, int64_t *us, struct err *e)
{
    int64_t mark = dev_arena_mark(t->a), begun = 0, sent = 0;
    op_fill(t->d, tensor_of(t->x.data, DT_F32, SHAPE(all(t))), 0.5f);
    for (int i = 0; i <= RUNS; i++) {
        if (i == 1) { // the first run warms up
            int rc = dev_sync(t->d, e);
            if (rc == 0) rc = comm_check(t->card, e);
            if (rc < 0) return rc;
            comm_barrier(t->host);
            sent = comm_counted_all(t->card).sent_bytes;
            begun = clock_us();
        }
        v->run(t, t->card, t->y.data, t->x.data);
        dev_arena_reset(t->a, mark);
    }
    int rc = dev_sync(t->d, e);
    if (rc == 0) rc = comm_check(t->card, e);
    *us = clock_us() - begun + 1;
    *rate = (double)(comm_counted_all(t->card).sent_bytes - sent) / (double)*us * 1e-3;
    return rc;
}

// With ever larger pieces, until they take a while.
static int time_verb(struct ranks_test *t, const struct verb *v, double *rate, struct err *e)
{
    int64_t us = 0;
    int rc = 0;
    for (t->count = SMALL; rc == 0 && us < LONG_US && t->count * t->n <= LARGE; t->count *= 4) {
        rc = comm_agree(t->host, time_some(t, v, rate, &us, e), NULL, e);
        if (rc == 0) comm_all_reduce(t->host, &us, 1, DT_I64, COMM_MAX);
    }
    return rc;
}

static int run_all(struct ranks_test *t, FILE *to, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs && rc == 0; i++) {
        double rate = 0;
        rc = try_verb(t, &verbs[i], e);
        if (rc == 0) rc = time_verb(t, &verbs[i], &rate, e);
        if (rc == 0 && t->rank == 0)
            fprintf(to, "%-15s %d ranks of %s  %9.2f GB/s sent  ok\n", verbs[i].name, t->n, comm_transport(t->card),
                    rate);
    }
    return rc;
}

int selftest_ranks(struct dev *d, struct comm *card, FILE *to, struct err *e)
{
    struct ranks_test t = {
        .d = d, .host = comm_host(card), .card = card, .n = comm_size(card), .rank = comm_rank(card), .count = N};
    if (t.n > RANKS_MAX) return err_set(e, E_INPUT, "the self-test takes at most %d ranks", RANKS_MAX);
    t.a = dev_arena_new(d, "messages", 0);
    t.mine = calloc((size_t)all(&t), sizeof(float));
    t.want = calloc((size_t)all(&t), sizeof(float));
    BUG_IF(!t.mine || !t.want, "no memory for the self-test");
    int64_t room = LARGE > t.n * N ? LARGE : t.n * N;
    t.x = dev_tensor(t.a, DT_F32, SHAPE(room));
    t.y = dev_tensor(t.a, DT_F32, SHAPE(room));
    int rc = comm_agree(t.host, dev_sync(d, e), NULL, e);
    if (rc == 0) rc = run_all(&t, to, e);
    if (t.rank == 0)
        fprintf(to, "verdict: messages between %d ranks of %s are %s%s\n", t.n, comm_transport(card),
                rc == 0 ? "right" : "wrong: ", rc == 0 ? "" : e->text);
    dev_arena_free(&t.a);
    free(t.mine);
    free(t.want);
    return rc;
}
