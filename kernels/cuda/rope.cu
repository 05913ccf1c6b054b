// Rotary position embedding and the speaker positions.
//
// The q and k norm with the turn is one launch: a block a row of q or k, the row kept in shared memory between the sum
// of squares and the turn. Tables are made once a segment, in F64, so that their last bits do not depend on the card's
// fast sine. The trap: the axes' exponent denominators differ (44, 42, 42 for width 128), and pairs are adjacent
// channels.
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, PARTS = 32 };

// ---- kernels

static __device__ __forceinline__ void put_angle(float *pair, double angle)
{
    store(pair, (float)cos(angle));
    store(pair + 1, (float)sin(angle));
}

__global__ void rope_grid_kernel(float *table, int64_t n, int64_t half, int64_t first, int64_t gh, int64_t gw)
{
    int64_t i = thread_index();
    if (i >= n * half) return;
    int64_t side = half / 3, time = half - 2 * side, j = i % half, at = first + i / half, axis_at, axis_n;
    if (j < time)
        axis_at = at / (gh * gw), axis_n = time;
    else if (j < time + side)
        axis_at = at / gw % gh, axis_n = side, j -= time;
    else
        axis_at = at % gw, axis_n = side, j -= time + side;
    put_angle(table + 2 * i, (double)axis_at * pow(10000, -(double)j / (double)axis_n));
}

__global__ void rope_line_kernel(float *table, const float *pos, int64_t pos_step, int64_t n, int64_t half)
{
    int64_t i = thread_index();
    if (i >= n * half) return;
    float f = 1 / (float)pow(10000, (double)((float)(i % half) / (float)half)),
          angle = load(pos + i / half * pos_step) * f;
    put_angle(table + 2 * i, (double)angle);
}

// x [rows, h, d], the rows turned by table rows i mod n.
template <class T>
__global__ void rope_kernel(rows x, int64_t heads, int64_t head_step, int64_t half, const float *table, int64_t n)
{
    int64_t i = thread_index(), per_row = heads * half;
    if (i >= x.count * per_row) return;
    int64_t row = i / per_row, h = i % per_row / half, j = i % half;
    T *p = row_at<T>(x, row) + h * head_step + 2 * j;
    const float *angle = table + (row % n * half + j) * 2;
    float a = get(p), b = get(p + 1), c = load(angle), s = load(angle + 1);
    put(p, a * c - b * s);
    put(p + 1, b * c + a * s);
}

struct turn_args {
    rows x[2]; // q, k
    const float *gain[2];
    const float *table;
    int64_t heads, width;
    float eps;
};

// V values at once, or two by themselves where rows are not aligned.
template <class T, int V, bool WIDE> __global__ void __launch_bounds__(THREADS) qk_kernel(turn_args a)
{
    float *part = (float *)shared_memory(), *keep = part + PARTS, v[V], sq = 0;
    int64_t n = a.heads * a.width;
    const bool k = blockIdx.y != 0;
    T *x = k ? row_at<T>(a.x[1], blockIdx.x) : row_at<T>(a.x[0], blockIdx.x);
    const float *gain = k ? a.gain[1] : a.gain[0];
    for (int64_t c = (int64_t)threadIdx.x * V; c < n; c += THREADS * V) {
        if (WIDE) get_v<T, V>(v, x + c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            if (!WIDE) v[i] = get(x + c + i);
            store(keep + c + i, v[i]);
            sq += v[i] * v[i];
        }
    }
    float r = 1 / sqrtf(block_sum(sq, part) / (float)n + a.eps);
    for (int64_t c = (int64_t)threadIdx.x * V; c < n; c += THREADS * V) {
        float g[V];
        vector_get<V>(g, gain, c, 1);
        const float *angle = a.table + (blockIdx.x * a.width + c % a.width);
#pragma unroll
        for (int i = 0; i < V; i += 2) {
            float u = rounded<T>(rounded<T>(load(keep + c + i) * r) * g[i]);
            float w = rounded<T>(rounded<T>(load(keep + c + i + 1) * r) * g[i + 1]);
            float cs = load(angle + i), sn = load(angle + i + 1);
            v[i] = u * cs - w * sn;
            v[i + 1] = w * cs + u * sn;
        }
        if (WIDE)
            put_v<T, V>(x + c, v);
        else
            for (int i = 0; i < V; i++) put(x + c + i, v[i]);
    }
}

static __device__ __forceinline__ float extreme(float a, float b, bool low)
{
    if (a != a || b != b) return __uint_as_float(0x7fc00000u);
    return low ? fminf(a, b) : fmaxf(a, b);
}

__global__ void range_kernel(float *lohi, const float *map, int64_t step, int64_t n)
{
    float *part = (float *)shared_memory(); // [2][warps]
    const float *m = map + blockIdx.x * step;
    float lo = load(m), hi = lo;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        lo = extreme(lo, load(m + i), true);
        hi = extreme(hi, load(m + i), false);
    }
    for (int k = 16; k; k >>= 1) {
        lo = extreme(lo, shuffle_xor(lo, k), true);
        hi = extreme(hi, shuffle_xor(hi, k), false);
    }
    if (threadIdx.x % 32 == 0) {
        store(part + threadIdx.x / 32, lo);
        store(part + THREADS / 32 + threadIdx.x / 32, hi);
    }
    sync_block();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < THREADS / 32; i++) {
        lo = extreme(lo, load(part + i), true);
        hi = extreme(hi, load(part + THREADS / 32 + i), false);
    }
    store(lohi + 2 * blockIdx.x, lo);
    store(lohi + 2 * blockIdx.x + 1, hi);
}

// The class whose value is largest; the first wins a tie, and NaN counts as largest.
template <class R>
__global__ void class_kernel(float *pos, const float *map, int64_t step, const float *lohi, int64_t n)
{
    int64_t i = thread_index();
    if (i >= n) return;
    float best = load(map + i), p = 12; // background
    int c = 0;
    for (int k = 1; k < 3; k++) {
        float v = load(map + k * step + i);
        if (best == best && (v > best || v != v)) best = v, c = k;
    }
    if (c < 2) {
        float lo = load(lohi + 2 * c), hi = load(lohi + 2 * c + 1), low = c ? 20.f : 0.f;
        float up = rounded<R>(best - lo), range = rounded<R>(rounded<R>(hi - lo) + 1e-8f);
        p = rounded<R>(rounded<R>(rounded<R>(up / range) * 4) + low);
    }
    store(pos + i, p);
}

// ---- launchers

static void cuda_rope_grid(struct dev *d, tensor table, int64_t first, int64_t, int64_t gh, int64_t gw)
{
    int64_t n = table.shape[0], half = table.shape[1];
    LAUNCH(d, rope_grid_kernel, blocks_for(n * half, THREADS), THREADS, 0, (float *)table.data, n, half, first, gh, gw);
}

static void cuda_rope_line(struct dev *d, tensor table, tensor pos)
{
    int64_t n = table.shape[0], half = table.shape[1];
    LAUNCH(d, rope_line_kernel, blocks_for(n * half, THREADS), THREADS, 0, (float *)table.data, (const float *)pos.data,
           pos.stride[0], n, half);
}

static void cuda_rope(struct dev *d, tensor x, tensor table)
{
    rows r = rows_of(x, 2);
    int64_t heads = x.shape[x.n - 2], half = table.shape[1], n = table.shape[0];
    WITH_FLOAT(x.dtype, T,
               LAUNCH(d, rope_kernel<T>, blocks_for(r.count * heads * half, THREADS), THREADS, 0, r, heads,
                      x.stride[x.n - 2], half, (const float *)table.data, n));
}

static void cuda_qk_norm_rope(struct dev *d, tensor q, tensor k, tensor q_gain, tensor k_gain, float eps, tensor table)
{
    turn_args a = {};
    a.x[0] = rows_of(q, 2), a.x[1] = rows_of(k, 2);
    a.gain[0] = cuda_vector(d, q_gain, 0), a.gain[1] = cuda_vector(d, k_gain, 1);
    a.table = (const float *)table.data;
    a.heads = q.shape[1], a.width = q.shape[2];
    a.eps = eps;
    int64_t n = a.heads * a.width, shared = (PARTS + (n + 3) / 4 * 4) * (int64_t)sizeof(float);
    if (shared > 96 * 1024) {
        dev_fault(d, "norm of rows of %lld values: the CUDA table takes %d", (long long)n, 24 * 1024 - PARTS);
        return;
    }
    const dim3 blocks((unsigned)q.shape[0], 2);
    bool aligned = a.width % 8 == 0 && rows_aligned(a.x[0], n, q.dtype) && rows_aligned(a.x[1], n, q.dtype);
    WITH_FLOAT(q.dtype, T, {
        constexpr int V = 16 / sizeof(T);
        if (aligned)
            LAUNCH(d, (qk_kernel<T, V, true>), blocks, THREADS, shared, a);
        else
            LAUNCH(d, (qk_kernel<T, 2, false>), blocks, THREADS, shared, a);
    });
}

static void cuda_row_range(struct dev *d, tensor lohi, tensor map)
{
    LAUNCH(d, range_kernel, (unsigned)map.shape[0], THREADS, 2 * THREADS / 32 * sizeof(float), (float *)lohi.data,
           (const float *)map.data, map.stride[0], map.shape[1]);
}

static void cuda_class_pos(struct dev *d, tensor pos, tensor map, tensor lohi, bool half)
{
    int64_t n = pos.shape[0];
    float *to = (float *)pos.data;
    const float *m = (const float *)map.data, *r = (const float *)lohi.data;
    if (half)
        LAUNCH(d, class_kernel<bf16>, blocks_for(n, THREADS), THREADS, 0, to, m, map.stride[0], r, n);
    else
        LAUNCH(d, class_kernel<float>, blocks_for(n, THREADS), THREADS, 0, to, m, map.stride[0], r, n);
}

void cuda_rope_slots(struct ops *o)
{
    o->rope_grid = cuda_rope_grid;
    o->rope_line = cuda_rope_line;
    o->rope = cuda_rope;
    o->qk_norm_rope = cuda_qk_norm_rope;
    o->row_range = cuda_row_range;
    o->class_pos = cuda_class_pos;
}
