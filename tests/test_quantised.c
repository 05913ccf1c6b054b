// Quantised weights: every way of storing them gives the values that it means, and what is not understood is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/ops.h"
#include "tests/quantised.h"

static int begin(void **state)
{
    (void)state;
    return top_make("test_quantised");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

static struct dev *open_cpu(void)
{
    struct dev *d = NULL;
    struct err e = {0};
    if (dev_open(&d, "ref", 1, &e) < 0) fail_msg("%s", e.text);
    return d;
}

static void values_are_those_that_were_meant(void **state)
{
    (void)state;
    struct dev *d = open_cpu();
    struct dev_arena *a = dev_arena_new(d, "quantised", 1 << 20);
    for (int k = 0; k < N_QUANTISED; k++) {
        const struct quantised *q = &quantised_ways[k];
        char path[256];
        struct weights *w = NULL;
        struct err e = {0};
        tensor t = NO_TENSOR, half = NO_TENSOR;
        quantised_write(q, path, sizeof path);
        if (weights_open(&w, path, &e) < 0) fail_msg("%s", e.text);
        assert_int_equal(weights_count(w), 1); // factors and marks are no tensors of a model
        assert_string_equal(weights_name(w, 0), "layer.weight");
        if (weights_load(w, a, &t, DT_F32, "layer.weight", SHAPE(Q_OUT, Q_IN), &e) < 0 ||
            weights_load_linear(w, a, &half, DT_BF16, "layer.weight", Q_OUT, Q_IN, &e) < 0)
            fail_msg("%s", e.text);
        assert_int_equal(half.dtype, DT_BF16); // widened here: there are no products of bytes to gain from
        assert_null(half.scale);
        for (int o = 0; o < Q_OUT; o++)
            for (int i = 0; i < Q_IN; i++) {
                float want = quantised_value(q, o, i);
                if (((float *)t.data)[o * Q_IN + i] != want ||
                    ((uint16_t *)half.data)[o * Q_IN + i] != f32_to_bf16(want))
                    fail_msg("way %d: element %d, %d is %g, not %g", k, o, i, (double)((float *)t.data)[o * Q_IN + i],
                             (double)want);
            }
        weights_free(&w);
        dev_arena_reset(a, 0);
    }
    dev_arena_free(&a);
    dev_close(&d);
}

// Two tensors of some bytes; the sentence must hold the words.
static void refused(const char *first, enum dtype t, int n, const int64_t *shape, const char *second, enum dtype t2,
                    int n2, const int64_t *shape2, int fill, const char *says)
{
    char path[256];
    struct tensor_head heads[2] = {{.dtype = t, .n = n}, {.dtype = t2, .n = n2}};
    struct safetensors_out *out = NULL;
    struct weights *w = NULL;
    struct err e = {0};
    uint8_t bytes[16384];
    snprintf(path, sizeof path, "%s/refused.safetensors", top);
    snprintf(heads[0].name, sizeof heads[0].name, "%s", first);
    snprintf(heads[1].name, sizeof heads[1].name, "%s", second);
    for (int i = 0; i < n; i++) heads[0].shape[i] = shape[i];
    for (int i = 0; i < n2; i++) heads[1].shape[i] = shape2[i];
    memset(bytes, fill, sizeof bytes);
    int64_t all = head_bytes(&heads[0]) + head_bytes(&heads[1]);
    assert_true(all <= (int64_t)sizeof bytes);
    int rc = safetensors_create(&out, path, heads, 2, NULL, &e);
    if (rc == 0) rc = safetensors_put(out, bytes, (size_t)all, &e);
    if (rc == 0) rc = safetensors_close(&out, &e);
    if (rc < 0) fail_msg("%s", e.text);
    assert_int_equal(weights_open(&w, path, &e), E_INPUT);
    if (!strstr(e.text, says)) fail_msg("wanted '%s', got '%s'", says, e.text);
    assert_non_null(strstr(e.text, ";"));
    assert_null(w);
}

static void what_is_not_understood_is_refused(void **state)
{
    (void)state;
    refused("p.weight", DT_F8_E4M3, SHAPE(8, 4), "p.comfy_quant", DT_U8, SHAPE(30), 1, "ComfyUI's mixed precision");
    refused("p.weight", DT_U8, SHAPE(8, 4), "p.weight_scale", DT_F32, SHAPE(8), 1, "a way of quantising");
    refused("p.weight", DT_BF16, SHAPE(8, 4), "p.scale_weight", DT_F32, SHAPE(1), 1, "a way of quantising");
    refused("p.weight", DT_U8, SHAPE(8, 4), "p.weight_scale_2", DT_F32, SHAPE(1), 1, "in 4 bits");
    refused("p.weight", DT_I8, SHAPE(8, 4, 1), "p.weight_scale", DT_F32, SHAPE(8), 1, "a way of quantising");
    refused("p.weight", DT_F8_E4M3, SHAPE(8, 4), "p.weight_scale", DT_F32, SHAPE(4), 1, "neither one factor nor one");
    refused("p.weight", DT_F8_E4M3, SHAPE(8, 4), "p.weight_scale", DT_F32, SHAPE(8), 0xff, "no number");
    refused("p.weight", DT_F8_E4M3, SHAPE(8, 4), "p.weight_scale", DT_I32, SHAPE(8), 1, "no number");
    refused("p.weight._data", DT_I8, SHAPE(8, 4), "p.bias", DT_F32, SHAPE(8), 1, "without factors");
    refused("q.weight", DT_I8, SHAPE(8, 4), "p.weight_scale", DT_F32, SHAPE(8), 1, "lacks the tensor 'p.weight'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_those_that_were_meant),
        cmocka_unit_test(what_is_not_understood_is_refused),
    };
    return cmocka_run_group_tests_name("quantised", tests, begin, end);
}
