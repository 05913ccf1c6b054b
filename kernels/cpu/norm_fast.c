// Norms, row by row: a row goes to floats in the caches, is summed, scaled, modulated there, and is stored once.
//
// A gate and the norm after it share one visit of the row. Statistics are those of the row as stored, so a gated row is
// rounded before it is summed.
#include "kernels/cpu/fast.h"
#include "kernels/cpu/ref.h"

#include <omp.h>

struct vectors {
    const float *gain, *bias, *shift, *scale, *gate;
};

// The vectors of a norm and a gate as F32; those that are not yet are copied into one scratch.
static struct vectors vectors_of(struct dev *d, struct norm n, tensor gate)
{
    tensor t[5] = {n.gain, n.bias, n.shift, n.scale, gate};
    const float *v[5];
    int64_t total = 0, at = 0;
    for (int i = 0; i < 5; i++) total += tensor_count(t[i]);
    float *copies = fast_scratch(fast_of(d), SCRATCH_BIAS, (size_t)total * sizeof *copies);
    for (int i = 0; i < 5; i++) {
        v[i] = tensor_is_none(t[i]) ? NULL : t[i].data;
        if (!v[i] || (t[i].dtype == DT_F32 && tensor_is_contiguous(t[i]))) continue;
        int64_t w = tensor_count(t[i]), step = t[i].stride[t[i].n - 1];
        for (int64_t c = 0; c < w; c++) copies[at + c] = ref_get(t[i].dtype, t[i].data, c * step);
        v[i] = copies + at;
        at += w;
    }
    return (struct vectors){v[0], v[1], v[2], v[3], v[4]};
}

// Rows in floats, `n` of width w for each thread.
static float *thread_rows(struct dev *d, int64_t n, int64_t w)
{
    return fast_scratch(fast_of(d), SCRATCH_TILES, (size_t)(d->n_threads * n * row_step(w)) * sizeof(float));
}

static void norm_row(const struct row_fns *f, float *row, int64_t w, enum dtype t, struct norm n,
                     const struct vectors *v)
{
    float mean = (float)(f->sum(row, w) / (double)w);
    double r = 1 / sqrt(f->sum_squares(row, mean, w) / (double)w + (double)n.eps);
    f->affine(row, mean, (float)r, v->gain, v->bias, w);
    if (!v->scale) return;
    f->round(t, row, w);
    f->modulate(row, v->shift, v->scale, w);
}

// The common loop: x (plus y by a gate, stored back), then a norm into h. y or h may be none.
static void norm_rows(struct dev *d, tensor h, tensor x, tensor y, tensor gate, struct norm n)
{
    const struct row_fns *f = fast_of(d)->rows;
    int64_t rows = ref_rows(x, 1), w = x.shape[x.n - 1];
    if (rows == 0 || w == 0) return;
    struct vectors v = vectors_of(d, n, gate);
    float *scratch = thread_rows(d, 2, w);
    bool add = !tensor_is_none(y), norm = !tensor_is_none(h);
    int64_t work = rows * w;
#pragma omp parallel num_threads(dev_team(d, work))
    {
        float *row = scratch + omp_get_thread_num() * 2 * row_step(w), *more = row + row_step(w);
#pragma omp for
        for (int64_t i = 0; i < rows; i++) {
            char *xr = ref_row(x, i, 1);
            f->load(row, x.dtype, xr, w);
            if (add) {
                f->load(more, y.dtype, ref_row(y, i, 1), w);
                f->gate_add(row, more, v.gate, w);
                f->store(x.dtype, xr, row, w);
                f->round(x.dtype, row, w);
            }
            if (!norm) continue;
            norm_row(f, row, w, x.dtype, n, &v);
            if (n.wide && !v.scale) f->round(x.dtype, row, w); // what would have been stored before it was widened
            f->store(h.dtype, ref_row(h, i, 1), row, w);
        }
    }
}

static void fast_norm(struct dev *d, tensor h, tensor x, struct norm n) { norm_rows(d, h, x, NO_TENSOR, NO_TENSOR, n); }

static void fast_add_norm(struct dev *d, tensor h, tensor x, tensor y, tensor gate, struct norm n)
{
    norm_rows(d, h, x, y, gate, n);
}

static void fast_gate_add(struct dev *d, tensor x, tensor y, tensor gate)
{
    norm_rows(d, NO_TENSOR, x, y, gate, (struct norm){0});
}

enum { BLOCK = 1024 };

// y = x scaled by what `factor` makes of the sum of squares, times gain, then act. `inner`: rounded before the gain
// too. Narrow rows are taken many at a time, so that all but their sums is done in long runs.
static void scaled_rows(struct dev *d, tensor y, tensor x, tensor gain, enum act act, bool inner,
                        double (*factor)(double squares, int64_t w, float eps), float eps)
{
    const struct row_fns *f = fast_of(d)->rows;
    int64_t rows = ref_rows(x, 1), w = x.shape[x.n - 1];
    if (rows == 0 || w == 0) return;
    struct vectors v = vectors_of(d, (struct norm){.gain = gain}, NO_TENSOR);
    int64_t most = tensor_is_contiguous(x) && tensor_is_contiguous(y) && w < BLOCK ? BLOCK / w : 1;
    float *scratch = thread_rows(d, 1, most * w);
    int64_t work = rows * w;
#pragma omp parallel num_threads(dev_team(d, work))
    {
        float *block = scratch + omp_get_thread_num() * row_step(most * w);
#pragma omp for
        for (int64_t from = 0; from < rows; from += most) {
            int64_t n = rows - from < most ? rows - from : most;
            f->load(block, x.dtype, ref_row(x, from, 1), n * w);
            for (float *row = block; row < block + n * w; row += w) {
                float r = (float)factor(f->sum_squares(row, 0, w), w, eps);
                f->affine(row, 0, r, inner ? NULL : v.gain, NULL, w);
                if (!inner || !v.gain) continue;
                f->round(x.dtype, row, w);
                f->mul(row, v.gain, w);
            }
            if (act != ACT_NONE) {
                f->round(y.dtype, block, n * w);
                f->act(act, block, n * w);
            }
            f->store(y.dtype, ref_row(y, from, 1), block, n * w);
        }
    }
}

static double rms_factor(double squares, int64_t w, float eps) { return 1 / sqrt(squares / (double)w + (double)eps); }

static double l2_factor(double squares, int64_t w, float eps)
{
    double len = sqrt(squares);
    return sqrt((double)w) / (len > (double)eps ? len : (double)eps);
}

static void fast_rms_norm(struct dev *d, tensor y, tensor x, tensor gain, float eps)
{
    scaled_rows(d, y, x, gain, ACT_NONE, true, rms_factor, eps);
}

static void fast_l2_norm(struct dev *d, tensor y, tensor x, tensor gain, enum act act)
{
    scaled_rows(d, y, x, gain, act, false, l2_factor, 1e-12f);
}

// ---- columns

enum { COLUMNS = 64 };

// A thread takes a strip of columns down all rows, so that the order of the sums does not depend on the threads.
static void fast_col_sums(struct dev *d, tensor sums, tensor x)
{
    const struct row_fns *f = fast_of(d)->rows;
    int64_t n = x.shape[0], w = x.shape[1];
    int64_t work = n * w;
#pragma omp parallel for num_threads(dev_team(d, work))
    for (int64_t c = 0; c < w; c += COLUMNS) {
        int64_t some = w - c < COLUMNS ? w - c : COLUMNS;
        float part[COLUMNS];
        for (int64_t i = 0; i < n; i++) {
            f->load(part, x.dtype, ref_row(x, i, 1) + c * dtype_size(x.dtype), some);
            f->add_moments((double *)sums.data + c, (double *)sums.data + w + c, part, some);
        }
    }
}

static void fast_col_norm(struct dev *d, tensor y, tensor x, tensor mean, tensor rstd, tensor gain, tensor bias,
                          enum act act)
{
    const struct row_fns *f = fast_of(d)->rows;
    int64_t n = x.shape[0], w = x.shape[1];
    if (n == 0 || w == 0) return;
    struct vectors v =
        vectors_of(d, (struct norm){.gain = gain, .bias = bias, .shift = mean, .scale = rstd}, NO_TENSOR);
    float *scratch = thread_rows(d, 1, w);
    int64_t work = n * w;
#pragma omp parallel num_threads(dev_team(d, work))
    {
        float *row = scratch + omp_get_thread_num() * row_step(w);
#pragma omp for
        for (int64_t i = 0; i < n; i++) {
            f->load(row, x.dtype, ref_row(x, i, 1), w);
            f->standardise(row, v.shift, v.scale, v.gain, v.bias, w);
            if (act != ACT_NONE) {
                f->round(y.dtype, row, w);
                f->act(act, row, w);
            }
            f->store(y.dtype, ref_row(y, i, 1), row, w);
        }
    }
}

void fast_norm_slots(struct ops *o)
{
    o->norm = fast_norm;
    o->add_norm = fast_add_norm;
    o->gate_add = fast_gate_add;
    o->rms_norm = fast_rms_norm;
    o->l2_norm = fast_l2_norm;
    o->col_sums = fast_col_sums;
    o->col_norm = fast_col_norm;
}
