// Loudness by ITU-R BS.1770's scheme, with the published program's own filters and rounding.
//
//   x -> high shelf (+4 dB at 1500 Hz) -> f32 -> high pass (38 Hz) -> f32 -> squares -> sums of 0.1 s
//   block j = the four sums from j on / 0.4 s -> kept if >= -70 LUFS -> kept if > (mean of the kept) - 10 LU -> mean
//
// Unlike the standard: both filters come from the audio cookbook at the track's own rate (the standard's tables are
// 0.07 dB away at 1 kHz); each filter's output is stored as f32; the number of blocks is rounded, half to even, so the
// last block may hang over the end, and it is divided by its full length all the same.
#include "daemon/media/loudness.h"

#include "proto/base/err.h"

#include <math.h>
#include <stdlib.h>

struct biquad {
    double b0, b1, b2, a1, a2; // a0 = 1
    double s1, s2;             // state, transposed direct form II
};

struct loudness {
    int rate, hop; // hop: samples of 0.1 s
    struct biquad shelf, pass;
    double sum; // of squares in the hop under way
    int64_t n;
    double *hops; // [n_hops] sums of squares
    int64_t n_hops, room;
};

static struct biquad biquad_over(double b0, double b1, double b2, double a0, double a1, double a2)
{
    return (struct biquad){b0 / a0, b1 / a0, b2 / a0, a1 / a0, a2 / a0, 0, 0};
}

static struct biquad high_shelf(int rate, double gain_db, double q, double hz)
{
    double w = 2 * M_PI * hz / rate, alpha = sin(w) / (2 * q), a = pow(10, gain_db / 40), c = cos(w);
    double r = 2 * sqrt(a) * alpha;
    return biquad_over(a * ((a + 1) + (a - 1) * c + r), -2 * a * ((a - 1) + (a + 1) * c),
                       a * ((a + 1) + (a - 1) * c - r), (a + 1) - (a - 1) * c + r, 2 * ((a - 1) - (a + 1) * c),
                       (a + 1) - (a - 1) * c - r);
}

static struct biquad high_pass(int rate, double q, double hz)
{
    double w = 2 * M_PI * hz / rate, alpha = sin(w) / (2 * q), c = cos(w);
    return biquad_over((1 + c) / 2, -(1 + c), (1 + c) / 2, 1 + alpha, -2 * c, 1 - alpha);
}

static float biquad_step(struct biquad *f, double x)
{
    double y = f->b0 * x + f->s1;
    f->s1 = f->b1 * x - f->a1 * y + f->s2;
    f->s2 = f->b2 * x - f->a2 * y;
    return (float)y;
}

struct loudness *loudness_new(int rate)
{
    BUG_IF(rate < 100 || rate % 10, "loudness at %d Hz", rate);
    struct loudness *l = calloc(1, sizeof *l);
    BUG_IF(!l, "no memory for a meter");
    l->rate = rate;
    l->hop = rate / 10;
    l->shelf = high_shelf(rate, 4, 1 / sqrt(2), 1500);
    l->pass = high_pass(rate, 0.5, 38);
    return l;
}

static void hop_end(struct loudness *l)
{
    if (l->n_hops == l->room) {
        l->room = l->room ? 2 * l->room : 1024;
        l->hops = realloc(l->hops, (size_t)l->room * sizeof *l->hops);
        BUG_IF(!l->hops, "no memory for %lld blocks", (long long)l->room);
    }
    l->hops[l->n_hops++] = l->sum;
    l->sum = 0;
}

void loudness_push(struct loudness *l, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double y = biquad_step(&l->pass, biquad_step(&l->shelf, x[i]));
        l->sum += y * y;
        if (++l->n % l->hop == 0) hop_end(l);
    }
}

static double to_lufs(double power) { return -0.691 + 10 * log10(power); }

static double block_power(const struct loudness *l, int64_t j)
{
    double sum = 0;
    for (int64_t h = j; h < j + 4 && h < l->n_hops; h++) sum += l->hops[h];
    return sum / (4.0 * l->hop);
}

// LUFS of the mean power of the blocks at or above `least`, and above `above`.
static double gated(const struct loudness *l, int64_t n_blocks, double least, double above)
{
    double sum = 0;
    int64_t kept = 0;
    for (int64_t j = 0; j < n_blocks; j++) {
        double power = block_power(l, j), lufs = to_lufs(power);
        if (!(lufs >= least && lufs > above)) continue;
        sum += power;
        kept++;
    }
    return kept ? to_lufs(sum / (double)kept) : -INFINITY;
}

double loudness_lufs(struct loudness *l)
{
    if (l->n < 4 * (int64_t)l->hop) return NAN;
    if (l->n % l->hop) hop_end(l);
    int64_t n_blocks = (int64_t)nearbyint(((double)l->n / l->rate - 0.4) / 0.1) + 1; // half to even
    double relative = gated(l, n_blocks, -70, -INFINITY) - 10;
    return gated(l, n_blocks, -70, fmax(relative, -70));
}

void loudness_free(struct loudness *l)
{
    if (!l) return;
    free(l->hops);
    free(l);
}

double loudness_gain(double lufs)
{
    return fabs(lufs) <= 100 ? pow(10, (LOUDNESS_TARGET - lufs) / 20) : 1; // NAN compares false
}
