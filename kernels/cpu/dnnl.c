// The keeper of oneDNN: matrix products and convolutions as primitives, made once per shape and kept.
//
// A product is a `matmul`, whose blocked weights have one layout for all row counts, so a weight is reordered at load
// without knowing them. A convolution's layout may depend on the picture: the one packed at load is that of a typical
// picture, and another is made on the spot, which is cheap beside the convolution itself.
//
// The traps: the library sizes its thread team when a primitive is made as well as when it runs, so both happen under
// the device's thread count; and a matmul over rows that are not dense quietly takes a slower way, so callers hand over
// dense rows.
#include "kernels/cpu/fast.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_LEN = 28, CACHE_MAX = 64, ARGS_MAX = 4, PACK_ALIGN = 64 };

// A primitive and the memories that it is called with.
struct entry {
    int64_t key[KEY_LEN];
    uint64_t used; // time of the last call, for eviction
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t weights; // as the primitive wants them
    dnnl_exec_arg_t arg[ARGS_MAX];
    int n_args;
};

struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int n_threads;
    bool bf16;
    uint64_t clock;
    int n_entries;
    struct entry entry[CACHE_MAX];
};

// What is known of a packed weight's bytes, and stands before them unless they came in pieces.
struct packed {
    enum pack_use use;
    enum dtype dtype;
    int64_t shape[5];
    dnnl_memory_desc_t md;
    const void *elsewhere; // the bytes; NULL: behind this
};
static const size_t header_bytes = (sizeof(struct packed) + PACK_ALIGN - 1) / PACK_ALIGN * PACK_ALIGN;

static dnnl_data_type_t type_of(enum dtype t) { return t == DT_BF16 ? dnnl_bf16 : dnnl_f32; }

static dnnl_alg_kind_t algorithm_of(enum act a)
{
    static const dnnl_alg_kind_t table[] = {[ACT_NONE] = dnnl_alg_kind_undef,
                                            [ACT_GELU_TANH] = dnnl_eltwise_gelu_tanh,
                                            [ACT_GELU_ERF] = dnnl_eltwise_gelu_erf,
                                            [ACT_SILU] = dnnl_eltwise_swish,
                                            [ACT_RELU] = dnnl_eltwise_relu};
    return table[a];
}

// ---- life

struct onednn *onednn_open(int n_threads, bool bf16)
{
    struct onednn *o = calloc(1, sizeof *o);
    BUG_IF(!o, "no memory for oneDNN");
    o->n_threads = n_threads;
    o->bf16 = bf16;
    // The entries here are the cache; the library's own would keep up to 1024 more, each with its generated code.
    dnnl_set_primitive_cache_capacity(0);
    BUG_IF(dnnl_engine_create(&o->engine, dnnl_cpu, 0) != dnnl_success, "oneDNN has no CPU engine");
    BUG_IF(dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags) != dnnl_success,
           "oneDNN has no stream");
    return o;
}

static void entry_release(struct entry *n)
{
    for (int i = 0; i < n->n_args; i++) dnnl_memory_destroy(n->arg[i].memory);
    if (n->primitive) dnnl_primitive_destroy(n->primitive);
    memset(n, 0, sizeof *n);
}

void onednn_close(struct onednn **po)
{
    struct onednn *o = *po;
    if (!o) return;
    for (int i = 0; i < o->n_entries; i++) entry_release(&o->entry[i]);
    dnnl_stream_destroy(o->stream);
    dnnl_engine_destroy(o->engine);
    free(o);
    *po = NULL;
}

// ---- the cache

static struct entry *entry_find(struct onednn *o, const int64_t key[KEY_LEN])
{
    for (int i = 0; i < o->n_entries; i++)
        if (memcmp(o->entry[i].key, key, sizeof o->entry[i].key) == 0) {
            o->entry[i].used = ++o->clock;
            return &o->entry[i];
        }
    return NULL;
}

// An empty place for a new primitive: a fresh one, or that of the primitive not called for the longest time.
static struct entry *entry_place(struct onednn *o, const int64_t key[KEY_LEN])
{
    struct entry *n = &o->entry[0];
    if (o->n_entries < CACHE_MAX)
        n = &o->entry[o->n_entries++];
    else
        for (int i = 1; i < CACHE_MAX; i++)
            if (o->entry[i].used < n->used) n = &o->entry[i];
    entry_release(n);
    memcpy(n->key, key, sizeof n->key);
    n->used = ++o->clock;
    return n;
}

static dnnl_status_t entry_arg(struct onednn *o, struct entry *n, int which, const dnnl_memory_desc_t *md)
{
    dnnl_exec_arg_t *a = &n->arg[n->n_args];
    dnnl_status_t rc = dnnl_memory_create(&a->memory, md, o->engine, DNNL_MEMORY_NONE);
    if (rc != dnnl_success) return rc;
    a->arg = which;
    n->n_args++;
    return rc;
}

// Makes the primitive of operation `op`; `bias` may be NULL. On failure the place is left empty.
static int entry_make(struct onednn *o, struct entry *n, const_dnnl_op_desc_t op, enum act act)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc = dnnl_primitive_attr_create(&attr);
    if (rc == dnnl_success && act != ACT_NONE) {
        rc = dnnl_post_ops_create(&post);
        float alpha = act == ACT_SILU ? 1 : 0;
        if (rc == dnnl_success) rc = dnnl_post_ops_append_eltwise(post, 1, algorithm_of(act), alpha, 0);
        if (rc == dnnl_success) rc = dnnl_primitive_attr_set_post_ops(attr, post);
    }
    if (rc == dnnl_success) rc = dnnl_primitive_desc_create(&pd, op, attr, o->engine, NULL);
    if (rc == dnnl_success) rc = dnnl_primitive_create(&n->primitive, pd);
    static const struct {
        int arg;
        dnnl_query_t query;
        int i;
    } args[ARGS_MAX] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                        {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
                        {DNNL_ARG_DST, dnnl_query_dst_md, 0},
                        {DNNL_ARG_BIAS, dnnl_query_weights_md, 1}};
    for (int i = 0; i < ARGS_MAX && rc == dnnl_success; i++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, args[i].query, args[i].i);
        if (!md || md->ndims == 0) continue;
        if (args[i].arg == DNNL_ARG_WEIGHTS) n->weights = *md;
        rc = entry_arg(o, n, args[i].arg, md);
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (post) dnnl_post_ops_destroy(post);
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (rc == dnnl_success) return 0;
    entry_release(n); // unimplemented, or a generator that gave up: no way either way
    return -1;
}

static int entry_run(struct onednn *o, struct entry *n, const void *x, const void *w, void *y, const float *bias)
{
    const void *data[ARGS_MAX] = {x, w, y, bias};
    for (int i = 0; i < n->n_args; i++)
        if (dnnl_memory_set_data_handle(n->arg[i].memory, (void *)data[i]) != dnnl_success) return -2;
    if (dnnl_primitive_execute(n->primitive, o->stream, n->n_args, n->arg) != dnnl_success) return -2;
    return dnnl_stream_wait(o->stream) == dnnl_success ? 0 : -2;
}

static int told(int rc, const char **why)
{
    if (rc == -2) *why = "oneDNN failed to run a primitive";
    return rc;
}

// All threads, or one where waking the others would take longer than the work (as dev_team).
static int team_of(const struct onednn *o, int64_t products) { return products < 1 << 21 ? 1 : o->n_threads; }

// ---- products

// w [n, k] as the library sees it: a matrix [k, n].
static dnnl_memory_desc_t gemm_weights(int64_t n, int64_t k, enum dtype t, bool any)
{
    dnnl_memory_desc_t md;
    dnnl_dims_t dims = {k, n}, strides = {1, k};
    if (any)
        dnnl_memory_desc_init_by_tag(&md, 2, dims, type_of(t), dnnl_format_tag_any);
    else
        dnnl_memory_desc_init_by_strides(&md, 2, dims, type_of(t), strides);
    return md;
}

static dnnl_status_t gemm_op(dnnl_matmul_desc_t *op, const struct onednn_gemm *g, const dnnl_memory_desc_t *w)
{
    dnnl_memory_desc_t x, y, b;
    dnnl_dims_t xd = {g->m, g->k}, yd = {g->m, g->n}, ys = {g->ldy, 1}, bd = {1, g->n};
    dnnl_memory_desc_init_by_tag(&x, 2, xd, type_of(g->dtype), dnnl_ab);
    dnnl_memory_desc_init_by_strides(&y, 2, yd, type_of(g->dtype), ys);
    dnnl_memory_desc_init_by_tag(&b, 2, bd, dnnl_f32, dnnl_ab);
    return dnnl_matmul_desc_init(op, &x, w, g->bias ? &b : NULL, &y);
}

// The packed weight's header when it is one for this use and shape, else NULL.
static const struct packed *packed_for(const void *p, enum pack_use use, enum dtype t, int n, const int64_t *shape)
{
    const struct packed *h = p;
    if (!h || h->use != use || h->dtype != t) return NULL;
    for (int i = 0; i < n; i++)
        if (h->shape[i] != shape[i]) return NULL;
    return h;
}

// The same by the weight's own shape.
static const struct packed *packed_of(tensor w, enum pack_use use)
{
    return packed_for(w.packed, use, w.dtype, w.n, w.shape);
}

static const void *packed_data(const struct packed *h)
{
    return h->elsewhere ? h->elsewhere : (const char *)h + header_bytes;
}

int onednn_gemm(struct onednn *o, const struct onednn_gemm *g, const char **why)
{
    const struct packed *h = packed_for(g->packed, PACK_LINEAR, g->dtype, 2, (int64_t[]){g->n, g->k});
    int64_t key[KEY_LEN] = {PACK_LINEAR, g->m, g->n, g->k, g->ldy, g->dtype, g->bias != NULL, g->act, h != NULL};
    int was = omp_get_max_threads(), rc = 0;
    omp_set_num_threads(team_of(o, g->m * g->n * g->k));
    struct entry *n = entry_find(o, key);
    if (!n) {
        dnnl_matmul_desc_t op;
        dnnl_memory_desc_t w = h ? h->md : gemm_weights(g->n, g->k, g->dtype, false);
        n = entry_place(o, key);
        rc = gemm_op(&op, g, &w) == dnnl_success ? entry_make(o, n, &op, g->act) : -1;
    }
    if (rc == 0) rc = entry_run(o, n, g->x, h ? packed_data(h) : g->w, g->y, g->bias);
    omp_set_num_threads(was);
    return told(rc, why);
}

// ---- convolutions

// The library's view of a convolution: time is the batch when it is not convolved, axes without meaning are dropped.
struct axes {
    int64_t batch;
    int n, axis[3]; // the axes that stay
};

static struct axes axes_of(const struct onednn_conv *c)
{
    struct axes a = {.batch = 1};
    for (int i = 0; i < 3; i++) {
        bool whole = c->kernel[i] == 1 && c->stride[i] == 1 && c->pad[i][0] == 0 && c->pad[i][1] == 0;
        if (whole && i == 0)
            a.batch = c->in[0];
        else if (!(whole && c->in[i] == 1))
            a.axis[a.n++] = i;
    }
    if (a.n == 0) a.axis[a.n++] = 2; // one pixel
    return a;
}

static void conv_weights_shape(const struct onednn_conv *c, const struct axes *a, int *n, dnnl_dims_t dims,
                               dnnl_dims_t strides)
{
    int k = 0;
    if (c->groups > 1) dims[k++] = c->groups;
    dims[k++] = c->co / c->groups;
    dims[k++] = c->ci / c->groups;
    for (int i = 0; i < a->n; i++) dims[k++] = c->kernel[a->axis[i]];
    int64_t step = 1;
    for (int i = k - 1; i >= 0; i--) {
        strides[i] = step;
        step *= dims[i];
    }
    *n = k;
}

static dnnl_memory_desc_t conv_weights(const struct onednn_conv *c, const struct axes *a, enum dtype t, bool any)
{
    dnnl_memory_desc_t md;
    dnnl_dims_t dims, strides;
    int n;
    conv_weights_shape(c, a, &n, dims, strides);
    if (any)
        dnnl_memory_desc_init_by_tag(&md, n, dims, type_of(t), dnnl_format_tag_any);
    else
        dnnl_memory_desc_init_by_strides(&md, n, dims, type_of(t), strides);
    return md;
}

static dnnl_status_t conv_op(dnnl_convolution_desc_t *op, const struct onednn_conv *c, const struct axes *a)
{
    static const dnnl_format_tag_t last[] = {dnnl_nwc, dnnl_nhwc, dnnl_ndhwc};
    dnnl_dims_t xd = {a->batch, c->ci}, yd = {a->batch, c->co}, bd = {c->co}, stride, before, after;
    for (int i = 0; i < a->n; i++) {
        int k = a->axis[i];
        xd[2 + i] = c->in[k];
        yd[2 + i] = c->out[k];
        stride[i] = c->stride[k];
        before[i] = c->pad[k][0];
        after[i] = c->pad[k][1];
        // What a stride leaves over at the end is not padding to the library.
        int64_t reach = (c->out[k] - 1) * stride[i] + c->kernel[k] - c->in[k] - before[i];
        if (reach < after[i]) after[i] = reach;
    }
    dnnl_memory_desc_t x, y, b, w = conv_weights(c, a, c->dtype, true);
    dnnl_memory_desc_init_by_tag(&x, 2 + a->n, xd, type_of(c->dtype), last[a->n - 1]);
    dnnl_memory_desc_init_by_tag(&y, 2 + a->n, yd, type_of(c->dtype), last[a->n - 1]);
    dnnl_memory_desc_init_by_tag(&b, 1, bd, dnnl_f32, dnnl_a);
    return dnnl_convolution_forward_desc_init(op, dnnl_forward_inference, dnnl_convolution_direct, &x, &w,
                                              c->bias ? &b : NULL, &y, stride, before, after);
}

static int reorder(struct onednn *o, const dnnl_memory_desc_t *to, void *dst, const dnnl_memory_desc_t *from,
                   const void *src)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t p = NULL;
    dnnl_memory_t m[2] = {NULL, NULL};
    dnnl_status_t rc = dnnl_reorder_primitive_desc_create(&pd, from, o->engine, to, o->engine, NULL);
    if (rc == dnnl_success) rc = dnnl_primitive_create(&p, pd);
    if (rc == dnnl_success) rc = dnnl_memory_create(&m[0], from, o->engine, (void *)src);
    if (rc == dnnl_success) rc = dnnl_memory_create(&m[1], to, o->engine, dst);
    dnnl_exec_arg_t arg[2] = {{DNNL_ARG_FROM, m[0]}, {DNNL_ARG_TO, m[1]}};
    if (rc == dnnl_success) rc = dnnl_primitive_execute(p, o->stream, 2, arg);
    if (rc == dnnl_success) rc = dnnl_stream_wait(o->stream);
    for (int i = 0; i < 2; i++)
        if (m[i]) dnnl_memory_destroy(m[i]);
    if (p) dnnl_primitive_destroy(p);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return rc == dnnl_success ? 0 : -2;
}

static struct entry *conv_entry(struct onednn *o, const struct onednn_conv *c, const struct axes *a, int *rc)
{
    int64_t key[KEY_LEN] = {PACK_CONV, c->ci, c->co, c->groups, c->dtype, c->bias != NULL, c->act};
    for (int i = 0, k = 7; i < 3; i++) {
        key[k++] = c->in[i];
        key[k++] = c->out[i];
        key[k++] = c->kernel[i];
        key[k++] = c->stride[i];
        key[k++] = c->pad[i][0];
        key[k++] = c->pad[i][1];
    }
    struct entry *n = entry_find(o, key);
    if (n) return n;
    dnnl_convolution_desc_t op;
    n = entry_place(o, key);
    *rc = conv_op(&op, c, a) == dnnl_success ? entry_make(o, n, &op, c->act) : -1;
    return n;
}

int onednn_conv(struct onednn *o, const struct onednn_conv *c, void *(*scratch)(void *ctx, size_t bytes), void *ctx,
                const char **why)
{
    struct axes a = axes_of(c);
    int was = omp_get_max_threads(), rc = 0;
    int64_t points = c->out[0] * c->out[1] * c->out[2], taps = c->kernel[0] * c->kernel[1] * c->kernel[2];
    omp_set_num_threads(team_of(o, points * c->co * (c->ci / c->groups) * taps));
    struct entry *n = conv_entry(o, c, &a, &rc);
    if (rc == 0) {
        int64_t shape[5] = {c->co, c->ci / c->groups, c->kernel[0], c->kernel[1], c->kernel[2]};
        const struct packed *h = packed_for(c->packed, PACK_CONV, c->dtype, 5, shape);
        dnnl_memory_desc_t plain = conv_weights(c, &a, c->dtype, false);
        const void *w = c->w;
        if (h && dnnl_memory_desc_equal(&h->md, &n->weights))
            w = packed_data(h);
        else if (!w)
            rc = -3;
        else if (!dnnl_memory_desc_equal(&plain, &n->weights)) {
            void *own = scratch(ctx, dnnl_memory_desc_get_size(&n->weights));
            rc = reorder(o, &n->weights, own, &plain, c->w);
            w = own;
        }
        if (rc == 0) rc = entry_run(o, n, c->x, w, c->y, c->bias);
    }
    omp_set_num_threads(was);
    return told(rc, why);
}

// ---- packing

// The layout wanted for a weight, and the plain one that it has. False when the library has no wish.
static bool pack_layout(struct onednn *o, tensor w, enum pack_use use, dnnl_memory_desc_t *want,
                        dnnl_memory_desc_t *plain)
{
    if (tensor_count(w) == 0 || w.dtype == DT_F16 || (w.dtype == DT_BF16 && !o->bf16)) return false;
    static const float some_bias = 0;
    struct entry n = {0};
    int rc = -1;
    if (use == PACK_LINEAR) {
        struct onednn_gemm g = {
            .m = 256, .n = w.shape[0], .k = w.shape[1], .ldy = w.shape[0], .dtype = w.dtype, .bias = &some_bias};
        dnnl_matmul_desc_t op;
        dnnl_memory_desc_t any = gemm_weights(g.n, g.k, w.dtype, true);
        *plain = gemm_weights(g.n, g.k, w.dtype, false);
        if (gemm_op(&op, &g, &any) == dnnl_success) rc = entry_make(o, &n, &op, ACT_NONE);
    } else {
        struct onednn_conv c = {.ci = w.shape[1], .co = w.shape[0], .groups = 1, .dtype = w.dtype, .bias = &some_bias};
        bool line = w.shape[2] == 1 && w.shape[3] == 1 && w.shape[4] > 1; // along w alone: a sound
        for (int i = 0; i < 3; i++) {
            c.kernel[i] = w.shape[2 + i];
            c.stride[i] = 1;
            c.out[i] = i == 0 ? (c.kernel[0] > 1 ? 4 : 1) : i == 1 && line ? 1 : 64;
            c.pad[i][0] = c.pad[i][1] = i > 0 ? (c.kernel[i] - 1) / 2 : 0;
            c.in[i] = c.out[i] + c.kernel[i] - 1 - 2 * c.pad[i][0];
        }
        struct axes a = axes_of(&c);
        dnnl_convolution_desc_t op;
        *plain = conv_weights(&c, &a, w.dtype, false);
        if (conv_op(&op, &c, &a) == dnnl_success) rc = entry_make(o, &n, &op, ACT_NONE);
    }
    *want = n.weights;
    if (rc == 0) entry_release(&n);
    return rc == 0 && !dnnl_memory_desc_equal(want, plain);
}

size_t onednn_packed_bytes(struct onednn *o, tensor w, enum pack_use use)
{
    dnnl_memory_desc_t want, plain;
    if (!pack_layout(o, w, use, &want, &plain)) return 0;
    size_t size = dnnl_memory_desc_get_size(&want);
    return size > 2 * (size_t)tensor_bytes(w) + 4096 ? 0 : header_bytes + size; // mostly padding: not worth its memory
}

void onednn_pack(struct onednn *o, void *packed, tensor w, enum pack_use use)
{
    struct packed *h = packed;
    dnnl_memory_desc_t plain;
    memset(h, 0, header_bytes);
    h->use = use;
    h->dtype = w.dtype;
    for (int i = 0; i < w.n; i++) h->shape[i] = w.shape[i];
    int was = omp_get_max_threads();
    omp_set_num_threads(o->n_threads);
    bool ok = pack_layout(o, w, use, &h->md, &plain);
    ok = ok && reorder(o, &h->md, (char *)packed + header_bytes, &plain, w.data) == 0;
    omp_set_num_threads(was);
    if (!ok) h->shape[0] = -1; // fits no call
}

bool onednn_unpack(struct onednn *o, void *plain, tensor w, enum pack_use use)
{
    const struct packed *h = packed_of(w, use);
    dnnl_memory_desc_t want, md;
    if (!h) return false;
    int was = omp_get_max_threads();
    omp_set_num_threads(o->n_threads);
    bool ok = pack_layout(o, w, use, &want, &md) && reorder(o, &md, plain, &h->md, packed_data(h)) == 0;
    omp_set_num_threads(was);
    return ok;
}

// ---- packing in pieces

// Where outputs lie outermost, `rows` of them are one run of bytes, the next are the next. 0 where they do not.
static int64_t piece_rows(const dnnl_memory_desc_t *md)
{
    const dnnl_blocking_desc_t *b = &md->format_desc.blocking;
    int64_t inner[2] = {1, 1};
    if (md->format_kind != dnnl_blocked || md->ndims != 2 || md->offset0 != 0 || md->extra.flags != 0) return 0;
    for (int i = 0; i < b->inner_nblks; i++) inner[b->inner_idxs[i]] *= b->inner_blks[i];
    bool dense = b->strides[0] == inner[0] * inner[1] && b->strides[1] == md->padded_dims[0] * inner[1];
    return dense ? inner[1] : 0;
}

// A number for the order of elements.
static uint64_t order_of(const dnnl_memory_desc_t *md)
{
    const dnnl_blocking_desc_t *b = &md->format_desc.blocking;
    uint64_t order = (uint64_t)b->inner_nblks;
    for (int i = 0; i < b->inner_nblks; i++)
        order = order * 1000003 + (uint64_t)b->inner_blks[i] * 2 + (uint64_t)b->inner_idxs[i];
    return order;
}

struct pack_form onednn_packed_form(struct onednn *o, tensor w)
{
    dnnl_memory_desc_t want, plain;
    if (!pack_layout(o, w, PACK_LINEAR, &want, &plain)) return (struct pack_form){0};
    int64_t bytes = (int64_t)dnnl_memory_desc_get_size(&want), rows = piece_rows(&want);
    bool fits =
        rows > 0 && bytes <= tensor_bytes(w) + tensor_bytes(w) / 200; // hardly any padding: what moves is as much
    return fits ? (struct pack_form){.bytes = bytes, .rows = rows, .order = order_of(&want)} : (struct pack_form){0};
}

bool onednn_pack_rows(struct onednn *o, void *dst, tensor w, int64_t first, int64_t n, const void *rows)
{
    dnnl_memory_desc_t want, whole, part, plain = gemm_weights(n, w.shape[1], w.dtype, false);
    dnnl_dims_t dims = {w.shape[1], n}, from = {0, first};
    int was = omp_get_max_threads();
    omp_set_num_threads(o->n_threads);
    bool ok = pack_layout(o, w, PACK_LINEAR, &want, &whole) &&
              dnnl_memory_desc_init_submemory(&part, &want, dims, from) == dnnl_success;
    part.offset0 = 0; // dst is where the part begins
    ok = ok && reorder(o, &part, dst, &plain, rows) == 0;
    omp_set_num_threads(was);
    return ok;
}

size_t onednn_header_bytes(void) { return header_bytes; }

bool onednn_head(struct onednn *o, void *head, tensor w, const void *bytes)
{
    struct packed *h = head;
    dnnl_memory_desc_t plain;
    memset(h, 0, header_bytes);
    *h = (struct packed){.use = PACK_LINEAR, .dtype = w.dtype, .shape = {w.shape[0], w.shape[1]}, .elsewhere = bytes};
    return pack_layout(o, w, PACK_LINEAR, &h->md, &plain);
}
