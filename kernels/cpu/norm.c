// Norms, plainly. Statistics in F64; each R of the contract is a ref_round.
#include "kernels/cpu/ref.h"

struct norm_vectors {
    float *gain, *bias, *shift, *scale;
};

static struct norm_vectors vectors_new(struct norm n)
{
    return (struct norm_vectors){ref_vector(n.gain), ref_vector(n.bias), ref_vector(n.shift), ref_vector(n.scale)};
}

static void vectors_free(struct norm_vectors *v)
{
    free(v->gain);
    free(v->bias);
    free(v->shift);
    free(v->scale);
}

static void norm_row(enum dtype ht, char *h, enum dtype xt, const float *x, int64_t n, float eps,
                     const struct norm_vectors *v)
{
    double sum = 0, sq = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) sq += ((double)x[i] - mean) * ((double)x[i] - mean);
    double r = 1 / sqrt(sq / (double)n + (double)eps);
    for (int64_t i = 0; i < n; i++) {
        double a = ((double)x[i] - mean) * r;
        if (v->gain) a *= (double)v->gain[i];
        if (v->bias) a += (double)v->bias[i];
        float y = ref_round(xt, (float)a);
        if (v->scale) y = (float)((double)y * (1 + (double)v->scale[i]) + (double)v->shift[i]);
        ref_put(ht, h, i, y);
    }
}

static void ref_norm(struct dev *d, tensor h, tensor x, struct norm n)
{
    struct norm_vectors v = vectors_new(n);
    int64_t rows = ref_rows(x, 1), w = x.shape[x.n - 1];
#pragma omp parallel num_threads(dev_team(d, rows * w * 8))
    {
        float *row = ref_alloc(w, sizeof *row);
#pragma omp for
        for (int64_t i = 0; i < rows; i++) {
            ref_load(row, x.dtype, ref_row(x, i, 1), w);
            norm_row(h.dtype, ref_row(h, i, 1), x.dtype, row, w, n.eps, &v);
        }
        free(row);
    }
    vectors_free(&v);
}

static void ref_gate_add(struct dev *d, tensor x, tensor y, tensor gate)
{
    float *g = ref_vector(gate);
    int64_t rows = ref_rows(x, 1), w = x.shape[x.n - 1];
#pragma omp parallel for num_threads(dev_team(d, rows * w * 4))
    for (int64_t i = 0; i < rows; i++) {
        char *xr = ref_row(x, i, 1), *yr = ref_row(y, i, 1);
        for (int64_t c = 0; c < w; c++)
            ref_put(x.dtype, xr, c, ref_get(x.dtype, xr, c) + ref_get(y.dtype, yr, c) * (g ? g[c] : 1));
    }
    free(g);
}

static void ref_add_norm(struct dev *d, tensor h, tensor x, tensor y, tensor gate, struct norm n)
{
    ref_gate_add(d, x, y, gate);
    ref_norm(d, h, x, n);
}

// R(R(x / sqrt(mean x^2 + eps)) gain) of one row of n, in place in `row`.
static void rms_row(enum dtype t, float *row, const float *gain, int64_t n, float eps)
{
    double sq = 0;
    for (int64_t i = 0; i < n; i++) sq += (double)row[i] * (double)row[i];
    double r = 1 / sqrt(sq / (double)n + (double)eps);
    for (int64_t i = 0; i < n; i++)
        row[i] = ref_round(t, ref_round(t, (float)((double)row[i] * r)) * (gain ? gain[i] : 1));
}

static void ref_rms_norm(struct dev *d, tensor y, tensor x, tensor gain, float eps)
{
    float *g = ref_vector(gain);
    int64_t rows = ref_rows(x, 1), w = x.shape[x.n - 1];
#pragma omp parallel num_threads(dev_team(d, rows * w * 8))
    {
        float *row = ref_alloc(w, sizeof *row);
#pragma omp for
        for (int64_t i = 0; i < rows; i++) {
            ref_load(row, x.dtype, ref_row(x, i, 1), w);
            rms_row(y.dtype, row, g, w, eps);
            ref_store(y.dtype, ref_row(y, i, 1), row, w);
        }
        free(row);
    }
    free(g);
}

static void ref_l2_norm(struct dev *d, tensor y, tensor x, tensor gain, enum act act)
{
    float *g = ref_vector(gain);
    int64_t rows = ref_rows(x, 1), w = x.shape[x.n - 1];
#pragma omp parallel num_threads(dev_team(d, rows * w * 8))
    {
        float *row = ref_alloc(w, sizeof *row);
#pragma omp for
        for (int64_t i = 0; i < rows; i++) {
            ref_load(row, x.dtype, ref_row(x, i, 1), w);
            double sq = 0;
            for (int64_t c = 0; c < w; c++) sq += (double)row[c] * (double)row[c];
            double len = sqrt(sq), f = sqrt((double)w) / (len > 1e-12 ? len : 1e-12);
            for (int64_t c = 0; c < w; c++)
                row[c] = ref_act(act, ref_round(y.dtype, (float)((double)row[c] * f * (g ? (double)g[c] : 1))));
            ref_store(y.dtype, ref_row(y, i, 1), row, w);
        }
        free(row);
    }
    free(g);
}

static void ref_col_sums(struct dev *d, tensor sums, tensor x)
{
    int64_t n = x.shape[0], w = x.shape[1];
    double *s = sums.data;
#pragma omp parallel for num_threads(dev_team(d, n * w * 4))
    for (int64_t c = 0; c < w; c++)
        for (int64_t i = 0; i < n; i++) {
            double v = (double)ref_get(x.dtype, ref_row(x, i, 1), c);
            s[c] += v;
            s[w + c] += v * v;
        }
}

static void ref_col_norm(struct dev *d, tensor y, tensor x, tensor mean, tensor rstd, tensor gain, tensor bias,
                         enum act act)
{
    float *m = ref_vector(mean), *r = ref_vector(rstd), *g = ref_vector(gain), *b = ref_vector(bias);
    int64_t n = x.shape[0], w = x.shape[1];
#pragma omp parallel for num_threads(dev_team(d, n * w * 8))
    for (int64_t i = 0; i < n; i++) {
        char *xr = ref_row(x, i, 1), *yr = ref_row(y, i, 1);
        for (int64_t c = 0; c < w; c++) {
            double v = ((double)ref_get(x.dtype, xr, c) - (double)m[c]) * (double)r[c];
            ref_put(y.dtype, yr, c, ref_act(act, ref_round(y.dtype, (float)(v * (double)g[c] + (double)b[c]))));
        }
    }
    free(m);
    free(r);
    free(g);
    free(b);
}

void ref_norm_slots(struct ops *o)
{
    o->norm = ref_norm;
    o->add_norm = ref_add_norm;
    o->gate_add = ref_gate_add;
    o->rms_norm = ref_rms_norm;
    o->l2_norm = ref_l2_norm;
    o->col_sums = ref_col_sums;
    o->col_norm = ref_col_norm;
}
