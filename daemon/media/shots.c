// Three detectors on small pictures, at most 256 wide.
//
//   score_t = mean over pixels of (|dH| + |dS| + |dV|) / 3 between picture t and t-1, in 8-bit HSV (H to 179)
//   content    score at least 27, and 15 pictures since the last such; a run of them counts once, where it ends
//   adaptive   score at least 15, three times the mean of the two before and the two after, 15 pictures apart
//   fade       mean brightness falls below 12 and comes back: the cut is half way between
//
// What any of them finds is a cut. Sizes and thresholds are those of the detector that the published program calls, so
// films are cut where its users expect it.
//
// Trap: the adaptive detector knows of a cut two pictures late, the fade at its end: times are kept for the last
// pictures.
#include "daemon/media/shots.h"

#include "proto/base/err.h"

#include <libswscale/swscale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { W = 256, H_MAX = 1280, APART = 15, WINDOW = 5, HALF = WINDOW / 2 };
#define CONTENT  27.0
#define ADAPTIVE 15.0
#define RATIO    3.0
#define BLACK    12.0

struct shots {
    struct SwsContext *scale;
    int w, h; // of the small picture; 0: none yet
    uint8_t rgb[W * H_MAX * 3], hsv[2][W * H_MAX * 3];
    int64_t n; // pictures seen
    // the last scores and times, the newest at [WINDOW - 1]
    double score[WINDOW];
    int64_t us[WINDOW];
    // content
    int64_t last_above, merge_from, merge_last_us;
    bool merging, may_merge;
    // adaptive
    int64_t last_adaptive;
    // fade
    bool dark;
    int64_t dark_from_us, last_fade;
    // found
    int64_t *found;
    int n_found, room;
};

struct shots *shots_new(void)
{
    struct shots *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for shots");
    return s;
}

static void found(struct shots *s, int64_t us)
{
    if (s->n_found == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->found = realloc(s->found, (size_t)s->room * sizeof *s->found);
        BUG_IF(!s->found, "no memory for shots");
    }
    s->found[s->n_found++] = us;
}

// ---- a picture

static bool shrink(struct shots *s, const AVFrame *f)
{
    if (s->w == 0) { // the first picture's shape holds for all
        s->w = f->width < W ? f->width : W;
        s->h = (int)((int64_t)f->height * s->w / f->width);
        s->h = s->h < 1 ? 1 : s->h > H_MAX ? H_MAX : s->h;
    }
    uint8_t *to[4] = {s->rgb};
    int stride[4] = {s->w * 3};
    s->scale = sws_getCachedContext(s->scale, f->width, f->height, (enum AVPixelFormat)f->format, s->w, s->h,
                                    AV_PIX_FMT_RGB24, SWS_BILINEAR | SWS_ACCURATE_RND, NULL, NULL, NULL);
    return s->scale &&
           sws_scale(s->scale, (const uint8_t *const *)f->data, f->linesize, 0, f->height, to, stride) == s->h;
}

static void to_hsv(const uint8_t *rgb, uint8_t *hsv)
{
    int r = rgb[0], g = rgb[1], b = rgb[2], v = r > g ? r : g, low = r < g ? r : g;
    if (b > v) v = b;
    if (b < low) low = b;
    int range = v - low;
    double hue = 0;
    if (range > 0)
        hue = v == r ? 60.0 * (g - b) / range : v == g ? 120 + 60.0 * (b - r) / range : 240 + 60.0 * (r - g) / range;
    if (hue < 0) hue += 360;
    hsv[0] = (uint8_t)((int)lround(hue / 2) % 180);
    hsv[1] = (uint8_t)(v ? lround(255.0 * range / v) : 0);
    hsv[2] = (uint8_t)v;
}

static double measure(struct shots *s, double *brightness)
{
    uint8_t *now = s->hsv[s->n % 2];
    const uint8_t *before = s->hsv[(s->n + 1) % 2];
    int64_t sum = 0, difference = 0;
    int n = s->w * s->h * 3;
    for (int i = 0; i < n; i++) sum += s->rgb[i];
    for (int i = 0; i < n; i += 3) to_hsv(s->rgb + i, now + i);
    for (int i = 0; i < n; i++) difference += abs(now[i] - before[i]);
    *brightness = (double)sum / n;
    return s->n ? (double)difference / n : 0;
}

// ---- the detectors

static void content(struct shots *s, double score, int64_t us)
{
    bool above = score >= CONTENT, apart = s->n - s->last_above >= APART;
    if (s->merging) {
        if (above) {
            s->last_above = s->n;
            s->merge_last_us = us;
        } else if (apart && s->last_above - s->merge_from >= APART) {
            s->merging = false;
            found(s, s->merge_last_us);
        }
        return;
    }
    if (!above) return;
    s->last_above = s->n;
    if (apart) {
        s->may_merge = true;
        found(s, us);
    } else if (s->may_merge) {
        s->merging = true;
        s->merge_from = s->n;
        s->merge_last_us = us;
    }
}

static void adaptive(struct shots *s)
{
    double centre = s->score[HALF], others = 0;
    if (s->n + 1 < WINDOW) return;
    for (int i = 0; i < WINDOW; i++) others += i == HALF ? 0 : s->score[i] / (WINDOW - 1);
    double ratio = others >= 1e-5 ? centre / others : centre >= ADAPTIVE ? 255 : 0;
    if (ratio < RATIO || centre < ADAPTIVE || s->n - s->last_adaptive < APART) return;
    s->last_adaptive = s->n;
    found(s, s->us[HALF]);
}

static void fade(struct shots *s, double brightness, int64_t us)
{
    bool dark = brightness < BLACK;
    if (s->n == 0) s->dark = dark;
    if (dark && !s->dark) s->dark_from_us = us;
    if (!dark && s->dark && s->n - s->last_fade >= APART) {
        found(s, s->dark_from_us + (us - s->dark_from_us) / 2);
        s->last_fade = s->n;
    }
    s->dark = dark;
}

void shots_see(struct shots *s, const AVFrame *f, int64_t us)
{
    double brightness;
    if (!shrink(s, f)) return;
    double score = measure(s, &brightness);
    memmove(s->score, s->score + 1, (WINDOW - 1) * sizeof *s->score);
    memmove(s->us, s->us + 1, (WINDOW - 1) * sizeof *s->us);
    s->score[WINDOW - 1] = score;
    s->us[WINDOW - 1] = us;
    content(s, score, us);
    adaptive(s);
    fade(s, brightness, us);
    s->n++;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int shots_end(struct shots *s, int64_t **us, int most)
{
    int n = 0;
    if (s->n_found) qsort(s->found, (size_t)s->n_found, sizeof *s->found, by_time);
    for (int i = 0; i < s->n_found && n < most; i++)
        if (n == 0 || s->found[i] != s->found[n - 1]) s->found[n++] = s->found[i];
    *us = s->found;
    sws_freeContext(s->scale);
    free(s);
    return n;
}
