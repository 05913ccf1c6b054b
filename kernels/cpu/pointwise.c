// Element by element, and the sums of guidance, plainly.
#include "kernels/cpu/ref.h"

static void ref_act_op(struct dev *d, tensor y, tensor x, enum act act)
{
    int64_t n = tensor_count(x);
#pragma omp parallel for num_threads(dev_team(d, n * 32))
    for (int64_t i = 0; i < n; i++) ref_put(y.dtype, y.data, i, ref_act(act, ref_get(x.dtype, x.data, i)));
}

static void ref_mul(struct dev *d, tensor y, tensor a, tensor b)
{
    int64_t n = tensor_count(y);
#pragma omp parallel for num_threads(dev_team(d, n * 4))
    for (int64_t i = 0; i < n; i++)
        ref_put(y.dtype, y.data, i, ref_get(a.dtype, a.data, i) * ref_get(b.dtype, b.data, i));
}

static void ref_axpby(struct dev *d, tensor y, float a, tensor x, float b, tensor z)
{
    int64_t n = tensor_count(y);
#pragma omp parallel for num_threads(dev_team(d, n * 4))
    for (int64_t i = 0; i < n; i++)
        ref_put(y.dtype, y.data, i, a * ref_get(x.dtype, x.data, i) + b * ref_get(z.dtype, z.data, i));
}

static double sum_products(const float *a, const float *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)a[i] * (double)b[i];
    return s;
}

static void ref_project_out(struct dev *d, tensor y, tensor diff, tensor cond, float limit)
{
    (void)d;
    int64_t n = tensor_count(y);
    const float *g = diff.data, *c = cond.data;
    double len = sqrt(sum_products(g, g, n)), clen = sqrt(sum_products(c, c, n));
    float f = limit > 0 && len > (double)limit ? (float)((double)limit / len) : 1;
    double unit = clen > 1e-12 ? clen : 1e-12, along = (double)f * sum_products(g, c, n) / (unit * unit);
    for (int64_t i = 0; i < n; i++) ((float *)y.data)[i] = (float)((double)g[i] * (double)f - along * (double)c[i]);
}

static void ref_mean_change(struct dev *d, tensor out, tensor a, tensor b)
{
    (void)d;
    int64_t n = tensor_count(a);
    const float *x = a.data, *y = b.data;
    double change = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        change += fabs((double)x[i] - (double)y[i]);
        size += fabs((double)y[i]);
    }
    ((double *)out.data)[0] = change / (double)n;
    ((double *)out.data)[1] = size / (double)n;
}

void ref_pointwise_slots(struct ops *o)
{
    o->act = ref_act_op;
    o->mul = ref_mul;
    o->axpby = ref_axpby;
    o->project_out = ref_project_out;
    o->mean_change = ref_mean_change;
}
