// Channel norm, gain and SiLU in one pass over channels-last rows, forward and backward, for f32 and bf16.
//
// x [n, t, s, c]: clips, frames, pixels, channels. y has `pad` zero frames in front of each clip, because a causal
// convolution follows. Separate tensor operations would cost more than the convolutions they stand between.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <torch/extension.h>

// 16 channels at a time, in the compiler's own vectors: loops over so few channels are unrolled before they are vectorised.
typedef float vf __attribute__((vector_size(64)));
typedef float vf8 __attribute__((vector_size(32)));
typedef float vf4 __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));
static const int W = 16;

static inline vf get(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline vf get(const uint16_t *p)
{
    vh h;
    memcpy(&h, p, sizeof h);
    return (vf)(__builtin_convertvector(h, vu) << 16);
}
static inline void put(float *p, vf v) { memcpy(p, &v, sizeof v); }
static inline void put(uint16_t *p, vf v)
{
    const vu u = (vu)v;
    const vh h = __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, vh);
    memcpy(p, &h, sizeof h);
}
static inline float sum_of(vf v)
{
    vf8 a[2];
    memcpy(a, &v, sizeof a);
    a[0] += a[1];
    vf4 b[2];
    memcpy(b, a, sizeof b);
    b[0] += b[1];
    return (b[0][0] + b[0][2]) + (b[0][1] + b[0][3]);
}
// 1 / (1 + e^-x), to about 1e-6: 2^n by the exponent's bits, 2^f by its series, |f| <= 1/2.
static inline vf sigmoid(vf x)
{
    x = x > 80.f ? x - x + 80.f : x;
    x = x < -80.f ? x - x - 80.f : x;
    const vf y = x * -1.4426950f, half = y < 0.f ? y - y - 0.5f : y - y + 0.5f;
    const vi n = __builtin_convertvector(y + half, vi);
    const vf f = y - __builtin_convertvector(n, vf);
    const vf p = 1.f + f * (0.69314718f + f * (0.24022651f + f * (0.05550411f + f * (0.00961813f + f * (0.00133336f + f * 0.00015403f)))));
    return 1.f / (1.f + (vf)((vi)p + (n << 23)));
}

template <class T, int C> static void forward_rows(T *y, float *inv, const T *x, const float *g, int64_t n)
{
    const float root = std::sqrt((float)C);
    for (int64_t i = 0; i < n; i++, x += C, y += C) {
        vf v[C / W], sum = {};
        for (int c = 0; c < C / W; c++) {
            v[c] = get(x + c * W);
            sum += v[c] * v[c];
        }
        const float k = root / std::max(std::sqrt(sum_of(sum)), 1e-12f);
        inv[i] = k;
        for (int c = 0; c < C / W; c++) {
            const vf u = v[c] * k * get(g + c * W);
            put(y + c * W, u * sigmoid(u));
        }
    }
}

template <class T, int C>
static void backward_rows(T *dx, float *dg, const T *x, const float *g, const float *inv, const T *dy, int64_t n)
{
    vf sums[C / W] = {};
    for (int64_t i = 0; i < n; i++, x += C, dx += C, dy += C) {
        vf h[C / W], d[C / W], dots = {};
        const float k = inv[i];
        for (int c = 0; c < C / W; c++) {
            const vf gain = get(g + c * W);
            h[c] = get(x + c * W) * k;
            const vf u = h[c] * gain, s = sigmoid(u), du = get(dy + c * W) * s * (1.f + u * (1.f - s));
            sums[c] += du * h[c];
            d[c] = du * gain;
            dots += d[c] * h[c];
        }
        const float dot = sum_of(dots) / C;
        for (int c = 0; c < C / W; c++) put(dx + c * W, k * (d[c] - h[c] * dot));
    }
    for (int c = 0; c < C / W; c++) put(dg + c * W, get(dg + c * W) + sums[c]);
}

template <class T> static void forward_any(T *y, float *inv, const T *x, const float *g, int64_t n, int64_t c)
{
    switch (c) {
    case 16: return forward_rows<T, 16>(y, inv, x, g, n);
    case 32: return forward_rows<T, 32>(y, inv, x, g, n);
    case 48: return forward_rows<T, 48>(y, inv, x, g, n);
    case 64: return forward_rows<T, 64>(y, inv, x, g, n);
    default: TORCH_CHECK(false, "no kernel for ", c, " channels");
    }
}

template <class T>
static void backward_any(T *dx, float *dg, const T *x, const float *g, const float *inv, const T *dy, int64_t n, int64_t c)
{
    switch (c) {
    case 16: return backward_rows<T, 16>(dx, dg, x, g, inv, dy, n);
    case 32: return backward_rows<T, 32>(dx, dg, x, g, inv, dy, n);
    case 48: return backward_rows<T, 48>(dx, dg, x, g, inv, dy, n);
    case 64: return backward_rows<T, 64>(dx, dg, x, g, inv, dy, n);
    default: TORCH_CHECK(false, "no kernel for ", c, " channels");
    }
}

static const int64_t BLOCK = 1024; // rows a thread takes at once

template <class T> static void forward_all(torch::Tensor y, torch::Tensor inv, torch::Tensor x, torch::Tensor g, int64_t pad)
{
    const int64_t n = x.size(0), t = x.size(1), s = x.size(2), c = x.size(3), rows = t * s;
    const T *xp = (const T *)x.data_ptr();
    T *yp = (T *)y.data_ptr();
    for (int64_t i = 0; i < n; i++) memset(yp + i * (t + pad) * s * c, 0, (size_t)(pad * s * c) * sizeof(T));
#pragma omp parallel for collapse(2)
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < rows; r += BLOCK)
            forward_any<T>(yp + (i * (t + pad) * s + pad * s + r) * c, inv.data_ptr<float>() + i * rows + r,
                           xp + (i * rows + r) * c, g.data_ptr<float>(), std::min(BLOCK, rows - r), c);
}

template <class T>
static void backward_all(torch::Tensor dx, torch::Tensor dg, torch::Tensor x, torch::Tensor g, torch::Tensor inv, torch::Tensor dy,
                         int64_t pad)
{
    const int64_t n = x.size(0), t = x.size(1), s = x.size(2), c = x.size(3), rows = t * s;
    const T *xp = (const T *)x.data_ptr(), *dyp = (const T *)dy.data_ptr();
#pragma omp parallel for collapse(2)
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < rows; r += BLOCK)
            backward_any<T>((T *)dx.data_ptr() + (i * rows + r) * c, dg.data_ptr<float>() + omp_get_thread_num() * c,
                            xp + (i * rows + r) * c, g.data_ptr<float>(), inv.data_ptr<float>() + i * rows + r,
                            dyp + (i * (t + pad) * s + pad * s + r) * c, std::min(BLOCK, rows - r), c);
}

std::vector<torch::Tensor> forward(torch::Tensor x, torch::Tensor g, int64_t pad)
{
    auto y = torch::empty({x.size(0), x.size(1) + pad, x.size(2), x.size(3)}, x.options());
    auto inv = torch::empty({x.size(0), x.size(1), x.size(2)}, x.options().dtype(torch::kFloat));
    if (x.scalar_type() == torch::kFloat)
        forward_all<float>(y, inv, x, g, pad);
    else
        forward_all<uint16_t>(y, inv, x, g, pad);
    return {y, inv};
}

std::vector<torch::Tensor> backward(torch::Tensor x, torch::Tensor g, torch::Tensor inv, torch::Tensor dy, int64_t pad)
{
    auto dx = torch::empty_like(x);
    auto dg = torch::zeros({omp_get_max_threads(), x.size(3)}, x.options().dtype(torch::kFloat));
    if (x.scalar_type() == torch::kFloat)
        backward_all<float>(dx, dg, x, g, inv, dy, pad);
    else
        backward_all<uint16_t>(dx, dg, x, g, inv, dy, pad);
    return {dx, dg.sum(0)};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m)
{
    m.def("forward", &forward);
    m.def("backward", &backward);
}
