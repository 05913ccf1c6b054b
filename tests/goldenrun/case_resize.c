// resize_and_centercrop: 8-bit pictures and masks to the output size, exactly.
#include "daemon/media/crop.h"
#include "tests/goldenrun/golden.h"

#include <stdlib.h>

static uint8_t *bytes_of(tensor t)
{
    uint8_t *b = malloc((size_t)tensor_count(t));
    BUG_IF(!b, "no memory");
    for (int64_t i = 0; i < tensor_count(t); i++) b[i] = (uint8_t)((float *)t.data)[i];
    return b;
}

// Bytes as a tensor of floats.
static tensor floats_of(struct golden *g, const uint8_t *b, int n, const int64_t *shape)
{
    tensor t = dev_tensor(g->arena, DT_F32, n, shape);
    for (int64_t i = 0; i < tensor_count(t); i++) ((float *)t.data)[i] = b[i];
    return t;
}

static void picture(struct golden *g, int i, int h, int w)
{
    char key[32];
    snprintf(key, sizeof key, "pic%d.in", i);
    tensor in = golden_get(g, key);
    int sh = (int)in.shape[0], sw = (int)in.shape[1];
    uint8_t *src = bytes_of(in), *dst = malloc((size_t)h * (size_t)w * 3);
    BUG_IF(!dst, "no memory");
    crop_picture(src, sh, sw, dst, h, w);
    tensor out = floats_of(g, dst, SHAPE(h, w, 3));
    snprintf(key, sizeof key, "pic%d.uint8", i);
    golden_check(g, key, tensor_permute(tensor_reshape(out, SHAPE(h, w, 1, 3)), (int[]){3, 2, 0, 1}), GOLDEN_EXACT);
    snprintf(key, sizeof key, "pic%d.normalized", i);
    if (golden_has(g, key)) {
        for (int64_t k = 0; k < tensor_count(out); k++) ((float *)out.data)[k] = ((float)dst[k] / 255.0f - 0.5f) * 2.0f;
        golden_check(g, key, tensor_permute(tensor_reshape(out, SHAPE(h, w, 1, 3)), (int[]){3, 2, 0, 1}), GOLDEN_INPUT);
    }
    snprintf(key, sizeof key, "pic%d.resized_uint8", i);
    if (golden_has(g, key)) {
        struct crop c = crop_plan(sh, sw, h, w);
        uint8_t *whole = malloc((size_t)(c.fh * c.fw * 3));
        BUG_IF(!whole, "no memory");
        crop_resize(src, sh, sw, (struct crop){.fh = c.fh, .fw = c.fw}, whole, (int)c.fh, (int)c.fw);
        golden_check(g, key, floats_of(g, whole, SHAPE(c.fh, c.fw, 3)), GOLDEN_EXACT);
        free(whole);
    }
    free(src);
    free(dst);
}

static void mask(struct golden *g, int i, int h, int w)
{
    char key[32];
    snprintf(key, sizeof key, "mask%d.in", i);
    tensor in = golden_get(g, key);
    int64_t n = in.shape[0];
    int sh = (int)in.shape[1], sw = (int)in.shape[2];
    uint8_t *src = bytes_of(in), *dst = malloc((size_t)n * (size_t)h * (size_t)w);
    BUG_IF(!dst, "no memory");
    for (int64_t p = 0; p < n; p++) crop_mask(src + p * sh * sw, sh, sw, dst + p * h * w, h, w);
    tensor out = floats_of(g, dst, SHAPE(n, h, w));
    snprintf(key, sizeof key, "mask%d.out", i);
    golden_check(g, key, out, GOLDEN_EXACT);
    tensor cells = tensor_split(tensor_split(out, 2, w / 8, 8), 1, h / 8, 8); // [n, h/8, 8, w/8, 8]
    cells = tensor_slice(tensor_slice(cells, 4, 0, 1), 2, 0, 1);
    snprintf(key, sizeof key, "mask%d.latent", i);
    tensor latent = dev_tensor(g->arena, DT_F32, SHAPE(n, h / 8, w / 8));
    op_copy(g->dev, tensor_split(tensor_split(latent, 2, w / 8, 1), 1, h / 8, 1), cells);
    golden_check(g, key, latent, GOLDEN_EXACT);
    free(src);
    free(dst);
}

void golden_resize(struct golden *g)
{
    json_t *cases = golden_meta(g, "cases"), *c;
    size_t i;
    json_array_foreach(cases, i, c)
    {
        json_t *target = json_object_get(c, "target"), *source = json_object_get(c, "source"),
               *resized = json_object_get(c, "resized");
        int h = (int)json_integer_value(json_array_get(target, 0)),
            w = (int)json_integer_value(json_array_get(target, 1));
        struct crop plan = crop_plan((int)json_integer_value(json_array_get(source, 0)),
                                     (int)json_integer_value(json_array_get(source, 1)), h, w);
        bool same = plan.fh == json_integer_value(json_array_get(resized, 0)) &&
                    plan.fw == json_integer_value(json_array_get(resized, 1)) &&
                    plan.top == json_integer_value(json_object_get(c, "top")) &&
                    plan.left == json_integer_value(json_object_get(c, "left"));
        golden_expect(g, "plan", same, "case %zu: %lldx%lld cut at %lld, %lld", i, (long long)plan.fw,
                      (long long)plan.fh, (long long)plan.left, (long long)plan.top);
        picture(g, (int)i, h, w);
        mask(g, (int)i, h, w);
    }
    json_decref(cases);
    golden_check_all_used(g);
}
