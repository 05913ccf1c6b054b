// Element by element, and the sums of guidance.
//
// Each thread moves 16 bytes where all addresses allow it. The two sums over everything (project_out, mean_change) go
// in two launches: every block leaves its part, then each block of the second adds the parts in the same order. No
// atomics: the result depends on the shape alone.
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, PARTS = 128 };

// ---- kernels

template <class T, int V> __global__ void act_kernel(T *y, const T *x, int64_t n, int act)
{
    int64_t i = thread_index() * V;
    if (i >= n) return;
    float v[V];
    get_v<T, V>(v, x + i);
#pragma unroll
    for (int k = 0; k < V; k++) v[k] = activate(act, v[k]);
    put_v<T, V>(y + i, v);
}

// y = a x + b z, or x z.
template <class TY, class TX, class TZ, int V, bool PRODUCT>
__global__ void join_kernel(TY *y, const TX *x, const TZ *z, int64_t n, float a, float b)
{
    int64_t i = thread_index() * V;
    if (i >= n) return;
    float u[V], w[V];
    get_v<TX, V>(u, x + i);
    get_v<TZ, V>(w, z + i);
#pragma unroll
    for (int k = 0; k < V; k++) u[k] = PRODUCT ? u[k] * w[k] : a * u[k] + b * w[k];
    put_v<TY, V>(y + i, u);
}

// parts[3 block + k]: sums of g g, c c, g c (or |a - b|, |b|) over this block's elements.
template <bool CHANGE> __global__ void parts_kernel(double *parts, const float *g, const float *c, int64_t n)
{
    double s[3] = {0, 0, 0}, *shared = (double *)shared_memory();
    for (int64_t i = thread_index(); i < n; i += (int64_t)gridDim.x * THREADS) {
        double u = load(g + i), w = load(c + i);
        s[0] += CHANGE ? fabs(u - w) : u * u;
        s[1] += CHANGE ? fabs(w) : w * w;
        s[2] += u * w;
    }
    for (int k = 0; k < 3; k++) {
        double sum = block_sum(s[k], shared);
        if (threadIdx.x == 0) store(parts + 3 * blockIdx.x + k, sum);
    }
}

static __device__ __forceinline__ double part_sum(const double *parts, int n, int k)
{
    double s = 0;
    for (int i = 0; i < n; i++) s += load(parts + 3 * i + k);
    return s;
}

__global__ void project_kernel(float *y, const float *g, const float *c, int64_t n, const double *parts, int n_parts,
                               float limit)
{
    double len = sqrt(part_sum(parts, n_parts, 0)), clen = sqrt(part_sum(parts, n_parts, 1));
    float f = limit > 0 && len > (double)limit ? (float)((double)limit / len) : 1;
    double unit = clen > 1e-12 ? clen : 1e-12, along = (double)f * part_sum(parts, n_parts, 2) / (unit * unit);
    for (int64_t i = thread_index(); i < n; i += (int64_t)gridDim.x * THREADS)
        store(y + i, (float)((double)load(g + i) * (double)f - along * (double)load(c + i)));
}

__global__ void change_kernel(double *out, const double *parts, int n_parts, int64_t n)
{
    if (threadIdx.x < 2) store(out + threadIdx.x, part_sum(parts, n_parts, (int)threadIdx.x) / (double)n);
}

// ---- launchers

static bool whole_vectors(int64_t n, int per, const void *a, const void *b, const void *c)
{
    return n % per == 0 && (uintptr_t)a % 16 == 0 && (uintptr_t)b % 16 == 0 && (uintptr_t)c % 16 == 0;
}

static void cuda_act(struct dev *d, tensor y, tensor x, enum act act)
{
    int64_t n = tensor_count(x);
    WITH_FLOAT(x.dtype, T, {
        constexpr int V = 16 / sizeof(T);
        T *to = (T *)y.data;
        const T *from = (const T *)x.data;
        if (whole_vectors(n, V, to, from, from))
            LAUNCH(d, (act_kernel<T, V>), blocks_for(n, THREADS * V), THREADS, 0, to, from, n, (int)act);
        else
            LAUNCH(d, (act_kernel<T, 1>), blocks_for(n, THREADS), THREADS, 0, to, from, n, (int)act);
    });
}

template <bool PRODUCT> static void join(struct dev *d, tensor y, tensor x, tensor z, float a, float b)
{
    int64_t n = tensor_count(y);
    WITH_FLOAT(y.dtype, TY, WITH_FLOAT(x.dtype, TX, WITH_FLOAT(z.dtype, TZ, {
                                           constexpr int V = 4; // 16 bytes of the widest
                                           TY *to = (TY *)y.data;
                                           const TX *u = (const TX *)x.data;
                                           const TZ *w = (const TZ *)z.data;
                                           if (whole_vectors(n, V, to, u, w))
                                               LAUNCH(d, (join_kernel<TY, TX, TZ, V, PRODUCT>),
                                                      blocks_for(n, THREADS * V), THREADS, 0, to, u, w, n, a, b);
                                           else
                                               LAUNCH(d, (join_kernel<TY, TX, TZ, 1, PRODUCT>), blocks_for(n, THREADS),
                                                      THREADS, 0, to, u, w, n, a, b);
                                       })));
}

static void cuda_mul(struct dev *d, tensor y, tensor a, tensor b) { join<true>(d, y, a, b, 0, 0); }
static void cuda_axpby(struct dev *d, tensor y, float a, tensor x, float b, tensor z) { join<false>(d, y, x, z, a, b); }

// Blocks for a sum over n elements.
static int parts_for(int64_t n)
{
    int64_t blocks = blocks_for(n, 16 * THREADS);
    return blocks > PARTS ? (int)PARTS : (int)blocks;
}

static void cuda_project_out(struct dev *d, tensor y, tensor diff, tensor cond, float limit)
{
    int64_t n = tensor_count(y);
    int n_parts = parts_for(n);
    double *parts = (double *)cuda_scratch_of(d, SCRATCH_PART, 3 * PARTS * sizeof *parts);
    if (!parts) return;
    const float *g = (const float *)diff.data, *c = (const float *)cond.data;
    LAUNCH(d, parts_kernel<false>, n_parts, THREADS, 32 * sizeof(double), parts, g, c, n);
    LAUNCH(d, project_kernel, n_parts, THREADS, 0, (float *)y.data, g, c, n, parts, n_parts, limit);
}

static void cuda_mean_change(struct dev *d, tensor out, tensor a, tensor b)
{
    int64_t n = tensor_count(a);
    int n_parts = parts_for(n);
    double *parts = (double *)cuda_scratch_of(d, SCRATCH_PART, 3 * PARTS * sizeof *parts);
    if (!parts) return;
    LAUNCH(d, parts_kernel<true>, n_parts, THREADS, 32 * sizeof(double), parts, (const float *)a.data,
           (const float *)b.data, n);
    LAUNCH(d, change_kernel, 1, 32, 0, (double *)out.data, parts, n_parts, n);
}

void cuda_pointwise_slots(struct ops *o)
{
    o->act = cuda_act;
    o->mul = cuda_mul;
    o->axpby = cuda_axpby;
    o->project_out = cuda_project_out;
    o->mean_change = cuda_mean_change;
}
