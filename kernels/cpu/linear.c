// Linear layers, plainly: one dot product per output, summed in F64.
#include "kernels/cpu/ref.h"

static tensor ref_pack(struct dev *d, struct dev_arena *a, tensor w, enum pack_use use)
{
    (void)d, (void)a, (void)use;
    return w;
}

static double dot(const float *a, const float *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)a[i] * (double)b[i];
    return s;
}

static void ref_linear(struct dev *d, tensor y, tensor x, tensor w, tensor b, enum act act)
{
    int64_t n = ref_rows(x, 1), n_in = w.shape[1], n_out = w.shape[0];
    float *bias = ref_vector(b), *rows = ref_alloc(n * n_in, sizeof *rows);
    for (int64_t i = 0; i < n; i++) ref_load(rows + i * n_in, x.dtype, ref_row(x, i, 1), n_in);
#pragma omp parallel num_threads(dev_team(d, n * n_in * n_out))
    {
        float *wr = ref_alloc(n_in, sizeof *wr);
#pragma omp for
        for (int64_t o = 0; o < n_out; o++) {
            ref_load(wr, w.dtype, (const char *)w.data + o * n_in * dtype_size(w.dtype), n_in);
            for (int64_t i = 0; i < n; i++) {
                float v = (float)(dot(rows + i * n_in, wr, n_in) + (bias ? (double)bias[o] : 0));
                ref_put(y.dtype, ref_row(y, i, 1), o, ref_act(act, ref_round(y.dtype, v)));
            }
        }
        free(wr);
    }
    free(rows);
    free(bias);
}

void ref_linear_slots(struct ops *o)
{
    o->pack = ref_pack;
    o->linear = ref_linear;
}
