// Linear layers of quantised weights, plainly: every row of x is quantised as the weights were, the sum of products is
// taken in F64 and scaled back.
//
// The factor of a row is its largest absolute value over the largest of the format, so that nothing is cut off; it and
// its inverse are formed in F32, as every backend forms them, since a value that rounds the other way is a whole step
// off.
#include "kernels/cpu/ref.h"

static float quantised(enum dtype t, float v)
{
    if (t == DT_F8_E4M3) return f8_e4m3_to_f32(f32_to_f8_e4m3(v));
    v = rintf(v);
    return v > 127 ? 127 : v < -127 ? -127 : isnan(v) ? 0 : v;
}

// Leaves the quantised values in row and returns their factor. A NaN makes the factor one.
static float quantise(enum dtype t, float *row, int64_t n)
{
    float top = 0, most = t == DT_F8_E4M3 ? 448 : 127;
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf(row[i]);
        if (a > top || isnan(a)) top = a;
    }
    float times = top == 0 ? 1 : most / top;
    for (int64_t i = 0; i < n; i++) row[i] = quantised(t, row[i] * times);
    return top == 0 ? 1 : top / most;
}

static void ref_linear_scaled(struct dev *d, tensor y, tensor x, tensor w, tensor scale, tensor b, enum act act)
{
    int64_t n = ref_rows(x, 1), n_in = w.shape[1], n_out = w.shape[0];
    float *bias = ref_vector(b), *of_out = ref_vector(scale);
    float *weights = ref_whole(w);
    int64_t work = n * n_in * n_out;
#pragma omp parallel num_threads(dev_team(d, work))
    {
        float *row = ref_alloc(n_in, sizeof *row);
#pragma omp for
        for (int64_t i = 0; i < n; i++) {
            ref_load(row, x.dtype, ref_row(x, i, 1), n_in);
            float factor = quantise(w.dtype, row, n_in);
            for (int64_t o = 0; o < n_out; o++) {
                double sum = 0;
                for (int64_t k = 0; k < n_in; k++) sum += (double)row[k] * (double)weights[o * n_in + k];
                float v = (float)(sum * (double)factor * (double)of_out[o] + (bias ? (double)bias[o] : 0));
                ref_put(y.dtype, ref_row(y, i, 1), o, ref_act(act, ref_round(y.dtype, v)));
            }
        }
        free(row);
    }
    free(weights);
    free(of_out);
    free(bias);
}

void ref_scaled_slots(struct ops *o) { o->linear_scaled = ref_linear_scaled; }
