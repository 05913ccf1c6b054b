// Ranks with a simulated card each, as processes of mpirun, their messages by NCCL's stand-in: every verb on device
// memory against the same on the host's, and a segment by two ranks, weights whole and shared, beside one CPU's.
//
//   test_gpusim_ranks         the verbs, and with two ranks the segment
//   test_gpusim_ranks late    one rank does not come: the other ends at its deadline, and the first is told
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "parallel/comm_nccl.h"
#include "proto/base/log.h"
#include "tests/gpusim/film.h"
#include "tests/gpusim/sim.h"
#include "worker/selftest_ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 500, RANKS = 4, SEED = 5 };

struct bed {
    struct dev *d;
    struct dev_arena *a;
    struct comm *host, *card;
    int n, rank;
    float mine[N], want[N];
    tensor x; // F32 [N]
};

static void put(struct bed *b)
{
    for (int i = 0; i < N; i++) b->mine[i] = (float)((i * 7 + b->rank * 31) % 97) - 48;
    memcpy(b->want, b->mine, sizeof b->want);
    dev_upload(b->d, b->x, b->mine, DT_F32);
}

static void same(struct bed *b, const char *what, tensor t, const float *want, int64_t n)
{
    struct err e = {0};
    float have[N];
    dev_download(b->d, have, DT_F32, tensor_of(t.data, DT_F32, SHAPE(n)));
    if (dev_sync(b->d, &e) < 0 || comm_check(b->card, &e) < 0) fail_msg("%s: %s", what, e.text);
    for (int64_t i = 0; i < n; i++)
        if (have[i] != want[i]) fail_msg("%s: value %lld is %g, not %g", what, (long long)i, have[i], want[i]);
}

static void try_children(struct bed *b)
{
    struct comm *child = NULL;
    struct err e = {0};
    if (comm_split(b->card, &child, b->rank % 2, -b->rank, &e) < 0) fail_msg("%s", e.text);
    put(b);
    comm_keep(child, b->x.data, sizeof b->mine);
    comm_all_reduce(child, b->x.data, N, DT_F32, COMM_SUM);
    struct comm *host = NULL;
    if (comm_split(b->host, &host, b->rank % 2, -b->rank, &e) < 0) fail_msg("%s", e.text);
    comm_all_reduce(host, b->want, N, DT_F32, COMM_SUM);
    same(b, "all_reduce of a child", b->x, b->want, N);
    comm_forget(child, b->x.data);
    comm_close(&child);
    comm_close(&host);
}

static void try_segment(struct bed *b)
{
    static struct film want, got;
    double average = 0;
    bool first = b->rank == 0;
    if (film_begin() != 0) fail_msg("no model");
    if (first) {
        struct dev *cpu = NULL;
        struct err e = {0};
        if (dev_open(&cpu, "cpu", 1, &e) < 0) fail_msg("%s", e.text);
        film_render(cpu, (struct film_how){.frames = FILM_SHORT}, &want);
        dev_close(&cpu);
    }
    for (int way = 0; way < 2; way++) {
        struct mesh m;
        struct err e = {0};
        struct mesh_shape shape = {1, way ? 1 : 2, way ? 2 : 1};
        if (mesh_open(&m, b->card, shape, &e) < 0) fail_msg("%s", e.text);
        memset(&got, 0, sizeof got);
        film_render(b->d, (struct film_how){.frames = FILM_SHORT, .mesh = &m, .share_weights = way},
                    first ? &got : NULL);
        mesh_close(&m);
        if (!first) continue;
        int worst = film_apart(&got, &want, &average);
        printf("ring %d x heads %d: frames differ by %.3f counts on average, %d at most\n", shape.ring, shape.heads,
               average, worst);
        assert_true(worst <= 12);
        assert_true(average <= 1);
    }
    film_end();
}

static void be_late(struct bed *b)
{
    struct err e = {0};
    comm_set_deadline_ms(b->card, b->rank == 0 ? 300 : 20000);
    if (b->rank == 0) {
        struct comm_move m = {.receive = true, .peer = 1, .at = b->x.data, .bytes = N};
        comm_start_trade(b->card, &m, 1);
    }
    while (comm_check(b->card, &e) == 0) {}
    printf("seen by rank %d: %s\n", b->rank, e.text);
    fflush(stdout);
}

static struct bed bed;

static void run(void **state)
{
    struct bed *b = &bed;
    struct err e = {0};
    if (comm_open(&b->host, "mpi", &e) < 0) {
        printf("skip: %s\n", e.text);
        return;
    }
    b->n = comm_size(b->host);
    b->rank = comm_rank(b->host);
    assert_true(b->n <= RANKS);
    sim_cards(8, 80);
    sim_seed(SEED + (uint64_t)b->rank);
    if (dev_open(&b->d, "cuda", 1, &e) < 0) fail_msg("%s", e.text);
    b->a = dev_arena_new(b->d, "ranks", 1 << 20);
    b->x = dev_tensor(b->a, DT_F32, SHAPE(N));
    if (comm_nccl_open(&b->card, b->host, dev_stream(b->d), &e) < 0) fail_msg("%s", e.text);
    if (strcmp(*state, "late") == 0) {
        be_late(b);
        comm_abort(b->card);
        return;
    }
    if (selftest_ranks(b->d, b->card, stdout, &e) < 0) fail_msg("%s", e.text);
    try_children(b);
    if (b->n == 2) try_segment(b);
    assert_string_equal(sim_fault_text(), "");
    comm_barrier(b->card);
    comm_close(&b->card);
    dev_arena_free(&b->a);
    dev_close(&b->d);
    if (b->rank == 0) printf("right on %d ranks of nccl, seed %d\n", b->n, SEED);
    comm_close(&b->host);
}

int main(int argc, char **argv)
{
    log_init(LOG_ERROR, "test_gpusim_ranks", 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(run, argc > 1 ? argv[1] : "all")};
    return cmocka_run_group_tests_name("gpusim ranks", tests, NULL, NULL);
}
