// Rotations, row by row, fused with the RMS norm of queries and keys; and their tables with each angle formed once.
//
// A grid's angles depend on one coordinate each, so the tables of the three axes are made first, with the reference's
// own formula, and rows are put together from them.
#include "kernels/cpu/fast.h"
#include "kernels/cpu/ref.h"

#include <omp.h>
#include <string.h>

// (cos, sin) of coordinates 0 .. n - 1 at `half` frequencies.
static void axis_table(struct dev *d, float *table, int64_t n, int64_t half)
{
#pragma omp parallel for num_threads(dev_team(d, n * half * 64))
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < half; j++) {
            double angle = (double)i * pow(10000, -(double)j / (double)half);
            table[(i * half + j) * 2] = (float)cos(angle);
            table[(i * half + j) * 2 + 1] = (float)sin(angle);
        }
}

static void fast_rope_grid(struct dev *d, tensor table, int64_t first, int64_t gt, int64_t gh, int64_t gw)
{
    int64_t half = table.shape[1], side = half / 3, time = half - 2 * side;
    if (table.shape[0] == 0) return;
    float *t = fast_scratch(fast_of(d), SCRATCH_X, (size_t)(2 * (gt * time + (gh + gw) * side)) * sizeof *t);
    float *y = t + 2 * gt * time, *x = y + 2 * gh * side;
    axis_table(d, t, gt, time);
    axis_table(d, y, gh, side);
    axis_table(d, x, gw, side);
#pragma omp parallel for num_threads(dev_team(d, tensor_count(table)))
    for (int64_t i = 0; i < table.shape[0]; i++) {
        int64_t n = first + i;
        float *row = (float *)table.data + i * half * 2;
        memcpy(row, t + n / (gh * gw) * time * 2, (size_t)time * 2 * sizeof *row);
        memcpy(row + 2 * time, y + n / gw % gh * side * 2, (size_t)side * 2 * sizeof *row);
        memcpy(row + 2 * (time + side), x + n % gw * side * 2, (size_t)side * 2 * sizeof *row);
    }
}

static void fast_rope_line(struct dev *d, tensor table, tensor pos)
{
    int64_t half = table.shape[1];
    float *f = fast_scratch(fast_of(d), SCRATCH_X, (size_t)half * sizeof *f);
    for (int64_t j = 0; j < half; j++) f[j] = 1 / powf(10000, (float)j / (float)half);
#pragma omp parallel for num_threads(dev_team(d, tensor_count(table) * 16))
    for (int64_t i = 0; i < table.shape[0]; i++) {
        float at = ((const float *)pos.data)[i * pos.stride[0]], *row = (float *)table.data + i * half * 2;
        for (int64_t j = 0; j < half; j++) {
            float angle = at * f[j];
            row[2 * j] = (float)cos((double)angle);
            row[2 * j + 1] = (float)sin((double)angle);
        }
    }
}

static void fast_rope(struct dev *d, tensor x, tensor table)
{
    const struct row_fns *f = fast_of(d)->rows;
    int64_t n = x.shape[x.n - 3], nh = x.shape[x.n - 2], half = table.shape[1], rows = ref_rows(x, 2);
    float *scratch =
        fast_scratch(fast_of(d), SCRATCH_TILES, (size_t)(d->n_threads * row_step(2 * half)) * sizeof(float));
#pragma omp parallel num_threads(dev_team(d, tensor_count(x)))
    {
        float *row = scratch + omp_get_thread_num() * row_step(2 * half);
#pragma omp for
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < nh; j++) {
                char *p = ref_row(x, i, 2) + j * x.stride[x.n - 2] * dtype_size(x.dtype);
                f->load(row, x.dtype, p, 2 * half);
                f->turn(row, (const float *)table.data + i % n * half * 2, half);
                f->store(x.dtype, p, row, 2 * half);
            }
    }
}

// RMS norm over a whole row of heads, then the turn; between them only the norm's own rounding.
static void norm_turn(const struct row_fns *f, tensor x, int64_t i, const float *gain, float eps, const float *angles,
                      float *row)
{
    int64_t nh = x.shape[1], w = x.shape[2], n = nh * w;
    char *p = ref_row(x, i, 2);
    f->load(row, x.dtype, p, n);
    float r = (float)(1 / sqrt(f->sum_squares(row, 0, n) / (double)n + (double)eps));
    f->affine(row, 0, r, NULL, NULL, n);
    f->round(x.dtype, row, n);
    f->mul(row, gain, n);
    f->round(x.dtype, row, n);
    for (int64_t h = 0; h < nh; h++) f->turn(row + h * w, angles, w / 2);
    f->store(x.dtype, p, row, n);
}

static void fast_qk_norm_rope(struct dev *d, tensor q, tensor k, tensor q_gain, tensor k_gain, float eps, tensor table)
{
    const struct row_fns *f = fast_of(d)->rows;
    int64_t w = q.shape[1] * q.shape[2], half = table.shape[1];
    if (w == 0) return;
    const float *qg = fast_vector(d, q_gain, SCRATCH_BIAS), *kg = fast_vector(d, k_gain, SCRATCH_X);
    float *scratch = fast_scratch(fast_of(d), SCRATCH_TILES, (size_t)(d->n_threads * row_step(w)) * sizeof(float));
#pragma omp parallel num_threads(dev_team(d, tensor_count(q)))
    {
        float *row = scratch + omp_get_thread_num() * row_step(w);
#pragma omp for
        for (int64_t i = 0; i < q.shape[0]; i++) {
            const float *angles = (const float *)table.data + i * half * 2;
            norm_turn(f, q, i, qg, eps, angles, row);
            norm_turn(f, k, i, kg, eps, angles, row);
        }
    }
}

void fast_rope_slots(struct ops *o)
{
    o->rope_grid = fast_rope_grid;
    o->rope_line = fast_rope_line;
    o->rope = fast_rope;
    o->qk_norm_rope = fast_qk_norm_rope;
}
