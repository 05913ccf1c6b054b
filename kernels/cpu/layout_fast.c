// Moving and casting elements: axes that lie alike are joined first, then rows are moved whole, and transposes go tile
// by tile so that both sides use what they fetch.
#include "kernels/cpu/fast.h"
#include "kernels/cpu/ref.h"

#include <string.h>

enum { TILE = 16 };

// A copy after its axes have been joined: the last axis is the one along which y is densest.
struct move {
    int n;
    int64_t shape[TENSOR_DIMS], ys[TENSOR_DIMS], xs[TENSOR_DIMS];
    enum dtype yt, xt;
    char *y;
    const char *x;
};

static void swap(struct move *m, int a, int b)
{
    int64_t *lists[] = {m->shape, m->ys, m->xs};
    for (int i = 0; i < 3; i++) {
        int64_t v = lists[i][a];
        lists[i][a] = lists[i][b];
        lists[i][b] = v;
    }
}

// Drops axes of one, sorts the rest by y's strides, joins neighbours that are one run in both.
static struct move move_of(tensor y, tensor x)
{
    struct move m = {.yt = y.dtype, .xt = x.dtype, .y = y.data, .x = x.data};
    for (int i = 0; i < y.n; i++) {
        if (y.shape[i] == 1) continue;
        m.shape[m.n] = y.shape[i];
        m.ys[m.n] = y.stride[i];
        m.xs[m.n++] = x.stride[i];
    }
    for (int i = 1; i < m.n; i++)
        for (int k = i; k > 0 && m.ys[k - 1] < m.ys[k]; k--) swap(&m, k - 1, k);
    int n = 0;
    for (int i = 1; i < m.n; i++) {
        bool run = m.ys[n] == m.ys[i] * m.shape[i] && m.xs[n] == m.xs[i] * m.shape[i];
        if (!run) n++;
        m.shape[n] = run ? m.shape[n] * m.shape[i] : m.shape[i];
        m.ys[n] = m.ys[i];
        m.xs[n] = m.xs[i];
    }
    m.n = m.n == 0 ? 0 : n + 1;
    if (m.n == 0) {
        m.n = 1;
        m.shape[0] = m.ys[0] = m.xs[0] = 1;
    }
    return m;
}

#define STRIDED(type)                                                                                                  \
    for (int64_t i = 0; i < n; i++) ((type *)y)[i * ys] = ((const type *)x)[i * xs]

// n elements along one axis.
static void move_line(const struct row_fns *f, const struct move *m, char *y, const char *x, int64_t n, int64_t ys,
                      int64_t xs)
{
    bool dense = ys == 1 && xs == 1;
    if (m->yt == m->xt && dense)
        memcpy(y, x, (size_t)(n * dtype_size(m->yt)));
    else if (m->yt == m->xt)
        switch (dtype_size(m->yt)) {
        case 1:
            STRIDED(uint8_t);
            break;
        case 2:
            STRIDED(uint16_t);
            break;
        case 4:
            STRIDED(uint32_t);
            break;
        default:
            STRIDED(uint64_t);
        }
    else if (dense && m->xt == DT_F32)
        f->store(m->yt, y, (const float *)x, n);
    else if (dense && m->yt == DT_F32)
        f->load((float *)y, m->xt, x, n);
    else
        for (int64_t i = 0; i < n; i++) ref_put(m->yt, y, i * ys, ref_get(m->xt, x, i * xs));
}

static void fast_copy(struct dev *d, tensor y, tensor x)
{
    const struct row_fns *f = fast_of(d)->rows;
    struct move m = move_of(y, x);
    int last = m.n - 1, q = last; // q: the axis along which x is densest
    for (int i = 0; i < m.n; i++)
        if (m.xs[i] < m.xs[q]) q = i;
    int64_t piece = 1 << 14, step_y = dtype_size(m.yt), step_x = dtype_size(m.xt);
    if (q != last) { // a transpose: tiles of axes q and last
        swap(&m, q, last - 1);
        piece = TILE;
    }
    // Outer axes, tiles of the last but one when it is part of a transpose, pieces of the last.
    int outer = q != last ? last - 1 : last;
    int64_t count = 1, pieces = (m.shape[last] + piece - 1) / piece;
    for (int i = 0; i < outer; i++) count *= m.shape[i];
    int64_t tiles = outer < last ? (m.shape[outer] + TILE - 1) / TILE : 1;
#pragma omp parallel for num_threads(dev_team(d, tensor_count(y)))
    for (int64_t i = 0; i < count * tiles * pieces; i++) {
        int64_t p = i % pieces * piece, t = i / pieces % tiles * TILE, o = i / pieces / tiles, ya = 0, xa = 0;
        for (int k = outer - 1; k >= 0; k--) {
            ya += o % m.shape[k] * m.ys[k];
            xa += o % m.shape[k] * m.xs[k];
            o /= m.shape[k];
        }
        int64_t n = m.shape[last] - p < piece ? m.shape[last] - p : piece;
        int64_t rows = outer == last ? 1 : m.shape[outer] - t < TILE ? m.shape[outer] - t : TILE;
        ya += p * m.ys[last] + (outer < last ? t * m.ys[outer] : 0);
        xa += p * m.xs[last] + (outer < last ? t * m.xs[outer] : 0);
        for (int64_t r = 0; r < rows; r++)
            move_line(f, &m, m.y + (ya + r * (outer < last ? m.ys[outer] : 0)) * step_y,
                      m.x + (xa + r * (outer < last ? m.xs[outer] : 0)) * step_x, n, m.ys[last], m.xs[last]);
    }
}

#define FILLED(type)                                                                                                   \
    for (int64_t i = 0; i < n; i++) memcpy((type *)y + i * step, one, sizeof(type))

static void fill_line(char *y, const void *one, int size, int64_t n, int64_t step)
{
    switch (size) {
    case 1:
        FILLED(uint8_t);
        break;
    case 2:
        FILLED(uint16_t);
        break;
    case 4:
        FILLED(uint32_t);
        break;
    default:
        FILLED(uint64_t);
    }
}

static void fast_fill(struct dev *d, tensor y, float v)
{
    struct move m = move_of(y, y);
    int last = m.n - 1, size = dtype_size(y.dtype);
    int64_t piece = 1 << 14, count = 1, pieces = (m.shape[last] + piece - 1) / piece;
    uint64_t one = 0; // room for an element of any dtype
    ref_put(y.dtype, &one, 0, v);
    for (int i = 0; i < last; i++) count *= m.shape[i];
#pragma omp parallel for num_threads(dev_team(d, tensor_count(y)))
    for (int64_t i = 0; i < count * pieces; i++) {
        int64_t p = i % pieces * piece, o = i / pieces, at = p * m.ys[last];
        for (int k = last - 1; k >= 0; k--) {
            at += o % m.shape[k] * m.ys[k];
            o /= m.shape[k];
        }
        fill_line(m.y + at * size, &one, size, m.shape[last] - p < piece ? m.shape[last] - p : piece, m.ys[last]);
    }
}

static void fast_embed(struct dev *d, tensor y, tensor table, tensor ids)
{
    const struct row_fns *f = fast_of(d)->rows;
    int64_t w = y.shape[1];
    for (int64_t i = 0; i < y.shape[0]; i++) {
        int32_t id = ((const int32_t *)ids.data)[i];
        BUG_IF(id < 0 || id >= table.shape[0], "row %d of a table of %lld", (int)id, (long long)table.shape[0]);
        struct move m = {.yt = y.dtype, .xt = table.dtype};
        move_line(f, &m, ref_row(y, i, 1), ref_row(table, id, 1), w, 1, 1);
    }
}

void fast_layout_slots(struct ops *o)
{
    o->copy = fast_copy;
    o->fill = fast_fill;
    o->embed = fast_embed;
}
