// The F32 way of attention in plain C: online softmax over blocks of keys.
//
// Per block of ATTEND_KEYS keys: scores, the new maximum of each row, exponentials, and the sum of values, with what
// was summed before scaled to the new maximum. A row whose scores are all -inf so far keeps a sum of zero; when that
// stays so, 0/0 gives the NaN that the plain softmax gives.
#include "kernels/cpu/attend.h"

#include <math.h>
#include <string.h>

struct tile {
    float *q, *sum, *top, *total, *scores; // [rows, d], [rows, dv16], [rows], [rows], [KEYS]
    int64_t dv16;
};

static struct tile tile_of(const struct attend *a)
{
    struct tile t = {.q = a->tile, .dv16 = attend_up(a->dv, 16)};
    t.sum = t.q + ATTEND_ROWS * attend_up(a->d, 16);
    t.top = t.sum + ATTEND_ROWS * t.dv16;
    t.total = t.top + ATTEND_ROWS;
    t.scores = t.total + ATTEND_ROWS;
    return t;
}

static void load_queries(const struct attend *a, struct tile *t)
{
    for (int64_t i = 0; i < a->n; i++) {
        const char *row = a->q + i * a->q_step;
        for (int64_t c = 0; c < a->d; c++)
            t->q[i * a->d + c] =
                a->dtype == DT_BF16 ? bf16_to_f32(((const uint16_t *)row)[c]) : ((const float *)row)[c];
    }
}

static void start(const struct attend *a, struct tile *t)
{
    bool fresh = !a->sum || a->first;
    memset(t->sum, 0, (size_t)(a->n * t->dv16) * sizeof *t->sum);
    for (int64_t i = 0; i < a->n; i++) {
        t->top[i] = fresh ? -INFINITY : a->state[i * a->state_step];
        t->total[i] = fresh ? 0 : a->state[i * a->state_step + 1];
        if (!fresh) memcpy(t->sum + i * t->dv16, a->sum + i * a->sum_step, (size_t)a->dv * sizeof *t->sum);
    }
}

static void finish(const struct attend *a, const struct tile *t)
{
    for (int64_t i = 0; i < a->n; i++) {
        const float *sum = t->sum + i * t->dv16;
        if (a->sum) {
            memcpy(a->sum + i * a->sum_step, sum, (size_t)a->dv * sizeof *sum);
            a->state[i * a->state_step] = t->top[i];
            a->state[i * a->state_step + 1] = t->total[i];
            continue;
        }
        for (int64_t c = 0; c < a->dv; c++) {
            float y = sum[c] / t->total[i];
            if (a->y_dtype == DT_BF16)
                ((uint16_t *)(a->y + i * a->y_step))[c] = f32_to_bf16(y);
            else
                ((float *)(a->y + i * a->y_step))[c] = y;
        }
    }
}

// Scores of row i against keys [from, from + n).
static void score_row(const struct attend *a, struct tile *t, int64_t i, int64_t from, int64_t n)
{
    const float *q = t->q + i * a->d;
    float *s = t->scores;
    for (int64_t p = 0; p < n; p += ATTEND_PANEL) {
        const float *k = (const float *)a->keys + (from + p) * a->d;
        float acc[ATTEND_PANEL] = {0};
        for (int64_t c = 0; c < a->d; c++)
            for (int j = 0; j < ATTEND_PANEL; j++) acc[j] += q[c] * k[c * ATTEND_PANEL + j];
        for (int j = 0; j < ATTEND_PANEL; j++) s[p + j] = acc[j] * a->scale;
    }
    if (a->bias)
        for (int64_t r = 0; r < n; r++) s[r] += a->bias[i * a->nk + from + r];
}

// Turns the row's scores into weights and returns the factor for what was summed before.
static float soften_row(struct tile *t, int64_t i, int64_t n)
{
    float *s = t->scores, top = t->top[i], sum = 0;
    for (int64_t r = 0; r < n; r++) top = s[r] > top ? s[r] : top;
    float base = top == -INFINITY ? 0 : top, factor = expf(t->top[i] - base);
    for (int64_t r = 0; r < n; r++) sum += s[r] = expf(s[r] - base);
    t->top[i] = top;
    t->total[i] = t->total[i] * factor + sum;
    return factor;
}

static void add_values(const struct attend *a, struct tile *t, int64_t i, int64_t from, int64_t n, float factor)
{
    int64_t steps = attend_up(a->nk, ATTEND_PANEL);
    float *sum = t->sum + i * t->dv16;
    for (int64_t c = 0; c < t->dv16; c++) sum[c] *= factor;
    for (int64_t p = 0; p < t->dv16; p += ATTEND_PANEL) {
        const float *v = (const float *)a->values + p * steps + from * ATTEND_PANEL;
        for (int64_t r = 0; r < n; r++)
            for (int j = 0; j < ATTEND_PANEL; j++) sum[p + j] += t->scores[r] * v[r * ATTEND_PANEL + j];
    }
}

void attend_plain(const struct attend *a)
{
    struct tile t = tile_of(a);
    load_queries(a, &t);
    start(a, &t);
    for (int64_t from = 0; from < a->nk; from += ATTEND_KEYS) {
        int64_t n = a->nk - from < ATTEND_KEYS ? a->nk - from : ATTEND_KEYS;
        for (int64_t i = 0; i < a->n; i++) {
            score_row(a, &t, i, from, n);
            add_values(a, &t, i, from, n, soften_row(&t, i, n));
        }
    }
    finish(a, &t);
}
