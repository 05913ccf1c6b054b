// A weights file of one linear layer, quantised in each of the ways that are read, and the values that it stands for.
#ifndef TESTS_QUANTISED_H
#define TESTS_QUANTISED_H

#include "tests/folder.h"
#include "worker/weights/weights.h"
#include "worker/weights/write_safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { Q_OUT = 48, Q_IN = 64 };

struct quantised {
    const char *data, *factor, *mark; // names; mark NULL: none
    enum dtype dtype, factor_dtype;
    bool one; // factor for all
};
static const struct quantised quantised_ways[] = {
    {"layer.weight._data", "layer.weight._scale", "layer.input_scale", DT_I8, DT_BF16, false},
    {"layer.weight._data", "layer.weight._scale", "layer.output_scale", DT_F8_E4M3, DT_F32, false},
    {"layer.weight", "layer.scale_weight", "scaled_fp8", DT_F8_E4M3, DT_F32, true},
    {"layer.weight", "layer.scale_weight", "scaled_fp8", DT_F8_E5M2, DT_F32, true},
    {"layer.weight", "layer.weight_scale", NULL, DT_I8, DT_F32, false},
    {"layer.weight", "layer.weight_scale", NULL, DT_F8_E4M3, DT_F16, false},
};
enum { N_QUANTISED = sizeof quantised_ways / sizeof *quantised_ways };

// Byte i of the data; no NaN of either format among them.
static inline uint8_t quantised_byte(int64_t i) { return (uint8_t)((i * 37 + 11) % 120 + (i % 3 ? 0 : 128)); }
static inline float quantised_factor(const struct quantised *q, int64_t o)
{
    return q->one ? 0.25f : 0.015625f * (float)(1 + o % 5); // exact in all dtypes
}
static inline float quantised_value(const struct quantised *q, int64_t o, int64_t i)
{
    uint8_t b = quantised_byte(o * Q_IN + i);
    float v = q->dtype == DT_I8 ? (float)(int8_t)b : q->dtype == DT_F8_E4M3 ? f8_e4m3_to_f32(b) : f8_e5m2_to_f32(b);
    return v * quantised_factor(q, o);
}

// Writes the file into the test's folder; what is at `path` afterwards.
static inline void quantised_write(const struct quantised *q, char *path, size_t n)
{
    struct tensor_head heads[3] = {{.dtype = q->dtype, .n = 2, .shape = {Q_OUT, Q_IN}},
                                   {.dtype = q->factor_dtype, .n = q->one ? 0 : 2, .shape = {Q_OUT, 1}},
                                   {.dtype = DT_F32, .n = 1, .shape = {2}}};
    struct safetensors_out *out = NULL;
    struct err e = {0};
    uint8_t data[Q_OUT * Q_IN];
    snprintf(path, n, "%s/quantised.safetensors", top);
    snprintf(heads[0].name, sizeof heads[0].name, "%s", q->data);
    snprintf(heads[1].name, sizeof heads[1].name, "%s", q->factor);
    if (q->mark) snprintf(heads[2].name, sizeof heads[2].name, "%s", q->mark);
    for (int i = 0; i < Q_OUT * Q_IN; i++) data[i] = quantised_byte(i);
    int rc = safetensors_create(&out, path, heads, q->mark ? 3 : 2, NULL, &e);
    if (rc == 0) rc = safetensors_put(out, data, sizeof data, &e);
    for (int o = 0; o < (q->one ? 1 : Q_OUT) && rc == 0; o++) {
        float f = quantised_factor(q, o);
        uint16_t half = q->factor_dtype == DT_BF16 ? f32_to_bf16(f) : f32_to_f16(f);
        rc = q->factor_dtype == DT_F32 ? safetensors_put(out, &f, 4, &e) : safetensors_put(out, &half, 2, &e);
    }
    if (q->mark && rc == 0) rc = safetensors_put(out, (const float[2]){1, 1}, 8, &e);
    if (rc == 0) rc = safetensors_close(&out, &e);
    if (rc < 0) fail_msg("%s", e.text);
}

#endif
