// comm: one case list that every transport passes. Without arguments: self, then threads as 1, 2, 3, 4, 5 and 8 ranks.
// `test_comm mpi` runs the list as one rank of mpirun; `test_comm mpi-late` shows what a late rank does to the others.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/comm.h"
#include "parallel/comm_self.h"
#include "parallel/comm_thread.h"
#ifdef LONGTAKE_NCCL
#include "parallel/comm_nccl.h"
#endif

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// A rank is no cmocka test: it returns what is wrong.
#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

enum { LONG = 300000, RANKS_MAX = 8 };

// What rank `r` sends in message `m`, at place `i`.
static int32_t word(int r, int m, int64_t i)
{
    return (int32_t)((unsigned)r * 1000003u + (unsigned)m * 7919u + (unsigned)i);
}

static void fill(int32_t *at, int r, int m, int64_t n)
{
    for (int64_t i = 0; i < n; i++) at[i] = word(r, m, i);
}

static bool holds(const int32_t *at, int r, int m, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (at[i] != word(r, m, i)) return false;
    return true;
}

static int32_t *words(int64_t n)
{
    int32_t *p = malloc((size_t)n * sizeof *p + 1);
    BUG_IF(!p, "no memory");
    memset(p, 0xee, (size_t)n * sizeof *p);
    return p;
}

// ---- messages

static int ring_of_messages(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int n = comm_size(c), r = comm_rank(c), next = (r + 1) % n, last = (r + n - 1) % n;
    if (n == 1) return 0;
    int32_t *out = words(2 * LONG), *in = words(2 * LONG);
    fill(out, r, 0, LONG);
    fill(out + LONG, r, 1, LONG);
    // Two messages each way, of other lengths: they pair in order. Receives stand after sends, on purpose.
    struct comm_move moves[] = {
        {.peer = next, .at = out, .bytes = LONG * 4},
        {.peer = next, .at = out + LONG, .bytes = 40},
        {.receive = true, .peer = last, .at = in, .bytes = LONG * 4},
        {.receive = true, .peer = last, .at = in + LONG, .bytes = 40},
        {.peer = next, .at = out, .bytes = 0},
        {.receive = true, .peer = last, .at = in, .bytes = 0},
    };
    comm_trade(c, moves, 6);
    CHECK(holds(in, last, 0, LONG) && holds(in + LONG, last, 1, 10));
    CHECK(in[LONG + 10] == (int32_t)0xeeeeeeee);
    if (r == 0) comm_send(c, n - 1, out, 12);
    if (r == n - 1) comm_recv(c, 0, in, 12);
    CHECK(r != n - 1 || holds(in, 0, 0, 3));
    free(out);
    free(in);
    return comm_check(c, e);
}

static int messages_under_way(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int n = comm_size(c), r = comm_rank(c), next = (r + 1) % n, last = (r + n - 1) % n;
    if (n == 1) return 0;
    int32_t *out = words(LONG), *in = words(LONG), *all = words((int64_t)n * LONG), small = r, got = -1;
    fill(out, r, 2, LONG);
    struct comm_ticket *t =
        comm_start_trade(c,
                         (struct comm_move[]){{.peer = next, .at = out, .bytes = LONG * 4},
                                              {.receive = true, .peer = last, .at = in, .bytes = LONG * 4}},
                         2);
    struct comm_ticket *g = comm_start_all_gather(c, all, out, LONG * 4);
    // A blocking message between the two overtakes neither.
    comm_trade(c,
               (struct comm_move[]){{.peer = next, .at = &small, .bytes = 4},
                                    {.receive = true, .peer = last, .at = &got, .bytes = 4}},
               2);
    comm_poll(c);
    comm_wait(&g);
    comm_wait(&t);
    CHECK(!t && !g && got == last && holds(in, last, 2, LONG));
    for (int i = 0; i < n; i++) CHECK(holds(all + (int64_t)i * LONG, i, 2, LONG));
    free(out);
    free(in);
    free(all);
    return comm_check(c, e);
}

// ---- collectives

static int broadcasts(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int32_t *at = words(LONG);
    for (int root = 0; root < comm_size(c); root++)
        for (int64_t n = 1; n <= LONG; n += LONG - 1) {
            memset(at, 0, LONG * 4);
            if (comm_rank(c) == root) fill(at, root, 3, n);
            comm_bcast(c, root, at, n * 4);
            CHECK(holds(at, root, 3, n));
        }
    free(at);
    return comm_check(c, e);
}

static int gathers(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int n = comm_size(c), r = comm_rank(c);
    int32_t *mine = words(100), *all = words(n * 100);
    int64_t bytes[RANKS_MAX];
    for (int i = 0; i < n; i++) bytes[i] = i * 7 % 3 * 4 * (i + 1); // some have none
    fill(mine, r, 4, 100);
    for (int root = 0; root < n; root++) {
        memset(all, 0xee, (size_t)n * 400);
        comm_gather(c, root, all, mine, 400);
        for (int i = 0; i < n; i++) CHECK(r != root || holds(all + i * 100, i, 4, 100));
        CHECK(r == root || all[0] == (int32_t)0xeeeeeeee);
        comm_gatherv(c, root, all, mine, bytes);
        int64_t at = 0;
        for (int i = 0; i < n && r == root; at += bytes[i++]) CHECK(holds(all + at / 4, i, 4, bytes[i] / 4));
    }
    comm_all_gather(c, all, mine, 40);
    for (int i = 0; i < n; i++) CHECK(holds(all + i * 10, i, 4, 10));
    memset(all, 0, (size_t)n * 400);
    fill(all + r * 50, r, 5, 50);
    comm_all_gather(c, all, all + r * 50, 200); // in place
    for (int i = 0; i < n; i++) CHECK(holds(all + i * 50, i, 5, 50));
    comm_all_gatherv(c, all, mine, bytes);
    int64_t at = 0;
    for (int i = 0; i < n; at += bytes[i++]) CHECK(holds(all + at / 4, i, 4, bytes[i] / 4));
    free(mine);
    free(all);
    return comm_check(c, e);
}

static float part(int r, int64_t i) { return sinf((float)(i + 1)) / (float)(r + 1) * powf(10, (float)(i % 7)); }

static int reductions(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int n = comm_size(c), r = comm_rank(c);
    const int64_t lengths[] = {1, 2, 5, 8, 1000, 1003};
    for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++) {
        float f[1003], top[1003];
        double g[1003];
        int32_t least[1003];
        int64_t whole[1003];
        for (int64_t i = 0; i < lengths[k]; i++) {
            f[i] = top[i] = part(r, i);
            g[i] = (double)part(r, i) / 3;
            least[i] = (int32_t)((r + i) % n) - 1;
            whole[i] = ((int64_t)1 << 40) + r * i;
        }
        comm_all_reduce(c, f, lengths[k], DT_F32, COMM_SUM);
        comm_all_reduce(c, g, lengths[k], DT_F64, COMM_SUM);
        comm_all_reduce(c, top, lengths[k], DT_F32, COMM_MAX);
        comm_all_reduce(c, least, lengths[k], DT_I32, COMM_MIN);
        comm_all_reduce(c, whole, lengths[k], DT_I64, COMM_SUM);
        for (int64_t i = 0; i < lengths[k]; i++) {
            float sum = part(0, i), most = part(0, i);
            double fine = (double)part(0, i) / 3;
            for (int j = 1; j < n; j++) { // the order of ranks, bit for bit
                sum += part(j, i);
                fine += (double)part(j, i) / 3;
                most = fmaxf(most, part(j, i));
            }
            CHECK(f[i] == sum && g[i] == fine && top[i] == most);
            CHECK(least[i] == -1);
            CHECK(whole[i] == ((int64_t)n << 40) + i * n * (n - 1) / 2);
        }
    }
    float poisoned[2] = {r == n - 1 ? NAN : 1, 2};
    comm_all_reduce(c, poisoned, 2, DT_F32, COMM_MAX);
    CHECK(isnan(poisoned[0]) && poisoned[1] == 2);
    return comm_check(c, e);
}

static int exchanges(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int n = comm_size(c), r = comm_rank(c), runs = 3;
    int32_t *out = words(runs * n * 10), *in = words(runs * n * 10);
    for (int k = 0; k < runs; k++)
        for (int j = 0; j < n; j++) fill(out + (k * n + j) * 10, r, k * 100 + j, 10);
    comm_all_to_all(c, in, out, 40, runs);
    for (int k = 0; k < runs; k++)
        for (int j = 0; j < n; j++) CHECK(holds(in + (k * n + j) * 10, j, k * 100 + r, 10));
    int64_t to[RANKS_MAX], from[RANKS_MAX], at = 0;
    for (int j = 0; j < n; j++) {
        to[j] = (r * 3 + j) % 4 * 4; // some have nothing to say
        from[j] = (j * 3 + r) % 4 * 4;
        fill(out + at / 4, r, j, to[j] / 4);
        at += to[j];
    }
    comm_all_to_allv(c, in, from, out, to);
    at = 0;
    for (int j = 0; j < n; at += from[j++]) CHECK(holds(in + at / 4, j, r, from[j] / 4));
    free(out);
    free(in);
    return comm_check(c, e);
}

// Threads share a counter: after a barrier nobody is still before it.
static int barriers(struct comm *c, void *ctx, struct err *e)
{
    atomic_int *arrived = ctx;
    for (int k = 1; k <= 20; k++) {
        if (arrived) atomic_fetch_add(arrived, 1);
        comm_barrier(c);
        CHECK(!arrived || atomic_load(arrived) >= k * comm_size(c));
        comm_barrier(c);
    }
    return comm_check(c, e);
}

// ---- splits, agreement

static int splits(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int n = comm_size(c), r = comm_rank(c);
    struct comm *half = NULL, *one = NULL, *same = NULL;
    if (comm_split(c, &half, r % 2, -r, e) < 0 || comm_split(half, &one, comm_rank(half), 0, e) < 0 ||
        comm_split(c, &same, 0, 0, e) < 0)
        return e->code;
    int members = (n + 1 - r % 2) / 2;
    CHECK(comm_size(half) == members && comm_size(one) == 1 && comm_size(same) == n && comm_rank(same) == r);
    CHECK(comm_rank(half) == members - 1 - r / 2); // reversed by key
    int32_t sum = r + 1, all = r + 1, alone = r;
    int32_t *seen = words(n);
    // Under way in one communicator while others talk: contexts keep them apart.
    struct comm_ticket *t = comm_start_all_gather(same, seen, &r, 4);
    comm_all_reduce(half, &sum, 1, DT_I32, COMM_SUM);
    comm_all_reduce(c, &all, 1, DT_I32, COMM_SUM);
    comm_all_reduce(one, &alone, 1, DT_I32, COMM_SUM);
    comm_wait(&t);
    int32_t want = 0;
    for (int i = r % 2; i < n; i += 2) want += i + 1;
    CHECK(sum == want && all == n * (n + 1) / 2 && alone == r);
    for (int i = 0; i < n; i++) CHECK(seen[i] == i);
    free(seen);
    comm_close(&same);
    comm_close(&one);
    comm_close(&half);
    return comm_check(c, e);
}

static int agreement(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int n = comm_size(c), r = comm_rank(c);
    bool cancel = false;
    CHECK(comm_agree(c, 0, &cancel, NULL) == 0 && !cancel);
    cancel = r == n / 2;
    CHECK(comm_agree(c, 0, &cancel, NULL) == 0 && cancel);
    struct err own = {0};
    int code = r == n - 1 ? err_set(&own, E_INPUT, "picture 7 is not there") : 0;
    CHECK(comm_agree(c, code, NULL, &own) == E_INPUT && own.code == E_INPUT);
    char want[80];
    snprintf(want, sizeof want, n > 1 ? "rank %d: picture 7 is not there" : "picture 7 is not there", n - 1);
    CHECK(strcmp(own.text, want) == 0);
    CHECK(comm_agree(c, E_INPUT, NULL, &own) == E_INPUT && strcmp(own.text, want) == 0); // again, by all
    // The worst code wins; among equals the lowest rank speaks.
    code = r == 0 ? err_set(&own, E_INPUT, "mild") : err_set(&own, E_FATAL, "broken at %d", r);
    CHECK(comm_agree(c, code, NULL, &own) == (n > 1 ? E_FATAL : E_INPUT));
    CHECK(strcmp(own.text, n > 1 ? "rank 1: broken at 1" : "mild") == 0);
    CHECK(comm_agree(c, 0, NULL, &own) == 0);
    return comm_check(c, e);
}

static int counters(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    int64_t n = comm_size(c);
    char *a = (char *)words(n * 240), *b = (char *)words(n * 240);
    memset(a, 0, (size_t)n * 960);
    memset(b, 0, (size_t)n * 960);
    comm_count_reset(c);
    comm_all_to_all(c, a, b, 320, 3);
    comm_all_gather(c, a, b, 960);
    comm_all_reduce(c, a, 60 * n, DT_F32, COMM_SUM);
    struct comm_count x = comm_counted(c, COMM_ALL_TO_ALL), g = comm_counted(c, COMM_ALL_GATHER);
    struct comm_count s = comm_counted(c, COMM_ALL_REDUCE), all = comm_counted_all(c);
    CHECK(x.calls == 1 && x.sent_bytes == 960 * (n - 1) && x.received_bytes == 960 * (n - 1));
    CHECK(g.calls == 1 && g.sent_bytes == 960 * (n - 1) && g.received_bytes == 960 * (n - 1));
    CHECK(s.calls == 1 && s.sent_bytes == 2 * (n - 1) * 240 && s.received_bytes == 2 * (n - 1) * 240);
    CHECK(all.calls == 3 && all.sent_bytes == x.sent_bytes + g.sent_bytes + s.sent_bytes);
    // Dry: counted alike, and nothing moves.
    memset(a, 1, (size_t)n * 960);
    memset(b, 2, (size_t)n * 960);
    comm_set_dry(c, true);
    comm_all_to_all(c, a, b, 320, 3);
    comm_barrier(c);
    for (int64_t i = 0; i < n * 960; i++) CHECK(a[i] == 1);
    comm_set_dry(c, false);
    CHECK(comm_counted(c, COMM_ALL_TO_ALL).sent_bytes == 2 * 960 * (n - 1));
    free(a);
    free(b);
    return comm_check(c, e);
}

static const struct {
    const char *name;
    int (*run)(struct comm *c, void *ctx, struct err *e);
} cases[] = {
    {"ring_of_messages", ring_of_messages},
    {"messages_under_way", messages_under_way},
    {"broadcasts", broadcasts},
    {"gathers", gathers},
    {"reductions", reductions},
    {"exchanges", exchanges},
    {"barriers", barriers},
    {"splits", splits},
    {"agreement", agreement},
    {"counters", counters},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static void alone(void **state)
{
    (void)state;
    struct err e = {0};
    struct comm *c = NULL;
    assert_int_equal(comm_open(&c, "self", &e), 0);
    for (int i = 0; i < N_CASES; i++)
        if (cases[i].run(c, NULL, &e) < 0) fail_msg("%s", e.text);
    comm_close(&c);
    assert_int_equal(comm_open(&c, "pigeon", &e), E_INPUT);
    assert_non_null(strstr(e.text, "'pigeon'"));
}

static void threads(void **state)
{
    (void)state;
    const int sizes[] = {1, 2, 3, 4, 5, 8};
    struct err e = {0};
    for (int k = 0; k < 6; k++)
        for (int i = 0; i < N_CASES; i++) {
            atomic_int arrived = 0;
            if (comm_thread_run(sizes[k], cases[i].run, &arrived, &e) < 0) fail_msg("%d ranks: %s", sizes[k], e.text);
        }
}

// ---- faults

// Rank 1 leaves at the ctx-th kind of call; nobody else may hang or go on as if nothing were.
static int one_leaves(struct comm *c, void *ctx, struct err *e)
{
    int where = *(int *)ctx, r = comm_rank(c);
    int32_t a[64] = {0}, b[64] = {0};
    struct comm *child = NULL;
    if (r == 1) return 0;
    for (int k = 0; k < 3; k++) { // whoever got through once is caught the next time
        if (where == 0) comm_barrier(c);
        if (where == 1) comm_all_to_all(c, a, b, 4, 1);
        if (where == 2) comm_all_reduce(c, a, 64, DT_F32, COMM_SUM);
        if (where == 3 && r == 0) comm_recv(c, 1, a, 4);
        if (where == 4 && r == 0) comm_send(c, 1, a, 4);
        if (where == 5 && comm_split(c, &child, 0, 0, e) == 0) return err_set(e, E_FATAL, "a split without rank 1");
        if (where == 6) comm_all_gather(c, a, b, 4);
        if (comm_agree(c, 0, NULL, e) == 0) return err_set(e, E_FATAL, "agreed without rank 1");
    }
    CHECK(comm_check(c, e) == E_LOST && strstr(e->text, "rank"));
    comm_set_deadline_ms(c, 1000000);
    comm_barrier(c); // does nothing any more
    return 0;
}

// Rank 0 stays away until all others have given it up.
static int one_is_late(struct comm *c, void *ctx, struct err *e)
{
    atomic_int *gave_up = ctx;
    comm_set_deadline_ms(c, 50);
    if (comm_rank(c) == 0) {
        for (int i = 0; i < 60000 && *gave_up < comm_size(c) - 1; i++) usleep(1000);
        return 0;
    }
    comm_barrier(c);
    int rc = comm_check(c, e);
    ++*gave_up;
    CHECK(rc == E_LOST && strstr(e->text, "waited"));
    return 0;
}

static int one_gives_up(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    if (comm_rank(c) == 2) {
        comm_abort(c);
        CHECK(comm_check(c, e) == E_LOST);
        return 0;
    }
    CHECK(comm_agree(c, 0, NULL, e) == E_LOST);
    return 0;
}

static int one_fails(struct comm *c, void *ctx, struct err *e)
{
    (void)ctx;
    if (comm_rank(c) == 1) return err_set(e, E_INPUT, "no such thing");
    int rc = comm_agree(c, 0, NULL, e);
    return rc == E_LOST ? 0 : E_FATAL;
}

static void faults_reach_all(void **state)
{
    (void)state;
    struct err e = {0};
    for (int where = 0; where <= 6; where++)
        for (int n = 2; n <= 5; n++)
            if (comm_thread_run(n, one_leaves, &where, &e) < 0) fail_msg("call %d, %d ranks: %s", where, n, e.text);
    atomic_int gave_up = 0;
    if (comm_thread_run(4, one_is_late, &gave_up, &e) < 0) fail_msg("%s", e.text);
    if (comm_thread_run(4, one_gives_up, NULL, &e) < 0) fail_msg("%s", e.text);
    assert_int_equal(comm_thread_run(3, one_fails, NULL, &e), E_INPUT);
    assert_string_equal(e.text, "no such thing");
}

// Without a device NCCL must say so, in a sentence; with one, a world of one rank lives and ends.
static void nccl_opens_or_says_why(void **state)
{
    (void)state;
#ifndef LONGTAKE_NCCL
    print_message("skip: built without NCCL\n");
    skip();
#else
    struct err e = {0};
    struct comm *host = NULL, *c = NULL, *child = NULL;
    assert_int_equal(comm_open(&host, "self", &e), 0);
    int rc = comm_nccl_open(&c, host, NULL, &e);
    if (rc == 0) {
        comm_barrier(c);
        assert_int_equal(comm_split(c, &child, 0, 0, &e), 0);
        assert_int_equal(comm_agree(child, 0, NULL, &e), 0);
        assert_int_equal(comm_check(c, &e), 0);
        comm_close(&child);
    } else {
        print_message("no device: %s\n", e.text);
        assert_int_equal(rc, E_LOST);
        assert_non_null(strstr(e.text, "rank 0: the device: "));
    }
    comm_close(&c);
    comm_close(&host);
#endif
}

// ---- as a rank of mpirun

static int as_mpi(bool late)
{
    struct err e = {0};
    struct comm *c = NULL;
    if (comm_open(&c, "mpi", &e) < 0) {
        printf("skip: %s\n", e.text);
        return 0;
    }
    if (late) {
        comm_set_deadline_ms(c, 300);
        if (comm_rank(c) == 0) sleep(100); // no test waits so long
        comm_barrier(c);
        if (comm_check(c, &e) == E_LOST) printf("seen: %s\n", e.text);
        fflush(stdout);
        comm_abort(c);
        return 1;
    }
    for (int i = 0; i < N_CASES; i++) {
        int rc = cases[i].run(c, NULL, &e);
        if (comm_agree(c, rc, NULL, &e) < 0) {
            printf("%s: %s\n", cases[i].name, e.text);
            comm_abort(c);
            return 1;
        }
    }
    if (comm_rank(c) == 0) printf("%d cases on %d ranks of mpi\n", N_CASES, comm_size(c));
    comm_close(&c);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) return as_mpi(strcmp(argv[1], "mpi-late") == 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(alone), cmocka_unit_test(threads),
                                       cmocka_unit_test(faults_reach_all), cmocka_unit_test(nccl_opens_or_says_why)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
