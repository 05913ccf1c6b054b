// Attention on vectors, the body that the files attend_*.c of this folder compile for their instruction set. They
// define:
//   V, VN                    a vector of floats and its lanes (8 or 16)
//   STEP, STEP_SUMS          a packed step (float or uint32_t) and how much of the summed axis it holds (1 or 2)
//   TILE_ROWS, TILE_PANELS   the register tile
//   v_load v_store v_set1 v_exp2 v_max v_reduce_add v_reduce_max; v_max keeps its first argument's NaN
//                            when the second is a number; + - * are the vector's own
//   DOT(acc, step pointer, STEP) acc + a panel's VN columns times one row's step
//   PUT(STEP *to, V)         stores VN softmax weights as steps
//   attend_name              the function
//
// Both products are the same tile: rows (queries, or softmax weights) times panels (keys, or values), summed over steps
// in registers. Softmax runs in powers of two. A row whose scores are all -inf so far has a base of 0, so that its
// weights are 0 and not NaN.
#include "kernels/cpu/attend.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
enum { PER_PANEL = ATTEND_PANEL / VN };
static const float log2_e = 1.44269504088896341f;

struct tile {
    STEP *q; // [rows, steps]
    float *sum, *top, *total;
    float *scores; // [GROUP, KEYS]
    STEP *weights; // likewise, in steps
    int64_t q_steps, dv16;
};

static struct tile tile_of(const struct attend *a)
{
    struct tile t = {.sum = a->tile, .dv16 = attend_up(a->dv, 16)};
    t.scores = t.sum + ATTEND_ROWS * t.dv16;
    t.weights = (STEP *)(t.scores + ATTEND_GROUP * ATTEND_KEYS);
    t.q = t.weights + ATTEND_GROUP * ATTEND_KEYS;
    t.q_steps = (a->d + STEP_SUMS - 1) / STEP_SUMS;
    t.top = (float *)(t.q + ATTEND_ROWS * t.q_steps);
    t.total = t.top + ATTEND_ROWS;
    return t;
}

// out[r][16 p ..] (+)= sum over n steps of rows[r][step] panels[p][step][..]
INLINE void dot_tile(float *out, int64_t out_step, const STEP *rows, int64_t row_step, const STEP *panels,
                     int64_t panel_step, int64_t n, const int n_rows, const int n_panels, const bool add)
{
    V acc[TILE_ROWS][TILE_PANELS * PER_PANEL];
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 16
        for (int p = 0; p < n_panels * PER_PANEL; p++)
            acc[r][p] = add ? v_load(out + r * out_step + p * VN) : v_set1(0);
    for (int64_t c = 0; c < n; c++)
#pragma GCC unroll 16
        for (int p = 0; p < n_panels * PER_PANEL; p++) {
            const STEP *at = panels + p / PER_PANEL * panel_step + c * ATTEND_PANEL + p % PER_PANEL * VN;
#pragma GCC unroll 16
            for (int r = 0; r < n_rows; r++) acc[r][p] = DOT(acc[r][p], at, rows[r * row_step + c]);
        }
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 16
        for (int p = 0; p < n_panels * PER_PANEL; p++) v_store(out + r * out_step + p * VN, acc[r][p]);
}

// All panels of n_rows rows.
INLINE void dot_rows(float *out, int64_t out_step, const STEP *rows, int64_t row_step, const STEP *panels,
                     int64_t panel_step, int64_t n, const int n_rows, int64_t n_panels, const bool add)
{
    int64_t p = 0;
    for (; p + TILE_PANELS <= n_panels; p += TILE_PANELS)
        dot_tile(out + p * ATTEND_PANEL, out_step, rows, row_step, panels + p * panel_step, panel_step, n, n_rows,
                 TILE_PANELS, add);
    for (; p < n_panels; p++)
        dot_tile(out + p * ATTEND_PANEL, out_step, rows, row_step, panels + p * panel_step, panel_step, n, n_rows, 1,
                 add);
}

INLINE void dot_all(float *out, int64_t out_step, const STEP *rows, int64_t row_step, const STEP *panels,
                    int64_t panel_step, int64_t n, int64_t n_rows, int64_t n_panels, const bool add)
{
    int64_t r = 0;
    for (; r + TILE_ROWS <= n_rows; r += TILE_ROWS)
        dot_rows(out + r * out_step, out_step, rows + r * row_step, row_step, panels, panel_step, n, TILE_ROWS,
                 n_panels, add);
    for (; r < n_rows; r++)
        dot_rows(out + r * out_step, out_step, rows + r * row_step, row_step, panels, panel_step, n, 1, n_panels, add);
}

static void scores_of(const struct attend *a, const struct tile *t, int64_t row, int64_t n_rows, int64_t from,
                      int64_t n)
{
    int64_t panel_step = t->q_steps * ATTEND_PANEL, panels = attend_up(n, ATTEND_PANEL) / ATTEND_PANEL;
    dot_all(t->scores, ATTEND_KEYS, t->q + row * t->q_steps, t->q_steps,
            (const STEP *)a->keys + from / ATTEND_PANEL * panel_step, panel_step, t->q_steps, n_rows, panels, false);
}

static void sum_values(const struct attend *a, const struct tile *t, int64_t row, int64_t n_rows, int64_t from,
                       int64_t n)
{
    int64_t steps = attend_up(a->nk, ATTEND_PANEL) / STEP_SUMS, used = attend_up(n, ATTEND_PANEL) / STEP_SUMS;
    dot_all(t->sum + row * t->dv16, t->dv16, t->weights, ATTEND_KEYS / STEP_SUMS,
            (const STEP *)a->values + from / STEP_SUMS * ATTEND_PANEL, steps * ATTEND_PANEL, used, n_rows,
            t->dv16 / ATTEND_PANEL, true);
}

// Scores of row `row`, the i-th of its group, to weights; what was summed before is scaled to the new base.
static void soften(const struct attend *a, const struct tile *t, int64_t row, int64_t i, int64_t from, int64_t n)
{
    float *s = t->scores + i * ATTEND_KEYS, *sum = t->sum + row * t->dv16;
    int64_t whole = attend_up(n, ATTEND_PANEL);
    V scale = v_set1(a->scale * log2_e), top = v_set1(t->top[row]), total = v_set1(0);
    for (int64_t r = 0; r < whole; r += VN) v_store(s + r, v_load(s + r) * scale);
    if (a->bias) {
        const float *bias = a->bias + row * a->nk + from;
        for (int64_t r = 0; r < n; r++) s[r] += bias[r] * log2_e;
    }
    for (int64_t r = n; r < whole; r++) s[r] = -INFINITY;
    for (int64_t r = 0; r < whole; r += VN) top = v_max(v_load(s + r), top);
    float peak = v_reduce_max(top), base = peak == -INFINITY ? 0 : peak, factor = exp2f(t->top[row] - base);
    V shift = v_set1(base);
    STEP *weights = t->weights + i * (ATTEND_KEYS / STEP_SUMS);
    for (int64_t r = 0; r < whole; r += VN) {
        V w = v_exp2(v_load(s + r) - shift);
        total += w;
        PUT(weights + r / STEP_SUMS, w);
    }
    t->top[row] = peak;
    t->total[row] = t->total[row] * factor + v_reduce_add(total);
    if (factor == 1) return;
    for (int64_t c = 0; c < t->dv16; c += VN) v_store(sum + c, v_load(sum + c) * v_set1(factor));
}

static void start(const struct attend *a, const struct tile *t)
{
    bool fresh = !a->sum || a->first;
    memset(t->sum, 0, (size_t)(a->n * t->dv16) * sizeof *t->sum);
    for (int64_t i = 0; i < a->n; i++) {
        STEP *q = t->q + i * t->q_steps;
        const char *row = a->q + i * a->q_step;
        if (STEP_SUMS == 1 && a->dtype == DT_BF16)
            for (int64_t c = 0; c < a->d; c++) ((float *)q)[c] = bf16_to_f32(((const uint16_t *)row)[c]);
        else {
            q[t->q_steps - 1] = 0;
            memcpy(q, row, (size_t)(a->d * dtype_size(a->dtype)));
        }
        t->top[i] = fresh ? -INFINITY : a->state[i * a->state_step] * log2_e;
        t->total[i] = fresh ? 0 : a->state[i * a->state_step + 1];
        if (!fresh) memcpy(t->sum + i * t->dv16, a->sum + i * a->sum_step, (size_t)a->dv * sizeof *t->sum);
    }
}

static void finish(const struct attend *a, const struct tile *t)
{
    for (int64_t i = 0; i < a->n; i++) {
        const float *sum = t->sum + i * t->dv16;
        float part = 1 / t->total[i];
        if (a->sum) {
            // The largest score is kept in natural units; the sums follow what its rounding changes.
            float top = (float)((double)t->top[i] * (double)0.69314718055994531), used = top * log2_e;
            part = t->top[i] == -INFINITY ? 1 : exp2f(t->top[i] - used);
            a->state[i * a->state_step] = top;
            a->state[i * a->state_step + 1] = t->total[i] * part;
        }
        if (a->sum || a->y_dtype == DT_F32) {
            float *y = a->sum ? a->sum + i * a->sum_step : (float *)(a->y + i * a->y_step);
            for (int64_t c = 0; c < a->dv; c++) y[c] = sum[c] * part;
        } else
            for (int64_t c = 0; c < a->dv; c++) ((uint16_t *)(a->y + i * a->y_step))[c] = f32_to_bf16(sum[c] * part);
    }
}

void attend_name(const struct attend *a)
{
    struct tile t = tile_of(a);
    start(a, &t);
    for (int64_t from = 0; from < a->nk; from += ATTEND_KEYS) {
        int64_t n = a->nk - from < ATTEND_KEYS ? a->nk - from : ATTEND_KEYS;
        for (int64_t row = 0; row < a->n; row += ATTEND_GROUP) {
            int64_t n_rows = a->n - row < ATTEND_GROUP ? a->n - row : ATTEND_GROUP;
            scores_of(a, &t, row, n_rows, from, n);
            for (int64_t i = 0; i < n_rows; i++) soften(a, &t, row + i, i, from, n);
            sum_values(a, &t, row, n_rows, from, n);
        }
    }
    finish(a, &t);
}
