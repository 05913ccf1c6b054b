// bench_forward --model FOLDER [--size WxH] [--frames F] [--dtype f32|bf16] [--table cpu[:set]] [--threads N]
// [--shared self|mpi]: memory of one forward of the diffusion transformer, foretold and taken.
//
// First everything runs dry: the network is loaded into an arena that only counts, conditions and one forward into
// another. Then the same for real, in this process, while a thread looks at what the process holds. Prints "what,bytes"
// rows: what the dry run foretold, what the arenas counted, and what the process grew by (anonymous pages, at their
// peak), then the ratio of the last to the first. Pages of the weight files are none of it: they are let go once they
// are packed. (The system keeps a peak too, but of all pages, those of files among them.)
//
// Shared: the ranks of that world spread the blocks over all of them and split the sequence; no dry run, since shares
// are loaded together or not at all. A row a rank is printed. "due" is counted from the names and shapes in the weight
// files, so that it owes nothing to the code that spreads: what stands outside the blocks, a share of the blocks, and
// two whole blocks (none of a rank that is alone). Pages that MPI shares between processes count as taken.
#include "bench/given.h"
#include "parallel/mesh.h"
#include "proto/base/log.h"
#include "proto/model.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
    const char *model, *table, *shared;
    int w, h, frames, n_threads;
    enum dtype dtype;
};

struct team { // of ranks that share; else nothing
    struct comm *world;
    struct mesh mesh;
};

struct taken {
    int64_t weights, forward; // counted by the arenas
    int n_layers;
    int64_t held; // pages, at their peak
};

// Pages that this process holds and no file does.
static int64_t pages_held(void)
{
    char line[256];
    long long kib = 0, sum = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %lld", &kib) == 1 || sscanf(line, "RssShmem: %lld", &kib) == 1) sum += kib;
    if (f) fclose(f);
    return (int64_t)sum << 10;
}

struct watch {
    pthread_t thread;
    atomic_bool over;
    int64_t peak;
};

enum { LOOK_NS = 2000000 };

static void *look(void *ctx)
{
    struct watch *w = ctx;
    bool over;
    do { // and once more when it is over
        over = atomic_load(&w->over);
        int64_t held = pages_held();
        if (held > w->peak) w->peak = held;
        if (!over) nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    } while (!over);
    return NULL;
}

static void watch_begin(struct watch *w)
{
    *w = (struct watch){0};
    BUG_IF(pthread_create(&w->thread, NULL, look, w) != 0, "no thread to watch memory");
}

static int64_t watch_end(struct watch *w)
{
    atomic_store(&w->over, true);
    pthread_join(w->thread, NULL);
    return w->peak;
}

// Loads, conditions, runs once.
static int forward(struct dev *d, const struct weights *w, const struct model *m, const struct options *o,
                   const struct team *team, struct taken *taken, struct err *e)
{
    struct dit *dit = NULL;
    struct dit_config want = {.n_heads = m->dit_heads, .eps = (float)m->dit_eps, .text_len = m->text_len};
    int rc = team->world ? dit_new_shared(&dit, d, w, &want, o->dtype, team->world, e)
                         : dit_new(&dit, d, w, &want, o->dtype, e);
    if (rc < 0) return rc;
    struct dev_arena *a = dev_arena_new(d, "forward", 0);
    struct given g;
    given_new(&g, d, dit, a, o->frames, o->h, o->w);
    dit_forward_branches(dit, team->world ? &team->mesh : NULL, a, &g.out, &g.in, 1, NULL);
    rc = dev_sync(d, e);
    if (team->world) rc = comm_agree(team->world, rc, NULL, e);
    *taken = (struct taken){
        .weights = dit_bytes(dit), .forward = dev_arena_peak(a), .n_layers = dit_config_of(dit)->n_layers};
    dev_arena_free(&a);
    dit_free(&dit);
    return rc;
}

// Bytes of the blocks and of all else, as a model of type `t` keeps them: vectors stay F32.
static void weigh(const struct weights *w, enum dtype t, int64_t *blocks, int64_t *rest)
{
    for (int64_t i = 0; i < weights_count(w); i++) {
        const char *name = weights_name(w, i);
        tensor stored = NO_TENSOR;
        if (weights_get(w, name, &stored, NULL) < 0) continue;
        bool vector = stored.n == 1 || strstr(name, "modulation");
        *(strncmp(name, "blocks.", 7) == 0 ? blocks : rest) += tensor_count(stored) * (vector ? 4 : dtype_size(t));
    }
}

struct row {          // of a rank
    int64_t foretold; // of one that does not share
    int64_t weights, forward, taken;
};

static int print_ranks(const struct team *team, const struct weights *w, int n_layers, enum dtype t, struct row mine,
                       struct err *e)
{
    int64_t blocks = 0, rest = 0, n = comm_size(team->world);
    weigh(w, t, &blocks, &rest);
    int64_t due = rest + blocks / n + (n > 1 ? 2 * (blocks / n_layers) : 0);
    struct row *all = calloc((size_t)n, sizeof *all);
    if (!all) return err_set(e, E_FATAL, "no memory for %lld rows", (long long)n);
    comm_gather(team->world, 0, all, &mine, sizeof mine);
    if (comm_rank(team->world) == 0) {
        printf("ranks,rank,blocks_bytes,rest_bytes,due_bytes,weights_bytes,forward_bytes,taken_bytes\n");
        for (int i = 0; i < n; i++)
            printf("%lld,%d,%lld,%lld,%lld,%lld,%lld,%lld\n", (long long)n, i, (long long)blocks, (long long)rest,
                   (long long)due, (long long)all[i].weights, (long long)all[i].forward, (long long)all[i].taken);
    }
    free(all);
    return comm_check(team->world, e);
}

static int print_alone(struct row r)
{
    printf("what,bytes\nforetold by the dry run,%lld\ncounted by the arenas,%lld\ntaken by the process,%lld\n"
           "# taken over foretold: %.4f\n",
           (long long)r.foretold, (long long)(r.weights + r.forward), (long long)r.taken,
           (double)r.taken / (double)r.foretold);
    return 0;
}

static int team_open(struct team *t, const struct options *o, const struct model *m, struct err *e)
{
    struct mesh_shape shape;
    int rc = comm_open(&t->world, o->shared, e);
    if (rc == 0)
        rc = mesh_plan(&shape, comm_size(t->world), (struct mesh_shape){.guide = 1},
                       (struct mesh_for){.n_heads = m->dit_heads, .n_branches = 1}, e);
    if (rc == 0) rc = mesh_open(&t->mesh, t->world, shape, e);
    return rc;
}

static int measure(const struct options *o, struct err *e)
{
    struct dev *d = NULL;
    struct weights *w = NULL;
    struct model m;
    struct team team = {0};
    struct taken dry = {0}, real = {0};
    int rc = model_open(&m, o->model, e);
    if (rc == 0) rc = dev_open(&d, o->table, o->n_threads, e);
    if (rc == 0) rc = weights_open(&w, m.dit, e);
    if (rc == 0) rc = weights_add(w, m.adapter, e);
    if (rc == 0 && o->shared) rc = team_open(&team, o, &m, e);
    if (rc == 0 && !o->shared) {
        dev_set_dry(d, true);
        rc = forward(d, w, &m, o, &team, &dry, e);
        dev_set_dry(d, false);
    }
    struct watch watch;
    int64_t before = pages_held();
    watch_begin(&watch);
    if (rc == 0) rc = forward(d, w, &m, o, &team, &real, e);
    real.held = watch_end(&watch);
    struct row row = {.foretold = dry.weights + dry.forward,
                      .weights = real.weights,
                      .forward = real.forward,
                      .taken = real.held - before};
    if (rc == 0) rc = team.world ? print_ranks(&team, w, real.n_layers, o->dtype, row, e) : print_alone(row);
    if (rc < 0 && team.world) comm_abort(team.world);
    if (team.mesh.world) mesh_close(&team.mesh);
    comm_close(&team.world);
    weights_free(&w);
    dev_close(&d);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o = {.table = "cpu", .w = 256, .h = 256, .frames = 81, .dtype = DT_BF16};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--model") == 0)
            o.model = argv[i + 1];
        else if (strcmp(argv[i], "--table") == 0)
            o.table = argv[i + 1];
        else if (strcmp(argv[i], "--shared") == 0)
            o.shared = argv[i + 1];
        else if (strcmp(argv[i], "--frames") == 0)
            o.frames = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--threads") == 0)
            o.n_threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--dtype") == 0)
            o.dtype = strcmp(argv[i + 1], "f32") == 0 ? DT_F32 : DT_BF16;
        else if (strcmp(argv[i], "--size") != 0 || sscanf(argv[i + 1], "%dx%d", &o.w, &o.h) != 2)
            argc = 0;
    }
    if (argc % 2 == 0 || !o.model || o.w < 16 || o.h < 16 || o.w % 16 || o.h % 16 || o.frames < 1) {
        fprintf(stderr, "usage: bench_forward --model FOLDER [--size WxH] [--frames F] [--dtype f32|bf16] "
                        "[--table cpu[:set]] [--threads N] [--shared self|mpi]\n");
        return 2;
    }
    log_init(LOG_ERROR, "bench_forward", 0);
    struct err e = {0};
    int rc = measure(&o, &e);
    if (rc < 0) fprintf(stderr, "bench_forward: %s\n", e.text);
    return rc < 0;
}
