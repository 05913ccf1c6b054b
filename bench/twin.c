// Weights drawn as `weights synth` draws them, but into memory: nothing of a 14B network touches the disk.
#include "bench/twin.h"

#include <stdlib.h>

enum { VOCABULARY = 1024, PIECE = 1 << 18, ALIGN = 64 };

struct synth_sizes twin_sizes(int layers)
{
    struct synth_sizes s = synth_published;
    s.vocabulary = VOCABULARY;
    if (layers > 0) s.layers = s.text_layers = layers;
    return s;
}

static int64_t aligned(int64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

static void draw_values(const struct synth_list *l, int64_t i, char *to)
{
    int64_t size = dtype_size(l->dtype), n = head_bytes(&l->head[i]) / size;
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < n; k += PIECE) list_fill(l, i, k, n - k < PIECE ? n - k : PIECE, to + k * size);
}

void twin_new(struct twin *t, enum dtype dtype, const struct synth_sizes *s,
              void (*const *lists)(struct synth_list *l, const struct synth_sizes *s))
{
    struct synth_list l = {.label = "twin", .seed = 1, .dtype = dtype};
    struct err e = {0};
    int64_t bytes = 0, at = 0;
    for (int i = 0; lists[i]; i++) lists[i](&l, s);
    for (int64_t i = 0; i < l.n; i++) bytes += aligned(head_bytes(&l.head[i]));
    t->values = aligned_alloc(ALIGN, (size_t)bytes);
    BUG_IF(!t->values, "no memory for %lld bytes of weights", (long long)bytes);
    BUG_IF(weights_new(&t->w, &e) < 0, "%s", e.text);
    for (int64_t i = 0; i < l.n; i++) {
        const struct tensor_head *h = &l.head[i];
        draw_values(&l, i, (char *)t->values + at);
        weights_put(t->w, h->name, tensor_of((char *)t->values + at, dtype, h->n, h->shape));
        at += aligned(head_bytes(h));
    }
    list_free(&l);
}

void twin_free(struct twin *t)
{
    weights_free(&t->w);
    free(t->values);
    *t = (struct twin){0};
}
