// Attention: on tensor cores for BF16, an output a lane for the rest.
//
// The tensor-core way (widths up to 128, multiples of 8): a block has 128 queries of one head (64 where there are few),
// four warps of 32 (16) rows. Keys come 64 at a time. K and V have one buffer each and fly by turns: while Q K^T runs,
// V flies; while P V runs, the next K does. Q stays in shared memory and is read as fragments, so that registers hold
// the sums: with 32 rows a warp every fragment of K and V is used twice. Width is padded with zeros to 64 or 128.
//
//   shared: Q [128][width] | K [64][width] | V [64][width], the 16-byte chunk c of row r at c ^ r % 8: no bank
//   conflicts
//           for the copies, for ldmatrix of Q and K, and for its turned form on V. 64 KB at width 128: two blocks a
//           multiprocessor of 164 KB or more, one on the 99 KB of Ada.
//
// The scores' fragment of Q K^T, its pairs rounded to BF16, is the left fragment of P V: no shuffle, no memory. Softmax
// is in base 2, sums in F32; row sums stay apart in a quad's lanes until the end. Keys past the end exist only in the
// last tile; they are zeros in memory and -inf as scores. A row whose scores are all -inf so far keeps a sum of zero,
// and 0/0 gives the NaN that the plain softmax gives.
//
// An unfinished softmax (op_attention_more, for the ring) starts from sum and state and ends there. The map of the
// speakers is the same attention with the masks as values.
#include "kernels/cuda/common.cuh"

enum { KEYS = 64, MMA_THREADS = 128, THREADS = 256, QUERIES = THREADS / 32 };

static constexpr float LOG2E = 1.4426950408889634f;

struct attend_args {
    const void *q, *k, *v;
    void *y;
    int64_t q_step[3], k_step[3], v_step[3], y_step[3]; // batch, row, head; elements
    const float *bias;                                  // [h, nq, nk] or NULL
    float *sum, *state;                                 // of an unfinished softmax, or NULL
    int nq, nk, nh, d, dv, first, tile;
    float scale, scale2; // of the scores; the same in base 2
};

// ---- tensor cores

template <int W> __device__ __forceinline__ char *tile_at(char *tile, int row, int chunk)
{
    return tile + row * (W * 2) + ((chunk ^ (row % 8)) * 16);
}

// Starts the copy of n rows of `width` elements into a tile of R x W; what is missing is zero.
template <int R, int W>
__device__ __forceinline__ void tile_copy(char *tile, const bf16 *from, int step, int n, int width)
{
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < R * (W / 8); i += MMA_THREADS) {
        int row = i / (W / 8), chunk = i % (W / 8);
        bool real = row < n && chunk * 8 < width;
        copy_start16(tile_at<W>(tile, row, chunk), real ? from + row * step + chunk * 8 : from, real ? 16 : 0);
    }
}

// Where a lane's rows begin for the fragments of Q (its warp's rows), of K, and of V turned. Chunk 2 c + x of row r
// stands at (2 c) ^ (x ^ r): one exclusive or moves along the width, and whole rows are added.
template <int W> struct lane_at {
    int q, k, v;
    __device__ __forceinline__ lane_at(int row, int lane)
    {
        q = (row + lane % 16) * (W * 2) + ((lane / 16) ^ (lane % 8)) * 16;
        k = (lane / 16 * 8 + lane % 8) * (W * 2) + ((lane / 8 % 2) ^ (lane % 8)) * 16;
        v = (lane % 16) * (W * 2) + ((lane / 16) ^ (lane % 8)) * 16;
    }
};

// One warp's rows: scores and sums as fragments, the largest score (base 2) and the lane's share of the exponentials.
template <int W, int MT> struct lines {
    float s[MT][KEYS / 8][4], o[MT][W / 8][4], top[MT][2], total[MT][2];
};

template <int W, int MT>
__device__ __forceinline__ void scores(lines<W, MT> &l, char *q, char *k, const lane_at<W> &from)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) l.s[m][n][i] = 0;
#pragma unroll
    for (int c = 0; c < W / 16; c++) {
        unsigned fq[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) matrix_load4(fq[m], q + ((from.q ^ (c * 32)) + m * 16 * W * 2));
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            unsigned fk[4];
            matrix_load4(fk, k + ((from.k ^ (c * 32)) + n * 16 * W * 2));
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_bf16(l.s[m][2 * n], fq[m], fk[0], fk[1]);
                mma_bf16(l.s[m][2 * n + 1], fq[m], fk[2], fk[3]);
            }
        }
    }
}

// Scaled scores to weights, and what was summed before to the new largest score. `left`: keys of this tile.
template <int W, int MT, bool BIAS, bool LAST>
__device__ __forceinline__ void soften(lines<W, MT> &l, const attend_args &a, int row0, int head, int key0, int lane)
{
    int left = a.nk - key0;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row0 + m * 16 + half * 8 + lane / 4;
            const float *bias = BIAS ? a.bias + ((int64_t)head * a.nq + row) * a.nk + key0 : nullptr;
            float top = l.top[m][half];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float &s = l.s[m][n][2 * half + i];
                    int key = n * 8 + lane % 4 * 2 + i;
                    s *= a.scale2;
                    if (BIAS && row < a.nq && key < left) s += load(bias + key) * LOG2E;
                    if (LAST && key >= left) s = -INFINITY;
                    top = fmaxf(top, s);
                }
            top = fmaxf(top, shuffle_xor(top, 1));
            top = fmaxf(top, shuffle_xor(top, 2));
            float base = top == -INFINITY ? 0 : top, keep = power_of_2(l.top[m][half] - base), more = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float &s = l.s[m][n][2 * half + i];
                    s = power_of_2(s - base);
                    more += s;
                }
            l.top[m][half] = top;
            l.total[m][half] = l.total[m][half] * keep + more;
#pragma unroll
            for (int n = 0; n < W / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) l.o[m][n][2 * half + i] *= keep;
        }
}

template <int W, int MT> __device__ __forceinline__ void add_values(lines<W, MT> &l, char *v, const lane_at<W> &from)
{
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        unsigned p[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[m][i] = bf16_pair(l.s[m][2 * k + i / 2][i % 2 * 2], l.s[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < W / 16; n++) {
            unsigned fv[4];
            matrix_load4_turned(fv, v + ((from.v ^ (n * 32)) + k * 16 * W * 2));
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_bf16(l.o[m][2 * n], p[m], fv[0], fv[1]);
                mma_bf16(l.o[m][2 * n + 1], p[m], fv[2], fv[3]);
            }
        }
    }
}

template <int W, int MT, bool MORE>
__device__ __forceinline__ void lines_start(lines<W, MT> &l, const attend_args &a, int row0, int64_t line0, int lane)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row0 + m * 16 + half * 8 + lane / 4;
            bool held = MORE && !a.first && row < a.nq;
            int64_t line = line0 + (int64_t)row * a.nh;
            l.top[m][half] = held ? load(a.state + 2 * line) * LOG2E : -INFINITY;
            l.total[m][half] = held && lane % 4 == 0 ? load(a.state + 2 * line + 1) : 0;
#pragma unroll
            for (int n = 0; n < W / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int c = n * 8 + lane % 4 * 2 + i;
                    l.o[m][n][2 * half + i] = held && c < a.dv ? load(a.sum + line * a.dv + c) : 0;
                }
        }
}

template <int W, int MT, bool MORE>
__device__ __forceinline__ void lines_end(lines<W, MT> &l, const attend_args &a, bf16 *y, int row0, int64_t line0,
                                          int lane)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row0 + m * 16 + half * 8 + lane / 4;
            float total = l.total[m][half];
            total += shuffle_xor(total, 1);
            total += shuffle_xor(total, 2);
            if (row >= a.nq) continue;
            int64_t line = line0 + (int64_t)row * a.nh;
            if (MORE && lane % 4 == 0) {
                store(a.state + 2 * line, l.top[m][half] / LOG2E);
                store(a.state + 2 * line + 1, total);
            }
#pragma unroll
            for (int n = 0; n < W / 8; n++) {
                int c = n * 8 + lane % 4 * 2;
                float u = l.o[m][n][2 * half], v = l.o[m][n][2 * half + 1];
                if (c >= a.dv) continue;
                const float pair[2] = {u, v};
                if (MORE)
                    put_v<float, 2>(a.sum + line * a.dv + c, pair);
                else
                    store((unsigned *)(y + row * a.y_step[1] + c), bf16_pair(u / total, v / total));
            }
        }
}

template <int W, int MT, bool BIAS, bool MORE>
__global__ void __launch_bounds__(MMA_THREADS) attend_mma_kernel(attend_args a)
{
    constexpr int ROWS = 64 * MT;
    char *qs = shared_memory(), *ks = qs + ROWS * W * 2, *vs = ks + KEYS * W * 2;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, first = (int)blockIdx.x * ROWS;
    const int64_t head = blockIdx.y, batch = blockIdx.z;
    const bf16 *q = (const bf16 *)a.q + batch * a.q_step[0] + head * a.q_step[2] + first * a.q_step[1];
    const bf16 *k = (const bf16 *)a.k + batch * a.k_step[0] + head * a.k_step[2];
    const bf16 *v = (const bf16 *)a.v + batch * a.v_step[0] + head * a.v_step[2];
    const int row0 = first + warp * 16 * MT, tiles = (a.nk + KEYS - 1) / KEYS;
    const int64_t line0 = batch * a.nq * a.nh + head;

    const lane_at<W> from(warp * 16 * MT, lane);
    lines<W, MT> l;
    tile_copy<ROWS, W>(qs, q, (int)a.q_step[1], a.nq - first, a.d);
    tile_copy<KEYS, W>(ks, k, (int)a.k_step[1], a.nk, a.d);
    copy_commit();
    tile_copy<KEYS, W>(vs, v, (int)a.v_step[1], a.nk, a.dv);
    copy_commit();
    lines_start<W, MT, MORE>(l, a, row0, line0, lane);
    for (int t = 0; t < tiles; t++) {
        int key0 = t * KEYS, next = key0 + KEYS;
        copy_wait<1>(); // K is here, V may be under way
        sync_block();
        scores<W, MT>(l, qs, ks, from);
        sync_block();
        if (next < a.nk) tile_copy<KEYS, W>(ks, k + next * a.k_step[1], (int)a.k_step[1], a.nk - next, a.d);
        copy_commit();
        if (next <= a.nk)
            soften<W, MT, BIAS, false>(l, a, row0, (int)head, key0, lane);
        else
            soften<W, MT, BIAS, true>(l, a, row0, (int)head, key0, lane);
        copy_wait<1>(); // V is here, the next K may be under way
        sync_block();
        add_values<W, MT>(l, vs, from);
        sync_block();
        if (next < a.nk) tile_copy<KEYS, W>(vs, v + next * a.v_step[1], (int)a.v_step[1], a.nk - next, a.dv);
        copy_commit();
    }
    bf16 *y = MORE ? nullptr : (bf16 *)a.y + batch * a.y_step[0] + head * a.y_step[2];
    lines_end<W, MT, MORE>(l, a, y, row0, line0, lane);
}

// ---- an output a lane: a warp has one query, its lanes a key each for the scores and a column each for the sums

template <class T, int C> __global__ void __launch_bounds__(THREADS, 1) attend_plain_kernel(attend_args a)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, row_ = (int)blockIdx.x * QUERIES + warp;
    const int row = row_ < a.nq ? row_ : a.nq - 1; // the last rows' spare warps repeat it and store nothing
    const int64_t head = blockIdx.y, batch = blockIdx.z, line = (batch * a.nq + row) * a.nh + head;
    float *ks = (float *)shared_memory(), *vs = ks + a.tile * (a.d + 1), *qs = vs + a.tile * a.dv,
          *ps = qs + QUERIES * a.d;
    const T *q = (const T *)a.q + batch * a.q_step[0] + head * a.q_step[2] + row * a.q_step[1];
    const T *k = (const T *)a.k + batch * a.k_step[0] + head * a.k_step[2];
    const T *v = (const T *)a.v + batch * a.v_step[0] + head * a.v_step[2];
    const bool held = a.sum && !a.first;
    float sum[C], top = held ? load(a.state + 2 * line) : -INFINITY, total = held ? load(a.state + 2 * line + 1) : 0;
#pragma unroll
    for (int i = 0; i < C; i++) sum[i] = held && lane + 32 * i < a.dv ? load(a.sum + line * a.dv + lane + 32 * i) : 0;
    for (int c = lane; c < a.d; c += 32) store(qs + warp * a.d + c, get(q + c));
    sync_warp();
    for (int key0 = 0; key0 < a.nk; key0 += a.tile) {
        int n = a.nk - key0 < a.tile ? a.nk - key0 : a.tile;
        sync_block();
        for (int r = warp; r < n; r += QUERIES) {
            const T *kr = k + (key0 + r) * a.k_step[1], *vr = v + (key0 + r) * a.v_step[1];
            for (int c = lane; c < a.d; c += 32) store(ks + r * (a.d + 1) + c, get(kr + c));
            for (int c = lane; c < a.dv; c += 32) store(vs + r * a.dv + c, get(vr + c));
        }
        sync_block();
        float s = -INFINITY;
        if (lane < n) {
            float dot = 0;
            for (int c = 0; c < a.d; c++) dot += load(qs + warp * a.d + c) * load(ks + lane * (a.d + 1) + c);
            s = dot * a.scale;
            if (a.bias) s += load(a.bias + (head * a.nq + row) * a.nk + key0 + lane);
        }
        float now = fmaxf(top, warp_max(s)), base = now == -INFINITY ? 0 : now, keep = expf(top - base);
        s = expf(s - base);
        top = now;
        total = total * keep + warp_sum(s);
        store(ps + warp * 32 + lane, s);
        sync_warp();
#pragma unroll
        for (int i = 0; i < C; i++) {
            int c = lane + 32 * i;
            float more = 0;
            for (int r = 0; c < a.dv && r < n; r++) more += load(ps + warp * 32 + r) * load(vs + r * a.dv + c);
            sum[i] = sum[i] * keep + more;
        }
        sync_warp();
    }
    if (row_ >= a.nq) return;
#pragma unroll
    for (int i = 0; i < C; i++) {
        int c = lane + 32 * i;
        if (c >= a.dv) continue;
        if (a.sum)
            store(a.sum + line * a.dv + c, sum[i]);
        else
            put((T *)a.y + batch * a.y_step[0] + row * a.y_step[1] + head * a.y_step[2] + c, sum[i] / total);
    }
    if (a.sum && lane == 0) {
        store(a.state + 2 * line, top);
        store(a.state + 2 * line + 1, total);
    }
}

template <class T>
__global__ void done_kernel(rows y, const float *sum, const float *state, int64_t width, int64_t count)
{
    int64_t i = thread_index();
    if (i < count) put(row_at<T>(y, i / width) + i % width, load(sum + i) / load(state + 2 * (i / width) + 1));
}

// Masks [classes, s] as values [s, columns], what is missing zero.
template <class T> __global__ void mask_kernel(T *v, const float *mask, int classes, int64_t s, int columns)
{
    int64_t i = thread_index();
    if (i >= s * columns) return;
    int c = (int)(i % columns);
    put(v + i, c < classes ? load(mask + c * s + i / columns) : 0.f);
}

// A block has one class and some queries; it adds up the class's area first.
template <class T>
__global__ void map_kernel(float *map, int64_t map_step, const float *sum, const float *state, const float *mask,
                           int64_t n, int nh, int columns, int64_t s, bool published)
{
    float *part = (float *)shared_memory(), area = 0;
    int c = (int)blockIdx.y;
    for (int64_t r = threadIdx.x; r < s; r += THREADS) area += load(mask + c * s + r);
    area = block_sum(area, part);
    if (area == 0 && !published) area = 1;
    int64_t i = thread_index();
    if (i >= n) return;
    float all = 0;
    for (int h = 0; h < nh; h++) all += load(sum + (i * nh + h) * columns + c) / load(state + 2 * (i * nh + h) + 1);
    store(map + c * map_step + i, rounded<T>(all / (float)nh / area));
}

// ---- launchers

static void steps_of(int64_t to[3], tensor t)
{
    for (int i = 0; i < 3; i++) to[i] = t.stride[i];
}

static bool chunked(const void *p, const int64_t step[3], int64_t width)
{
    return (uintptr_t)p % 16 == 0 && step[0] % 8 == 0 && step[1] % 8 == 0 && step[2] % 8 == 0 && width % 8 == 0 &&
           step[1] < (1 << 24); // a tile of rows is reached by 32-bit offsets
}

static bool fits_tensor_cores(const attend_args &a, enum dtype t)
{
    return t == DT_BF16 && a.d <= 128 && a.dv <= 128 && chunked(a.q, a.q_step, a.d) && chunked(a.k, a.k_step, a.d) &&
           chunked(a.v, a.v_step, a.dv) && (a.sum || chunked(a.y, a.y_step, a.dv));
}

template <int W, int MT, bool BIAS, bool MORE>
static void launch_mma(struct dev *d, const attend_args &a, int64_t batches)
{
    const dim3 blocks(blocks_for(a.nq, 64 * MT), (unsigned)a.nh, (unsigned)batches);
    LAUNCH(d, (attend_mma_kernel<W, MT, BIAS, MORE>), blocks, MMA_THREADS, (64 * MT + 2 * KEYS) * W * 2, a);
}

// 32 rows a warp where there are enough of them and, at width 128, no bias and no unfinished softmax: those take more
// registers than there are.
static void attend_mma(struct dev *d, const attend_args &a, int64_t batches)
{
    bool wide = a.d > 64 || a.dv > 64, few = a.nq <= 64;
    if (a.sum)
        wide  ? launch_mma<128, 1, false, true>(d, a, batches)
        : few ? launch_mma<64, 1, false, true>(d, a, batches)
              : launch_mma<64, 2, false, true>(d, a, batches);
    else if (a.bias)
        wide  ? launch_mma<128, 1, true, false>(d, a, batches)
        : few ? launch_mma<64, 1, true, false>(d, a, batches)
              : launch_mma<64, 2, true, false>(d, a, batches);
    else if (wide)
        few ? launch_mma<128, 1, false, false>(d, a, batches) : launch_mma<128, 2, false, false>(d, a, batches);
    else
        few ? launch_mma<64, 1, false, false>(d, a, batches) : launch_mma<64, 2, false, false>(d, a, batches);
}

template <bool TENSOR> static void attend(struct dev *d, attend_args a, enum dtype t, int64_t batches)
{
    if (a.nq == 0 || a.nh == 0 || batches == 0) return;
    if (a.scale == 0) a.scale = (float)(1 / sqrt((double)a.d));
    a.scale2 = a.scale * LOG2E;
    if (TENSOR && fits_tensor_cores(a, t)) {
        attend_mma(d, a, batches);
        return;
    }
    a.tile = a.d + a.dv <= 320 ? 32 : 8;
    int64_t shared = (a.tile * (a.d + 1 + a.dv) + QUERIES * (a.d + 32)) * (int64_t)sizeof(float);
    if (a.dv > 512 || shared > 96 * 1024) {
        dev_fault(d, "attention of widths %d and %d: the CUDA table takes up to 512", a.d, a.dv);
        return;
    }
    const dim3 blocks(blocks_for(a.nq, QUERIES), (unsigned)a.nh, (unsigned)batches);
    WITH_FLOAT(t, T, {
        if (a.dv <= 128)
            LAUNCH(d, (attend_plain_kernel<T, 4>), blocks, THREADS, shared, a);
        else
            LAUNCH(d, (attend_plain_kernel<T, 16>), blocks, THREADS, shared, a);
    });
}

static attend_args args_of(tensor q, tensor k, tensor v, struct attn n)
{
    attend_args a = {};
    a.q = q.data, a.k = k.data, a.v = v.data;
    steps_of(a.q_step, q), steps_of(a.k_step, k), steps_of(a.v_step, v);
    a.bias = (const float *)n.bias.data;
    a.nq = (int)q.shape[1], a.nk = (int)k.shape[1], a.nh = (int)q.shape[2], a.d = (int)q.shape[3],
    a.dv = (int)v.shape[3];
    a.scale = n.scale;
    return a;
}

template <bool TENSOR> static void cuda_attention(struct dev *d, tensor y, tensor q, tensor k, tensor v, struct attn n)
{
    attend_args a = args_of(q, k, v, n);
    a.y = y.data;
    steps_of(a.y_step, y);
    attend<TENSOR>(d, a, q.dtype, q.shape[0]);
}

template <bool TENSOR>
static void cuda_attention_more(struct dev *d, tensor sum, tensor state, tensor q, tensor k, tensor v, struct attn n,
                                bool first)
{
    attend_args a = args_of(q, k, v, n);
    a.sum = (float *)sum.data, a.state = (float *)state.data;
    a.first = first;
    attend<TENSOR>(d, a, q.dtype, q.shape[0]);
}

static void cuda_attention_done(struct dev *d, tensor y, tensor sum, tensor state)
{
    int64_t count = tensor_count(sum);
    WITH_FLOAT(y.dtype, T,
               LAUNCH(d, done_kernel<T>, blocks_for(count, THREADS), THREADS, 0, rows_of(y, 1), (const float *)sum.data,
                      (const float *)state.data, sum.shape[3], count));
}

template <bool TENSOR>
static void cuda_attention_map(struct dev *d, tensor map, tensor q, tensor k, tensor mask, bool published)
{
    enum { COLUMNS = 8 }; // TENSOR_DIMS classes at most
    int64_t n = q.shape[0], nh = q.shape[1], s = k.shape[0];
    int classes = (int)mask.shape[0];
    if (n == 0) return;
    tensor v = {}, q4 = tensor_split(q, 0, 1, n), k4 = tensor_split(k, 0, 1, s);
    v.data = cuda_scratch_of(d, SCRATCH_W, s * COLUMNS * (int64_t)sizeof(float));
    float *sum = (float *)cuda_scratch_of(d, SCRATCH_Y, n * nh * (COLUMNS + 2) * (int64_t)sizeof(float));
    if (!v.data || !sum) return;
    v.dtype = q.dtype, v.n = 4;
    const int64_t shape[] = {1, s, nh, COLUMNS}, step[] = {0, COLUMNS, 0, 1}; // every head has the same values
    for (int i = 0; i < 4; i++) v.shape[i] = shape[i], v.stride[i] = step[i];
    attend_args a = args_of(q4, k4, v, attn{});
    a.sum = sum, a.state = sum + n * nh * COLUMNS;
    a.first = 1;
    const float *m = (const float *)mask.data;
    WITH_FLOAT(q.dtype, T, {
        LAUNCH(d, mask_kernel<T>, blocks_for(s * COLUMNS, THREADS), THREADS, 0, (T *)v.data, m, classes, s,
               (int)COLUMNS);
        attend<TENSOR>(d, a, q.dtype, 1);
        const dim3 blocks(blocks_for(n, THREADS), (unsigned)classes);
        LAUNCH(d, map_kernel<T>, blocks, THREADS, THREADS / 32 * sizeof(float), (float *)map.data, map.stride[0], sum,
               a.state, m, n, (int)nh, (int)COLUMNS, s, published);
    });
}

template <bool TENSOR> static void fill(struct ops *o)
{
    o->attention = cuda_attention<TENSOR>;
    o->attention_more = cuda_attention_more<TENSOR>;
    o->attention_map = cuda_attention_map<TENSOR>;
}

static const struct op_case cases[] = {
    {.op = "attention", .s = {1, 10, 1, 70, 128, 128}, .t = DT_BF16, .how = HOW_MILD},
    {.op = "attention", .s = {1, 70, 1, 33, 64, 64}, .t = DT_BF16, .how = HOW_MILD | HOW_BIAS},
    {.op = "attention", .s = {1, 5, 1, 33, 64, 64}, .t = DT_F32},
    {.op = "attention_more", .s = {1, 5, 1, 40, 64, 64}, .t = DT_BF16, .how = HOW_MILD},
    {.op = "attention_map", .s = {9, 1, 32, 35, 3}, .t = DT_BF16},
};

const struct op_variant cuda_attention_variants[] = {
    {"attention", "mma.sync", 80, 0, fill<true>, cases, sizeof cases / sizeof *cases},
    {"attention", "plain", 80, 0, fill<false>, cases, sizeof cases / sizeof *cases},
};
const int n_cuda_attention_variants = sizeof cuda_attention_variants / sizeof *cuda_attention_variants;

void cuda_attention_slots(struct ops *o) { o->attention_done = cuda_attention_done; }
