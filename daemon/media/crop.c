// Antialiased bilinear scaling in 8 bits, windowed.
//
// Each axis has a triangle filter as wide as the shrinking factor, its weights rounded to 22-bit fixed point. The
// horizontal pass runs first and rounds to bytes, then the vertical one; an axis that keeps its length is passed over.
// Only the rows and columns that the cut needs are computed, so an absurd source (20000 x 10) costs no more than
// others.
//
// Easy to get wrong: half a pixel of excess is rounded to even; the product scale x length is not nudged before it is
// rounded up, so an axis that should fit exactly may come out one too long.
#include "daemon/media/crop.h"

#include "proto/base/err.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { FIXED_BITS = 22 };

struct crop crop_plan(int sh, int sw, int h, int w)
{
    double a = (double)h / sh, b = (double)w / sw, scale = a > b ? a : b;
    struct crop c = {.fh = (int64_t)ceil(scale * sh), .fw = (int64_t)ceil(scale * sw)};
    c.top = (int64_t)nearbyint((double)(c.fh - h) / 2.0); // the default mode rounds half to even
    c.left = (int64_t)nearbyint((double)(c.fw - w) / 2.0);
    return c;
}

// Taps of one output position: sources [from, from + n) and their fixed-point weights.
struct taps {
    int from, n;
    int32_t *weight;
};

struct axis {
    int n;     // output positions
    bool copy; // lengths agree: position i takes source first + i
    int first;
    int low, high; // sources in use
    struct taps *taps;
    int32_t *weights;
};

static void *need(size_t n, size_t size)
{
    void *p = calloc(n, size);
    BUG_IF(!p, "no memory to scale a picture");
    return p;
}

static void taps_fill(struct taps *t, double scale, int64_t o, int in)
{
    double f = scale > 1 ? scale : 1, c = ((double)o + 0.5) * scale, sum = 0;
    int a = (int)(c - f + 0.5), b = (int)(c + f + 0.5);
    a = a > 0 ? a : 0;
    b = b < in ? b : in;
    t->from = a;
    t->n = b - a;
    for (int pass = 0; pass < 2; pass++)
        for (int j = a; j < b; j++) {
            double w = 1 - fabs((j - c + 0.5) / f);
            w = w > 0 ? w : 0;
            if (pass == 0)
                sum += w;
            else
                t->weight[j - a] = (int32_t)(w / sum * (1 << FIXED_BITS) + 0.5);
        }
}

// Output positions [first, first + n) of an axis of `in` scaled to `out`.
static struct axis axis_new(int in, int64_t out, int64_t first, int n)
{
    struct axis x = {.n = n, .copy = in == out, .first = (int)first, .low = in, .high = 0};
    if (x.copy) {
        x.low = (int)first;
        x.high = (int)first + n;
        return x;
    }
    double scale = (double)in / (double)out;
    size_t width = (size_t)(2 * (scale > 1 ? scale : 1)) + 3;
    x.taps = need((size_t)n, sizeof *x.taps);
    x.weights = need((size_t)n * width, sizeof *x.weights);
    for (int i = 0; i < n; i++) {
        struct taps *t = &x.taps[i];
        t->weight = x.weights + (size_t)i * width;
        taps_fill(t, scale, first + i, in);
        if (t->from < x.low) x.low = t->from;
        if (t->from + t->n > x.high) x.high = t->from + t->n;
    }
    return x;
}

static void axis_free(struct axis *x)
{
    free(x->taps);
    free(x->weights);
}

static uint8_t weigh(const uint8_t *src, size_t stride, const struct taps *t)
{
    int64_t sum = 1 << (FIXED_BITS - 1);
    for (int j = 0; j < t->n; j++) sum += (int64_t)src[(size_t)j * stride] * t->weight[j];
    sum >>= FIXED_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void scale_row(const uint8_t *src, uint8_t *dst, const struct axis *x)
{
    if (x->copy) {
        memcpy(dst, src + (size_t)x->first * 3, (size_t)x->n * 3);
        return;
    }
    for (int i = 0; i < x->n; i++)
        for (int c = 0; c < 3; c++) dst[i * 3 + c] = weigh(src + (size_t)x->taps[i].from * 3 + c, 3, &x->taps[i]);
}

void crop_resize(const uint8_t *src, int sh, int sw, struct crop c, uint8_t *dst, int h, int w)
{
    struct axis across = axis_new(sw, c.fw, c.left, w), down = axis_new(sh, c.fh, c.top, h);
    size_t row = (size_t)w * 3;
    uint8_t *mid = need((size_t)(down.high - down.low), row);
    for (int i = down.low; i < down.high; i++)
        scale_row(src + (size_t)i * (size_t)sw * 3, mid + (size_t)(i - down.low) * row, &across);
    for (int i = 0; i < h; i++) {
        uint8_t *out = dst + (size_t)i * row;
        if (down.copy)
            memcpy(out, mid + (size_t)i * row, row);
        else
            for (size_t k = 0; k < row; k++)
                out[k] = weigh(mid + (size_t)(down.taps[i].from - down.low) * row + k, row, &down.taps[i]);
    }
    free(mid);
    axis_free(&across);
    axis_free(&down);
}

void crop_picture(const uint8_t *src, int sh, int sw, uint8_t *dst, int h, int w)
{
    crop_resize(src, sh, sw, crop_plan(sh, sw, h, w), dst, h, w);
}

static int nearest(int64_t o, int in, int64_t out)
{
    int64_t i = (int64_t)floorf((float)o * ((float)in / (float)out));
    return (int)(i < in ? i : in - 1);
}

void crop_mask(const uint8_t *src, int sh, int sw, uint8_t *dst, int h, int w)
{
    struct crop c = crop_plan(sh, sw, h, w);
    for (int i = 0; i < h; i++) {
        const uint8_t *row = src + (size_t)nearest(c.top + i, sh, c.fh) * (size_t)sw;
        for (int j = 0; j < w; j++) dst[(size_t)i * (size_t)w + (size_t)j] = row[nearest(c.left + j, sw, c.fw)];
    }
}
