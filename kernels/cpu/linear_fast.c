// Linear layers by oneDNN.
//
// Where x and the weight are BF16 and the CPU multiplies BF16, the product is one call on the packed weight. In every
// other mix (F16 weights, F32 rows on BF16 weights, a CPU without BF16 products) the product is F32: rows and weights
// are widened, the weights a block of outputs at a time, which costs one pass over them.
#include "kernels/cpu/fast.h"
#include "kernels/cpu/ref.h"

enum { BLOCK_BYTES = 4 << 20 }; // of widened weights: stays in the outer cache

static tensor fast_pack(struct dev *d, struct dev_arena *a, tensor w, enum pack_use use)
{
    struct fast *f = fast_of(d);
    size_t bytes = w.data ? onednn_packed_bytes(f->onednn, w, use) : 0;
    if (bytes == 0) return w;
    tensor p = dev_tensor(a, DT_U8, SHAPE((int64_t)bytes));
    if (!p.data || d->dry) return w; // a dry run only counts
    onednn_pack(f->onednn, p.data, w, use);
    w.packed = p.data;
    return w;
}

static struct pack_form fast_packed_form(struct dev *d, tensor w) { return onednn_packed_form(fast_of(d)->onednn, w); }

static void fast_pack_rows(struct dev *d, void *dst, tensor w, int64_t first, int64_t n, const void *rows)
{
    if (!onednn_pack_rows(fast_of(d)->onednn, dst, w, first, n, rows))
        dev_fault(d, "rows %lld to %lld of a weight [%lld, %lld] cannot be packed", (long long)first,
                  (long long)(first + n), (long long)w.shape[0], (long long)w.shape[1]);
}

static tensor fast_packed_at(struct dev *d, struct dev_arena *a, tensor w, const void *bytes)
{
    tensor head = dev_tensor(a, DT_U8, SHAPE((int64_t)onednn_header_bytes()));
    w.data = NULL;
    if (!head.data || d->dry) return w; // a dry run only counts
    if (!onednn_head(fast_of(d)->onednn, head.data, w, bytes)) dev_fault(d, "a packed weight cannot be described");
    w.packed = head.data;
    return w;
}

// The product where the weight has the dtype of the rows; else its outputs by blocks, widened.
static int product(struct dev *d, struct onednn_gemm *g, tensor w, const char **why)
{
    struct fast *f = fast_of(d);
    if (w.dtype == g->dtype) {
        g->packed = w.packed;
        return onednn_gemm(f->onednn, g, why);
    }
    int64_t n = g->n, k = g->k, block = BLOCK_BYTES / (k * 4);
    int rc = 0;
    block = block < 64 ? 64 : block / 64 * 64;
    struct onednn_gemm part = *g;
    float *wide = fast_scratch(f, SCRATCH_W, (size_t)((block < n ? block : n) * k) * sizeof *wide);
    const char *plain = fast_plain(d, w, PACK_LINEAR, SCRATCH_PLAIN);
    part.w = wide;
    part.packed = NULL;
    for (int64_t o = 0; o < n && rc == 0; o += block) {
        part.n = o + block < n ? block : n - o;
        int64_t work = part.n * k;
#pragma omp parallel for num_threads(dev_team(d, work))
        for (int64_t i = 0; i < part.n; i++)
            fast_cast(f->rows, DT_F32, wide + i * k, w.dtype, plain + (o + i) * k * dtype_size(w.dtype), k);
        part.bias = g->bias ? g->bias + o : NULL;
        part.y = (float *)g->y + o;
        rc = onednn_gemm(f->onednn, &part, why);
    }
    return rc;
}

// The layer in dtype t. 0, or -1 when the library has no way; a failure is the device's fault.
static int linear_in(struct dev *d, enum dtype t, tensor y, tensor x, tensor w, tensor b, enum act act)
{
    int64_t rows = ref_rows(x, 1), n = w.shape[0], k = w.shape[1];
    bool own = y.dtype != t || !tensor_is_contiguous(y);
    const char *why = NULL;
    const struct fast *f = fast_of(d);
    bool later = f->isa < ISA_AVX512 && act != ACT_NONE; // without AVX-512 the library's tanh gathers from a table
    struct onednn_gemm g = {.m = rows, .n = n, .k = k, .ldy = n, .dtype = t, .w = w.data};
    g.act = later ? ACT_NONE : act;
    g.x = fast_dense(d, x, t, SCRATCH_X);
    g.y = own ? fast_scratch(fast_of(d), SCRATCH_Y, (size_t)(rows * n * dtype_size(t))) : y.data;
    g.bias = fast_vector(d, b, SCRATCH_BIAS);
    int rc = product(d, &g, w, &why);
    if (why)
        dev_fault(d, "linear [%lld, %lld] by [%lld, %lld]: %s", (long long)rows, (long long)k, (long long)n,
                  (long long)k, why);
    if (rc == 0 && later) {
        int64_t work = rows * n;
#pragma omp parallel for num_threads(dev_team(d, work))
        for (int64_t i = 0; i < rows; i++) f->rows->act(act, (float *)g.y + i * n, n);
    }
    if (rc == 0) fast_spread(d, y, t, g.y);
    return rc;
}

static void fast_linear(struct dev *d, tensor y, tensor x, tensor w, tensor b, enum act act)
{
    struct fast *f = fast_of(d);
    int64_t rows = ref_rows(x, 1), n = w.shape[0], k = w.shape[1];
    if (rows == 0 || n == 0) return;
    int rc = -1;
    bool half = f->isa == ISA_AVX512_BF16 && x.dtype == DT_BF16 && w.dtype == DT_BF16;
    if (half && k > 0) rc = linear_in(d, DT_BF16, y, x, w, b, act);
    if (rc == -1 && k > 0) rc = linear_in(d, DT_F32, y, x, w, b, act);
    if (rc == -1) f->ref.linear(d, y, x, w, b, act);
}

void fast_linear_slots(struct ops *o)
{
    o->pack = fast_pack;
    o->packed_form = fast_packed_form;
    o->pack_rows = fast_pack_rows;
    o->packed_at = fast_packed_at;
    o->linear = fast_linear;
}
