// Linear layers of quantised weights: x is quantised a row at a time, a product of bytes is taken, and its sums are
// scaled back.
//
//   quantise: row of x -> bytes, factor          one block a row, the row kept in shared memory between the two passes
//   product:  cuBLASLt, e4m3 to F32 or int8 to I32
//   finish:   sum x factor of the row x factor of the output + bias, activation
//
// What a card can do differs, so there are four ways, each with what the ones below it can: factors inside of the
// product (sm_90 alone; BF16 results, no pass behind it), e4m3 products (sm_89 and later), int8 products, and both as
// BF16 products: the values of e4m3 and of int8 are values of BF16 too, and the sums of those products are the same.
// All quantise alike, so they agree up to the order of sums.
//
// Rows go in pieces, so that sums in F32 take a bounded piece of memory.
#include "kernels/cuda/gemm.cuh"

#include <string.h>

enum { THREADS = 256, PARTS = 32 };
enum : int64_t { PIECE = 4096 };
enum way { BY_BF16, BY_INT8, BY_FP8, BY_ROWS };
enum to { TO_E4M3, TO_INT8, TO_BF16 }; // bytes, or their values as BF16

// ---- kernels

// Nearest value of e4m3, half to even; what is larger than the largest becomes that.
static __device__ __forceinline__ unsigned e4m3_bits(float v)
{
    unsigned u = __float_as_uint(v), sign = u >> 24 & 0x80u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return sign | 0x7fu;
    if (a >= 0x43e00000u) return sign | 0x7eu;
    if (a < 0x3c800000u) return sign | (unsigned)rintf(fabsf(v) * 512);
    a += 0x7ffffu + (a >> 20 & 1u);
    return sign | ((a >> 20) - (120u << 3));
}
static __device__ __forceinline__ float e4m3_value(unsigned b)
{
    float m = (float)(b & 7u), f = b & 0x78u ? __uint_as_float(((b & 0x7fu) << 20) + (120u << 23)) : m * 0.001953125f;
    if ((b & 0x7fu) == 0x7fu) f = __uint_as_float(0x7fc00000u);
    return b & 0x80u ? -f : f;
}
static __device__ __forceinline__ float int8_value(float v)
{
    v = rintf(v);
    return v > 127 ? 127 : v < -127 ? -127 : v == v ? v : 0;
}

// The larger one; NaN is the largest.
static __device__ __forceinline__ float larger(float a, float b) { return b > a || b != b ? b : a; }

// Rows from `first` on to q [.., width] and their factors; a row of zeros has 1.
template <class T, int V>
__global__ void __launch_bounds__(THREADS)
    quantise_kernel(void *q, float *factor, rows x, int64_t first, int64_t width, float most, int e4m3, int to)
{
    float *part = (float *)shared_memory(), *keep = part + PARTS, v[V], top = 0;
    const T *row = row_at<T>(x, first + blockIdx.x);
    for (int64_t c = (int64_t)threadIdx.x * V; c < width; c += THREADS * V) {
        get_v<T, V>(v, row + c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            store(keep + c + i, v[i]);
            top = larger(top, fabsf(v[i]));
        }
    }
    for (int m = 16; m; m >>= 1) top = larger(top, shuffle_xor(top, m));
    if (threadIdx.x % 32 == 0) store(part + threadIdx.x / 32, top);
    sync_block();
    for (int i = 0; i < THREADS / 32; i++) top = larger(top, load(part + i));
    float times = top == 0 ? 1 : most / top;
    if (threadIdx.x == 0) store(factor + blockIdx.x, top == 0 ? 1 : top / most);
    for (int64_t c = (int64_t)threadIdx.x * V; c < width; c += THREADS * V) {
        int64_t at = blockIdx.x * width + c;
        pack_of<uint8_t, V> bytes;
#pragma unroll
        for (int i = 0; i < V; i++) {
            float u = load(keep + c + i) * times;
            unsigned b = e4m3 ? e4m3_bits(u) : 0;
            v[i] = e4m3 ? e4m3_value(b) : int8_value(u);
            bytes.v[i] = e4m3 ? (uint8_t)b : (uint8_t)(int)v[i];
        }
        if (to == TO_BF16)
            put_v<bf16, V>((bf16 *)q + at, v);
        else
            store((pack_of<uint8_t, V> *)((uint8_t *)q + at), bytes);
    }
}

static __device__ __forceinline__ void sums_get(float out[4], const float *p) { get_v<float, 4>(out, p); }
static __device__ __forceinline__ void sums_get(float out[4], const int *p)
{
    pack_of<int, 4> a = load((const pack_of<int, 4> *)p);
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = (float)a.v[i];
}
template <class A> __device__ __forceinline__ void sums_get(float out[1], const A *p, int) { out[0] = (float)load(p); }

template <class T, class A, int V>
__global__ void finish_kernel(rows y, int64_t first, int64_t n_rows, const A *sums, const float *factor,
                              const float *scale, vec b, int64_t n, int act)
{
    int64_t i = thread_index() * V, row = i / n, c = i % n;
    if (row >= n_rows) return;
    float v[V], r = load(factor + row);
    if constexpr (V == 4)
        sums_get(v, sums + i);
    else
        sums_get(v, sums + i, 0);
#pragma unroll
    for (int k = 0; k < V; k++) v[k] = activate(act, rounded<T>(v[k] * r * load(scale + c + k) + at(b, c + k, 0)));
    put_v<T, V>(row_at<T>(y, first + row) + c, v);
}

// ---- launchers

struct scaled {
    tensor y, x, w, scale, b;
    enum act act;
    int64_t m, n, k;
    bool e4m3;
};

// Rows [first, first + m) of x as `to`, into SCRATCH_X and SCRATCH_FACTOR. False after a fault.
static bool quantise(struct dev *d, const struct scaled *s, int64_t first, int64_t m, enum to to, void **q,
                     float **factor)
{
    rows x = rows_of(s->x, 1);
    int64_t shared = (PARTS + (s->k + 3) / 4 * 4) * (int64_t)sizeof(float);
    if (shared > 96 * 1024) {
        dev_fault(d, "quantising rows of %lld values: the CUDA table takes %d", (long long)s->k, 24 * 1024 - PARTS);
        return false;
    }
    *q = cuda_scratch_of(d, SCRATCH_X, m * s->k * (to == TO_BF16 ? 2 : 1));
    *factor = (float *)cuda_scratch_of(d, SCRATCH_FACTOR, m * (int64_t)sizeof(float));
    if (!*q || !*factor) return false;
    const float most = s->e4m3 ? 448 : 127;
    WITH_FLOAT(s->x.dtype, T, {
        constexpr int V = 16 / sizeof(T);
        if (rows_aligned(x, s->k, s->x.dtype) && s->k % V == 0)
            LAUNCH(d, (quantise_kernel<T, V>), (unsigned)m, THREADS, shared, *q, *factor, x, first, s->k, most,
                   (int)s->e4m3, (int)to);
        else
            LAUNCH(d, (quantise_kernel<T, 1>), (unsigned)m, THREADS, shared, *q, *factor, x, first, s->k, most,
                   (int)s->e4m3, (int)to);
    });
    return d->fault.code == 0;
}

template <class A>
static void finish(struct dev *d, const struct scaled *s, int64_t first, int64_t m, const A *sums, const float *factor)
{
    rows y = rows_of(s->y, 1);
    const float *scale = (const float *)s->scale.data;
    bool four = s->n % 4 == 0 && rows_aligned(y, 8, DT_BF16);
    WITH_FLOAT(s->y.dtype, T, {
        if (four)
            LAUNCH(d, (finish_kernel<T, A, 4>), blocks_for(m * s->n, THREADS * 4), THREADS, 0, y, first, m, sums,
                   factor, scale, vec_of(s->b), s->n, (int)s->act);
        else
            LAUNCH(d, (finish_kernel<T, A, 1>), blocks_for(m * s->n, THREADS), THREADS, 0, y, first, m, sums, factor,
                   scale, vec_of(s->b), s->n, (int)s->act);
    });
}

static struct gemm product_of(const struct scaled *s, int64_t m, const void *q)
{
    struct gemm g;
    memset(&g, 0, sizeof g);
    g.s.m = m, g.s.n = s->n, g.s.k = s->k, g.s.ldx = s->k, g.s.ldy = s->n;
    g.x = q, g.w = s->w.data;
    g.s.epilogue = cuda_epilogue_of(false, ACT_NONE);
    return g;
}

// All of it in the product. False where the library has no way.
static bool piece_by_rows(struct dev *d, const struct scaled *s, int64_t first, int64_t m)
{
    int64_t step;
    void *q;
    float *factor;
    if (s->y.dtype != DT_BF16 || !cuda_even_rows(s->y, &step) || step % 8 != 0 || !act_is_inside(s->act)) return false;
    if (!quantise(d, s, first, m, TO_E4M3, &q, &factor)) return true;
    struct gemm g = product_of(s, m, q);
    g.s.in = DT_F8_E4M3, g.s.out = DT_BF16, g.s.ldy = step, g.s.scaled = 1;
    g.bias = cuda_bias_of(d, s->b, DT_BF16);
    g.s.epilogue = cuda_epilogue_of(g.bias, s->act);
    g.x_scale = factor, g.w_scale = (const float *)s->scale.data;
    g.y = (bf16 *)s->y.data + first * step;
    return cuda_product(d, &g);
}

// Bytes, or their values as BF16, then a pass that finishes. False where the library has no way.
static bool piece(struct dev *d, const struct scaled *s, int64_t first, int64_t m, bool bytes)
{
    void *q;
    float *factor;
    void *sums = cuda_scratch_of(d, SCRATCH_SUM, m * s->n * 4);
    if (!sums || !quantise(d, s, first, m, !bytes ? TO_BF16 : s->e4m3 ? TO_E4M3 : TO_INT8, &q, &factor)) return true;
    struct gemm g = product_of(s, m, q);
    g.s.in = bytes ? s->w.dtype : DT_BF16;
    g.s.out = bytes && !s->e4m3 ? DT_I32 : DT_F32;
    if (!bytes) g.w = cuda_dense(d, s->w, DT_BF16, SCRATCH_W);
    g.y = sums;
    if (s->k == 0)
        cuda_check(d, cudaMemsetAsync(sums, 0, (size_t)(m * s->n * 4), cuda_stream(d)), "an empty product");
    else if (!cuda_product(d, &g))
        return false;
    if (g.s.out == DT_I32)
        finish(d, s, first, m, (const int *)sums, factor);
    else
        finish(d, s, first, m, (const float *)sums, factor);
    return true;
}

template <enum way WAY>
static void cuda_linear_scaled(struct dev *d, tensor y, tensor x, tensor w, tensor scale, tensor b, enum act act)
{
    struct scaled s = {y, x, w, scale, b, act, rows_of(x, 1).count, w.shape[0], w.shape[1], w.dtype == DT_F8_E4M3};
    if (s.m == 0 || s.n == 0) return;
    bool even =
        s.k % 16 == 0 && s.n % 16 == 0 && (uintptr_t)w.data % 16 == 0 && s.k > 0; // what the library asks of bytes
    bool bytes = even && WAY >= (s.e4m3 ? BY_FP8 : BY_INT8), rows = even && WAY >= BY_ROWS && s.e4m3;
    for (int64_t first = 0; first < s.m && d->fault.code == 0; first += PIECE) {
        int64_t m = s.m - first < PIECE ? s.m - first : (int64_t)PIECE;
        if (rows && piece_by_rows(d, &s, first, m)) continue;
        if (bytes && piece(d, &s, first, m, true)) continue;
        if (!piece(d, &s, first, m, false))
            dev_fault(d, "cuBLASLt has no product of %lld rows, %lld by %lld", (long long)m, (long long)s.n,
                      (long long)s.k);
    }
}

template <enum way WAY> static void fill(struct ops *o) { o->linear_scaled = cuda_linear_scaled<WAY>; }

static const struct op_case cases[] = {
    {.op = "linear_scaled", .s = {5, 32, 64}, .t = DT_BF16, .wt = DT_F8_E4M3, .act = ACT_GELU_TANH, .how = HOW_BIAS},
    {.op = "linear_scaled", .s = {5, 32, 64}, .t = DT_BF16, .wt = DT_I8, .how = HOW_BIAS},
    {.op = "linear_scaled", .s = {3, 16, 32}, .t = DT_F32, .wt = DT_F8_E4M3},
    {.op = "linear_scaled", .s = {3, 7, 9}, .t = DT_F32, .wt = DT_I8},
};
enum { N_CASES = sizeof cases / sizeof *cases };

const struct op_variant cuda_scaled_variants[] = {
    {"linear_scaled", "fp8 with factors inside", 90, 90, fill<BY_ROWS>, cases, N_CASES},
    {"linear_scaled", "fp8", 89, 0, fill<BY_FP8>, cases, N_CASES},
    {"linear_scaled", "int8", 80, 0, fill<BY_INT8>, cases, N_CASES},
    {"linear_scaled", "bf16", 80, 0, fill<BY_BF16>, cases, N_CASES},
};
const int n_cuda_scaled_variants = sizeof cuda_scaled_variants / sizeof *cuda_scaled_variants;
