// Shared by the CUDA kernels: element types, views of tensors as kernels see them, sums over a warp or a block, and the
// state of the device. Every .cu has three floors: the essay, the kernels, the launchers.
#ifndef KERNELS_CUDA_COMMON_CUH
#define KERNELS_CUDA_COMMON_CUH

extern "C" {
#include "kernels/variants.h"
}

#include <cuda_runtime.h>
#include <instr.cuh>
#include <math.h>
#include <stdio.h>

// ---- the device's state, for launchers

enum cuda_scratch {
    SCRATCH_X,
    SCRATCH_Y,
    SCRATCH_W,
    SCRATCH_BIAS,
    SCRATCH_PART,
    SCRATCH_FACTOR,
    SCRATCH_SUM,
    SCRATCH_COUNT
};

// Pinned memory through which bytes cross: the next piece is written while the last one is under way.
enum { CARRIERS = 2 };
struct cuda_stage {
    char *at;
    cudaEvent_t left; // what was written has left
};

struct gemm_cache;
struct cuda {
    int card, arch; // arch: 10 major + minor
    cudaStream_t stream;
    cudaStream_t fetch; // carries blocks of weights beside the ops
    cudaEvent_t used;   // what the ops before a fetch still read
    cudaEvent_t here[FETCH_SLOTS];
    struct cuda_stage stage[CARRIERS];
    int i_stage;
    int64_t n_enqueued, n_waited; // pieces of work; of them, those that the host has waited for
    struct gemm_cache *gemm;      // of linear.cu
    struct {
        void *data;
        int64_t bytes;
    } scratch[SCRATCH_COUNT];
    int64_t launches;       // so far
    bool recording;         // ops become nodes of a graph (record.cu)
    char unrecordable[160]; // why not, while recording
};
static inline struct cuda *cuda_of(struct dev *d) { return (struct cuda *)d->backend; }
static inline cudaStream_t cuda_stream(struct dev *d) { return cuda_of(d)->stream; }
void cuda_launched(struct dev *d, const char *kernel); // a refused launch becomes the device's fault
void cuda_wait(struct dev *d);                         // for all that is enqueued
bool cuda_check(struct dev *d, cudaError_t code, const char *what);
// What is recorded cannot be: it would wait, allocate, cross to the host or be timed. The record is given up at its
// end.
void cuda_unrecordable(struct dev *d, const char *why);
extern const struct recorder cuda_recorder;
// At least `bytes` of device memory until the next call for the same slot; NULL after a fault. Grows to the largest
// call seen and stays, so that nothing is allocated once every shape has been met.
void *cuda_scratch_of(struct dev *d, enum cuda_scratch slot, int64_t bytes);
// The rows of x as dense memory of dtype t: x itself when it is that already, else a copy in `slot`.
void *cuda_dense(struct dev *d, tensor x, enum dtype t, enum cuda_scratch slot);

// A vector as vector_get takes it: itself, or a copy in SCRATCH_BIAS as number `which` of at most `VECTORS`; NULL for
// none.
enum { VECTORS = 5 };
const float *cuda_vector(struct dev *d, tensor v, int which);

// Ops that have several ways, the preferred ones first.
extern const struct op_variant cuda_linear_variants[], cuda_scaled_variants[], cuda_attention_variants[],
    cuda_conv_variants[];
extern const int n_cuda_linear_variants, n_cuda_scaled_variants, n_cuda_attention_variants, n_cuda_conv_variants;
// The others.
void cuda_linear_close(struct dev *d);
void cuda_linear_tell(const struct dev *d, FILE *to);
void cuda_attention_slots(struct ops *o);
void cuda_norm_slots(struct ops *o);
void cuda_rope_slots(struct ops *o);
void cuda_conv_slots(struct ops *o);
void cuda_layout_slots(struct ops *o);
void cuda_pointwise_slots(struct ops *o);
void cuda_pixels_slots(struct ops *o);

// ---- elements

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};
static __device__ __forceinline__ float widen(float v) { return v; }
static __device__ __forceinline__ float widen(bf16 v) { return __uint_as_float((unsigned)v.bits << 16); }
static __device__ __forceinline__ float widen(f16 v) { return f16_value(v.bits); }
template <class T> __device__ __forceinline__ T narrow(float v);
template <> __device__ __forceinline__ float narrow<float>(float v) { return v; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float v) { return bf16{bf16_bits(v)}; }
template <> __device__ __forceinline__ f16 narrow<f16>(float v) { return f16{f16_bits(v)}; }
template <class T> __device__ __forceinline__ float rounded(float v) { return widen(narrow<T>(v)); }
template <class T> __device__ __forceinline__ float get(const T *p) { return widen(load(p)); }
template <class T> __device__ __forceinline__ void put(T *p, float v) { store(p, narrow<T>(v)); }

// Runs the code with T as the C++ type of an activation's or a weight's dtype.
#define WITH_FLOAT(dt, T, ...)                                                                                         \
    do {                                                                                                               \
        if ((dt) == DT_F32) {                                                                                          \
            using T = float;                                                                                           \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            using T = bf16;                                                                                            \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

// V elements moved at once; V T is 16 bytes, or V is 1.
template <class T, int V> struct alignas(sizeof(T) * V) pack_of {
    T v[V];
};
template <class T, int V> __device__ __forceinline__ void get_v(float out[V], const T *p)
{
    pack_of<T, V> a = load((const pack_of<T, V> *)p);
#pragma unroll
    for (int i = 0; i < V; i++) out[i] = widen(a.v[i]);
}
template <class T, int V> __device__ __forceinline__ void put_v(T *p, const float in[V])
{
    pack_of<T, V> a;
#pragma unroll
    for (int i = 0; i < V; i++) a.v[i] = narrow<T>(in[i]);
    store((pack_of<T, V> *)p, a);
}

// ---- views

// A vector of any float dtype; p NULL: none.
struct vec {
    const void *p;
    int64_t step;
    int dtype;
};
static inline vec vec_of(tensor t)
{
    return tensor_is_none(t) ? vec{nullptr, 0, DT_F32} : vec{t.data, t.stride[t.n - 1], (int)t.dtype};
}
static __device__ __forceinline__ float at(const vec &v, int64_t i, float otherwise)
{
    if (!v.p) return otherwise;
    if (v.dtype == DT_F32) return load((const float *)v.p + i * v.step);
    if (v.dtype == DT_BF16) return get((const bf16 *)v.p + i * v.step);
    return get((const f16 *)v.p + i * v.step);
}

// V values of an F32 vector that starts on 16 bytes; p NULL: all `otherwise`.
template <int V> __device__ __forceinline__ void vector_get(float out[V], const float *p, int64_t i, float otherwise)
{
    constexpr int STEP = V % 4 == 0 ? 4 : 1;
#pragma unroll
    for (int k = 0; k < V; k += STEP) {
        if (p)
            get_v<float, STEP>(out + k, p + i + k);
        else
#pragma unroll
            for (int j = 0; j < STEP; j++) out[k + j] = otherwise;
    }
}

// The outer axes of a tensor as a count of rows; axes that lie one behind the other are joined, so that most tensors
// have one.
struct rows {
    char *p;
    int64_t count;
    int n;
    int64_t shape[TENSOR_DIMS], step[TENSOR_DIMS]; // bytes
};
rows rows_of(tensor t, int n_inner);
static __device__ __forceinline__ int64_t row_offset(const rows &r, int64_t i)
{
    int64_t offset = 0;
    for (int k = r.n - 1; k > 0; k--) {
        offset += i % r.shape[k] * r.step[k];
        i /= r.shape[k];
    }
    return offset + i * r.step[0];
}
template <class T> __device__ __forceinline__ T *row_at(const rows &r, int64_t i)
{
    return (T *)(r.p + row_offset(r, i));
}
// Every row starts on a multiple of 16 bytes and `width` elements are a multiple of them.
bool rows_aligned(const rows &r, int64_t width, enum dtype t);

static inline unsigned blocks_for(int64_t n, int64_t each) { return (unsigned)((n + each - 1) / each); }
static __device__ __forceinline__ int64_t thread_index() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

// ---- sums: every lane gets the result; the order of additions is fixed

template <class T> __device__ __forceinline__ T warp_sum(T v)
{
    for (int m = 16; m; m >>= 1) v += shuffle_xor(v, m);
    return v;
}
static __device__ __forceinline__ float warp_max(float v)
{
    for (int m = 16; m; m >>= 1) v = fmaxf(v, shuffle_xor(v, m));
    return v;
}
// `part`: shared memory for one value a warp, not in use by anything else.
template <class T> __device__ __forceinline__ T block_sum(T v, T *part)
{
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) store(part + threadIdx.x / 32, v);
    sync_block();
    T sum = 0;
    for (int i = 0; i < (int)blockDim.x / 32; i++) sum += load(part + i);
    sync_block();
    return sum;
}

// ---- activations

static __device__ __forceinline__ float activate(int a, float x)
{
    switch (a) {
    case ACT_GELU_TANH:
        return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case ACT_GELU_ERF:
        return 0.5f * x * (1 + erff(x * 0.7071067811865476f));
    case ACT_SILU:
        return x / (1 + expf(-x));
    case ACT_RELU:
        return x > 0 || x != x ? x : 0;
    }
    return x;
}

#endif
