// Tensors to be drawn.
//
// Value k of a tensor is a function of (seed, label, name, k) alone: a 64-bit counter hash (SplitMix64), of which the
// top 24 bits make a number in -1..1. So any piece of any tensor can be made at any time, and a run that writes in
// other pieces writes the same bytes.
//
// A weight's amplitude is gain sqrt(3 / fan-in): its deviation is gain / sqrt(fan-in), so that outputs keep the
// deviation of the inputs times the gain.
#include "worker/synth/list.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct draw around_one = {1, 0.1f}, around_zero = {0, 0.05f};

void list_free(struct synth_list *l)
{
    free(l->head);
    free(l->draw);
    l->head = NULL;
    l->draw = NULL;
    l->n = l->capacity = 0;
}

int64_t list_bytes(const struct synth_list *l)
{
    int64_t n = 0;
    for (int64_t i = 0; i < l->n; i++) n += head_bytes(&l->head[i]);
    return n;
}

int64_t list_values(const struct synth_list *l) { return list_bytes(l) / dtype_size(l->dtype); }

// ---- adding

static void add_named(struct synth_list *l, struct draw d, int n, const int64_t *shape, const char *name)
{
    if (l->n == l->capacity) {
        l->capacity = l->capacity ? 2 * l->capacity : 256;
        l->head = realloc(l->head, (size_t)l->capacity * sizeof *l->head);
        l->draw = realloc(l->draw, (size_t)l->capacity * sizeof *l->draw);
        BUG_IF(!l->head || !l->draw, "no memory for %lld tensor names", (long long)l->capacity);
    }
    BUG_IF(strlen(name) >= TENSOR_NAME_MAX, "the name %s is too long", name);
    struct tensor_head *h = &l->head[l->n];
    *h = (struct tensor_head){.dtype = l->dtype, .n = n};
    memcpy(h->name, name, strlen(name) + 1);
    memcpy(h->shape, shape, (size_t)n * sizeof *shape);
    l->draw[l->n++] = d;
}

static void add_part(struct synth_list *l, struct draw d, int n, const int64_t *shape, const char *prefix,
                     const char *suffix)
{
    char name[2 * TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    add_named(l, d, n, shape, name);
}

static struct draw weight_draw(double gain, int n, const int64_t *shape)
{
    double fan_in = 1;
    for (int i = 1; i < n; i++) fan_in *= (double)shape[i];
    return (struct draw){0, (float)(gain * sqrt(3 / fan_in))};
}

#define FORMAT(name)                                                                                                   \
    char name[TENSOR_NAME_MAX];                                                                                        \
    va_list ap;                                                                                                        \
    va_start(ap, fmt);                                                                                                 \
    vsnprintf(name, sizeof name, fmt, ap);                                                                             \
    va_end(ap)

void list_add(struct synth_list *l, struct draw d, int n, const int64_t *shape, const char *fmt, ...)
{
    FORMAT(name);
    add_named(l, d, n, shape, name);
}

void list_weight(struct synth_list *l, double gain, int n, const int64_t *shape, const char *fmt, ...)
{
    FORMAT(prefix);
    add_part(l, weight_draw(gain, n, shape), n, shape, prefix, ".weight");
}

void list_layer(struct synth_list *l, double gain, int n, const int64_t *shape, const char *fmt, ...)
{
    FORMAT(prefix);
    add_part(l, weight_draw(gain, n, shape), n, shape, prefix, ".weight");
    add_part(l, around_zero, 1, shape, prefix, ".bias");
}

void list_norm(struct synth_list *l, int64_t n, const char *fmt, ...)
{
    FORMAT(prefix);
    add_part(l, around_one, SHAPE(n), prefix, ".weight");
    add_part(l, around_zero, SHAPE(n), prefix, ".bias");
}

void list_gain(struct synth_list *l, int n, const int64_t *shape, const char *fmt, ...)
{
    FORMAT(name);
    add_named(l, around_one, n, shape, name);
}

// ---- drawing

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t hash_text(uint64_t h, const char *s)
{
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u; // FNV-1a
    return h;
}

static uint64_t key_of(const struct synth_list *l, const char *name)
{
    uint64_t h = hash_text(14695981039346656037u, l->label);
    return mix(hash_text(h * 31, name) ^ mix(l->seed + 0x9e3779b97f4a7c15u));
}

static float value(uint64_t key, uint64_t k, struct draw d)
{
    int64_t top = (int64_t)(mix(key + (k + 1) * 0x9e3779b97f4a7c15u) >> 40) - (1 << 23);
    return d.centre + d.amplitude * ((float)top / (float)(1 << 23));
}

void list_fill(const struct synth_list *l, int64_t i, int64_t from, int64_t n, void *out)
{
    uint64_t key = key_of(l, l->head[i].name), k = (uint64_t)from;
    struct draw d = l->draw[i];
    switch (l->dtype) {
    case DT_F32:
        for (int64_t j = 0; j < n; j++) ((float *)out)[j] = value(key, k + (uint64_t)j, d);
        break;
    case DT_BF16:
        for (int64_t j = 0; j < n; j++) ((uint16_t *)out)[j] = f32_to_bf16(value(key, k + (uint64_t)j, d));
        break;
    case DT_F16:
        for (int64_t j = 0; j < n; j++) ((uint16_t *)out)[j] = f32_to_f16(value(key, k + (uint64_t)j, d));
        break;
    default:
        BUG("weights are drawn as F32, BF16 or F16, not %s", dtype_table[l->dtype].name);
    }
}
