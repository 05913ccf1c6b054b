// Linear layers through cuBLASLt; with its epilogues for bias, GELU (tanh form) and ReLU.
//
// Row-major y [rows, out] = x [rows, in] w [out, in]^T is, in the library's column-major words, D = W^T B with both
// inputs running along the summed axis: the "TN" form. BF16 weights with BF16 rows and F32 with F32 go as they are;
// every other mix is widened to F32 in scratch memory, as is the result. The library adds a bias of the output's dtype
// only, so an F32 bias of a BF16 product is rounded first: an error below that of the product's own rounding.
//
// The first time a shape comes, the library's candidates are timed on the call's own buffers, and pick.c takes the
// fastest whose result has the same bytes as the first one's: the choice may then differ from card to card of one kind,
// and the film does not. Results are compared by a sum over all their elements, of 64 bits, so that none is held
// twice. Where the library has no way (widths of 0, say), one tile kernel of our own does it.
#include "kernels/cuda/gemm.cuh"

extern "C" {
#include "kernels/pick.h"
}

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = 16, THREADS = 256, CANDIDATES = 8, TIMED = 5, SHAPES = 256, FOLDS = 256 };
enum : int64_t { WORKSPACE = int64_t(32) << 20 };
static_assert((int)CANDIDATES <= (int)PICK_MOST, "more candidates than can be picked from");

struct gemm_choice {
    struct picked picked; // times in milliseconds of TIMED runs
    cublasLtMatmulAlgo_t algo;
};

struct gemm_cache {
    cublasLtHandle_t lt;
    void *workspace;
    struct pick_memo choices; // gemm_choice by gemm_shape
};

// What a call of the library needs, made for one product.
struct gemm_words {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulPreference_t wish;
};

// ---- kernels

// y = act(R(x w^T + b)), any dtypes: a tile of 16 x 16 outputs a block.
template <class T>
__global__ void __launch_bounds__(THREADS)
    linear_kernel(rows y, rows x, const void *w, int wt, vec b, int64_t n, int64_t k, int act)
{
    float *xs = (float *)shared_memory(), *ws = xs + TILE * TILE, sum = 0;
    const vec weights = {w, 1, wt};
    int tx = (int)threadIdx.x % TILE, ty = (int)threadIdx.x / TILE;
    int64_t row = (int64_t)blockIdx.x * TILE + ty, out0 = (int64_t)blockIdx.y * TILE, out = out0 + tx;
    for (int64_t k0 = 0; k0 < k; k0 += TILE) {
        bool real = k0 + tx < k;
        store(xs + ty * TILE + tx, real && row < x.count ? get(row_at<T>(x, row) + k0 + tx) : 0.f);
        store(ws + ty * TILE + tx, real && out0 + ty < n ? at(weights, (out0 + ty) * k + k0 + tx, 0) : 0.f);
        sync_block();
        for (int i = 0; i < TILE; i++) sum += load(xs + ty * TILE + i) * load(ws + tx * TILE + i);
        sync_block();
    }
    if (row < y.count && out < n) put(row_at<T>(y, row) + out, activate(act, rounded<T>(sum + at(b, out, 0))));
}

template <class T> __global__ void act_rows_kernel(rows y, int64_t n, int act)
{
    int64_t i = thread_index();
    if (i >= y.count * n) return;
    T *p = row_at<T>(y, i / n) + i % n;
    put(p, activate(act, get(p)));
}

// part[block] = sum of what the elements of y [m, n] scatter to, each with its place; any order of additions is the
// same.
template <class T>
__global__ void __launch_bounds__(THREADS) fold_kernel(uint64_t *part, const T *y, int64_t m, int64_t n, int64_t ldy)
{
    uint64_t *each = (uint64_t *)shared_memory(), sum = 0;
    for (int64_t i = thread_index(); i < m * n; i += (int64_t)gridDim.x * THREADS) {
        uint64_t v = ((uint64_t)i << 32 ^ load(y + i / n * ldy + i % n)) * 0x9e3779b97f4a7c15u;
        sum += (v ^ v >> 29) * 0xbf58476d1ce4e5b9u;
    }
    store(each + threadIdx.x, sum);
    sync_block();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < THREADS; i++) sum += load(each + i);
    store(part + blockIdx.x, sum);
}

// ---- the library

static bool lt_ok(struct dev *d, cublasStatus_t code, const char *what)
{
    if (code == CUBLAS_STATUS_SUCCESS) return true;
    if (cuda_of(d)->recording) {
        cuda_unrecordable(d, what);
        return false;
    }
    dev_fault(d, "%s: cuBLASLt: %s: status %d", d->name, what, (int)code);
    return false;
}

static struct gemm_cache *cache_of(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    if (c->gemm) return c->gemm;
    struct gemm_cache *g = (struct gemm_cache *)calloc(1, sizeof *g);
    BUG_IF(!g, "no memory for products");
    c->gemm = g;
    pick_memo_init(&g->choices, sizeof(struct gemm_shape), sizeof(struct gemm_choice), SHAPES);
    if (!lt_ok(d, cublasLtCreate(&g->lt), "opening")) return NULL;
    return cuda_check(d, cudaMalloc(&g->workspace, (size_t)WORKSPACE), "workspace of cuBLASLt") ? g : NULL;
}

void cuda_linear_close(struct dev *d)
{
    struct gemm_cache *g = cuda_of(d)->gemm;
    if (!g) return;
    if (g->lt) cublasLtDestroy(g->lt);
    cudaFree(g->workspace);
    pick_memo_release(&g->choices);
    free(g);
    cuda_of(d)->gemm = NULL;
}

static void words_close(struct gemm_words *v)
{
    if (v->product) cublasLtMatmulDescDestroy(v->product);
    if (v->w) cublasLtMatrixLayoutDestroy(v->w);
    if (v->x) cublasLtMatrixLayoutDestroy(v->x);
    if (v->y) cublasLtMatrixLayoutDestroy(v->y);
    if (v->wish) cublasLtMatmulPreferenceDestroy(v->wish);
}

static cudaDataType type_of(enum dtype t)
{
    switch (t) {
    case DT_BF16:
        return CUDA_R_16BF;
    case DT_F8_E4M3:
        return CUDA_R_8F_E4M3;
    case DT_I8:
        return CUDA_R_8I;
    case DT_I32:
        return CUDA_R_32I;
    default:
        return CUDA_R_32F;
    }
}

static bool words_open(struct dev *d, struct gemm_words *v, const struct gemm *g)
{
    *v = {};
    bool whole = g->s.in == DT_I8;
    cudaDataType in = type_of(g->s.in), out = type_of(g->s.out);
    int32_t factors = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    cublasOperation_t turned = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)g->s.epilogue;
    size_t workspace = (size_t)WORKSPACE;
    uint64_t m = (uint64_t)g->s.m, n = (uint64_t)g->s.n, k = (uint64_t)g->s.k;
    bool ok = lt_ok(d,
                    cublasLtMatmulDescCreate(&v->product, whole ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                             whole ? CUDA_R_32I : CUDA_R_32F),
                    "product");
#define SET(attribute, value)                                                                                          \
    ok = ok && lt_ok(d, cublasLtMatmulDescSetAttribute(v->product, attribute, &value, sizeof value), #attribute)
    SET(CUBLASLT_MATMUL_DESC_TRANSA, turned);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (g->bias) SET(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g->bias);
    if (g->s.scaled) { // the library's A is our w
        SET(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, factors);
        SET(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, factors);
        SET(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, g->w_scale);
        SET(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, g->x_scale);
    }
#undef SET
    ok = ok && lt_ok(d, cublasLtMatrixLayoutCreate(&v->w, in, k, n, (int64_t)k), "weight");
    ok = ok && lt_ok(d, cublasLtMatrixLayoutCreate(&v->x, in, k, m, g->s.ldx), "input");
    ok = ok && lt_ok(d, cublasLtMatrixLayoutCreate(&v->y, out, n, m, g->s.ldy), "output");
    ok = ok && lt_ok(d, cublasLtMatmulPreferenceCreate(&v->wish), "preference");
    return ok && lt_ok(d,
                       cublasLtMatmulPreferenceSetAttribute(v->wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                            &workspace, sizeof workspace),
                       "preference");
}

static cublasStatus_t run(struct dev *d, const struct gemm_words *v, const struct gemm *g,
                          const cublasLtMatmulAlgo_t *algo)
{
    struct gemm_cache *c = cuda_of(d)->gemm;
    const float one = 1, zero = 0;
    const int one_whole = 1, zero_whole = 0;
    bool whole = g->s.in == DT_I8;
    cuda_of(d)->launches++;
    cuda_of(d)->n_enqueued++;
    return cublasLtMatmul(c->lt, v->product, whole ? (const void *)&one_whole : &one, g->w, v->w, g->x, v->x,
                          whole ? (const void *)&zero_whole : &zero, g->y, v->y, g->y, v->y, algo, c->workspace,
                          (size_t)WORKSPACE, cuda_stream(d));
}

// The library's candidates for one product, as pick.c tries them.
struct gemm_trial {
    struct dev *d;
    const struct gemm_words *v;
    const struct gemm *g;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    bool has_first;
    uint64_t first; // what the first result folds to
};

// Milliseconds of some runs of one candidate; one that the library then refuses does not work, which is no fault.
static float time_of(struct gemm_trial *t, const cublasLtMatmulAlgo_t *algo)
{
    struct dev *d = t->d;
    cudaEvent_t from = NULL, to = NULL;
    float ms = INFINITY;
    bool ok = cuda_check(d, cudaEventCreate(&from), "event") && cuda_check(d, cudaEventCreate(&to), "event");
    bool runs = ok && run(d, t->v, t->g, algo) == CUBLAS_STATUS_SUCCESS;
    ok = runs && cuda_check(d, cudaEventRecord(from, cuda_stream(d)), "event");
    for (int i = 0; runs && i < TIMED; i++) runs = run(d, t->v, t->g, algo) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cuda_check(d, cudaEventRecord(to, cuda_stream(d)), "event");
    ok = ok && cuda_check(d, cudaEventSynchronize(to), "event");
    ok = ok && runs && cuda_check(d, cudaEventElapsedTime(&ms, from, to), "event");
    if (!runs) cudaGetLastError(); // of a launch that was refused; what the card cannot forget comes again
    if (from) cudaEventDestroy(from);
    if (to) cudaEventDestroy(to);
    return ok ? ms : INFINITY;
}

// The bytes of the result as one number.
static uint64_t fold(struct gemm_trial *t)
{
    struct dev *d = t->d;
    const struct gemm_shape *s = &t->g->s;
    uint64_t part[FOLDS] = {0}, sum = 0, *there = (uint64_t *)cuda_scratch_of(d, SCRATCH_PART, sizeof part);
    const unsigned blocks = s->m * s->n < FOLDS * THREADS ? blocks_for(s->m * s->n, THREADS) : (unsigned)FOLDS;
    const int64_t bytes = blocks * (int64_t)sizeof sum;
    if (!there) return 0;
    if (dtype_size(s->out) == 2)
        LAUNCH(d, fold_kernel<uint16_t>, blocks, THREADS, THREADS * sizeof sum, there, (const uint16_t *)t->g->y, s->m,
               s->n, s->ldy);
    else
        LAUNCH(d, fold_kernel<uint32_t>, blocks, THREADS, THREADS * sizeof sum, there, (const uint32_t *)t->g->y, s->m,
               s->n, s->ldy);
    dev_download(d, part, DT_U8, tensor_of(there, DT_U8, 1, &bytes));
    for (uint64_t p : part) sum += p;
    return sum;
}

static double trial_time(void *ctx, int i)
{
    struct gemm_trial *t = (struct gemm_trial *)ctx;
    bool has = t->found[i].state == CUBLAS_STATUS_SUCCESS && t->d->fault.code == 0;
    double ms = has ? time_of(t, &t->found[i].algo) : INFINITY;
    if (isfinite(ms) && !t->has_first) {
        t->first = fold(t);
        t->has_first = true;
    }
    return ms;
}

static bool trial_same(void *ctx, int, int)
{
    struct gemm_trial *t = (struct gemm_trial *)ctx;
    return fold(t) == t->first && t->d->fault.code == 0;
}

static struct gemm_choice choose(struct dev *d, const struct gemm_words *v, const struct gemm *g)
{
    struct gemm_choice choice;
    struct gemm_trial t = {.d = d, .v = v, .g = g};
    struct pick_from from = {.n = 0, .time = trial_time, .same = trial_same, .ctx = &t};
    cublasStatus_t code = cublasLtMatmulAlgoGetHeuristic(cuda_of(d)->gemm->lt, v->product, v->w, v->x, v->y, v->y,
                                                         v->wish, CANDIDATES, t.found, &from.n);
    if (code != CUBLAS_STATUS_SUCCESS) from.n = 0;
    memset(&choice, 0, sizeof choice);
    choice.picked = pick_fastest(&from);
    if (choice.picked.way >= 0) choice.algo = t.found[choice.picked.way].algo;
    return choice;
}

static const struct gemm_choice *choice_of(struct dev *d, const struct gemm_words *v, const struct gemm *g)
{
    struct pick_memo *m = &cuda_of(d)->gemm->choices;
    const struct gemm_choice *known = (const struct gemm_choice *)pick_memo_find(m, &g->s);
    if (known) return known;
    if (cuda_of(d)->recording) {
        cuda_unrecordable(d, "a product of a new shape, which must be timed");
        return NULL;
    }
    const struct gemm_choice choice = choose(d, v, g);
    return (const struct gemm_choice *)pick_memo_keep(m, &g->s, &choice);
}

void cuda_linear_tell(const struct dev *d, FILE *to)
{
    const struct gemm_cache *c = cuda_of((struct dev *)d)->gemm;
    const void *key, *value;
    for (int64_t i = 0; c && pick_memo_row(&c->choices, i, &key, &value); i++) {
        const struct gemm_shape *s = (const struct gemm_shape *)key;
        const struct picked *p = &((const struct gemm_choice *)value)->picked;
        fprintf(to, "product %lld x %lld x %lld %s to %s%s%s%s%s: ", (long long)s->m, (long long)s->n, (long long)s->k,
                dtype_table[s->in].name, dtype_table[s->out].name, s->epilogue & CUBLASLT_EPILOGUE_BIAS ? ", bias" : "",
                s->epilogue & CUBLASLT_EPILOGUE_GELU ? ", gelu" : "",
                s->epilogue & CUBLASLT_EPILOGUE_RELU ? ", relu" : "", s->scaled ? ", scaled" : "");
        if (p->way < 0)
            fprintf(to, "none of %d candidates works\n", p->n);
        else
            fprintf(to, "candidate %d of %d, %.4f ms, the first %.4f; %d fail, %d have other bytes\n", p->way + 1, p->n,
                    p->time / (double)TIMED, p->first / (double)TIMED, p->n_failed, p->n_other);
    }
}

bool cuda_product(struct dev *d, const struct gemm *g)
{
    if (d->fault.code < 0 || !cache_of(d)) return true;
    if (cuda_of(d)->recording && cuda_of(d)->unrecordable[0]) return true;
    struct gemm_words v;
    const struct gemm_choice *choice = words_open(d, &v, g) ? choice_of(d, &v, g) : NULL;
    bool found = choice && choice->picked.way >= 0;
    if (found && d->fault.code == 0) lt_ok(d, run(d, &v, g, &choice->algo), "product");
    words_close(&v);
    return found || d->fault.code < 0 || (cuda_of(d)->recording && cuda_of(d)->unrecordable[0]);
}

// ---- launchers

int cuda_epilogue_of(bool bias, enum act act)
{
    if (act == ACT_GELU_TANH) return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    if (act == ACT_RELU) return bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

// 16-byte aligned, as the library asks of a bias.
const void *cuda_bias_of(struct dev *d, tensor b, enum dtype t)
{
    if (tensor_is_none(b)) return NULL;
    if (b.dtype == t && tensor_is_contiguous(b) && (uintptr_t)b.data % 16 == 0) return b.data;
    void *p = cuda_scratch_of(d, SCRATCH_BIAS, tensor_count(b) * dtype_size(t));
    if (p) d->ops.copy(d, tensor_of(p, t, b.n, b.shape), b);
    return p;
}

// Rows one fixed stride apart, as the library takes them: `step` elements.
bool cuda_even_rows(tensor t, int64_t *step)
{
    rows r = rows_of(t, 1);
    *step = r.n == 0 ? t.shape[t.n - 1] : r.step[0] / dtype_size(t.dtype);
    return r.n <= 1 && *step >= t.shape[t.n - 1];
}

// False where the library has no way; nothing was done then.
static bool by_library(struct dev *d, tensor y, tensor x, tensor w, tensor b, enum act act)
{
    struct gemm g;
    memset(&g, 0, sizeof g); // compared as bytes
    enum dtype t = x.dtype == DT_BF16 && w.dtype == DT_BF16 ? DT_BF16 : DT_F32;
    g.s.m = rows_of(x, 1).count, g.s.n = w.shape[0], g.s.k = w.shape[1];
    g.s.in = g.s.out = t;
    bool x_fits = cuda_even_rows(x, &g.s.ldx), y_fits = cuda_even_rows(y, &g.s.ldy) && y.dtype == t;
    g.x = x_fits && x.dtype == t ? x.data : cuda_dense(d, x, t, SCRATCH_X);
    if (g.x != x.data) g.s.ldx = g.s.k;
    g.w = cuda_dense(d, w, t, SCRATCH_W);
    g.bias = cuda_bias_of(d, b, t);
    g.s.epilogue = cuda_epilogue_of(g.bias, act);
    tensor dense = tensor_of(y.data, t, y.n, y.shape);
    if (!y_fits) {
        dense.data = cuda_scratch_of(d, SCRATCH_Y, tensor_bytes(dense));
        g.s.ldy = g.s.n;
    }
    g.y = dense.data;
    bool done = cuda_product(d, &g);
    if (done && d->fault.code == 0 && !y_fits) d->ops.copy(d, y, dense);
    return done;
}

void cuda_act_rows(struct dev *d, tensor y, enum act act)
{
    rows r = rows_of(y, 1);
    int64_t n = y.shape[y.n - 1];
    WITH_FLOAT(y.dtype, T, LAUNCH(d, act_rows_kernel<T>, blocks_for(r.count * n, THREADS), THREADS, 0, r, n, (int)act));
}

template <bool LIBRARY> static void cuda_linear(struct dev *d, tensor y, tensor x, tensor w, tensor b, enum act act)
{
    rows yr = rows_of(y, 1);
    int64_t n = w.shape[0], k = w.shape[1];
    if (yr.count == 0 || n == 0) return;
    if (LIBRARY && k > 0 && by_library(d, y, x, w, b, act)) {
        if (!act_is_inside(act)) cuda_act_rows(d, y, act);
        return;
    }
    const dim3 blocks(blocks_for(yr.count, TILE), blocks_for(n, TILE));
    WITH_FLOAT(x.dtype, T,
               LAUNCH(d, linear_kernel<T>, blocks, THREADS, 2 * TILE * TILE * sizeof(float), yr, rows_of(x, 1), w.data,
                      (int)w.dtype, vec_of(b), n, k, (int)act));
}

template <bool LIBRARY> static void fill(struct ops *o) { o->linear = cuda_linear<LIBRARY>; }

static const struct op_case cases[] = {
    {.op = "linear", .s = {5, 32, 64}, .t = DT_BF16, .act = ACT_GELU_TANH, .how = HOW_BIAS},
    {.op = "linear", .s = {5, 24, 40}, .t = DT_F32, .act = ACT_SILU, .how = HOW_BIAS},
};

const struct op_variant cuda_linear_variants[] = {
    {"linear", "cublaslt", 80, 0, fill<true>, cases, sizeof cases / sizeof *cases},
    {"linear", "tiles", 80, 0, fill<false>, cases, sizeof cases / sizeof *cases},
};
const int n_cuda_linear_variants = sizeof cuda_linear_variants / sizeof *cuda_linear_variants;
