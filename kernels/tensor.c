// Tensor views. Nothing here touches data: shapes and strides only, and scalar conversions.
#include "kernels/tensor.h"

#include "proto/base/err.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const struct dtype_info dtype_table[DT_COUNT] = {
    [DT_NONE] = {"none", 0}, [DT_F32] = {"F32", 4},         [DT_BF16] = {"BF16", 2},       [DT_F16] = {"F16", 2},
    [DT_F64] = {"F64", 8},   [DT_F8_E4M3] = {"F8_E4M3", 1}, [DT_F8_E5M2] = {"F8_E5M2", 1}, [DT_I8] = {"I8", 1},
    [DT_I16] = {"I16", 2},   [DT_I32] = {"I32", 4},         [DT_I64] = {"I64", 8},         [DT_U8] = {"U8", 1},
    [DT_BOOL] = {"BOOL", 1},
};

tensor tensor_of(void *data, enum dtype t, int n, const int64_t *shape)
{
    BUG_IF(n < 0 || n > TENSOR_DIMS, "a tensor of %d axes", n);
    tensor r = {.data = data, .dtype = t, .n = n};
    int64_t stride = 1;
    for (int i = n - 1; i >= 0; i--) {
        r.shape[i] = shape[i];
        r.stride[i] = stride;
        stride *= shape[i];
    }
    return r;
}

int64_t tensor_count(tensor t)
{
    int64_t n = t.n == 0 && !t.data ? 0 : 1;
    for (int i = 0; i < t.n; i++) n *= t.shape[i];
    return n;
}

int64_t tensor_bytes(tensor t) { return tensor_count(t) * dtype_size(t.dtype); }

bool tensor_is_contiguous(tensor t)
{
    int64_t stride = 1;
    for (int i = t.n - 1; i >= 0; i--) {
        if (t.shape[i] != 1 && t.stride[i] != stride) return false;
        stride *= t.shape[i];
    }
    return true;
}

bool tensor_same_shape(tensor a, tensor b)
{
    if (a.n != b.n) return false;
    for (int i = 0; i < a.n; i++)
        if (a.shape[i] != b.shape[i]) return false;
    return true;
}

static void tensor_extent(tensor t, const char **from, const char **to)
{
    int64_t lo = 0, hi = 0;
    for (int i = 0; i < t.n; i++) {
        int64_t reach = (t.shape[i] - 1) * t.stride[i];
        if (reach < 0)
            lo += reach;
        else
            hi += reach;
    }
    *from = (const char *)t.data + lo * dtype_size(t.dtype);
    *to = (const char *)t.data + (hi + 1) * dtype_size(t.dtype);
}

bool tensor_overlaps(tensor a, tensor b)
{
    if (!a.data || !b.data || tensor_count(a) == 0 || tensor_count(b) == 0) return false;
    const char *a0, *a1, *b0, *b1;
    tensor_extent(a, &a0, &a1);
    tensor_extent(b, &b0, &b1);
    return a0 < b1 && b0 < a1;
}

tensor tensor_reshape(tensor t, int n, const int64_t *shape)
{
    BUG_IF(!tensor_is_contiguous(t), "reshape of a tensor that is not contiguous");
    int64_t known = 1, total = tensor_count(t), full[TENSOR_DIMS];
    int open = -1;
    for (int i = 0; i < n; i++) {
        full[i] = shape[i];
        if (shape[i] == -1) {
            BUG_IF(open >= 0, "reshape with two open axes");
            open = i;
        } else
            known *= shape[i];
    }
    if (open >= 0) {
        BUG_IF(known == 0 || total % known != 0, "reshape of %lld elements", (long long)total);
        full[open] = total / known;
        known *= full[open];
    }
    BUG_IF(known != total, "reshape of %lld elements to %lld", (long long)total, (long long)known);
    tensor r = tensor_of(t.data, t.dtype, n, full);
    r.packed = t.packed;
    return r;
}

tensor tensor_slice(tensor t, int axis, int64_t from, int64_t to)
{
    BUG_IF(axis < 0 || axis >= t.n || from < 0 || to < from || to > t.shape[axis], "slice [%lld, %lld) of axis %d",
           (long long)from, (long long)to, axis);
    t.data = (char *)t.data + from * t.stride[axis] * dtype_size(t.dtype);
    t.shape[axis] = to - from;
    t.packed = NULL;
    return t;
}

tensor tensor_at(tensor t, int64_t i)
{
    BUG_IF(t.n < 1, "tensor_at of a scalar");
    t = tensor_slice(t, 0, i, i + 1);
    for (int k = 1; k < t.n; k++) {
        t.shape[k - 1] = t.shape[k];
        t.stride[k - 1] = t.stride[k];
    }
    t.n--;
    return t;
}

tensor tensor_permute(tensor t, const int *order)
{
    tensor r = t;
    unsigned seen = 0;
    for (int i = 0; i < t.n; i++) {
        BUG_IF(order[i] < 0 || order[i] >= t.n || (seen >> order[i] & 1), "bad permutation");
        seen |= 1u << order[i];
        r.shape[i] = t.shape[order[i]];
        r.stride[i] = t.stride[order[i]];
    }
    r.packed = NULL;
    return r;
}

tensor tensor_split(tensor t, int axis, int64_t outer, int64_t inner)
{
    BUG_IF(axis < 0 || axis >= t.n || t.n == TENSOR_DIMS || outer * inner != t.shape[axis], "split of axis %d", axis);
    for (int i = t.n; i > axis + 1; i--) {
        t.shape[i] = t.shape[i - 1];
        t.stride[i] = t.stride[i - 1];
    }
    t.n++;
    t.shape[axis] = outer;
    t.shape[axis + 1] = inner;
    t.stride[axis + 1] = t.stride[axis];
    t.stride[axis] *= inner;
    return t;
}

tensor tensor_squeeze(tensor t)
{
    int n = 0;
    for (int i = 0; i < t.n; i++)
        if (t.shape[i] != 1) {
            t.shape[n] = t.shape[i];
            t.stride[n++] = t.stride[i];
        }
    if (n == 0 && t.n > 0) {
        t.shape[0] = t.stride[0] = 1;
        n = 1;
    }
    t.n = n;
    return t;
}

const char *tensor_text(tensor t, char *buf, size_t n)
{
    size_t at = (size_t)snprintf(buf, n, "[");
    for (int i = 0; i < t.n && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%lld", i ? ", " : "", (long long)t.shape[i]);
    if (at < n) snprintf(buf + at, n - at, "] %s", dtype_table[t.dtype].name);
    return buf;
}

static float bits_to_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t f32_to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return bits_to_f32(sign | 0x7f800000u | m << 13);
    if (e > 0) return bits_to_f32(sign | (e + 112) << 23 | m << 13);
    float f = (float)m * 0x1p-24f;
    return sign ? -f : f;
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = f32_to_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x1ffu));
    if (a >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { // subnormal: count units of 2^-24, round half to even by adding in F32
        float units = bits_to_f32(a) * 0x1p24f;
        uint32_t whole = (uint32_t)units;
        float rest = units - (float)whole;
        if (rest > 0.5f || (rest == 0.5f && (whole & 1))) whole++;
        return (uint16_t)(sign | whole);
    }
    a += 0xfffu + (a >> 13 & 1);
    return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

float f8_e4m3_to_f32(uint8_t b)
{
    int e = b >> 3 & 15, m = b & 7;
    float f;
    if (e == 15 && m == 7)
        f = bits_to_f32(0x7fc00000u);
    else if (e == 0)
        f = (float)m * 0x1p-9f;
    else
        f = bits_to_f32((uint32_t)(e + 120) << 23 | (uint32_t)m << 20);
    return b & 0x80 ? -f : f;
}

uint8_t f32_to_f8_e4m3(float f)
{
    uint32_t u = f32_to_bits(f), sign = u >> 24 & 0x80u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint8_t)(sign | 0x7fu);
    if (a >= 0x43e00000u) return (uint8_t)(sign | 0x7eu);                                   // 448 and more
    if (a < 0x3c800000u) return (uint8_t)(sign | (uint32_t)rintf(bits_to_f32(a) * 0x1p9f)); // subnormal, or just not
    a += 0x7ffffu + (a >> 20 & 1);
    return (uint8_t)(sign | ((a >> 20) - (120u << 3)));
}

float f8_e5m2_to_f32(uint8_t b) { return f16_to_f32((uint16_t)(b << 8)); }
