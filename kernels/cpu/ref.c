// The reference table: plain loops, one op at a time, sums in F64, rounding exactly where the contract says R.
//
// It is the mathematics written down. Its only concession to speed is a parallel loop over independent rows.
#include "kernels/cpu/ref.h"

#include <string.h>

float ref_get(enum dtype t, const void *p, int64_t i)
{
    switch (t) {
    case DT_F32:
        return ((const float *)p)[i];
    case DT_BF16:
        return bf16_to_f32(((const uint16_t *)p)[i]);
    case DT_F16:
        return f16_to_f32(((const uint16_t *)p)[i]);
    case DT_F64:
        return (float)((const double *)p)[i];
    case DT_F8_E4M3:
        return f8_e4m3_to_f32(((const uint8_t *)p)[i]);
    case DT_F8_E5M2:
        return f8_e5m2_to_f32(((const uint8_t *)p)[i]);
    case DT_I8:
        return ((const int8_t *)p)[i];
    case DT_I16:
        return ((const int16_t *)p)[i];
    case DT_I32:
        return (float)((const int32_t *)p)[i];
    case DT_I64:
        return (float)((const int64_t *)p)[i];
    case DT_U8:
        return ((const uint8_t *)p)[i];
    case DT_BOOL:
        return ((const uint8_t *)p)[i] != 0;
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    BUG("no dtype %d", (int)t);
}

void ref_put(enum dtype t, void *p, int64_t i, float v)
{
    switch (t) {
    case DT_F32:
        ((float *)p)[i] = v;
        break;
    case DT_BF16:
        ((uint16_t *)p)[i] = f32_to_bf16(v);
        break;
    case DT_F16:
        ((uint16_t *)p)[i] = f32_to_f16(v);
        break;
    case DT_F64:
        ((double *)p)[i] = v;
        break;
    default:
        BUG("nothing is stored as %s", dtype_table[t].name);
    }
}

void ref_load(float *dst, enum dtype t, const void *p, int64_t n)
{
    if (t == DT_F32)
        memcpy(dst, p, (size_t)n * sizeof *dst);
    else
        for (int64_t i = 0; i < n; i++) dst[i] = ref_get(t, p, i);
}

void ref_store(enum dtype t, void *p, const float *src, int64_t n)
{
    if (t == DT_F32)
        memcpy(p, src, (size_t)n * sizeof *src);
    else
        for (int64_t i = 0; i < n; i++) ref_put(t, p, i, src[i]);
}

int64_t ref_rows(tensor t, int n_inner)
{
    int64_t n = 1;
    for (int i = 0; i < t.n - n_inner; i++) n *= t.shape[i];
    return n;
}

char *ref_row(tensor t, int64_t i, int n_inner)
{
    int64_t at = 0;
    for (int k = t.n - n_inner - 1; k >= 0; k--) {
        at += i % t.shape[k] * t.stride[k];
        i /= t.shape[k];
    }
    return (char *)t.data + at * dtype_size(t.dtype);
}

void *ref_alloc(int64_t n, size_t size)
{
    void *p = malloc(n > 0 ? (size_t)n * size : 1);
    BUG_IF(!p, "no memory for %lld elements", (long long)n);
    return p;
}

float *ref_vector(tensor t)
{
    if (tensor_is_none(t)) return NULL;
    int64_t n = t.shape[t.n - 1];
    float *v = ref_alloc(n, sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = ref_get(t.dtype, t.data, i * t.stride[t.n - 1]);
    return v;
}

float *ref_whole(tensor t)
{
    if (tensor_is_none(t)) return NULL;
    float *v = ref_alloc(tensor_count(t), sizeof *v);
    ref_load(v, t.dtype, t.data, tensor_count(t));
    return v;
}

float ref_act(enum act a, float v)
{
    double x = v;
    switch (a) {
    case ACT_GELU_TANH:
        return (float)(0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))));
    case ACT_GELU_ERF:
        return (float)(0.5 * x * (1 + erf(x / M_SQRT2)));
    case ACT_SILU:
        return (float)(x / (1 + exp(-x)));
    case ACT_RELU:
        return v > 0 || isnan(v) ? v : 0;
    case ACT_NONE:
        break;
    }
    return v;
}

void ref_slots(struct ops *o)
{
    ref_linear_slots(o);
    ref_scaled_slots(o);
    ref_attention_slots(o);
    ref_norm_slots(o);
    ref_rope_slots(o);
    ref_conv_slots(o);
    ref_layout_slots(o);
    ref_pointwise_slots(o);
    ref_pixels_slots(o);
}
