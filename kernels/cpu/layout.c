// Moving and casting elements, plainly.
#include "kernels/cpu/ref.h"

#include <string.h>

static void ref_copy(struct dev *d, tensor y, tensor x)
{
    if (y.n == 0) return;
    int64_t rows = ref_rows(y, 1), w = y.shape[y.n - 1], ys = y.stride[y.n - 1], xs = x.stride[x.n - 1];
    bool plain = x.dtype == y.dtype && ys == 1 && xs == 1;
#pragma omp parallel for num_threads(dev_team(d, rows * w * 4))
    for (int64_t i = 0; i < rows; i++) {
        char *yr = ref_row(y, i, 1);
        const char *xr = ref_row(x, i, 1);
        if (plain)
            memcpy(yr, xr, (size_t)(w * dtype_size(y.dtype)));
        else if (x.dtype == y.dtype)
            for (int64_t c = 0; c < w; c++)
                memcpy(yr + c * ys * dtype_size(y.dtype), xr + c * xs * dtype_size(x.dtype),
                       (size_t)dtype_size(y.dtype));
        else
            for (int64_t c = 0; c < w; c++) ref_put(y.dtype, yr, c * ys, ref_get(x.dtype, xr, c * xs));
    }
}

static void ref_fill(struct dev *d, tensor y, float v)
{
    (void)d;
    if (y.n == 0) return;
    int64_t rows = ref_rows(y, 1);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < y.shape[y.n - 1]; c++) ref_put(y.dtype, ref_row(y, i, 1), c * y.stride[y.n - 1], v);
}

static void ref_embed(struct dev *d, tensor y, tensor table, tensor ids)
{
    (void)d;
    int64_t w = y.shape[1];
    for (int64_t i = 0; i < y.shape[0]; i++) {
        int32_t id = ((const int32_t *)ids.data)[i];
        BUG_IF(id < 0 || id >= table.shape[0], "row %d of a table of %lld", (int)id, (long long)table.shape[0]);
        for (int64_t c = 0; c < w; c++)
            ref_put(y.dtype, ref_row(y, i, 1), c, ref_get(table.dtype, table.data, id * w + c));
    }
}

static void ref_lerp_rows(struct dev *d, tensor y, tensor x, double first, double step)
{
    int64_t last = x.shape[0] - 1;
#pragma omp parallel for num_threads(dev_team(d, tensor_count(y) * 4))
    for (int64_t i = 0; i < y.shape[0]; i++) {
        double at = first + (double)i * step;
        at = at < 0 ? 0 : at > (double)last ? (double)last : at;
        int64_t p = (int64_t)at;
        float w = (float)(at - (double)p);
        const char *a = ref_row(x, p, 1), *b = ref_row(x, p < last ? p + 1 : last, 1);
        for (int64_t c = 0; c < y.shape[1]; c++)
            ref_put(y.dtype, ref_row(y, i, 1), c, ref_get(x.dtype, a, c) * (1 - w) + ref_get(x.dtype, b, c) * w);
    }
}

void ref_layout_slots(struct ops *o)
{
    o->copy = ref_copy;
    o->fill = ref_fill;
    o->embed = ref_embed;
    o->lerp_rows = ref_lerp_rows;
}
