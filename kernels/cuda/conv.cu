// Causal 3D convolution as an implicit matrix product, channels last; and nearest upsampling.
//
// BF16: y [positions, co] = patches [positions, taps x ci] w^T. A block makes 128 positions by 64 channels; a step of
// the sum is 32 channels of one tap, so the rows of a patch tile are 64-byte pieces of x at shifted positions, or zeros
// outside of the picture, which cp.async writes by itself. Three stages of 12 KB are in flight; one barrier a step.
// Four warps have 64 x 32 each: 64 sums a thread. Weights are packed once to [co][tap][ci], both padded with zeros.
//
//   shared: [3][patch 128 x 32 | weight 64 x 32], the 16-byte chunk c of row r at c ^ (r / 2 % 4): no bank conflicts,
//           neither for the copies nor for ldmatrix. 36 KB and about 128 registers: four blocks a multiprocessor.
//
// F32 goes the same way in three parts: x = x1 + x2 and w = w1 + w2 in BF16 (16 bits of each value), and the sum is of
// x1 w1, x2 w1 and x1 w2. What is left out is below 2^-16 of a product, which the sums of F32 hardly show. x is split
// into scratch memory first, weights when they are packed.
//
// Everything else (groups, BF16 with channels that are no multiple of 8) runs an output a thread.
#include "kernels/cuda/common.cuh"

enum { TM = 128, TN = 64, TK = 32, STAGES = 3, MMA_THREADS = 128, THREADS = 256 };
enum { STAGE_BYTES = (TM + TN) * TK * 2 };

struct conv_args {
    const void *x, *w; // w packed for the matrix product, plain otherwise
    void *y;
    vec bias;
    int w_dtype, act;
    int in[3], out[3], kernel[3], stride[3], pad[3]; // t, h, w; pad before
    int ci, co, ci_pad, groups;                      // ci: of a part, where there are parts
    int64_t positions;
};

// ---- kernels

static __device__ __forceinline__ char *tile_at(char *tile, int row, int chunk)
{
    return tile + row * (TK * 2) + ((chunk ^ (row / 2 % 4)) * 16);
}

// Which tap, part and channels the next step of copies takes. Parts of x in memory are x1 x2, taken as x1 x2 x1; of w
// they are w1 w2, taken as w1 w1 w2.
template <int PARTS> struct conv_step {
    int tap[3], i_tap, part, c0;
    __device__ __forceinline__ void advance(const conv_args &a)
    {
        c0 += TK;
        if (c0 < a.ci_pad) return;
        c0 = 0;
        if (++part < PARTS) return;
        part = 0;
        i_tap++;
        if (++tap[2] < a.kernel[2]) return;
        tap[2] = 0;
        if (++tap[1] < a.kernel[1]) return;
        tap[1] = 0;
        tap[0]++;
    }
};

static __device__ __forceinline__ void put_two(bf16 *y, float u, float v) { store((unsigned *)y, bf16_pair(u, v)); }
static __device__ __forceinline__ void put_two(float *y, float u, float v)
{
    const float two[2] = {u, v};
    put_v<float, 2>(y, two);
}

template <class T, int PARTS> __global__ void __launch_bounds__(MMA_THREADS) conv_mma_kernel(conv_args a)
{
    char *shared = shared_memory();
    const int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32, chunk = thread % 4;
    const int64_t first = (int64_t)blockIdx.x * TM;
    const int channel = (int)blockIdx.y * TN, taps = a.kernel[0] * a.kernel[1] * a.kernel[2];
    const int steps = taps * PARTS * (a.ci_pad / TK), stored = PARTS == 1 ? 1 : 2;

    // The four patch rows that this thread copies: where their windows begin. Past the end: far outside.
    int from_at[4][3];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int64_t p = first + thread / 4 + 32 * i;
        bool real = p < a.positions;
        from_at[i][2] = (int)(p % a.out[2]) * a.stride[2] - a.pad[2];
        from_at[i][1] = (int)(p / a.out[2] % a.out[1]) * a.stride[1] - a.pad[1];
        from_at[i][0] = real ? (int)(p / ((int64_t)a.out[2] * a.out[1])) * a.stride[0] - a.pad[0] : -(1 << 30);
    }
    const bf16 *x = (const bf16 *)a.x, *w = (const bf16 *)a.w + (int64_t)channel * taps * stored * a.ci_pad;

    conv_step<PARTS> next = {};
    int copied = 0;
    auto copy_step = [&]() {
        if (copied < steps) {
            char *patch = shared + copied % STAGES * STAGE_BYTES, *weight = patch + TM * TK * 2;
            int c = next.c0 + chunk * 8, x_part = next.part == 1 ? a.ci : 0;
            int w_at = (next.i_tap * stored + (next.part == 2 ? 1 : 0)) * a.ci_pad + c;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int t = from_at[i][0] + next.tap[0], h = from_at[i][1] + next.tap[1], v = from_at[i][2] + next.tap[2];
                bool inside = t >= 0 && t < a.in[0] && h >= 0 && h < a.in[1] && v >= 0 && v < a.in[2] && c < a.ci;
                const bf16 *from =
                    inside ? x + (((int64_t)t * a.in[1] + h) * a.in[2] + v) * stored * a.ci + x_part + c : x;
                copy_start16(tile_at(patch, thread / 4 + 32 * i, chunk), from, inside ? 16 : 0);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int row = thread / 4 + 32 * i;
                copy_start16(tile_at(weight, row, chunk), w + (int64_t)row * taps * stored * a.ci_pad + w_at, 16);
            }
            next.advance(a);
            copied++;
        }
        copy_commit();
    };

    float sum[4][4][4] = {};
    for (int s = 0; s < STAGES - 1; s++) copy_step();
    for (int s = 0; s < steps; s++) {
        copy_wait<STAGES - 2>();
        sync_block();
        copy_step();
        char *patch = shared + s % STAGES * STAGE_BYTES, *weight = patch + TM * TK * 2;
#pragma unroll
        for (int k = 0; k < TK / 16; k++) {
            unsigned fa[4][4], fb[2][4];
#pragma unroll
            for (int m = 0; m < 4; m++)
                matrix_load4(fa[m], tile_at(patch, warp / 2 * 64 + m * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
            for (int n = 0; n < 2; n++)
                matrix_load4(fb[n],
                             tile_at(weight, warp % 2 * 32 + n * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < 4; m++)
#pragma unroll
                for (int n = 0; n < 4; n++) mma_bf16(sum[m][n], fa[m], fb[n / 2][n % 2 * 2], fb[n / 2][n % 2 * 2 + 1]);
        }
    }

    T *y = (T *)a.y;
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int64_t p = first + warp / 2 * 64 + m * 16 + half * 8 + lane / 4;
                int c = channel + warp % 2 * 32 + n * 8 + lane % 4 * 2;
                if (p >= a.positions || c >= a.co) continue;
                float u = activate(a.act, rounded<T>(sum[m][n][2 * half] + at(a.bias, c, 0)));
                float v =
                    c + 1 < a.co ? activate(a.act, rounded<T>(sum[m][n][2 * half + 1] + at(a.bias, c + 1, 0))) : 0;
                if (a.co % 2 == 0)
                    put_two(y + p * a.co + c, u, v);
                else {
                    put(y + p * a.co + c, u);
                    if (c + 1 < a.co) put(y + p * a.co + c + 1, v);
                }
            }
}

template <class T> __global__ void conv_plain_kernel(conv_args a)
{
    int64_t i = thread_index();
    if (i >= a.positions * a.co) return;
    int o = (int)(i % a.co), cig = a.ci / a.groups, group = o / (a.co / a.groups);
    int64_t p = i / a.co, taps = (int64_t)a.kernel[0] * a.kernel[1] * a.kernel[2];
    int v0 = (int)(p % a.out[2]) * a.stride[2] - a.pad[2], h0 = (int)(p / a.out[2] % a.out[1]) * a.stride[1] - a.pad[1];
    int t0 = (int)(p / ((int64_t)a.out[2] * a.out[1])) * a.stride[0] - a.pad[0];
    const vec w = {a.w, 1, a.w_dtype};
    float sum = 0;
    for (int64_t k = 0; k < taps; k++) {
        int t = t0 + (int)(k / (a.kernel[1] * a.kernel[2])), h = h0 + (int)(k / a.kernel[2] % a.kernel[1]);
        int v = v0 + (int)(k % a.kernel[2]);
        if (t < 0 || t >= a.in[0] || h < 0 || h >= a.in[1] || v < 0 || v >= a.in[2]) continue;
        const T *x = (const T *)a.x + (((int64_t)t * a.in[1] + h) * a.in[2] + v) * a.ci + group * cig;
        for (int c = 0; c < cig; c++) sum += get(x + c) * at(w, ((int64_t)o * cig + c) * taps + k, 0);
    }
    put((T *)a.y + i, activate(a.act, rounded<T>(sum + at(a.bias, o, 0))));
}

// [co, ci, taps] to [co_pad][taps][ci_pad].
__global__ void conv_pack_kernel(bf16 *to, const bf16 *w, int co, int ci, int ci_pad, int taps, int64_t count)
{
    int64_t i = thread_index();
    if (i >= count) return;
    int c = (int)(i % ci_pad), tap = (int)(i / ci_pad % taps), o = (int)(i / ((int64_t)ci_pad * taps));
    bool real = c < ci && o < co;
    store(to + i, real ? load(w + ((int64_t)o * ci + c) * taps + tap) : bf16{0});
}

static __device__ __forceinline__ bf16 part_of(float v, int part)
{
    bf16 first = narrow<bf16>(v);
    return part ? narrow<bf16>(v - widen(first)) : first;
}

// [co, ci, taps] of any dtype to [co_pad][taps][w1 w2][ci_pad].
__global__ void conv_split_kernel(bf16 *to, vec w, int co, int ci, int ci_pad, int taps, int64_t count)
{
    int64_t i = thread_index();
    if (i >= count) return;
    int c = (int)(i % ci_pad), part = (int)(i / ci_pad % 2), tap = (int)(i / (2 * ci_pad) % taps);
    int o = (int)(i / ((int64_t)2 * ci_pad * taps));
    store(to + i, c < ci && o < co ? part_of(at(w, ((int64_t)o * ci + c) * taps + tap, 0), part) : bf16{0});
}

// [positions, ci] to [positions][x1 x2][wide].
__global__ void split_kernel(bf16 *to, const float *x, int ci, int wide, int64_t count)
{
    int64_t i = thread_index();
    if (i >= count) return;
    int c = (int)(i % wide), part = (int)(i / wide % 2);
    store(to + i, c < ci ? part_of(load(x + i / (2 * wide) * ci + c), part) : bf16{0});
}

// A thread reads 16 bytes, or one element, of x and writes them to their four places; w is of x.
template <class T> __global__ void upsample_kernel(T *y, const T *x, int64_t count, int64_t w, int64_t c)
{
    int64_t i = thread_index();
    if (i >= count) return;
    T v = load(x + i);
    int64_t line = i / (c * w), at = line * 4 * w * c + i / c % w * 2 * c + i % c; // lines of y are 2 w c long
    store(y + at, v);
    store(y + at + c, v);
    store(y + at + 2 * w * c, v);
    store(y + at + 2 * w * c + c, v);
}

// ---- launchers

static int up(int n, int step) { return (n + step - 1) / step * step; }

static int taps_of(tensor w) { return (int)(w.shape[2] * w.shape[3] * w.shape[4]); }
// BF16 weights are packed as they are, for BF16 rows; all others in two parts, for F32.
static bool packs(tensor w) { return tensor_count(w) > 0 && (w.dtype != DT_BF16 || w.shape[1] % 8 == 0); }
static int64_t packed_count(tensor w, int parts)
{
    return (int64_t)up((int)w.shape[0], TN) * taps_of(w) * parts * up((int)w.shape[1], TK);
}

static void pack_into(struct dev *d, void *to, tensor w, int parts)
{
    int64_t n = packed_count(w, parts);
    int co = (int)w.shape[0], ci = (int)w.shape[1], ci_pad = up(ci, TK), taps = taps_of(w);
    const vec any = {w.data, 1, (int)w.dtype};
    if (parts == 1)
        LAUNCH(d, conv_pack_kernel, blocks_for(n, THREADS), THREADS, 0, (bf16 *)to, (const bf16 *)w.data, co, ci,
               ci_pad, taps, n);
    else
        LAUNCH(d, conv_split_kernel, blocks_for(n, THREADS), THREADS, 0, (bf16 *)to, any, co, ci, ci_pad, taps, n);
}

static tensor cuda_pack(struct dev *d, struct dev_arena *a, tensor w, enum pack_use use)
{
    if (use != PACK_CONV || !packs(w) || !w.data) return w;
    int parts = w.dtype == DT_BF16 ? 1 : 2;
    int64_t n = packed_count(w, parts);
    tensor p = dev_tensor(a, DT_BF16, 1, &n);
    if (!p.data || d->dry || d->fault.code < 0) return w; // a dry run only counts
    pack_into(d, p.data, w, parts);
    w.packed = p.data;
    return w;
}

// The packed weight, made on the way where op_pack did not; NULL after a fault.
static const void *packed_of(struct dev *d, tensor w, int parts)
{
    if (w.packed && (w.dtype == DT_BF16) == (parts == 1)) return w.packed;
    void *to = cuda_scratch_of(d, SCRATCH_W, packed_count(w, parts) * (int64_t)sizeof(bf16));
    if (to) pack_into(d, to, w, parts);
    return to;
}

template <bool TENSOR>
static void cuda_conv(struct dev *d, tensor y, tensor x, tensor w, tensor b, struct conv c, enum act act)
{
    conv_args a = {};
    a.x = x.data, a.y = y.data, a.w = w.data;
    a.bias = vec_of(b);
    a.w_dtype = (int)w.dtype, a.act = (int)act;
    for (int i = 0; i < 3; i++) {
        a.in[i] = (int)x.shape[i], a.out[i] = (int)y.shape[i], a.kernel[i] = (int)w.shape[2 + i];
        a.stride[i] = c.stride[i] ? c.stride[i] : 1, a.pad[i] = c.pad[i][0];
    }
    a.ci = (int)x.shape[3], a.co = (int)y.shape[3], a.groups = c.groups ? c.groups : 1;
    a.positions = y.shape[0] * y.shape[1] * y.shape[2];
    if (a.positions * a.co == 0) return;
    const dim3 blocks(blocks_for(a.positions, TM), blocks_for(a.co, TN));
    const int shared = (int)STAGES * STAGE_BYTES;
    bool whole = TENSOR && a.groups == 1 && tensor_count(x) > 0 && tensor_count(w) > 0;
    a.ci_pad = up(a.ci, TK);
    // Not where nearly all of the product would be padding.
    bool worth = (int64_t)a.ci * a.co * 24 > (int64_t)a.ci_pad * up(a.co, TN);
    if (whole && worth && x.dtype == DT_F32) {
        int wide = up(a.ci, 8);
        int64_t n = tensor_count(x) / a.ci * 2 * wide;
        bf16 *parts = (bf16 *)cuda_scratch_of(d, SCRATCH_X, n * (int64_t)sizeof(bf16));
        a.w = packed_of(d, w, 2);
        if (!parts || !a.w) return;
        LAUNCH(d, split_kernel, blocks_for(n, THREADS), THREADS, 0, parts, (const float *)x.data, a.ci, wide, n);
        a.x = parts, a.ci = wide;
        LAUNCH(d, (conv_mma_kernel<float, 3>), blocks, MMA_THREADS, shared, a);
    } else if (whole && w.dtype == DT_BF16 && packs(w) && (uintptr_t)x.data % 16 == 0) {
        a.w = packed_of(d, w, 1);
        if (a.w) LAUNCH(d, (conv_mma_kernel<bf16, 1>), blocks, MMA_THREADS, shared, a);
    } else
        WITH_FLOAT(x.dtype, T, LAUNCH(d, conv_plain_kernel<T>, blocks_for(a.positions * a.co, THREADS), THREADS, 0, a));
}

template <class T> static void upsample(struct dev *d, tensor y, tensor x, int64_t c)
{
    int64_t w = x.shape[2], count = x.shape[0] * x.shape[1] * w * c;
    LAUNCH(d, upsample_kernel<T>, blocks_for(count, THREADS), THREADS, 0, (T *)y.data, (const T *)x.data, count, w, c);
}

static void cuda_upsample2(struct dev *d, tensor y, tensor x)
{
    int64_t size = dtype_size(y.dtype), row = y.shape[3] * size;
    if (row % 16 == 0 && (uintptr_t)y.data % 16 == 0 && (uintptr_t)x.data % 16 == 0)
        upsample<uint4>(d, y, x, row / 16);
    else if (size == 2)
        upsample<uint16_t>(d, y, x, y.shape[3]);
    else
        upsample<uint32_t>(d, y, x, y.shape[3]);
}

template <bool TENSOR> static void fill(struct ops *o) { o->conv = cuda_conv<TENSOR>; }

static const struct op_case cases[] = {
    {.op = "conv", .s = {2, 3, 5, 16, 24, 3, 1, 3, 1, 1, 1, 2, 1}, .t = DT_BF16, .how = HOW_BIAS | HOW_PACKED},
    {.op = "conv", .s = {1, 6, 7, 16, 20, 1, 3, 1, 1, 2, 2, 3, 1}, .t = DT_F32, .how = HOW_BIAS | HOW_PACKED},
};

const struct op_variant cuda_conv_variants[] = {
    {"conv", "mma.sync", 80, 0, fill<true>, cases, sizeof cases / sizeof *cases},
    {"conv", "plain", 80, 0, fill<false>, cases, sizeof cases / sizeof *cases},
};
const int n_cuda_conv_variants = sizeof cuda_conv_variants / sizeof *cuda_conv_variants;

void cuda_conv_slots(struct ops *o)
{
    o->pack = cuda_pack;
    o->upsample2 = cuda_upsample2;
}
