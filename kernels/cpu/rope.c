// Rotary position embedding and the speaker positions, plainly.
//
// The trap: the axes' exponent denominators differ (44, 42, 42 for width 128), and pairs are adjacent channels.
#include "kernels/cpu/ref.h"

static void put_angle(float *pair, double angle)
{
    pair[0] = (float)cos(angle);
    pair[1] = (float)sin(angle);
}

static void ref_rope_grid(struct dev *d, tensor table, int64_t first, int64_t gt, int64_t gh, int64_t gw)
{
    (void)gt;
    int64_t half = table.shape[1], side = half / 3, time = half - 2 * side;
#pragma omp parallel for num_threads(dev_team(d, tensor_count(table) * 64))
    for (int64_t i = 0; i < table.shape[0]; i++) {
        int64_t n = first + i, t = n / (gh * gw), y = n / gw % gh, x = n % gw;
        float *row = (float *)table.data + i * half * 2;
        for (int64_t j = 0; j < time; j++) put_angle(row + 2 * j, (double)t * pow(10000, -(double)j / (double)time));
        for (int64_t j = 0; j < side; j++) {
            double f = pow(10000, -(double)j / (double)side);
            put_angle(row + 2 * (time + j), (double)y * f);
            put_angle(row + 2 * (time + side + j), (double)x * f);
        }
    }
}

static void ref_rope_line(struct dev *d, tensor table, tensor pos)
{
    (void)d;
    int64_t half = table.shape[1];
    for (int64_t i = 0; i < table.shape[0]; i++)
        for (int64_t j = 0; j < half; j++) {
            float f = 1 / powf(10000, (float)j / (float)half), angle = ((const float *)pos.data)[i * pos.stride[0]] * f;
            float *pair = (float *)table.data + (i * half + j) * 2;
            pair[0] = (float)cos((double)angle);
            pair[1] = (float)sin((double)angle);
        }
}

// One head's channels turned by one row of the table.
static void turn(enum dtype t, char *x, const float *row, int64_t half)
{
    for (int64_t j = 0; j < half; j++) {
        float a = ref_get(t, x, 2 * j), b = ref_get(t, x, 2 * j + 1), c = row[2 * j], s = row[2 * j + 1];
        ref_put(t, x, 2 * j, a * c - b * s);
        ref_put(t, x, 2 * j + 1, b * c + a * s);
    }
}

static void ref_rope(struct dev *d, tensor x, tensor table)
{
    int64_t n = x.shape[x.n - 3], nh = x.shape[x.n - 2], half = table.shape[1], rows = ref_rows(x, 2);
#pragma omp parallel for num_threads(dev_team(d, tensor_count(x) * 4))
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < nh; j++)
            turn(x.dtype, ref_row(x, i, 2) + j * x.stride[x.n - 2] * dtype_size(x.dtype),
                 (const float *)table.data + i % n * half * 2, half);
}

// RMS norm over a whole row of heads, then the turn, in F32 until the last rounding but for the R of the norm.
static void norm_turn(tensor x, int64_t i, const float *gain, float eps, const float *angles, float *row)
{
    int64_t nh = x.shape[1], w = x.shape[2], n = nh * w;
    char *p = ref_row(x, i, 2);
    ref_load(row, x.dtype, p, n);
    double sq = 0;
    for (int64_t c = 0; c < n; c++) sq += (double)row[c] * (double)row[c];
    double r = 1 / sqrt(sq / (double)n + (double)eps);
    for (int64_t c = 0; c < n; c++)
        row[c] = ref_round(x.dtype, ref_round(x.dtype, (float)((double)row[c] * r)) * gain[c]);
    for (int64_t h = 0; h < nh; h++) turn(DT_F32, (char *)(row + h * w), angles, w / 2);
    ref_store(x.dtype, p, row, n);
}

static void ref_qk_norm_rope(struct dev *d, tensor q, tensor k, tensor q_gain, tensor k_gain, float eps, tensor table)
{
    float *qg = ref_vector(q_gain), *kg = ref_vector(k_gain);
#pragma omp parallel num_threads(dev_team(d, tensor_count(q) * 16))
    {
        float *row = ref_alloc(q.shape[1] * q.shape[2], sizeof *row);
#pragma omp for
        for (int64_t i = 0; i < q.shape[0]; i++) {
            const float *angles = (const float *)table.data + i * table.shape[1] * 2;
            norm_turn(q, i, qg, eps, angles, row);
            norm_turn(k, i, kg, eps, angles, row);
        }
        free(row);
    }
    free(qg);
    free(kg);
}

static void ref_row_range(struct dev *d, tensor lohi, tensor map)
{
    (void)d;
    for (int64_t c = 0; c < map.shape[0]; c++) {
        const float *m = (const float *)map.data + c * map.stride[0];
        float lo = m[0], hi = m[0];
        for (int64_t i = 1; i < map.shape[1]; i++) {
            lo = m[i] < lo || isnan(m[i]) ? m[i] : lo;
            hi = m[i] > hi || isnan(m[i]) ? m[i] : hi;
        }
        ((float *)lohi.data)[2 * c] = lo;
        ((float *)lohi.data)[2 * c + 1] = hi;
    }
}

// The class whose map value is largest; the first wins a tie, and NaN counts as largest.
static int winner(const float v[3])
{
    int best = 0;
    for (int c = 1; c < 3; c++)
        if (!isnan(v[best]) && (v[c] > v[best] || isnan(v[c]))) best = c;
    return best;
}

static void ref_class_pos(struct dev *d, tensor pos, tensor map, tensor lohi, bool bf16)
{
    (void)d;
    static const float low[2] = {0, 20}, high[2] = {4, 24}, background = 12;
    enum dtype t = bf16 ? DT_BF16 : DT_F32;
    for (int64_t i = 0; i < map.shape[1]; i++) {
        float v[3];
        for (int c = 0; c < 3; c++) v[c] = ((const float *)map.data)[c * map.stride[0] + i];
        int c = winner(v);
        float p = background;
        if (c < 2) {
            float lo = ((const float *)lohi.data)[2 * c], hi = ((const float *)lohi.data)[2 * c + 1];
            float up = ref_round(t, v[c] - lo), range = ref_round(t, ref_round(t, hi - lo) + 1e-8f);
            p = ref_round(t, ref_round(t, ref_round(t, up / range) * (high[c] - low[c])) + low[c]);
        }
        ((float *)pos.data)[i] = p;
    }
}

void ref_rope_slots(struct ops *o)
{
    o->rope_grid = ref_rope_grid;
    o->rope_line = ref_rope_line;
    o->rope = ref_rope;
    o->qk_norm_rope = ref_qk_norm_rope;
    o->row_range = ref_row_range;
    o->class_pos = ref_class_pos;
}
