// Loading by name with a sticky error.
#include "worker/models/load.h"

#include <stdarg.h>
#include <stdio.h>

enum { NAME_MAX_BYTES = 256 };

#define FORMAT(name)                                                                                                   \
    char name[NAME_MAX_BYTES];                                                                                         \
    va_list ap;                                                                                                        \
    va_start(ap, fmt);                                                                                                 \
    vsnprintf(name, sizeof name, fmt, ap);                                                                             \
    va_end(ap)

int64_t load_axis(struct load *l, const char *name, int axis)
{
    tensor t = NO_TENSOR;
    if (l->rc == 0) l->rc = weights_get(l->w, name, &t, l->e);
    if (l->rc < 0) return 0;
    if (axis >= t.n) {
        l->rc = err_set(l->e, E_INPUT, "%s: %s has %d axes where %d or more belong", weights_file(l->w, name), name,
                        t.n, axis + 1);
        return 0;
    }
    return t.shape[axis];
}

static tensor load_vector_named(struct load *l, int64_t n, const char *name)
{
    tensor t = NO_TENSOR, stored = NO_TENSOR;
    if (l->rc == 0) l->rc = weights_get(l->w, name, &stored, l->e);
    if (l->rc < 0) return NO_TENSOR;
    if (tensor_count(stored) != n) {
        char text[96];
        l->rc = err_set(l->e, E_INPUT, "%s: %s is %s where %lld values belong", weights_file(l->w, name), name,
                        tensor_text(stored, text, sizeof text), (long long)n);
        return NO_TENSOR;
    }
    tensor keep = dev_tensor(l->arena, DT_F32, SHAPE(n));
    int64_t mark = dev_arena_mark(l->arena);
    l->rc = weights_load(l->w, l->arena, &t, l->dtype, name, stored.n, stored.shape, l->e);
    if (l->rc < 0) return NO_TENSOR;
    op_copy(l->dev, keep, tensor_reshape(t, SHAPE(n)));
    dev_arena_reset(l->arena, mark);
    return keep;
}

tensor load_vector(struct load *l, int64_t n, const char *fmt, ...)
{
    FORMAT(name);
    return load_vector_named(l, n, name);
}

static void load_bias(struct load *l, tensor *b, int64_t n, const char *prefix)
{
    char name[NAME_MAX_BYTES + 8];
    snprintf(name, sizeof name, "%s.bias", prefix);
    *b = load_vector_named(l, n, name);
}

void load_linear(struct load *l, tensor *w, tensor *b, int64_t n_out, int64_t n_in, const char *fmt, ...)
{
    FORMAT(prefix);
    char name[NAME_MAX_BYTES + 8];
    snprintf(name, sizeof name, "%s.weight", prefix);
    if (l->rc == 0) l->rc = weights_load_linear(l->w, l->arena, w, l->dtype, name, n_out, n_in, l->e);
    if (b) load_bias(l, b, n_out, prefix);
}

void load_conv(struct load *l, tensor *w, tensor *b, const int64_t shape[5], const char *fmt, ...)
{
    FORMAT(prefix);
    char name[NAME_MAX_BYTES + 8];
    snprintf(name, sizeof name, "%s.weight", prefix);
    if (l->rc == 0) l->rc = weights_load_conv(l->w, l->arena, w, l->dtype, name, shape, l->e);
    if (b) load_bias(l, b, shape[0], prefix);
}

int64_t load_capacity(const struct weights *w)
{
    int64_t bytes = 64 << 20;
    for (int64_t i = 0; i < weights_count(w); i++) {
        tensor t;
        if (weights_get(w, weights_name(w, i), &t, NULL) == 0) bytes += tensor_count(t) * 12 + 4096; // as stored, and packed
    }
    return bytes;
}
