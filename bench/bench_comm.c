// bench_comm links | segment [mpi]: what it costs to be several.
//
//   bench_comm links N         N ranks as threads        mpirun -n N bench_comm links mpi    as processes
//   bench_comm segment         two ranks as threads      mpirun -n 2 bench_comm segment mpi  as processes
//
// Links: each collective by size, the bytes a rank sends to others per second. Segment: in bench_comm_segment.c.
#include "bench/bench_comm.h"

#include "parallel/comm_thread.h"
#include "proto/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLS_MAX = 2000, RANKS_MAX = 64 };
static const int64_t smallest = 8, largest = 64 << 20;
static const double spend = 0.25; // seconds a row

double comm_bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// ---- links

struct buffers {
    char *from, *to;
    int64_t bytes; // that a rank has to share out in all
};

static void all_to_all(struct comm *c, const struct buffers *b)
{
    comm_all_to_all(c, b->to, b->from, b->bytes / comm_size(c), 1);
}
static void all_gather(struct comm *c, const struct buffers *b)
{
    comm_all_gather(c, b->to, b->from, b->bytes / comm_size(c));
}
static void all_reduce(struct comm *c, const struct buffers *b)
{
    comm_all_reduce(c, b->to, b->bytes / 4, DT_F32, COMM_SUM);
}
static void neighbour(struct comm *c, const struct buffers *b)
{
    int n = comm_size(c), r = comm_rank(c);
    const struct comm_move moves[] = {
        {.receive = true, .peer = (r + n - 1) % n, .at = b->to, .bytes = b->bytes},
        {.peer = (r + 1) % n, .at = b->from, .bytes = b->bytes},
    };
    comm_trade(c, moves, n > 1 ? 2 : 0);
}
static void bcast(struct comm *c, const struct buffers *b) { comm_bcast(c, 0, b->from, b->bytes); }

static const struct {
    const char *name;
    void (*run)(struct comm *c, const struct buffers *b);
} verbs[] = {{"all to all", all_to_all},
             {"neighbour", neighbour},
             {"all gather", all_gather},
             {"all reduce", all_reduce},
             {"broadcast", bcast}};

// How often everybody calls, decided by rank 0 so that all agree.
static int64_t calls_for(struct comm *c, double once)
{
    int64_t n = (int64_t)(spend / (once > 0 ? once : 1e-6));
    n = n < 1 ? 1 : n > CALLS_MAX ? CALLS_MAX : n;
    comm_bcast(c, 0, &n, sizeof n);
    return n;
}

static void time_verb(struct comm *c, int verb, const struct buffers *b)
{
    verbs[verb].run(c, b);
    comm_barrier(c);
    double from = comm_bench_now();
    verbs[verb].run(c, b);
    int64_t n = calls_for(c, comm_bench_now() - from);
    comm_barrier(c);
    comm_count_reset(c);
    from = comm_bench_now();
    for (int64_t i = 0; i < n; i++) verbs[verb].run(c, b);
    double took = (comm_bench_now() - from) / (double)n;
    double sent = (double)comm_counted_all(c).sent_bytes / (double)n;
    if (comm_rank(c) == 0)
        printf("%-7s %5d  %-11s %9lld  %11.1f  %8.2f\n", comm_transport(c), comm_size(c), verbs[verb].name,
               (long long)b->bytes, took * 1e6, sent / took / 1e9);
}

void links_bench(struct comm *c)
{
    struct buffers b = {.from = malloc((size_t)largest), .to = malloc((size_t)largest)};
    BUG_IF(!b.from || !b.to, "no memory for messages");
    memset(b.from, 0, (size_t)largest);
    memset(b.to, 0, (size_t)largest);
    for (int v = 0; v < (int)(sizeof verbs / sizeof *verbs); v++)
        for (b.bytes = smallest * comm_size(c); b.bytes <= largest; b.bytes *= b.bytes < 65536 ? 128 : 8)
            time_verb(c, v, &b);
    free(b.from);
    free(b.to);
}

static void links_head(void)
{
    printf("%-7s %5s  %-11s %9s  %11s  %8s\n", "by", "ranks", "verb", "bytes", "us", "GB/s out");
}

// ---- main

static int links_rank(struct comm *world, void *ctx, struct err *e)
{
    (void)ctx;
    links_bench(world);
    return comm_check(world, e);
}

static int segment_rank(struct comm *world, void *ctx, struct err *e) { return scene_bench(ctx, world, e); }

static int usage(void)
{
    fprintf(stderr, "bench_comm links N | links mpi | links self | segment | segment mpi\n");
    return EXIT_FAILURE;
}

static int run_links(const char *how, struct err *e)
{
    struct comm *world = NULL;
    int n = atoi(how);
    if (n > 0 && n <= RANKS_MAX) {
        links_head();
        return comm_thread_run(n, links_rank, NULL, e);
    }
    int rc = comm_open(&world, how, e);
    if (rc < 0) return rc;
    if (comm_rank(world) == 0) links_head();
    links_bench(world);
    rc = comm_check(world, e);
    comm_close(&world);
    return rc;
}

static int run_segment(bool mpi, struct err *e)
{
    struct scene *s = NULL;
    struct comm *world = NULL;
    int rc = mpi ? comm_open(&world, "mpi", e) : 0;
    if (rc == 0) rc = scene_open(&s, e);
    if (rc == 0) rc = mpi ? scene_bench(s, world, e) : comm_thread_run(2, segment_rank, s, e);
    scene_close(&s);
    comm_close(&world);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    int rc;
    log_init(LOG_ERROR, "bench_comm", 0);
    setvbuf(stdout, NULL, _IOLBF, 0); // a table is read while it grows
    if (argc == 3 && strcmp(argv[1], "links") == 0)
        rc = run_links(argv[2], &e);
    else if (argc >= 2 && strcmp(argv[1], "segment") == 0)
        rc = run_segment(argc > 2 && strcmp(argv[2], "mpi") == 0, &e);
    else
        return usage();
    if (rc < 0) fprintf(stderr, "bench_comm: %s\n", e.text);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
