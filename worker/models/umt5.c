// umT5 encoder, pre-norm, without a single bias vector.
//
//   ids [n] -> embedding -> x [n, dim]
//     each block   h = rms(x);  x += attention(h) Wo       heads x width a head = attention width, may differ from dim
//                  h = rms(x);  x += (gelu(h Wgate) * (h Wfc1)) Wfc2
//   out = rms(x)
//
// Scores are q.k without scaling, plus a learned number per head that depends on how far the key stands from the query:
// a table [buckets, heads], one in every block.
//
// Easy to get wrong: the plain T5 has one distance table, in block 0; the upper half of the table is for keys *after*
// the query; gate goes through the GELU (tanh form), fc1 does not; the embedding is not scaled; residuals leave the
// range of F16, never its exponent. Padding keys are left out rather than masked: their weight would be exactly zero.
//
// Spread over ranks, a block is one flat run of which each rank keeps a share (worker/models/spread). A text is short
// and one rank reads it, so the others only lend: they walk the blocks with it, that its gathers meet theirs.
#include "worker/models/umt5.h"

#include "proto/base/log.h"
#include "worker/models/load.h"
#include "worker/models/spread.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

struct umt5_block {
    tensor norm1, norm2; // F32 [dim]
    tensor q, k, v;      // [width, dim]
    tensor o;            // [dim, width]
    tensor gate, fc1;    // [ffn, dim]
    tensor fc2;          // [dim, ffn]
    tensor near;         // [buckets, heads]
};

struct umt5 {
    struct dev *dev;
    struct dev_arena *arena;
    struct umt5_config c;
    enum dtype dtype;
    int64_t vocab, dim, width, ffn;
    int n_layers;
    tensor embedding;         // [vocab, dim] as stored: only the rows in use are read
    struct umt5_block *block; // [n_layers]; of a shared encoder without tensors
    struct spread *spread;    // of a shared encoder; else NULL
    bool lends;               // has its share and neither embedding nor norm
    tensor norm;              // F32 [dim]
};

// Half of the buckets for each direction; of these, half are exact distances and half grow by equal ratios up to
// max_distance, where they end. The ratio falls on whole numbers (16, 32, 64), where a logarithm that is one bit short
// would give the bucket below.
int umt5_bucket(int64_t distance, int n_buckets, int max_distance)
{
    const double last_bit = 1e-9;
    int half = n_buckets / 2, exact = half / 2, base = distance > 0 ? half : 0;
    int64_t a = distance < 0 ? -distance : distance;
    if (a < exact) return base + (int)a;
    double ratio = log((double)a / exact) / log((double)max_distance / exact);
    int step = (int)fmin(ratio * (half - exact) + last_bit, half - exact);
    return base + (exact + step < half ? exact + step : half - 1);
}

// ---- loading

static int count_layers(const struct weights *w)
{
    for (int i = 0;; i++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%d.norm1.weight", i);
        if (!weights_has(w, name)) return i;
    }
}

static void settle(struct load *l, int *field, int64_t found, const char *what)
{
    if (l->rc == 0 && *field > 0 && *field != found)
        l->rc = err_set(l->e, E_INPUT, "the text encoder declares %d %s, but its weights have %lld", *field, what,
                        (long long)found);
    *field = (int)found;
}

static void derive_sizes(struct load *l, struct umt5 *m)
{
    m->vocab = load_axis(l, "token_embedding.weight", 0);
    m->dim = load_axis(l, "token_embedding.weight", 1);
    m->width = load_axis(l, "blocks.0.attn.q.weight", 0);
    m->ffn = load_axis(l, "blocks.0.ffn.fc1.weight", 0);
    settle(l, &m->c.n_buckets, load_axis(l, "blocks.0.pos_embedding.embedding.weight", 0), "distance buckets");
    settle(l, &m->c.n_heads, load_axis(l, "blocks.0.pos_embedding.embedding.weight", 1), "heads");
    load_axis(l, "blocks.0.norm1.weight", 0); // one block at least
    m->n_layers = count_layers(l->w);
    if (m->c.max_distance == 0) m->c.max_distance = 128;
    if (m->c.eps == 0) m->c.eps = 1e-6f;
    if (l->rc < 0) return;
    if (m->c.n_heads < 1 || m->width % m->c.n_heads)
        l->rc = err_set(l->e, E_INPUT, "the text encoder's attention of width %lld does not split into %d heads",
                        (long long)m->width, m->c.n_heads);
    else if (m->c.n_buckets < 4 || m->c.n_buckets % 4 || m->c.max_distance <= m->c.n_buckets / 4)
        l->rc = err_set(l->e, E_INPUT,
                        "the text encoder's %d distance buckets up to distance %d are no multiple of 4 that ends below",
                        m->c.n_buckets, m->c.max_distance);
}

// The embedding is most of a small encoder and a third of the large one, so it stays in the file's map in any dtype
// that the op reads.
static void load_embedding(struct load *l, struct umt5 *m)
{
    static const char name[] = "token_embedding.weight";
    tensor stored = NO_TENSOR;
    if (l->rc == 0) l->rc = weights_get(l->w, name, &stored, l->e);
    if (l->rc < 0) return;
    bool readable = stored.dtype == DT_F32 || stored.dtype == DT_BF16 || stored.dtype == DT_F16;
    l->rc =
        weights_load(l->w, l->arena, &m->embedding, readable ? DT_NONE : l->dtype, name, SHAPE(m->vocab, m->dim), l->e);
}

enum length { NONE, DIM, WIDTH, FFN, BUCKETS, HEADS };

static const struct row { // one tensor of a block
    size_t at;
    const char *name;
    enum length out, in; // [out, in], or [out]: a vector, kept as F32
    bool table;          // looked up, never multiplied
} rows[] = {
    {offsetof(struct umt5_block, norm1), "norm1.weight", DIM, NONE, false},
    {offsetof(struct umt5_block, q), "attn.q.weight", WIDTH, DIM, false},
    {offsetof(struct umt5_block, k), "attn.k.weight", WIDTH, DIM, false},
    {offsetof(struct umt5_block, v), "attn.v.weight", WIDTH, DIM, false},
    {offsetof(struct umt5_block, o), "attn.o.weight", DIM, WIDTH, false},
    {offsetof(struct umt5_block, norm2), "norm2.weight", DIM, NONE, false},
    {offsetof(struct umt5_block, gate), "ffn.gate.0.weight", FFN, DIM, false},
    {offsetof(struct umt5_block, fc1), "ffn.fc1.weight", FFN, DIM, false},
    {offsetof(struct umt5_block, fc2), "ffn.fc2.weight", DIM, FFN, false},
    {offsetof(struct umt5_block, near), "pos_embedding.embedding.weight", BUCKETS, HEADS, true},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static int64_t length_of(const struct umt5 *m, enum length l)
{
    const int64_t lengths[] = {0, m->dim, m->width, m->ffn, m->c.n_buckets, m->c.n_heads};
    return lengths[l];
}

static tensor *field_of(struct umt5_block *b, const struct row *r) { return (tensor *)((char *)b + r->at); }

static void load_block(struct load *l, const struct umt5 *m, struct umt5_block *b, int i)
{
    for (int k = 0; k < N_ROWS && l->rc == 0; k++) {
        const struct row *r = &rows[k];
        int64_t out = length_of(m, r->out), in = length_of(m, r->in);
        char name[64];
        snprintf(name, sizeof name, "blocks.%d.%s", i, r->name);
        if (r->in == NONE)
            *field_of(b, r) = load_vector(l, out, "%s", name);
        else if (r->table)
            l->rc = weights_load(l->w, l->arena, field_of(b, r), l->dtype, name, SHAPE(out, in), l->e);
        else
            l->rc = weights_load_linear(l->w, l->arena, field_of(b, r), l->dtype, name, out, in, l->e);
    }
}

static int spread_blocks(struct umt5 *m, const struct weights *w, struct comm *group, struct err *e)
{
    struct spread_tensor tensors[N_ROWS];
    for (int k = 0; k < N_ROWS; k++)
        tensors[k] = (struct spread_tensor){.name = rows[k].name,
                                            .out = length_of(m, rows[k].out),
                                            .in = length_of(m, rows[k].in),
                                            .vector = rows[k].in == NONE,
                                            .table = rows[k].table};
    int rc = spread_open(&m->spread, m->arena,
                         &(struct spread_for){.w = w,
                                              .n_blocks = m->n_layers,
                                              .n_tensors = N_ROWS,
                                              .tensors = tensors,
                                              .dtype = m->dtype,
                                              .group = group},
                         e);
    if (rc == 0)
        log_info("text.shared", "ranks=%d own_mb=%lld block_mb=%lld", comm_size(group),
                 (long long)(spread_own_bytes(m->spread) >> 20), (long long)(spread_block_bytes(m->spread) >> 20));
    return rc;
}

static int make(struct umt5 **out, struct dev *d, const struct weights *w, const struct umt5_config *c, enum dtype t,
                struct comm *group, bool lends, struct err *e)
{
    struct umt5 *m = calloc(1, sizeof *m);
    BUG_IF(!m, "no memory for the text encoder");
    m->dev = d;
    m->dtype = t;
    m->lends = lends;
    if (c) m->c = *c;
    m->arena = dev_arena_new(d, "umt5", load_capacity(w));
    struct load l = {.w = w, .dev = d, .arena = m->arena, .dtype = t, .e = e};
    derive_sizes(&l, m);
    if (!lends) load_embedding(&l, m);
    m->block = calloc((size_t)m->n_layers + 1, sizeof *m->block);
    BUG_IF(!m->block, "no memory for %d blocks", m->n_layers);
    for (int i = 0; i < m->n_layers && l.rc == 0 && !group; i++) load_block(&l, m, &m->block[i], i);
    if (!lends) m->norm = load_vector(&l, m->dim, "norm.weight");
    if (l.rc == 0) l.rc = dev_sync(d, e);
    if (group) l.rc = comm_agree(group, l.rc, NULL, e);
    if (group && l.rc == 0) l.rc = spread_blocks(m, w, group, e);
    if (l.rc < 0)
        umt5_free(&m);
    else
        *out = m;
    return l.rc;
}

int umt5_new(struct umt5 **out, struct dev *d, const struct weights *w, const struct umt5_config *c, enum dtype t,
             struct err *e)
{
    return make(out, d, w, c, t, NULL, false, e);
}

int umt5_new_shared(struct umt5 **out, struct dev *d, const struct weights *w, const struct umt5_config *c,
                    enum dtype t, struct comm *group, bool lends, struct err *e)
{
    return make(out, d, w, c, t, group, lends, e);
}

void umt5_free(struct umt5 **pm)
{
    struct umt5 *m = *pm;
    if (!m) return;
    spread_close(&m->spread);
    dev_arena_free(&m->arena);
    free(m->block);
    free(m);
    *pm = NULL;
}

int umt5_dim(const struct umt5 *m) { return (int)m->dim; }
int64_t umt5_vocab(const struct umt5 *m) { return m->vocab; }
int64_t umt5_bytes(const struct umt5 *m) { return dev_arena_mark(m->arena); }
struct comm *umt5_comm(const struct umt5 *m) { return m->spread ? spread_comm(m->spread) : NULL; }

// ---- forward

// What every block needs of the sequence: n queries, of which the first n_real are keys too.
struct pass {
    int64_t n, n_real;
    tensor buckets; // I32 [n n_real]
    tensor near;    // F32 [n n_real, heads]
    tensor bias;    // F32 [heads, n, n_real]
    tensor h, y;    // [n, dim]
    tensor q;       // [n, width]
    tensor k, v;    // [n_real, width]
    tensor mixed;   // [n, width]
    tensor gate, f; // [n, ffn]
};

static tensor bucket_ids(const struct umt5 *m, struct dev_arena *a, int64_t n, int64_t n_real)
{
    tensor ids = dev_tensor(a, DT_I32, SHAPE(n * n_real));
    int32_t *host = malloc((size_t)(n * n_real) * sizeof *host);
    BUG_IF(!host, "no memory for %lld x %lld distances", (long long)n, (long long)n_real);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n_real; j++)
            host[i * n_real + j] = umt5_bucket(j - i, m->c.n_buckets, m->c.max_distance);
    dev_upload(m->dev, ids, host, DT_I32);
    free(host);
    return ids;
}

static struct pass pass_new(const struct umt5 *m, struct dev_arena *a, int64_t n, int64_t n_real)
{
    return (struct pass){
        .n = n,
        .n_real = n_real,
        .buckets = bucket_ids(m, a, n, n_real),
        .near = dev_tensor(a, DT_F32, SHAPE(n * n_real, m->c.n_heads)),
        .bias = dev_tensor(a, DT_F32, SHAPE(m->c.n_heads, n, n_real)),
        .h = dev_tensor(a, m->dtype, SHAPE(n, m->dim)),
        .y = dev_tensor(a, m->dtype, SHAPE(n, m->dim)),
        .q = dev_tensor(a, m->dtype, SHAPE(n, m->width)),
        .k = dev_tensor(a, m->dtype, SHAPE(n_real, m->width)),
        .v = dev_tensor(a, m->dtype, SHAPE(n_real, m->width)),
        .mixed = dev_tensor(a, m->dtype, SHAPE(n, m->width)),
        .gate = dev_tensor(a, m->dtype, SHAPE(n, m->ffn)),
        .f = dev_tensor(a, m->dtype, SHAPE(n, m->ffn)),
    };
}

// y = attention(h) Wo
static void attend(const struct umt5 *m, const struct umt5_block *b, const struct pass *p, int i, const struct tap *tap)
{
    struct dev *d = m->dev;
    int64_t heads = m->c.n_heads, w = m->width / heads;
    tensor keys = tensor_slice(p->h, 0, 0, p->n_real);
    op_embed(d, p->near, b->near, p->buckets);
    op_copy(d, p->bias, tensor_permute(tensor_split(p->near, 0, p->n, p->n_real), (int[]){2, 0, 1}));
    tap_see(tap, p->bias, "block%d.pos_bias", i);
    op_linear(d, p->q, p->h, b->q, NO_TENSOR, ACT_NONE);
    op_linear(d, p->k, keys, b->k, NO_TENSOR, ACT_NONE);
    op_linear(d, p->v, keys, b->v, NO_TENSOR, ACT_NONE);
    op_attention(d, tensor_reshape(p->mixed, SHAPE(1, p->n, heads, w)), tensor_reshape(p->q, SHAPE(1, p->n, heads, w)),
                 tensor_reshape(p->k, SHAPE(1, p->n_real, heads, w)),
                 tensor_reshape(p->v, SHAPE(1, p->n_real, heads, w)), (struct attn){.scale = 1, .bias = p->bias});
    op_linear(d, p->y, p->mixed, b->o, NO_TENSOR, ACT_NONE);
}

static struct umt5_block take_block(const struct umt5 *m, int i)
{
    struct umt5_block b = m->block[i];
    const tensor *t = m->spread ? spread_take(m->spread, i) : NULL;
    for (int k = 0; k < N_ROWS && t; k++) *field_of(&b, &rows[k]) = t[k];
    return b;
}

static void give_block(const struct umt5 *m, int i)
{
    if (m->spread) spread_give(m->spread, i);
}

static void run_block(const struct umt5 *m, const struct pass *p, tensor x, int i, const struct tap *tap)
{
    struct dev *d = m->dev;
    const struct umt5_block taken = take_block(m, i), *b = &taken;
    op_rms_norm(d, p->h, x, b->norm1, m->c.eps);
    tap_see(tap, p->h, "block%d.norm1.out", i);
    attend(m, b, p, i, tap);
    tap_see(tap, p->y, "block%d.attn.out", i);
    op_gate_add(d, x, p->y, NO_TENSOR);
    op_rms_norm(d, p->h, x, b->norm2, m->c.eps);
    op_linear(d, p->gate, p->h, b->gate, NO_TENSOR, ACT_GELU_TANH);
    op_linear(d, p->f, p->h, b->fc1, NO_TENSOR, ACT_NONE);
    op_mul(d, p->f, p->f, p->gate);
    op_linear(d, p->y, p->f, b->fc2, NO_TENSOR, ACT_NONE);
    tap_see(tap, p->y, "block%d.ffn.out", i);
    op_gate_add(d, x, p->y, NO_TENSOR);
    tap_see(tap, x, "block%d.out", i);
    give_block(m, i);
}

void umt5_encode(struct umt5 *m, struct dev_arena *a, tensor out, tensor ids, int64_t n_real, const struct tap *tap)
{
    int64_t n = ids.shape[0], mark = dev_arena_mark(a);
    BUG_IF(n_real < 1 || n_real > n, "%lld of %lld ids are real", (long long)n_real, (long long)n);
    BUG_IF(m->lends, "a rank that lends has no embedding");
    struct pass p = pass_new(m, a, n, n_real);
    tensor x = dev_tensor(a, m->dtype, SHAPE(n, m->dim));
    op_embed(m->dev, x, m->embedding, ids);
    tap_see(tap, x, "token_embed");
    for (int i = 0; i < m->n_layers; i++) run_block(m, &p, x, i, tap);
    op_rms_norm(m->dev, p.h, x, m->norm, m->c.eps);
    op_copy(m->dev, out, tensor_slice(p.h, 0, 0, n_real));
    dev_arena_reset(a, mark);
}

void umt5_lend(struct umt5 *m)
{
    for (int i = 0; i < m->n_layers && m->spread; i++) {
        take_block(m, i);
        give_block(m, i);
    }
}
