// Pictures: bicubic resize, colour statistics and transfer in CIE Lab, and the way to 8-bit 4:2:0.
//
// All in F64, as the reference: a flat picture has a deviation of exactly zero, and bytes round the same everywhere.
// The statistics of a frame are Welford's running update per thread, joined pair by pair in a fixed order, which keeps
// that exactness: two equal means join without a rest. A frame is one block; a render has many frames at a time.
#include "kernels/cuda/common.cuh"

enum { THREADS = 256 };

// ---- kernels

static __device__ __forceinline__ void cubic_weights(double t, double w[4])
{
    const double a = -0.75, u[4] = {t + 1, t, 1 - t, 2 - t};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        double x = u[i];
        w[i] = i == 1 || i == 2 ? ((a + 2) * x - (a + 3)) * x * x + 1 : ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    }
}

// Source position of output i: the first of its four taps (not yet clamped) and their weights. The scale is rounded to
// F32 and the position is not, as in the published framework.
static __device__ __forceinline__ int64_t cubic_taps(int64_t i, int64_t n_in, int64_t n_out, double w[4])
{
    double scale = (double)((float)n_in / (float)n_out), s = scale * ((double)i + 0.5) - 0.5, f = floor(s);
    cubic_weights(s - f, w);
    return (int64_t)f - 1;
}

static __device__ __forceinline__ int64_t inside(int64_t p, int64_t n) { return p < 0 ? 0 : p >= n ? n - 1 : p; }

__global__ void resize_kernel(float *y, const float *x, int64_t sh, int64_t sw, int64_t h, int64_t w, int64_t c)
{
    int64_t i = thread_index();
    if (i >= h * w * c) return;
    double wr[4], wc[4], v = 0;
    int64_t row = cubic_taps(i / (w * c), sh, h, wr), col = cubic_taps(i / c % w, sw, w, wc), k = i % c;
#pragma unroll
    for (int a = 0; a < 4; a++)
#pragma unroll
        for (int b = 0; b < 4; b++)
            v += wr[a] * wc[b] * (double)load(x + (inside(row + a, sh) * sw + inside(col + b, sw)) * c + k);
    store(y + i, (float)v);
}

static __device__ __forceinline__ double clamp01(double v) { return v < 0 ? 0 : v > 1 ? 1 : v; }
static __device__ __forceinline__ double unit_of(float x) { return clamp01(((double)x + 1) / 2); }

static __device__ __forceinline__ double linear_light(double v)
{
    return v > 0.04045 ? pow((v + 0.055) / 1.055, 2.4) : v / 12.92;
}

static __device__ __forceinline__ double lab_curve(double q) { return q > 0.008856 ? cbrt(q) : 7.787 * q + 16.0 / 116; }

static __device__ __forceinline__ double lab_uncurve(double f)
{
    return f > 0.2068966 ? f * f * f : (f - 16.0 / 116) / 7.787;
}

static __device__ __forceinline__ void rgb_to_lab(const double rgb[3], double lab[3])
{
    double r = linear_light(rgb[0]), g = linear_light(rgb[1]), b = linear_light(rgb[2]);
    double x = lab_curve((0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047);
    double y = lab_curve((0.212671 * r + 0.715160 * g + 0.072169 * b) / 1.0);
    double z = lab_curve((0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883);
    lab[0] = 116 * y - 16;
    lab[1] = 500 * (x - y);
    lab[2] = 200 * (y - z);
}

static __device__ __forceinline__ double display_light(double v)
{
    return clamp01(v > 0.0031308 ? 1.055 * pow(v, 1 / 2.4) - 0.055 : 12.92 * v);
}

static __device__ __forceinline__ void lab_to_rgb(const double lab[3], double rgb[3])
{
    double fy = (lab[0] + 16) / 116, fx = lab[1] / 500 + fy, fz = fy - lab[2] / 200;
    double x = lab_uncurve(fx) * 0.95047, y = lab_uncurve(fy), z = lab_uncurve(fz < 0 ? 0 : fz) * 1.08883;
    rgb[0] = display_light(3.2404813432 * x + -1.5371515163 * y + -0.4985363262 * z);
    rgb[1] = display_light(-0.9692549500 * x + 1.8759900015 * y + 0.0415559266 * z);
    rgb[2] = display_light(0.0556466391 * x + -0.2040413384 * y + 1.0573110696 * z);
}

// Count, mean and sum of squares around the mean.
struct moments {
    double n, mean, sq;
};

static __device__ __forceinline__ moments joined(moments a, moments b)
{
    if (b.n == 0) return a;
    if (a.n == 0) return b;
    double n = a.n + b.n, up = b.mean - a.mean;
    return moments{n, a.mean + up * (b.n / n), a.sq + b.sq + up * up * (a.n * b.n / n)};
}

__global__ void __launch_bounds__(THREADS) lab_stats_kernel(double *stats, const float *x, int64_t n)
{
    moments *part = (moments *)shared_memory(), m[3] = {};
    const float *frame = x + blockIdx.x * n * 3;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        double rgb[3], lab[3];
#pragma unroll
        for (int c = 0; c < 3; c++) rgb[c] = unit_of(load(frame + 3 * i + c));
        rgb_to_lab(rgb, lab);
#pragma unroll
        for (int c = 0; c < 3; c++) {
            m[c].n += 1;
            double up = lab[c] - m[c].mean;
            m[c].mean += up / m[c].n;
            m[c].sq += up * (lab[c] - m[c].mean);
        }
    }
#pragma unroll
    for (int c = 0; c < 3; c++) {
        store(part + threadIdx.x, m[c]);
        for (int half = THREADS / 2; half; half /= 2) {
            sync_block();
            if ((int)threadIdx.x < half) {
                moments both = joined(load(part + threadIdx.x), load(part + threadIdx.x + half));
                store(part + threadIdx.x, both);
            }
        }
        if (threadIdx.x == 0) {
            moments all = load(part);
            store(stats + blockIdx.x * 6 + 2 * c, all.mean);
            store(stats + blockIdx.x * 6 + 2 * c + 1, sqrt(all.sq / (double)n));
        }
        sync_block();
    }
}

__global__ void lab_match_kernel(float *y, const float *x, const double *src, const double *ref, int64_t count,
                                 int64_t n, float strength)
{
    int64_t i = thread_index();
    if (i >= count) return;
    const double *from = src + i / n * 6;
    double v[3], lab[3], rgb[3];
#pragma unroll
    for (int c = 0; c < 3; c++) v[c] = unit_of(load(x + 3 * i + c));
    rgb_to_lab(v, lab);
#pragma unroll
    for (int c = 0; c < 3; c++) {
        double mean = load(from + 2 * c), dev = load(from + 2 * c + 1), to = load(ref + 2 * c);
        lab[c] = dev == 0 ? to : (lab[c] - mean) * (load(ref + 2 * c + 1) / dev) + to;
    }
    lab_to_rgb(lab, rgb);
#pragma unroll
    for (int c = 0; c < 3; c++)
        store(y + 3 * i + c, (float)(2 * ((1 - (double)strength) * v[c] + (double)strength * rgb[c]) - 1));
}

__global__ void clamp_kernel(float *y, const float *x, int64_t n)
{
    int64_t i = thread_index();
    if (i >= n) return;
    float v = load(x + i);
    store(y + i, v < -1 ? -1 : v > 1 ? 1 : v);
}

static __device__ __forceinline__ uint8_t byte_of(double v)
{
    double r = floor(v + 0.5);
    return (uint8_t)(r < 0 ? 0 : r > 255 ? 255 : r);
}

// A thread has 2 x 2 pixels: four lumas and one pair of chromas.
__global__ void yuv_kernel(uint8_t *out, const float *x, int64_t count, int64_t h, int64_t w)
{
    int64_t i = thread_index();
    if (i >= count) return;
    int64_t per_frame = h / 2 * (w / 2), t = i / per_frame, row = i % per_frame / (w / 2) * 2, col = i % (w / 2) * 2;
    uint8_t *luma = out + t * (h * w * 3 / 2), *chroma = luma + h * w + row / 2 * (w / 2) + col / 2;
    double u = 0, v = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float *p = x + ((t * h + row + k / 2) * w + col + k % 2) * 3;
        double r = unit_of(load(p)), g = unit_of(load(p + 1)), b = unit_of(load(p + 2));
        double y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        store(luma + (row + k / 2) * w + col + k % 2, byte_of(16 + 219 * y));
        u += 128 + 224 * (b - y) / 1.8556;
        v += 128 + 224 * (r - y) / 1.5748;
    }
    store(chroma, byte_of(u / 4));
    store(chroma + h * w / 4, byte_of(v / 4));
}

// ---- launchers

static void cuda_resize_cubic(struct dev *d, tensor y, tensor x)
{
    LAUNCH(d, resize_kernel, blocks_for(tensor_count(y), THREADS), THREADS, 0, (float *)y.data, (const float *)x.data,
           x.shape[0], x.shape[1], y.shape[0], y.shape[1], y.shape[2]);
}

static void cuda_lab_stats(struct dev *d, tensor stats, tensor x)
{
    LAUNCH(d, lab_stats_kernel, (unsigned)x.shape[0], THREADS, THREADS * sizeof(moments), (double *)stats.data,
           (const float *)x.data, x.shape[1] * x.shape[2]);
}

static void cuda_lab_match(struct dev *d, tensor y, tensor x, tensor src, tensor ref, float strength)
{
    int64_t n = x.shape[1] * x.shape[2], count = x.shape[0] * n;
    if (strength == 0)
        LAUNCH(d, clamp_kernel, blocks_for(3 * count, THREADS), THREADS, 0, (float *)y.data, (const float *)x.data,
               3 * count);
    else
        LAUNCH(d, lab_match_kernel, blocks_for(count, THREADS), THREADS, 0, (float *)y.data, (const float *)x.data,
               (const double *)src.data, (const double *)ref.data, count, n, strength);
}

static void cuda_yuv420(struct dev *d, tensor out, tensor x)
{
    int64_t h = x.shape[1], w = x.shape[2], count = x.shape[0] * (h / 2) * (w / 2);
    LAUNCH(d, yuv_kernel, blocks_for(count, THREADS), THREADS, 0, (uint8_t *)out.data, (const float *)x.data, count, h,
           w);
}

void cuda_pixels_slots(struct ops *o)
{
    o->resize_cubic = cuda_resize_cubic;
    o->lab_stats = cuda_lab_stats;
    o->lab_match = cuda_lab_match;
    o->yuv420 = cuda_yuv420;
}
