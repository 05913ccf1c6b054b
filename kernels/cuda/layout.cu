// Moving and casting elements.
//
// op_copy takes three ways: the driver's copy where both sides are one run of bytes, 16 bytes a thread where rows are
// aligned and keep their dtype, and else an element a thread by index arithmetic. Axes that lie one behind the other on
// both sides are joined first, so most copies have one or two.
#include "kernels/cuda/common.cuh"

enum { THREADS = 256 };

// Two strided views of one shape, in elements.
struct pair {
    int64_t count;
    int n;
    int64_t shape[TENSOR_DIMS], to[TENSOR_DIMS], from[TENSOR_DIMS];
};

// ---- kernels

static __device__ __forceinline__ float f8_value(unsigned b, int exponent_bits)
{
    int mantissa_bits = 7 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    int e = (int)(b >> mantissa_bits) & ((1 << exponent_bits) - 1), m = (int)b & ((1 << mantissa_bits) - 1);
    bool last = e == (1 << exponent_bits) - 1;
    float f;
    if (exponent_bits == 4 && last && m == 7)
        f = __uint_as_float(0x7fc00000u);
    else if (exponent_bits == 5 && last)
        f = __uint_as_float(m ? 0x7fc00000u : 0x7f800000u);
    else if (e == 0)
        f = ldexpf((float)m, 1 - bias - mantissa_bits);
    else
        f = ldexpf((float)(m + (1 << mantissa_bits)), e - bias - mantissa_bits);
    return b & 0x80 ? -f : f;
}

static __device__ float any_get(int dtype, const void *p, int64_t i)
{
    switch (dtype) {
    case DT_F32:
        return load((const float *)p + i);
    case DT_BF16:
        return get((const bf16 *)p + i);
    case DT_F16:
        return get((const f16 *)p + i);
    case DT_F64:
        return (float)load((const double *)p + i);
    case DT_F8_E4M3:
        return f8_value(load((const uint8_t *)p + i), 4);
    case DT_F8_E5M2:
        return f8_value(load((const uint8_t *)p + i), 5);
    case DT_I8:
        return (float)load((const int8_t *)p + i);
    case DT_I16:
        return (float)load((const int16_t *)p + i);
    case DT_I32:
        return (float)load((const int32_t *)p + i);
    case DT_I64:
        return (float)load((const int64_t *)p + i);
    case DT_BOOL:
        return load((const uint8_t *)p + i) != 0;
    default:
        return (float)load((const uint8_t *)p + i);
    }
}

static __device__ void any_put(int dtype, void *p, int64_t i, float v)
{
    switch (dtype) {
    case DT_F32:
        store((float *)p + i, v);
        break;
    case DT_BF16:
        put((bf16 *)p + i, v);
        break;
    case DT_F16:
        put((f16 *)p + i, v);
        break;
    default:
        store((double *)p + i, (double)v);
    }
}

static __device__ __forceinline__ void offsets(const pair &s, int64_t i, int64_t *to, int64_t *from)
{
    *to = *from = 0;
    for (int k = s.n - 1; k >= 0; k--) {
        int64_t at = k > 0 ? i % s.shape[k] : i;
        *to += at * s.to[k];
        *from += at * s.from[k];
        i /= s.shape[k];
    }
}

__global__ void cast_kernel(void *y, int yt, const void *x, int xt, pair s)
{
    int64_t i = thread_index(), to, from;
    if (i >= s.count) return;
    offsets(s, i, &to, &from);
    any_put(yt, y, to, any_get(xt, x, from));
}

// Elements of size T as they are; T may be several joined.
template <class T> __global__ void move_kernel(T *y, const T *x, pair s)
{
    int64_t i = thread_index(), to, from;
    if (i >= s.count) return;
    offsets(s, i, &to, &from);
    store(y + to, load(x + from));
}

__global__ void fill_kernel(void *y, int yt, float v, pair s)
{
    int64_t i = thread_index(), to, from;
    if (i >= s.count) return;
    offsets(s, i, &to, &from);
    any_put(yt, y, to, v);
}

__global__ void embed_kernel(void *y, int yt, int64_t y_step, const void *table, int tt, int64_t n_table,
                             const int32_t *ids, int64_t n, int64_t w)
{
    int64_t i = thread_index();
    if (i >= n * w) return;
    int32_t id = load(ids + i / w);
    if (id < 0 || id >= n_table) device_fault();
    any_put(yt, y, i / w * y_step + i % w, any_get(tt, table, id * w + i % w));
}

__global__ void lerp_kernel(void *y, int yt, int64_t y_step, const void *x, int xt, int64_t x_step, int64_t n_in,
                            int64_t n, int64_t w, double first, double step)
{
    int64_t i = thread_index();
    if (i >= n * w) return;
    int64_t row = i / w;
    double at = first + (double)row * step;
    at = at < 0 ? 0 : at > (double)(n_in - 1) ? (double)(n_in - 1) : at;
    int64_t p = (int64_t)at, q = p < n_in - 1 ? p + 1 : p;
    float f = (float)(at - (double)p);
    float v = any_get(xt, x, p * x_step + i % w) * (1 - f) + any_get(xt, x, q * x_step + i % w) * f;
    any_put(yt, y, i / w * y_step + i % w, v);
}

// ---- launchers

static pair pair_of(tensor y, tensor x)
{
    pair s = {};
    s.count = tensor_count(y);
    for (int k = 0; k < y.n; k++) {
        if (y.shape[k] == 1) continue;
        int l = s.n - 1;
        if (l >= 0 && s.to[l] == y.shape[k] * y.stride[k] && s.from[l] == y.shape[k] * x.stride[k])
            s.shape[l] *= y.shape[k];
        else
            l = s.n++, s.shape[l] = y.shape[k];
        s.to[l] = y.stride[k];
        s.from[l] = x.stride[k];
    }
    if (s.n == 0) s.n = 1, s.shape[0] = s.to[0] = s.from[0] = 1;
    return s;
}

// The same in units of `join` elements, if rows and addresses allow it.
static bool pair_join(pair *s, int join, int size, const void *y, const void *x)
{
    int l = s->n - 1;
    bool fits = s->to[l] == 1 && s->from[l] == 1 && s->shape[l] % join == 0;
    fits = fits && (uintptr_t)y % (join * size) == 0 && (uintptr_t)x % (join * size) == 0;
    for (int k = 0; k < l; k++) fits = fits && s->to[k] % join == 0 && s->from[k] % join == 0;
    if (!fits) return false;
    s->shape[l] /= join;
    s->count /= join;
    for (int k = 0; k < l; k++) s->to[k] /= join, s->from[k] /= join;
    return true;
}

static void cuda_copy(struct dev *d, tensor y, tensor x)
{
    pair s = pair_of(y, x);
    int size = dtype_size(y.dtype);
    if (y.dtype != x.dtype) {
        LAUNCH(d, cast_kernel, blocks_for(s.count, THREADS), THREADS, 0, y.data, (int)y.dtype, x.data, (int)x.dtype, s);
        return;
    }
    if (s.n == 1 && s.to[0] == 1 && s.from[0] == 1) {
        size_t bytes = (size_t)(s.count * size);
        cuda_check(d, cudaMemcpyAsync(y.data, x.data, bytes, cudaMemcpyDeviceToDevice, cuda_stream(d)), "copy");
        return;
    }
    if (pair_join(&s, 16 / size, size, y.data, x.data)) {
        LAUNCH(d, move_kernel<uint4>, blocks_for(s.count, THREADS), THREADS, 0, (uint4 *)y.data, (const uint4 *)x.data,
               s);
        return;
    }
    unsigned blocks = blocks_for(s.count, THREADS);
    if (size == 1)
        LAUNCH(d, move_kernel<uint8_t>, blocks, THREADS, 0, (uint8_t *)y.data, (const uint8_t *)x.data, s);
    else if (size == 2)
        LAUNCH(d, move_kernel<uint16_t>, blocks, THREADS, 0, (uint16_t *)y.data, (const uint16_t *)x.data, s);
    else if (size == 4)
        LAUNCH(d, move_kernel<uint32_t>, blocks, THREADS, 0, (uint32_t *)y.data, (const uint32_t *)x.data, s);
    else
        LAUNCH(d, move_kernel<uint64_t>, blocks, THREADS, 0, (uint64_t *)y.data, (const uint64_t *)x.data, s);
}

static void cuda_fill(struct dev *d, tensor y, float v)
{
    pair s = pair_of(y, y);
    LAUNCH(d, fill_kernel, blocks_for(s.count, THREADS), THREADS, 0, y.data, (int)y.dtype, v, s);
}

static void cuda_embed(struct dev *d, tensor y, tensor table, tensor ids)
{
    int64_t n = y.shape[0], w = y.shape[1];
    LAUNCH(d, embed_kernel, blocks_for(n * w, THREADS), THREADS, 0, y.data, (int)y.dtype, y.stride[0], table.data,
           (int)table.dtype, table.shape[0], (const int32_t *)ids.data, n, w);
}

static void cuda_lerp_rows(struct dev *d, tensor y, tensor x, double first, double step)
{
    int64_t n = y.shape[0], w = y.shape[1];
    LAUNCH(d, lerp_kernel, blocks_for(n * w, THREADS), THREADS, 0, y.data, (int)y.dtype, y.stride[0], x.data,
           (int)x.dtype, x.stride[0], x.shape[0], n, w, first, step);
}

void cuda_layout_slots(struct ops *o)
{
    o->copy = cuda_copy;
    o->fill = cuda_fill;
    o->embed = cuda_embed;
    o->lerp_rows = cuda_lerp_rows;
}
