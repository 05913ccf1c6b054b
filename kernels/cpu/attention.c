// Attention, plainly: for each query the scores of all keys, their softmax, the weighted sum of values; F64 inside.
#include "kernels/cpu/ref.h"

struct head {
    const char *q, *k, *v;
    char *y;
    const float *bias; // of this head, [nq, nk], or NULL
};

static int64_t step_bytes(tensor t, int axis) { return t.stride[axis] * dtype_size(t.dtype); }

// Softmax of scores in place.
static void softmax(double *s, int64_t n)
{
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) top = s[i] > top || isnan(s[i]) ? s[i] : top;
    for (int64_t i = 0; i < n; i++) sum += s[i] = exp(s[i] - top);
    for (int64_t i = 0; i < n; i++) s[i] /= sum;
}

static double dot_row(const float *q, enum dtype t, const char *k, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)q[i] * (double)ref_get(t, k, i);
    return s;
}

static void attend(tensor y, tensor q, tensor k, tensor v, double scale, const struct head *h, int64_t i, float *qf,
                   double *s, double *sum)
{
    int64_t nk = k.shape[1], w = q.shape[3], wv = v.shape[3];
    ref_load(qf, q.dtype, h->q + i * step_bytes(q, 1), w);
    for (int64_t r = 0; r < nk; r++) {
        s[r] = dot_row(qf, k.dtype, h->k + r * step_bytes(k, 1), w) * scale;
        if (h->bias) s[r] += (double)h->bias[i * nk + r];
    }
    softmax(s, nk);
    for (int64_t c = 0; c < wv; c++) sum[c] = 0;
    for (int64_t r = 0; r < nk; r++)
        for (int64_t c = 0; c < wv; c++) sum[c] += s[r] * (double)ref_get(v.dtype, h->v + r * step_bytes(v, 1), c);
    for (int64_t c = 0; c < wv; c++) ref_put(y.dtype, h->y + i * step_bytes(y, 1), c, (float)sum[c]);
}

static void ref_attention(struct dev *d, tensor y, tensor q, tensor k, tensor v, struct attn a)
{
    int64_t nq = q.shape[1], nh = q.shape[2], w = q.shape[3], nk = k.shape[1], wv = v.shape[3];
    double scale = a.scale != 0 ? (double)a.scale : 1 / sqrt((double)w);
    if (nk == 0) BUG("attention without keys");
#pragma omp parallel num_threads(dev_team(d, q.shape[0] * nh * nq * nk * (w + wv)))
    {
        float *qf = ref_alloc(w, sizeof *qf);
        double *s = ref_alloc(nk, sizeof *s), *sum = ref_alloc(wv, sizeof *sum);
#pragma omp for collapse(3)
        for (int64_t b = 0; b < q.shape[0]; b++)
            for (int64_t j = 0; j < nh; j++)
                for (int64_t i = 0; i < nq; i++) {
                    struct head h = {
                        .q = (const char *)q.data + b * step_bytes(q, 0) + j * step_bytes(q, 2),
                        .k = (const char *)k.data + b * step_bytes(k, 0) + j * step_bytes(k, 2),
                        .v = (const char *)v.data + b * step_bytes(v, 0) + j * step_bytes(v, 2),
                        .y = (char *)y.data + b * step_bytes(y, 0) + j * step_bytes(y, 2),
                        .bias = tensor_is_none(a.bias) ? NULL : (const float *)a.bias.data + j * nq * nk,
                    };
                    attend(y, q, k, v, scale, &h, i, qf, s, sum);
                }
        free(qf);
        free(s);
        free(sum);
    }
}

// One query's unfinished softmax taken over the keys of one more run. What was summed below the old largest score is
// scaled to the new one; before the first run there is nothing to scale, and no difference of infinities.
static void attend_more(float *sum, float *state, tensor k, tensor v, double scale, const struct head *h,
                        const float *qf, double *s, bool first)
{
    int64_t nk = k.shape[1], w = k.shape[3], wv = v.shape[3];
    double top = first ? -INFINITY : (double)state[0], exps = 0;
    for (int64_t r = 0; r < nk; r++) {
        s[r] = dot_row(qf, k.dtype, h->k + r * step_bytes(k, 1), w) * scale;
        if (s[r] > top || isnan(s[r])) top = s[r];
    }
    top = (double)(float)top; // as state keeps it
    double keep = first ? 0 : exp((double)state[0] - top);
    for (int64_t r = 0; r < nk; r++) exps += s[r] = exp(s[r] - top);
    for (int64_t c = 0; c < wv; c++) {
        double more = 0;
        for (int64_t r = 0; r < nk; r++) more += s[r] * (double)ref_get(v.dtype, h->v + r * step_bytes(v, 1), c);
        sum[c] = (float)(first ? more : (double)sum[c] * keep + more);
    }
    state[1] = (float)(first ? exps : (double)state[1] * keep + exps);
    state[0] = (float)top;
}

static void ref_attention_more(struct dev *d, tensor sum, tensor state, tensor q, tensor k, tensor v, struct attn a,
                               bool first)
{
    int64_t nq = q.shape[1], nh = q.shape[2], w = q.shape[3], wv = v.shape[3];
    double scale = a.scale != 0 ? (double)a.scale : 1 / sqrt((double)w);
#pragma omp parallel num_threads(dev_team(d, tensor_count(sum) * k.shape[1]))
    {
        float *qf = ref_alloc(w, sizeof *qf);
        double *s = ref_alloc(k.shape[1], sizeof *s);
#pragma omp for collapse(3)
        for (int64_t b = 0; b < q.shape[0]; b++)
            for (int64_t i = 0; i < nq; i++)
                for (int64_t j = 0; j < nh; j++) {
                    struct head h = {.k = (const char *)k.data + b * step_bytes(k, 0) + j * step_bytes(k, 2),
                                     .v = (const char *)v.data + b * step_bytes(v, 0) + j * step_bytes(v, 2)};
                    const char *qi = (const char *)q.data + b * step_bytes(q, 0) + i * step_bytes(q, 1);
                    int64_t at = (b * nq + i) * nh + j;
                    ref_load(qf, q.dtype, qi + j * step_bytes(q, 2), w);
                    attend_more((float *)sum.data + at * wv, (float *)state.data + at * 2, k, v, scale, &h, qf, s,
                                first);
                }
        free(qf);
        free(s);
    }
}

static void ref_attention_done(struct dev *d, tensor y, tensor sum, tensor state)
{
    int64_t w = sum.shape[3], rows = ref_rows(y, 1);
#pragma omp parallel for num_threads(dev_team(d, rows * w))
    for (int64_t i = 0; i < rows; i++) {
        const float *from = (const float *)sum.data + i * w;
        double exps = (double)((const float *)state.data)[2 * i + 1];
        char *to = ref_row(y, i, 1);
        for (int64_t c = 0; c < w; c++) ref_put(y.dtype, to, c, (float)((double)from[c] / exps));
    }
}

// One query's softmax over the reference tokens, summed over each class's tokens and averaged over heads.
static void map_token(tensor map, tensor q, tensor k, tensor mask, const double *area, int64_t i, float *qf, double *s)
{
    int64_t nh = q.shape[1], w = q.shape[2], n_ref = k.shape[0], n_class = mask.shape[0];
    double sum[TENSOR_DIMS] = {0};
    for (int64_t j = 0; j < nh; j++) {
        ref_load(qf, q.dtype, (const char *)q.data + i * step_bytes(q, 0) + j * step_bytes(q, 1), w);
        for (int64_t r = 0; r < n_ref; r++)
            s[r] = dot_row(qf, k.dtype, (const char *)k.data + r * step_bytes(k, 0) + j * step_bytes(k, 1), w) /
                   sqrt((double)w);
        softmax(s, n_ref);
        for (int64_t c = 0; c < n_class; c++)
            for (int64_t r = 0; r < n_ref; r++) sum[c] += s[r] * (double)((const float *)mask.data)[c * n_ref + r];
    }
    for (int64_t c = 0; c < n_class; c++)
        ((float *)map.data)[c * map.stride[0] + i] = ref_round(q.dtype, (float)(sum[c] / (double)nh / area[c]));
}

static void ref_attention_map(struct dev *d, tensor map, tensor q, tensor k, tensor mask, bool published)
{
    double area[TENSOR_DIMS];
    int64_t n_ref = k.shape[0];
    for (int64_t c = 0; c < mask.shape[0]; c++) {
        area[c] = 0;
        for (int64_t r = 0; r < n_ref; r++) area[c] += (double)((const float *)mask.data)[c * n_ref + r];
        if (area[c] == 0 && !published) area[c] = 1;
    }
#pragma omp parallel num_threads(dev_team(d, tensor_count(q) * n_ref))
    {
        float *qf = ref_alloc(q.shape[2], sizeof *qf);
        double *s = ref_alloc(n_ref, sizeof *s);
#pragma omp for
        for (int64_t i = 0; i < q.shape[0]; i++) map_token(map, q, k, mask, area, i, qf, s);
        free(qf);
        free(s);
    }
}

void ref_attention_slots(struct ops *o)
{
    o->attention = ref_attention;
    o->attention_more = ref_attention_more;
    o->attention_done = ref_attention_done;
    o->attention_map = ref_attention_map;
}
