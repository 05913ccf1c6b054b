// Measuring what the ranks can do.
//
// Every figure is that of the op the networks call, at sizes of the network at hand, with all ranks at work at once:
// ranks that share a machine take each other's cores and memory, and a rank that measured alone would promise what
// nobody gets. Links are timed by the exchanges that will use them, in pieces as they will be. Then the ranks agree on
// the slowest, since a group is as fast as its slowest member.
//
// The trap: an op's first call builds what later ones reuse, so it is not counted. And messages between devices are
// only enqueued when a call returns.
#include "worker/plan/rates.h"

#include "kernels/ops.h"
#include "proto/base/hash.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    OP_US = 60000,
    CALLS_MAX = 1 << 16,
    TRIES = 25,
    LINK_CALLS = 2,
    LATENCY_CALLS = 4,
    VAE_WIDTH = 96,
    CONV_SIDE = 32
};

struct probe {
    struct dev *d;
    struct dev_arena *a;
    struct comm *world;
    enum dtype t;
    tensor x, y, w, gate; // of the op under way
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int64_t between(int64_t v, int64_t lo, int64_t hi) { return v < lo ? lo : v > hi ? hi : v; }

// Values that are neither zeros nor far from one.
static tensor filled(struct probe *p, enum dtype t, int n, const int64_t *shape)
{
    tensor x = dev_tensor(p->a, t, n, shape), wave = dev_tensor(p->a, DT_F32, SHAPE(64));
    float host[64];
    for (int i = 0; i < 64; i++) host[i] = sinf((float)i);
    dev_upload(p->d, wave, host, DT_F32);
    op_fill(p->d, x, 0.5f);
    int64_t rows = tensor_count(x) / 64;
    if (rows > 0) {
        tensor some = tensor_of(x.data, t, SHAPE(rows, 64));
        tensor spread = wave;
        spread.n = 2;
        spread.shape[1] = 64, spread.stride[1] = wave.stride[0];
        spread.shape[0] = rows, spread.stride[0] = 0;
        op_copy(p->d, some, spread);
    }
    return x;
}

static void run_linear(struct probe *p) { op_linear(p->d, p->y, p->x, p->w, NO_TENSOR, ACT_NONE); }
static void run_attention(struct probe *p) { op_attention(p->d, p->y, p->x, p->w, p->w, (struct attn){0}); }
static void run_moves(struct probe *p) { op_gate_add(p->d, p->x, p->y, p->gate); }
static void run_conv(struct probe *p)
{
    op_conv(p->d, p->y, p->x, p->w, NO_TENSOR, (struct conv){.pad = {{0, 0}, {1, 1}, {1, 1}}}, ACT_NONE);
}

// Seconds of a call, all ranks calling; of several tries the shortest.
static double time_op(struct probe *p, void (*run)(struct probe *))
{
    struct err ignored;
    run(p);
    dev_sync(p->d, &ignored);
    comm_barrier(p->world);
    int n = 0, batch = 1;
    double from = seconds(), took = 0, least = INFINITY;
    while (took < OP_US * 1e-6 && n < CALLS_MAX) {
        double begun = seconds();
        for (int i = 0; i < batch; i++) run(p);
        dev_sync(p->d, &ignored);
        double now = seconds();
        least = fmin(least, (now - begun) / batch);
        n += batch;
        batch += now - begun < OP_US * 1e-7 ? batch : 0; // tries of a tenth of the time
        took = now - from;
    }
    return least;
}

static void probe_ops(struct probe *p, struct plan_rates *r, const struct plan_model *m, int64_t rows)
{
    int64_t d = m->dim, width = d / m->heads, keys = between(4 * rows, 64, 2048), mark = dev_arena_mark(p->a);
    rows = between(rows, 16, 512);
    p->x = filled(p, p->t, SHAPE(rows, d));
    p->y = dev_tensor(p->a, p->t, SHAPE(rows, d));
    p->w = op_pack(p->d, p->a, filled(p, p->t, SHAPE(d, d)), PACK_LINEAR);
    r->linear = 2.0 * (double)(rows * d * d) / time_op(p, run_linear);
    p->gate = filled(p, DT_F32, SHAPE(d));
    op_fill(p->d, p->y, 0);
    r->copy = 3.0 * (double)(rows * d * m->size) / time_op(p, run_moves);
    dev_arena_reset(p->a, mark);
    p->x = filled(p, p->t, SHAPE(1, rows, m->heads, width));
    p->y = dev_tensor(p->a, p->t, SHAPE(1, rows, m->heads, width));
    p->w = filled(p, p->t, SHAPE(1, keys, m->heads, width));
    r->attention = 4.0 * (double)(rows * keys * d) / time_op(p, run_attention);
    dev_arena_reset(p->a, mark);
    int64_t c = 2 * (int64_t)llround(VAE_WIDTH * sqrt(m->decode_ops / 8.5e6));
    p->x = filled(p, DT_F32, SHAPE(3, CONV_SIDE, CONV_SIDE, c));
    p->y = dev_tensor(p->a, DT_F32, SHAPE(1, CONV_SIDE, CONV_SIDE, c));
    p->w = op_pack(p->d, p->a, filled(p, DT_F32, SHAPE(c, c, 3, 3, 3)), PACK_CONV);
    r->conv = 2.0 * 27 * (double)(c * c * CONV_SIDE * CONV_SIDE) / time_op(p, run_conv);
    dev_arena_reset(p->a, mark);
}

// ---- links

// Of some calls, several times; the shortest, since whatever else the machine does only adds.
static double time_exchange(struct comm *c, char *buffer, int64_t bytes, int calls)
{
    char *to = buffer + bytes * comm_size(c);
    struct err ignored; // a fault sticks
    double least = INFINITY;
    comm_all_to_all(c, to, buffer, bytes, 1);
    for (int k = 0; k < TRIES; k++) {
        comm_check(c, &ignored);
        comm_barrier(c);
        double from = seconds();
        for (int i = 0; i < calls; i++) comm_all_to_all(c, to, buffer, bytes, 1);
        comm_check(c, &ignored);
        least = fmin(least, (seconds() - from) / calls);
    }
    return least;
}

// The ranks of this machine, as a communicator.
static int same_node(struct comm **out, struct comm *world, struct err *e)
{
    char host[256] = "";
    uint8_t name[HASH_BYTES];
    struct hash h;
    gethostname(host, sizeof host - 1);
    hash_init(&h);
    hash_update(&h, host, strlen(host));
    hash_final(&h, name);
    int colour;
    memcpy(&colour, name, sizeof colour);
    return comm_split(world, out, colour, comm_rank(world), e);
}

static int probe_links(struct probe *p, struct plan_rates *r, int64_t row_bytes, struct err *e)
{
    int n = comm_size(p->world);
    struct comm *node = NULL;
    r->node = n;
    r->near = r->far = 1e12;
    if (n == 1) return 0;
    int rc = same_node(&node, p->world, e);
    if (rc < 0) return rc;
    int64_t bytes = between(row_bytes / n / 4 * 4, 4096, 1 << 22), mark = dev_arena_mark(p->a);
    tensor all = dev_tensor(p->a, DT_F32, SHAPE(2 * n * bytes / 4));
    char *buffer = all.data;
    op_fill(p->d, all, 0);
    rc = comm_agree(p->world, dev_sync(p->d, e), NULL, e);
    if (rc < 0) {
        comm_close(&node);
        return rc;
    }
    r->node = comm_size(node);
    r->latency = time_exchange(p->world, buffer, 8, LATENCY_CALLS);
    if (r->node > 1) r->near = (double)(bytes * (r->node - 1)) / time_exchange(node, buffer, bytes, LINK_CALLS);
    r->far = r->near;
    if (r->node < n) r->far = (double)(bytes * (n - r->node)) / time_exchange(p->world, buffer, bytes, LINK_CALLS);
    dev_arena_reset(p->a, mark);
    comm_close(&node);
    return 0;
}

int64_t rates_memory(const struct dev *d, struct comm *world, int here)
{
    double least = (double)dev_memory_free(d) / (dev_shares_host(d) ? here : 1);
    comm_all_reduce(comm_host(world), &least, 1, DT_F64, COMM_MIN);
    return (int64_t)least;
}

int rates_probe(struct plan_rates *out, struct dev *d, struct comm *world, const struct plan_model *m, int64_t rows,
                struct err *e)
{
    struct probe p = {.d = d, .world = world, .t = m->size == 2 ? DT_BF16 : DT_F32};
    p.a = dev_arena_new(d, "probe", 0);
    *out = (struct plan_rates){.shared = dev_shares_host(d), .hides = strcmp(comm_transport(world), "nccl") == 0};
    probe_ops(&p, out, m, rows);
    int rc = probe_links(&p, out, rows * m->dim * m->size, e);
    if (rc == 0) rc = dev_sync(d, e);
    rc = comm_agree(world, rc, NULL, e);
    dev_arena_free(&p.a);
    if (rc < 0) return rc;
    double least[] = {out->linear, out->attention, out->conv,     out->copy,
                      out->near,   out->far,       -out->latency, (double)out->node};
    comm_all_reduce(comm_host(world), least, sizeof least / sizeof *least, DT_F64, COMM_MIN);
    double *const to[] = {&out->linear, &out->attention, &out->conv, &out->copy, &out->near, &out->far, &out->latency};
    for (int i = 0; i < 7; i++) *to[i] = least[i];
    out->latency = -out->latency;
    out->node = (int)least[7];
    out->memory = rates_memory(d, world, out->node);
    return comm_check(world, e);
}
