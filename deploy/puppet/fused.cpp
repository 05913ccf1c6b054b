// Channel norm, gain and SiLU in one pass over channels-last rows, forward and backward, for f32 and bf16.
//
// x [n, t, s, c]: clips, frames, pixels, channels. y has `pad` zero frames in front of each clip, because a causal
// convolution follows. Separate tensor operations would cost more than the convolutions they stand between.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <torch/extension.h>

static inline float get(const float *p) { return *p; }
static inline float get(const uint16_t *p)
{
    uint32_t u = (uint32_t)*p << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline void put(float *p, float v) { *p = v; }
static inline void put(uint16_t *p, float v)
{
    uint32_t u;
    memcpy(&u, &v, 4);
    *p = (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

template <class T, int C> static void forward_rows(T *y, float *inv, const T *x, const float *g, int64_t n)
{
    const float root = std::sqrt((float)C);
    for (int64_t i = 0; i < n; i++, x += C, y += C) {
        float v[C], sum = 0;
        for (int c = 0; c < C; c++) {
            v[c] = get(x + c);
            sum += v[c] * v[c];
        }
        const float k = root / std::max(std::sqrt(sum), 1e-12f);
        inv[i] = k;
        for (int c = 0; c < C; c++) {
            const float u = v[c] * k * g[c];
            v[c] = u / (1.f + std::exp(-u));
        }
        for (int c = 0; c < C; c++) put(y + c, v[c]);
    }
}

template <class T, int C>
static void backward_rows(T *dx, float *dg, const T *x, const float *g, const float *inv, const T *dy, int64_t n)
{
    for (int64_t i = 0; i < n; i++, x += C, dx += C, dy += C) {
        float h[C], d[C], dot = 0;
        const float k = inv[i];
        for (int c = 0; c < C; c++) {
            h[c] = get(x + c) * k;
            const float u = h[c] * g[c], s = 1.f / (1.f + std::exp(-u));
            const float du = get(dy + c) * s * (1.f + u * (1.f - s));
            dg[c] += du * h[c];
            d[c] = du * g[c];
            dot += d[c] * h[c];
        }
        dot /= C;
        for (int c = 0; c < C; c++) put(dx + c, k * (d[c] - h[c] * dot));
    }
}

template <class T> static void forward_any(T *y, float *inv, const T *x, const float *g, int64_t n, int64_t c)
{
    switch (c) {
    case 8: return forward_rows<T, 8>(y, inv, x, g, n);
    case 12: return forward_rows<T, 12>(y, inv, x, g, n);
    case 16: return forward_rows<T, 16>(y, inv, x, g, n);
    case 24: return forward_rows<T, 24>(y, inv, x, g, n);
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
    case 8: return backward_rows<T, 8>(dx, dg, x, g, inv, dy, n);
    case 12: return backward_rows<T, 12>(dx, dg, x, g, inv, dy, n);
    case 16: return backward_rows<T, 16>(dx, dg, x, g, inv, dy, n);
    case 24: return backward_rows<T, 24>(dx, dg, x, g, inv, dy, n);
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
