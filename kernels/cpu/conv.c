// Convolutions, plainly: channels-last activations, weights turned to channels-last first, F64 sums.
#include "kernels/cpu/ref.h"

struct conv_plan {
    int64_t ti, hi, wi, ci, to, ho, wo, co, kt, kh, kw, cig; // cig: input channels of a group
    int stride[3];
    struct conv c;
};

// [co, cig, kt, kh, kw] of any dtype to F32 [co, kt, kh, kw, cig].
static float *weights_last(tensor w, const struct conv_plan *p)
{
    int64_t taps = p->kt * p->kh * p->kw;
    float *out = ref_alloc(tensor_count(w), sizeof *out);
    for (int64_t o = 0; o < p->co; o++)
        for (int64_t i = 0; i < p->cig; i++)
            for (int64_t k = 0; k < taps; k++)
                out[(o * taps + k) * p->cig + i] = ref_get(w.dtype, w.data, (o * p->cig + i) * taps + k);
    return out;
}

static double conv_point(const struct conv_plan *p, const float *x, const float *w, int64_t group, const int64_t at[3])
{
    double sum = 0;
    for (int64_t a = 0; a < p->kt; a++) {
        int64_t t = at[0] * p->stride[0] - p->c.pad[0][0] + a;
        if (t < 0 || t >= p->ti) continue;
        for (int64_t b = 0; b < p->kh; b++) {
            int64_t h = at[1] * p->stride[1] - p->c.pad[1][0] + b;
            if (h < 0 || h >= p->hi) continue;
            for (int64_t c = 0; c < p->kw; c++) {
                int64_t v = at[2] * p->stride[2] - p->c.pad[2][0] + c;
                if (v < 0 || v >= p->wi) continue;
                const float *xr = x + ((t * p->hi + h) * p->wi + v) * p->ci + group * p->cig;
                const float *wr = w + ((a * p->kh + b) * p->kw + c) * p->cig;
                for (int64_t i = 0; i < p->cig; i++) sum += (double)xr[i] * (double)wr[i];
            }
        }
    }
    return sum;
}

static void ref_conv(struct dev *d, tensor y, tensor x, tensor w, tensor b, struct conv c, enum act act)
{
    struct conv_plan p = {.ti = x.shape[0],
                          .hi = x.shape[1],
                          .wi = x.shape[2],
                          .ci = x.shape[3],
                          .to = y.shape[0],
                          .ho = y.shape[1],
                          .wo = y.shape[2],
                          .co = y.shape[3],
                          .kt = w.shape[2],
                          .kh = w.shape[3],
                          .kw = w.shape[4],
                          .cig = w.shape[1],
                          .c = c};
    for (int i = 0; i < 3; i++) p.stride[i] = c.stride[i] ? c.stride[i] : 1;
    float *xf = ref_whole(x), *wf = weights_last(w, &p), *bias = ref_vector(b);
    int64_t per_group = p.co / (p.ci / p.cig), taps = p.kt * p.kh * p.kw * p.cig;
#pragma omp parallel for num_threads(dev_team(d, tensor_count(y) * taps))
    for (int64_t n = 0; n < p.to * p.ho * p.wo; n++) {
        int64_t at[3] = {n / (p.ho * p.wo), n / p.wo % p.ho, n % p.wo};
        for (int64_t o = 0; o < p.co; o++) {
            double v = conv_point(&p, xf, wf + o * taps, o / per_group, at) + (bias ? (double)bias[o] : 0);
            ref_put(y.dtype, y.data, n * p.co + o, ref_act(act, ref_round(y.dtype, (float)v)));
        }
    }
    free(xf);
    free(wf);
    free(bias);
}

static void ref_upsample2(struct dev *d, tensor y, tensor x)
{
    int64_t h = y.shape[1], w = y.shape[2], c = y.shape[3];
#pragma omp parallel for num_threads(dev_team(d, tensor_count(y)))
    for (int64_t n = 0; n < y.shape[0] * h * w; n++) {
        int64_t t = n / (h * w), r = n / w % h / 2, s = n % w / 2;
        for (int64_t i = 0; i < c; i++)
            ref_put(y.dtype, y.data, n * c + i, ref_get(x.dtype, x.data, ((t * (h / 2) + r) * (w / 2) + s) * c + i));
    }
}

void ref_conv_slots(struct ops *o)
{
    o->conv = ref_conv;
    o->upsample2 = ref_upsample2;
}
