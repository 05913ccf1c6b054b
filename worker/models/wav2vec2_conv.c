// From samples to features at the video's rate.
//
//   samples [N] -- conv 0, norm of each channel over the whole track, GELU, conv 1, GELU, ... --> features [F, width]
//   feature j hears samples [hop j, hop j + field)
//   video frame o of M in all: features at position o (F - 1) / (M - 1), the ends aligned, linear between neighbours
//
// The only thing that reaches over the whole track is the first layer's norm, so a track is read twice: once for the
// sums of that layer, piece by piece; then the features of some frames are made from just the samples that they hear,
// tile by tile. A feature comes out the same in whatever tile it is made.
//
// Easy to get wrong: the norm's variance is the population's and its epsilon 1e-5 whatever config.json says; with
// F = 2 M - 1 the step is exactly 2. The step is rounded to F32 (as published), the product with the frame is not.
//
// Normalised samples are never made. The first layer is linear, has no bias, and its norm takes the mean away, so with
// x' = (x - mean) / s the norm of conv x' is (y - mean y) / sqrt(var y + eps s^2), y = conv x: s only enters there.
#include "worker/models/wav2vec2_parts.h"

#include <math.h>
#include <stdlib.h>

static const double first_eps = 1e-5, sample_eps = 1e-7;

static int64_t at_least(int64_t v, int64_t low) { return v > low ? v : low; }
static int64_t at_most(int64_t v, int64_t high) { return v < high ? v : high; }

static int64_t conv_length(const struct wav2vec2 *m, int i, int64_t n)
{
    return n < m->c.kernel[i] ? 0 : (n - m->c.kernel[i]) / m->c.stride[i] + 1;
}

// Samples [from, from + n) on the device, [1, 1, n, 1]; `host` has room for them.
static tensor samples_of(struct wav2vec2 *m, struct dev_arena *a, const struct track *t, float *host, int64_t from,
                         int64_t n)
{
    tensor x = dev_tensor(a, DT_F32, SHAPE(1, 1, n, 1));
    t->read(t->ctx, host, from, n);
    dev_upload(m->dev, x, host, DT_F32);
    return x;
}

static tensor run_conv(struct wav2vec2 *m, struct dev_arena *a, int i, tensor x, enum act act)
{
    tensor y = dev_tensor(a, DT_F32, SHAPE(1, 1, conv_length(m, i, x.shape[2]), m->c.width[i]));
    op_conv(m->dev, y, x, m->conv[i], NO_TENSOR, (struct conv){.stride = {1, 1, m->c.stride[i]}}, act);
    return y;
}

static tensor rows_of(tensor y) { return tensor_reshape(y, SHAPE(y.shape[2], y.shape[3])); }

// ---- statistics

// Adds n samples to (sum, sum of squares).
static void add_samples(double sums[2], const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sums[0] += (double)x[i];
        sums[1] += (double)x[i] * (double)x[i];
    }
}

// Mean and variance of n values from their sums.
static void moments(double sum, double squares, int64_t n, double *mean, double *var)
{
    *mean = sum / (double)at_least(n, 1);
    *var = squares / (double)at_least(n, 1) - *mean * *mean;
    if (*var < 0) *var = 0;
}

static struct wav2vec2_stats *stats_new(const struct wav2vec2 *m, const double samples[2], int64_t n_samples,
                                        const double *sums, int64_t n_rows)
{
    int64_t c = m->c.width[0];
    struct wav2vec2_stats *s = calloc(1, sizeof *s);
    float *channel = calloc((size_t)(2 * c), sizeof *channel);
    BUG_IF(!s || !channel, "no memory for the statistics of a voice");
    s->channel[0] = channel;
    s->channel[1] = channel + c;
    moments(samples[0], samples[1], n_samples, &s->mean, &s->var);
    double square = m->normalize ? s->var + sample_eps : 1;
    for (int64_t i = 0; i < c; i++) {
        double mean, var;
        moments(sums[i], sums[c + i], n_rows, &mean, &var);
        s->channel[0][i] = (float)mean;
        s->channel[1][i] = (float)(1 / sqrt(var + first_eps * square));
    }
    return s;
}

struct wav2vec2_stats *wav2vec2_measure(struct wav2vec2 *m, struct dev_arena *a, const struct track *t)
{
    int64_t c = m->c.width[0], stride = m->c.stride[0], kernel = m->c.kernel[0], mark = dev_arena_mark(a);
    int64_t n_rows = at_least(conv_length(m, 0, t->n_samples), 1); // a track too short is heard with silence behind it
    float *host = malloc((size_t)(m->piece_rows * stride + kernel) * sizeof *host);
    double *sums = calloc((size_t)(2 * c), sizeof *sums), samples[2] = {0};
    BUG_IF(!host || !sums, "no memory for the statistics of a voice");
    tensor total = dev_tensor(a, DT_F64, SHAPE(2, c));
    op_fill(m->dev, total, 0);
    int64_t inner = dev_arena_mark(a);
    for (int64_t r = 0; r < n_rows; r += m->piece_rows) {
        int64_t rows = at_most(m->piece_rows, n_rows - r), from = r * stride;
        int64_t fresh = r + rows == n_rows ? t->n_samples - from : rows * stride; // each sample counts once
        int64_t n = at_least((rows - 1) * stride + kernel, fresh);
        tensor x = samples_of(m, a, t, host, from, n);
        add_samples(samples, host, fresh);
        op_col_sums(m->dev, total, rows_of(run_conv(m, a, 0, x, ACT_NONE)));
        dev_arena_reset(a, inner);
    }
    dev_download(m->dev, sums, DT_F64, total);
    struct wav2vec2_stats *s = stats_new(m, samples, t->n_samples, sums, n_rows);
    dev_arena_reset(a, mark);
    free(host);
    free(sums);
    return s;
}

void wav2vec2_stats_free(struct wav2vec2_stats **ps)
{
    if (!*ps) return;
    free((*ps)->channel[0]);
    free(*ps);
    *ps = NULL;
}

// ---- features

struct tiling { // what the tiles of one call share
    struct wav2vec2 *m;
    struct dev_arena *a;
    const struct track *track;
    const struct tap *tap;
    tensor mean, rstd;  // F32 [width[0]]
    int64_t n_features; // of the whole track
    double step;        // features from one video frame to the next
};

static tensor vector_of(struct tiling *l, const float *v)
{
    tensor t = dev_tensor(l->a, DT_F32, SHAPE(l->m->c.width[0]));
    dev_upload(l->m->dev, t, v, DT_F32);
    return t;
}

static int64_t feature_count(const struct wav2vec2 *m, int64_t n_samples)
{
    for (int i = 0; i < m->c.n_convs; i++) n_samples = conv_length(m, i, n_samples);
    return at_least(n_samples, 1);
}

// Features [first, last] of the track, as rows. The last tile takes the samples that are left over too, so that a
// listener sees layers of their published lengths.
static tensor run_convs(struct tiling *l, int64_t first, int64_t last)
{
    struct wav2vec2 *m = l->m;
    int64_t from = first * m->hop, n = (last - first) * m->hop + m->field;
    if (last == l->n_features - 1) n = at_least(n, l->track->n_samples - from);
    float *host = malloc((size_t)n * sizeof *host);
    BUG_IF(!host, "no memory for %lld samples", (long long)n);
    tensor y = samples_of(m, l->a, l->track, host, from, n);
    free(host);
    for (int i = 0; i < m->c.n_convs; i++) {
        y = run_conv(m, l->a, i, y, i ? ACT_GELU_ERF : ACT_NONE);
        tensor rows = rows_of(y);
        if (i == 0) op_col_norm(m->dev, rows, rows, l->mean, l->rstd, m->first_w, m->first_b, ACT_GELU_ERF);
        tap_see(l->tap, tensor_permute(rows, (int[]){1, 0}), "conv%d", i);
    }
    return rows_of(y);
}

// Video frames [frame, frame + rows of z).
static void run_tile(struct tiling *l, tensor z, int64_t frame)
{
    int64_t mark = dev_arena_mark(l->a), end = l->n_features - 1;
    double position = l->step * (double)frame;
    int64_t first = at_most((int64_t)position, end);
    int64_t last = at_most((int64_t)(l->step * (double)(frame + z.shape[0] - 1)) + 1, end);
    op_lerp_rows(l->m->dev, z, run_convs(l, first, last), position - (double)first, l->step);
    dev_arena_reset(l->a, mark);
}

void wav2vec2_features(struct wav2vec2 *m, struct dev_arena *a, tensor z, const struct track *t,
                       const struct wav2vec2_stats *stats, int64_t n_frames, int64_t from, const struct tap *tap)
{
    int64_t n = z.shape[0], mark = dev_arena_mark(a), f = feature_count(m, t->n_samples);
    struct tiling l = {.m = m, .a = a, .track = t, .tap = tap, .n_features = f};
    l.mean = vector_of(&l, stats->channel[0]);
    l.rstd = vector_of(&l, stats->channel[1]);
    l.step = n_frames > 1 ? (double)((float)(f - 1) / (float)(n_frames - 1)) : 0;
    int64_t tile = tap ? n : m->tile_frames; // a tap wants whole layers
    for (int64_t i = 0; i < n; i += tile) run_tile(&l, tensor_slice(z, 0, i, at_most(i + tile, n)), from + i);
    dev_arena_reset(a, mark);
}
