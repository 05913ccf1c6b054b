// Norms over rows, and the residual sums that precede them.
//
// A row belongs to one warp (up to 1,024 values) or one block (above). Each thread reads its part of the row once, 16
// bytes at a time where rows are aligned, and keeps it in shared memory as F32 between the statistics and their use; it
// only ever reads back what it wrote itself. So a norm reads x once and writes h once, and gate + residual + norm reads
// x and y once and writes x and h once. The variance is taken in a second pass around the mean.
//
// Shared memory is the row: 20 KB at width 5,120. At most 64 registers a thread: four blocks of 256 on a
// multiprocessor, and a thread has two or three loads of 16 bytes under way at a time. more.
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, WARP_WIDTH = 1024, PARTS = 32 };

struct norm_args {
    rows h, x, y;
    const float *gate, *gain, *bias, *shift, *scale; // or NULL
    int64_t width;
    float eps;
    int act;
};

// The threads that share a row: G of them.
template <int G> struct team {
    int64_t row;
    int lane;
    float *part, *keep; // shared
    __device__ explicit team(int64_t width)
    {
        float *shared = (float *)shared_memory();
        int in_block = G == 32 ? (int)threadIdx.x / 32 : 0;
        row = G == 32 ? (int64_t)blockIdx.x * (THREADS / 32) + in_block : (int64_t)blockIdx.x;
        lane = G == 32 ? (int)threadIdx.x % 32 : (int)threadIdx.x;
        part = shared;
        keep = shared + PARTS + in_block * ((width + 3) / 4 * 4);
    }
    __device__ float sum(float v) const { return G == 32 ? warp_sum(v) : block_sum(v, part); }
};

template <int V> __device__ __forceinline__ void keep_v(float *keep, const float v[V])
{
#pragma unroll
    for (int i = 0; i < V; i++) store(keep + i, v[i]);
}

// ---- kernels

// h = norm(x); with ADD first x = R(x + y gate).
template <class T, class H, int V, int G, bool ADD>
__global__ void __launch_bounds__(THREADS, 4) norm_kernel(norm_args a)
{
    team<G> t(a.width);
    if (t.row >= a.x.count) return; // a whole team
    T *x = row_at<T>(a.x, t.row);
    H *h = row_at<H>(a.h, t.row);
    const T *y = ADD ? row_at<T>(a.y, t.row) : nullptr;
    float sum = 0, v[V];
    for (int64_t c = (int64_t)t.lane * V; c < a.width; c += G * V) {
        get_v<T, V>(v, x + c);
        if (ADD) {
            float w[V], g[V];
            get_v<T, V>(w, y + c);
            vector_get<V>(g, a.gate, c, 1);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = rounded<T>(v[i] + w[i] * g[i]);
            put_v<T, V>(x + c, v);
        }
        keep_v<V>(t.keep + c, v);
#pragma unroll
        for (int i = 0; i < V; i++) sum += v[i];
    }
    float mean = t.sum(sum) / (float)a.width, sq = 0;
    for (int64_t c = (int64_t)t.lane * V; c < a.width; c += G * V)
#pragma unroll
        for (int i = 0; i < V; i++) {
            float u = load(t.keep + c + i) - mean;
            sq += u * u;
        }
    float r = 1 / sqrtf(t.sum(sq) / (float)a.width + a.eps);
    for (int64_t c = (int64_t)t.lane * V; c < a.width; c += G * V) {
        float times[V], plus[V];
        vector_get<V>(times, a.gain, c, 1);
        vector_get<V>(plus, a.bias, c, 0);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = rounded<T>((load(t.keep + c + i) - mean) * r * times[i] + plus[i]);
        if (a.scale) {
            vector_get<V>(times, a.scale, c, 0);
            vector_get<V>(plus, a.shift, c, 0);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = v[i] * (1 + times[i]) + plus[i];
        }
        put_v<H, V>(h + c, v);
    }
}

// y = R(R(x / sqrt(mean x^2 + eps)) gain), or with L2 y = act(R(x / max(||x||, 1e-12) sqrt(width) gain)).
template <class T, int V, int G, bool L2> __global__ void __launch_bounds__(THREADS) scale_kernel(norm_args a)
{
    team<G> t(a.width);
    if (t.row >= a.x.count) return;
    const T *x = row_at<T>(a.x, t.row);
    T *h = row_at<T>(a.h, t.row);
    float sq = 0, v[V];
    for (int64_t c = (int64_t)t.lane * V; c < a.width; c += G * V) {
        get_v<T, V>(v, x + c);
        keep_v<V>(t.keep + c, v);
#pragma unroll
        for (int i = 0; i < V; i++) sq += v[i] * v[i];
    }
    sq = t.sum(sq);
    float r = L2 ? sqrtf((float)a.width) / fmaxf(sqrtf(sq), 1e-12f) : 1 / sqrtf(sq / (float)a.width + a.eps);
    for (int64_t c = (int64_t)t.lane * V; c < a.width; c += G * V) {
        float g[V];
        vector_get<V>(g, a.gain, c, 1);
#pragma unroll
        for (int i = 0; i < V; i++) {
            float u = load(t.keep + c + i) * r;
            v[i] = L2 ? activate(a.act, rounded<T>(u * g[i])) : rounded<T>(u) * g[i];
        }
        put_v<T, V>(h + c, v);
    }
}

template <class T, int V> __global__ void gate_kernel(rows x, rows y, const float *gate, int64_t width)
{
    int64_t per_row = width / V, i = thread_index();
    if (i >= x.count * per_row) return;
    int64_t c = i % per_row * V;
    T *to = row_at<T>(x, i / per_row) + c;
    float v[V], w[V], g[V];
    get_v<T, V>(v, to);
    get_v<T, V>(w, row_at<T>(y, i / per_row) + c);
    vector_get<V>(g, gate, c, 1);
#pragma unroll
    for (int k = 0; k < V; k++) v[k] += w[k] * g[k];
    put_v<T, V>(to, v);
}

// A block has 32 columns; its warps take rows in turn, then the warps' sums are added in order.
template <class T> __global__ void col_sums_kernel(double *sums, rows x, int64_t width)
{
    double *part = (double *)shared_memory(), s = 0, sq = 0; // [2][warps][32]
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, warps = THREADS / 32;
    int64_t c = (int64_t)blockIdx.x * 32 + lane;
    for (int64_t i = warp; c < width && i < x.count; i += warps) {
        double v = (double)get(row_at<T>(x, i) + c);
        s += v;
        sq += v * v;
    }
    store(part + warp * 32 + lane, s);
    store(part + (warps + warp) * 32 + lane, sq);
    sync_block();
    if (warp < 2 && c < width) {
        double sum = 0, *to = sums + warp * width + c;
        for (int i = 0; i < warps; i++) sum += load(part + (warp * warps + i) * 32 + lane);
        store(to, load(to) + sum);
    }
}

template <class T>
__global__ void col_norm_kernel(rows y, rows x, vec mean, vec rstd, vec gain, vec bias, int64_t width, int act)
{
    int64_t i = thread_index(), c = i % width;
    if (i >= x.count * width) return;
    float v = (get(row_at<T>(x, i / width) + c) - at(mean, c, 0)) * at(rstd, c, 1);
    put(row_at<T>(y, i / width) + c, activate(act, rounded<T>(v * at(gain, c, 1) + at(bias, c, 0))));
}

// ---- launchers

// Blocks and shared bytes for a row-wise kernel; false (and a fault) where a row does not fit a block.
static bool row_layout(struct dev *d, const norm_args &a, unsigned *blocks, int64_t *shared)
{
    bool by_warp = a.width <= WARP_WIDTH;
    int64_t keep = (a.width + 3) / 4 * 4 * (by_warp ? THREADS / 32 : 1);
    *blocks = by_warp ? blocks_for(a.x.count, THREADS / 32) : (unsigned)a.x.count;
    *shared = (PARTS + keep) * (int64_t)sizeof(float);
    if (*shared <= 96 * 1024) return true;
    dev_fault(d, "norm of rows of %lld values: the CUDA table takes %d", (long long)a.width, 24 * 1024 - PARTS);
    return false;
}

template <class T, class H, bool ADD> static void norm_launch(struct dev *d, const norm_args &a, bool aligned)
{
    constexpr int V = 16 / sizeof(T);
    unsigned blocks;
    int64_t shared;
    if (!row_layout(d, a, &blocks, &shared)) return;
    if (a.width <= WARP_WIDTH && aligned)
        LAUNCH(d, (norm_kernel<T, H, V, 32, ADD>), blocks, THREADS, shared, a);
    else if (a.width <= WARP_WIDTH)
        LAUNCH(d, (norm_kernel<T, H, 1, 32, ADD>), blocks, THREADS, shared, a);
    else if (aligned)
        LAUNCH(d, (norm_kernel<T, H, V, THREADS, ADD>), blocks, THREADS, shared, a);
    else
        LAUNCH(d, (norm_kernel<T, H, 1, THREADS, ADD>), blocks, THREADS, shared, a);
}

template <bool ADD> static void norm_any(struct dev *d, tensor h, tensor x, tensor y, tensor gate, struct norm n)
{
    norm_args a = {};
    a.h = rows_of(h, 1), a.x = rows_of(x, 1), a.y = ADD ? rows_of(y, 1) : a.x;
    const float **to[VECTORS] = {&a.gate, &a.gain, &a.bias, &a.shift, &a.scale};
    const tensor from[VECTORS] = {gate, n.gain, n.bias, n.shift, n.scale};
    for (int i = 0; i < VECTORS; i++) *to[i] = cuda_vector(d, from[i], i);
    if (d->fault.code < 0) return;
    a.width = x.shape[x.n - 1];
    a.eps = n.eps;
    // A wide h takes V elements of x's dtype in 32 bytes.
    bool aligned = rows_aligned(a.x, a.width, x.dtype) && rows_aligned(a.y, a.width, x.dtype) &&
                   rows_aligned(a.h, a.width, h.dtype) && h.dtype == x.dtype;
    if (h.dtype == x.dtype)
        WITH_FLOAT(x.dtype, T, norm_launch<T, T, ADD>(d, a, aligned));
    else
        norm_launch<bf16, float, ADD>(d, a, false);
}

static void cuda_norm(struct dev *d, tensor h, tensor x, struct norm n)
{
    norm_any<false>(d, h, x, tensor{}, tensor{}, n);
}

static void cuda_add_norm(struct dev *d, tensor h, tensor x, tensor y, tensor gate, struct norm n)
{
    norm_any<true>(d, h, x, y, gate, n);
}

static void cuda_gate_add(struct dev *d, tensor x, tensor y, tensor gate)
{
    rows xr = rows_of(x, 1), yr = rows_of(y, 1);
    int64_t width = x.shape[x.n - 1], n = xr.count * width;
    const float *g = cuda_vector(d, gate, 0);
    bool aligned = rows_aligned(xr, width, x.dtype) && rows_aligned(yr, width, x.dtype);
    WITH_FLOAT(x.dtype, T, {
        constexpr int V = 16 / sizeof(T);
        if (aligned)
            LAUNCH(d, (gate_kernel<T, V>), blocks_for(n, THREADS * V), THREADS, 0, xr, yr, g, width);
        else
            LAUNCH(d, (gate_kernel<T, 1>), blocks_for(n, THREADS), THREADS, 0, xr, yr, g, width);
    });
}

template <class T, bool L2> static void scale_launch(struct dev *d, const norm_args &a, bool aligned)
{
    constexpr int V = 16 / sizeof(T);
    unsigned blocks;
    int64_t shared;
    if (!row_layout(d, a, &blocks, &shared)) return;
    if (a.width <= WARP_WIDTH && aligned)
        LAUNCH(d, (scale_kernel<T, V, 32, L2>), blocks, THREADS, shared, a);
    else if (a.width <= WARP_WIDTH)
        LAUNCH(d, (scale_kernel<T, 1, 32, L2>), blocks, THREADS, shared, a);
    else if (aligned)
        LAUNCH(d, (scale_kernel<T, V, THREADS, L2>), blocks, THREADS, shared, a);
    else
        LAUNCH(d, (scale_kernel<T, 1, THREADS, L2>), blocks, THREADS, shared, a);
}

template <bool L2> static void scale_any(struct dev *d, tensor y, tensor x, tensor gain, float eps, enum act act)
{
    norm_args a = {};
    a.h = rows_of(y, 1), a.x = rows_of(x, 1);
    a.gain = cuda_vector(d, gain, 0);
    a.width = x.shape[x.n - 1];
    a.eps = eps;
    a.act = act;
    bool aligned = rows_aligned(a.x, a.width, x.dtype) && rows_aligned(a.h, a.width, x.dtype);
    WITH_FLOAT(x.dtype, T, (scale_launch<T, L2>(d, a, aligned)));
}

static void cuda_rms_norm(struct dev *d, tensor y, tensor x, tensor gain, float eps)
{
    scale_any<false>(d, y, x, gain, eps, ACT_NONE);
}

static void cuda_l2_norm(struct dev *d, tensor y, tensor x, tensor gain, enum act act)
{
    scale_any<true>(d, y, x, gain, 0, act);
}

static void cuda_col_sums(struct dev *d, tensor sums, tensor x)
{
    int64_t shared = 2 * THREADS * (int64_t)sizeof(double), width = x.shape[1];
    WITH_FLOAT(x.dtype, T,
               LAUNCH(d, col_sums_kernel<T>, blocks_for(width, 32), THREADS, shared, (double *)sums.data, rows_of(x, 1),
                      width));
}

static void cuda_col_norm(struct dev *d, tensor y, tensor x, tensor mean, tensor rstd, tensor gain, tensor bias,
                          enum act act)
{
    int64_t width = x.shape[1];
    WITH_FLOAT(x.dtype, T,
               LAUNCH(d, col_norm_kernel<T>, blocks_for(tensor_count(x), THREADS), THREADS, 0, rows_of(y, 1),
                      rows_of(x, 1), vec_of(mean), vec_of(rstd), vec_of(gain), vec_of(bias), width, (int)act));
}

void cuda_norm_slots(struct ops *o)
{
    o->norm = cuda_norm;
    o->add_norm = cuda_add_norm;
    o->gate_add = cuda_gate_add;
    o->rms_norm = cuda_rms_norm;
    o->l2_norm = cuda_l2_norm;
    o->col_sums = cuda_col_sums;
    o->col_norm = cuda_col_norm;
}
