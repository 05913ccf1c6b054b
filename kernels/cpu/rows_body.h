// The loops of rows.h, for a file that defines rows_name and its target. Written so that the compiler makes vectors of
// them: no calls, no early exits, sums in thirty-two lanes. A lane adds few numbers in F32 before it goes to F64.
#include "kernels/cpu/rows.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/ref.h"

enum { LANES = 32, CHUNK = 512 };

static inline uint32_t bits_of(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    return v.u;
}

static inline float float_of(uint32_t u)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = u};
    return v.f;
}

// The upper half of a BF16 rounded to nearest even, NaN kept, without a branch.
static inline uint32_t half_bits(float f)
{
    uint32_t u = bits_of(f), up = u + 0x7fffu + (u >> 16 & 1), quiet = u | 0x400000u;
    return (u & 0x7fffffffu) > 0x7f800000u ? quiet : up;
}

static void load(float *restrict y, enum dtype t, const void *restrict x, int64_t n)
{
    if (t == DT_F32)
        memcpy(y, x, (size_t)n * sizeof *y);
    else if (t == DT_BF16)
        for (int64_t i = 0; i < n; i++) y[i] = float_of((uint32_t)((const uint16_t *)x)[i] << 16);
    else
        ref_load(y, t, x, n);
}

static void store(enum dtype t, void *restrict y, const float *restrict x, int64_t n)
{
    if (t == DT_F32)
        memcpy(y, x, (size_t)n * sizeof *x);
    else if (t == DT_BF16)
        for (int64_t i = 0; i < n; i++) ((uint16_t *)y)[i] = (uint16_t)(half_bits(x[i]) >> 16);
    else
        ref_store(t, y, x, n);
}

static void round_row(enum dtype t, float *x, int64_t n)
{
    if (t == DT_BF16)
        for (int64_t i = 0; i < n; i++) x[i] = float_of(half_bits(x[i]) & 0xffff0000u);
    else if (t == DT_F16)
        for (int64_t i = 0; i < n; i++) x[i] = f16_to_f32(f32_to_f16(x[i]));
}

static double sum(const float *x, int64_t n)
{
    double total = 0;
    for (int64_t from = 0; from < n; from += CHUNK) {
        int64_t to = from + CHUNK < n ? from + CHUNK : n, i = from;
        int lanes = from + LANES <= to ? LANES : 1; // of a narrow row the others are zeros
        float lane[LANES] = {0};
        for (; i + LANES <= to; i += LANES)
            for (int k = 0; k < LANES; k++) lane[k] += x[i + k];
        for (; i < to; i++) lane[0] += x[i];
        for (int k = 0; k < lanes; k++) total += (double)lane[k];
    }
    return total;
}

static double sum_squares(const float *x, float mean, int64_t n)
{
    double total = 0;
    for (int64_t from = 0; from < n; from += CHUNK) {
        int64_t to = from + CHUNK < n ? from + CHUNK : n, i = from;
        int lanes = from + LANES <= to ? LANES : 1; // of a narrow row the others are zeros
        float lane[LANES] = {0};
        for (; i + LANES <= to; i += LANES)
            for (int k = 0; k < LANES; k++) lane[k] += (x[i + k] - mean) * (x[i + k] - mean);
        for (; i < to; i++) lane[0] += (x[i] - mean) * (x[i] - mean);
        for (int k = 0; k < lanes; k++) total += (double)lane[k];
    }
    return total;
}

static void affine(float *restrict x, float mean, float r, const float *restrict gain, const float *restrict bias,
                   int64_t n)
{
    if (gain && bias)
        for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * r * gain[i] + bias[i];
    else if (gain)
        for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * r * gain[i];
    else
        for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * r + (bias ? bias[i] : 0);
}

static void modulate(float *restrict x, const float *restrict shift, const float *restrict scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = x[i] * (1 + scale[i]) + shift[i];
}

static void gate_add(float *restrict x, const float *restrict y, const float *restrict gate, int64_t n)
{
    if (gate)
        for (int64_t i = 0; i < n; i++) x[i] += y[i] * gate[i];
    else
        for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

static void turn(float *restrict x, const float *restrict table, int64_t pairs)
{
    for (int64_t j = 0; j < pairs; j++) {
        float a = x[2 * j], b = x[2 * j + 1], c = table[2 * j], s = table[2 * j + 1];
        x[2 * j] = a * c - b * s;
        x[2 * j + 1] = b * c + a * s;
    }
}

// e^v to about 2e-7, held inside what floats can hold; NaN kept.
static inline float exp_of(float v)
{
    float t = v * 1.44269504f;
    t = t < -126 ? -126 : t > 127 ? 127 : t;
    float whole = (t + 12582912.0f) - 12582912.0f, r = t - whole; // to the nearest integer
    float p = 1.5403530e-4f;
    p = p * r + 1.33335581e-3f;
    p = p * r + 9.61812911e-3f;
    p = p * r + 5.55041087e-2f;
    p = p * r + 2.40226507e-1f;
    p = p * r + 6.93147181e-1f;
    p = p * r + 1;
    return p * float_of((bits_of(whole + 12582912.0f) + 127) << 23);
}

static inline float gelu_tanh_of(float x)
{
    return x / (1 + exp_of(-2 * 0.79788456f * (x + 0.044715f * x * x * x))); // (1 + tanh u) / 2 = 1 / (1 + e^-2u)
}

// By the rational form of erf (Abramowitz and Stegun 7.1.26), kept as its small complement.
static inline float gelu_erf_of(float x)
{
    float z = fabsf(x) * 0.70710678f, t = 1 / (1 + 0.3275911f * z);
    float p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    float rest = p * exp_of(-z * z); // 1 - erf z
    return 0.5f * x * (x < 0 ? rest : 2 - rest);
}

static void act(enum act a, float *x, int64_t n)
{
    switch (a) {
    case ACT_GELU_TANH:
        for (int64_t i = 0; i < n; i++) x[i] = gelu_tanh_of(x[i]);
        break;
    case ACT_GELU_ERF:
        for (int64_t i = 0; i < n; i++) x[i] = gelu_erf_of(x[i]);
        break;
    case ACT_SILU:
        for (int64_t i = 0; i < n; i++) x[i] = x[i] / (1 + exp_of(-x[i]));
        break;
    case ACT_RELU:
        for (int64_t i = 0; i < n; i++) x[i] = x[i] < 0 ? 0 : x[i];
        break;
    case ACT_NONE:
        break;
    }
}

static void mul(float *restrict x, const float *restrict y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] *= y[i];
}

static void axpby(float *restrict x, float a, float b, const float *restrict z, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = a * x[i] + b * z[i];
}

static void standardise(float *restrict x, const float *restrict mean, const float *restrict r,
                        const float *restrict gain, const float *restrict bias, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean[i]) * r[i] * gain[i] + bias[i];
}

static void add_moments(double *restrict s, double *restrict sq, const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double v = (double)x[i];
        s[i] += v;
        sq[i] += v * v;
    }
}

const struct row_fns rows_name = {.load = load,
                                  .store = store,
                                  .round = round_row,
                                  .sum = sum,
                                  .sum_squares = sum_squares,
                                  .affine = affine,
                                  .modulate = modulate,
                                  .gate_add = gate_add,
                                  .turn = turn,
                                  .act = act,
                                  .mul = mul,
                                  .axpby = axpby,
                                  .standardise = standardise,
                                  .add_moments = add_moments};
