// What the golden cases share: fetching reference tensors, comparing ours with them, counting.
//
// The comparison runs in F64 over F32 values: error = max |ours - ref| / max |ref|. Leading axes of 1 (the published
// code's batch axis) are dropped on both sides before shapes are compared. A NaN agrees with a NaN only.
#include "tests/goldenrun/golden.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct difference {
    double max, mean; // relative to the largest reference value; mean is absolute
    bool comparable;
};

bool golden_has(const struct golden *g, const char *key) { return weights_has(g->file, key); }

static void golden_use(struct golden *g, const char *key)
{
    for (int64_t i = 0; i < weights_count(g->file); i++)
        if (strcmp(weights_name(g->file, i), key) == 0) g->used[i] = true;
}

tensor golden_get(struct golden *g, const char *key)
{
    struct err e = {0};
    golden_use(g, key);
    tensor stored;
    if (weights_get(g->file, key, &stored, &e) < 0) {
        golden_expect(g, key, false, "%s", e.text);
        return NO_TENSOR;
    }
    tensor t = dev_tensor(g->arena, DT_F32, stored.n, stored.shape);
    op_copy(g->dev, t, stored);
    return t;
}

json_t *golden_meta(struct golden *g, const char *key)
{
    const char *text = weights_meta(g->file, key);
    json_t *j = NULL;
    if (text) j = json_loads(text, JSON_DECODE_ANY, NULL);
    return j;
}

struct weights *golden_weights(struct golden *g, const char *name, json_t **config)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/weights_%s.safetensors", g->dir, name);
    struct err e = {0};
    struct weights *w = NULL;
    if (weights_open(&w, path, &e) < 0) {
        golden_expect(g, name, false, "%s", e.text);
        return NULL;
    }
    const char *text = weights_meta(w, "config");
    if (config) *config = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    return w;
}

static void golden_count(struct golden *g, bool ok)
{
    if (ok)
        g->n_passed++;
    else
        g->n_failed++;
}

void golden_expect(struct golden *g, const char *what, bool ok, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    printf("%s %-3s %s %s: %s\n", ok ? "PASS" : "FAIL", g->table, g->stem, what, text);
    golden_count(g, ok);
}

static struct difference golden_compare(struct golden *g, tensor ref, tensor ours)
{
    struct difference d = {0};
    ref = tensor_squeeze(ref);
    ours = tensor_squeeze(ours);
    d.comparable = tensor_same_shape(ref, ours);
    if (!d.comparable) return d;
    int64_t n = tensor_count(ref);
    tensor flat[2] = {dev_tensor(g->arena, DT_F32, ref.n, ref.shape), dev_tensor(g->arena, DT_F32, ref.n, ref.shape)};
    op_copy(g->dev, flat[0], ref);
    op_copy(g->dev, flat[1], ours);
    const float *a = flat[0].data, *b = flat[1].data;
    double top = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(a[i]) && isnan(b[i])) continue;
        double gap = fabs((double)a[i] - (double)b[i]);
        if (isnan(gap)) gap = INFINITY;
        if (gap > d.max) d.max = gap;
        if (fabs((double)a[i]) > top) top = fabs((double)a[i]);
        sum += gap;
    }
    d.max /= top > 0 ? top : 1;
    d.mean = n > 0 ? sum / (double)n : 0;
    return d;
}

static void golden_report(struct golden *g, const char *key, tensor ref, tensor ours, double bound, double mean_bound)
{
    struct difference d = golden_compare(g, ref, ours);
    char a[96], b[96];
    if (!d.comparable) {
        golden_expect(g, key, false, "shape %s, expected %s", tensor_text(ours, a, sizeof a),
                      tensor_text(ref, b, sizeof b));
        return;
    }
    bool ok = d.max <= bound && d.mean <= mean_bound;
    printf("%s %-3s %s %s error %.2e bound %.0e", ok ? "PASS" : "FAIL", g->table, g->stem, key, d.max, bound);
    if (isfinite(mean_bound)) printf(" mean %.2e bound %.0e", d.mean, mean_bound);
    putchar('\n');
    golden_count(g, ok);
}

static void golden_check_two(struct golden *g, const char *key, tensor ours, double bound, double mean_bound)
{
    int64_t mark = dev_arena_mark(g->arena);
    tensor ref = golden_get(g, key);
    if (!tensor_is_none(ref)) golden_report(g, key, ref, ours, bound, mean_bound);
    dev_arena_reset(g->arena, mark);
}

void golden_check(struct golden *g, const char *key, tensor ours, double bound)
{
    golden_check_two(g, key, ours, bound, INFINITY);
}

void golden_check_part(struct golden *g, const char *what, tensor ref, tensor ours, double bound)
{
    int64_t mark = dev_arena_mark(g->arena);
    golden_report(g, what, ref, ours, bound, INFINITY);
    dev_arena_reset(g->arena, mark);
}

void golden_check_all_used(struct golden *g)
{
    int n_left = 0;
    for (int64_t i = 0; i < weights_count(g->file); i++)
        if (!g->used[i]) {
            golden_expect(g, weights_name(g->file, i), false, "nothing looked at this key");
            n_left++;
        }
    if (n_left == 0) golden_expect(g, "keys", true, "all %lld in use", (long long)weights_count(g->file));
}

void golden_check_color(struct golden *g, const char *key, tensor ours)
{
    golden_check_two(g, key, ours, GOLDEN_COLOR_MAX, GOLDEN_COLOR_MEAN);
}

static void golden_tap_see(void *ctx, const char *name, tensor t)
{
    struct golden_tap *tap = ctx;
    char key[256];
    snprintf(key, sizeof key, "%s%s", tap->prefix ? tap->prefix : "", name);
    if (golden_has(tap->g, key)) golden_check(tap->g, key, t, tap->bound);
}

struct tap golden_tap_of(struct golden_tap *t) { return (struct tap){.see = golden_tap_see, .ctx = t}; }
