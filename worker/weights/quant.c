// Quantised weights, as others store them, layer by layer:
//
//   optimum-quanto        p.weight._data  I8, F8    p.weight._scale  [out, 1]   input_scale, output_scale: not needed
//   ComfyUI's scaled fp8  p.weight        F8        p.scale_weight   one, or [out]; scaled_fp8, scale_input: likewise
//   LightX2V              p.weight        I8, F8    p.weight_scale   [out, 1], or one
//
// In all of them a weight is its bytes' value times the factor of its output. Blocks of 128 x 128 with a factor each,
// 4-bit formats and ComfyUI's mixed precision are refused by name.
//
// The trap: bytes without their factors look like any tensor and load without a word, so what has a factor that is not
// understood must be refused, never passed over.
#include "worker/weights/quant.h"

#include "proto/base/log.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 4200 };

static const char way_out[] = "; fetch the bf16 or f32 weights";

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

// `name` with its tail replaced.
static const char *with_tail(char out[NAME_BYTES], const char *name, const char *old, const char *tail)
{
    snprintf(out, NAME_BYTES, "%.*s%s", (int)(strlen(name) - strlen(old)), name, tail);
    return out;
}

// How the factors of a weight are named: data beside "<p>.weight" + data, factors by the tail.
static const struct {
    const char *factor, *data;
} schemes[] = {{".weight._scale", ".weight._data"}, {".scale_weight", ".weight"}, {".weight_scale", ".weight"}};
enum { N_SCHEMES = sizeof schemes / sizeof *schemes };

// Marks and factors of activations, which are quantised here as they come.
static bool is_mark(const char *name)
{
    return strcmp(name, "scaled_fp8") == 0 || ends(name, ".scaled_fp8") || ends(name, ".scale_input") ||
           ends(name, ".input_scale") || ends(name, ".output_scale");
}

static double value_at(tensor t, int64_t i)
{
    switch (t.dtype) {
    case DT_F32:
        return (double)((const float *)t.data)[i];
    case DT_BF16:
        return (double)bf16_to_f32(((const uint16_t *)t.data)[i]);
    case DT_F16:
        return (double)f16_to_f32(((const uint16_t *)t.data)[i]);
    default:
        return NAN;
    }
}

// A factor for each of n outputs; NULL when one is no number.
static const float *factors(struct weights *w, tensor t, int64_t n)
{
    float *f = weights_alloc(w, (size_t)(n + 1) * sizeof *f);
    for (int64_t i = 0; i < n; i++) {
        f[i] = (float)value_at(t, tensor_count(t) == 1 ? 0 : i);
        if (!isfinite(f[i])) return NULL;
    }
    return f;
}

// Factors for the rows of `data`, which gets them.
static int join(struct weights *w, const char *data, const char *factor, struct err *e)
{
    tensor t = NO_TENSOR, s = NO_TENSOR;
    char text[96];
    int rc = weights_get(w, data, &t, e);
    if (rc == 0) rc = weights_get(w, factor, &s, e);
    if (rc < 0) return rc;
    bool bytes = t.dtype == DT_I8 || t.dtype == DT_F8_E4M3 || t.dtype == DT_F8_E5M2;
    if (!bytes || t.n != 2 || !tensor_is_contiguous(t))
        return err_set(e, E_INPUT,
                       "%s: '%s' is %s and has factors beside it, a way of quantising that is not read here%s",
                       weights_file(w, data), data, tensor_text(t, text, sizeof text), way_out);
    if ((tensor_count(s) != 1 && tensor_count(s) != t.shape[0]) || !tensor_is_contiguous(s))
        return err_set(e, E_INPUT, "%s: '%s' is %s, which is neither one factor nor one for each of %lld outputs%s",
                       weights_file(w, factor), factor, tensor_text(s, text, sizeof text), (long long)t.shape[0],
                       way_out);
    t.scale = factors(w, s, t.shape[0]);
    if (!t.scale)
        return err_set(e, E_INPUT, "%s: '%s' holds a factor that is no number; copy or fetch it again",
                       weights_file(w, factor), factor);
    weights_set(w, data, t);
    return 0;
}

static int refuse(const struct weights *w, const char *name, const char *what, struct err *e)
{
    return err_set(e, E_INPUT, "%s: '%s' is stored %s, which is not read here%s", weights_file(w, name), name, what,
                   way_out);
}

// What this tensor is, if it belongs to a quantised weight.
static int look_at(struct weights *w, const char *name, int *n_joined, struct err *e)
{
    char data[NAME_BYTES];
    if (ends(name, ".comfy_quant")) return refuse(w, name, "in ComfyUI's mixed precision", e);
    if (ends(name, ".weight_scale_2") || ends(name, ".weight_global_scale")) return refuse(w, name, "in 4 bits", e);
    if (ends(name, ".weight._data")) {
        with_tail(data, name, "._data", "._scale");
        return weights_has(w, data) ? 0 : refuse(w, name, "by optimum-quanto without factors", e);
    }
    for (int i = 0; i < N_SCHEMES; i++) {
        if (!ends(name, schemes[i].factor)) continue;
        with_tail(data, name, schemes[i].factor, schemes[i].data);
        int rc = join(w, data, name, e);
        if (rc == 0) *n_joined += 1;
        return rc;
    }
    return 0;
}

static bool is_part(const char *name)
{
    for (int i = 0; i < N_SCHEMES; i++)
        if (ends(name, schemes[i].factor)) return true;
    return is_mark(name);
}

static bool of_quanto(const void *ctx, const char *name, char *out, size_t n)
{
    (void)ctx;
    if (!ends(name, ".weight._data")) return false;
    snprintf(out, n, "%.*s", (int)(strlen(name) - strlen("._data")), name);
    return true;
}

int quant_settle(struct weights *w, struct err *e)
{
    int n_joined = 0, rc = 0;
    bool marked = false;
    for (int64_t i = 0; i < weights_count(w) && rc == 0; i++) {
        const char *name = weights_name(w, i);
        if (!weights_is_new(w, name)) continue;
        marked = marked || is_mark(name);
        rc = look_at(w, name, &n_joined, e);
    }
    if (rc < 0 || (n_joined == 0 && !marked)) return rc;
    rc = weights_drop(w, is_part, e);
    if (rc == 0) rc = weights_rename(w, of_quanto, NULL, e);
    if (rc == 0) log_info("weights.quantised", "tensors=%d", n_joined);
    return rc;
}

// ---- values

static float byte_value(enum dtype t, uint8_t b)
{
    return t == DT_I8 ? (float)(int8_t)b : t == DT_F8_E4M3 ? f8_e4m3_to_f32(b) : f8_e5m2_to_f32(b);
}

void weights_widen(void *dst, enum dtype t, tensor q, int64_t from, int64_t n)
{
    int64_t in = q.shape[1];
    float values[256];
    for (int b = 0; b < 256; b++) values[b] = byte_value(q.dtype, (uint8_t)b);
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        float v = values[((const uint8_t *)q.data)[from + i]] * q.scale[(from + i) / in];
        if (t == DT_F32)
            ((float *)dst)[i] = v;
        else
            ((uint16_t *)dst)[i] = t == DT_BF16 ? f32_to_bf16(v) : f32_to_f16(v);
    }
}
