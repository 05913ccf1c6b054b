// lora_merge: a LoRA merged as the published program does it.
#include "tests/goldenrun/golden.h"
#include "worker/weights/lora.h"

#include <stdio.h>
#include <string.h>

static bool same_values(struct golden *g, tensor a, tensor b)
{
    tensor x = dev_tensor(g->arena, DT_F32, a.n, a.shape), y = dev_tensor(g->arena, DT_F32, b.n, b.shape);
    op_copy(g->dev, x, a);
    op_copy(g->dev, y, b);
    return tensor_same_shape(x, y) && memcmp(x.data, y.data, (size_t)tensor_bytes(x)) == 0;
}

// Every tensor that the file has no key for must be as it was.
static void check_others(struct golden *g, const struct weights *before, const struct weights *after)
{
    for (int64_t i = 0; i < weights_count(before); i++) {
        const char *name = weights_name(before, i);
        char key[256];
        snprintf(key, sizeof key, "after.%s", name);
        if (golden_has(g, key)) continue;
        tensor a = NO_TENSOR, b = NO_TENSOR;
        int64_t mark = dev_arena_mark(g->arena);
        bool found = weights_get(before, name, &a, NULL) == 0 && weights_get(after, name, &b, NULL) == 0;
        if (!found || !same_values(g, a, b)) golden_expect(g, name, false, "was changed");
        dev_arena_reset(g->arena, mark);
    }
}

void golden_lora(struct golden *g)
{
    json_t *alpha = golden_meta(g, "alpha"), *changed = golden_meta(g, "changed");
    struct weights *before = golden_weights(g, "dit", NULL), *after = golden_weights(g, "dit", NULL);
    struct arena host = {0};
    struct lora_report r = {0};
    struct err e = {0};
    char path[4096];
    snprintf(path, sizeof path, "%s/weights_lora.safetensors", g->dir);
    bool ok = before && after && lora_merge(after, &host, path, json_number_value(alpha), DT_F32, true, &r, &e) == 0;
    golden_expect(g, "merge", ok, "%s", ok ? "done" : e.text);
    if (ok) {
        int want = (int)json_array_size(changed);
        golden_expect(g, "changed", r.n_applied == want, "%d tensors changed where %d belong", r.n_applied, want);
        for (int64_t i = 0; i < weights_count(g->file); i++) {
            const char *key = weights_name(g->file, i);
            tensor t = NO_TENSOR;
            bool ours = strncmp(key, "after.", 6) == 0 && weights_get(after, key + 6, &t, NULL) == 0;
            if (ours)
                golden_check(g, key, t, GOLDEN_MODULE);
            else
                golden_expect(g, key, false, "is no tensor of the model");
        }
        check_others(g, before, after);
        golden_check_all_used(g);
    }
    weights_free(&before);
    weights_free(&after);
    arena_free(&host);
    json_decref(alpha);
    json_decref(changed);
}
