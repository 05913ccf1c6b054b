// A step is the mean difference of two pictures' brightness, in levels. In a film that stands still every step is next
// to nothing, and twice that is nothing too: below STILL a step counts as STILL.
#include "daemon/seam.h"

#include "proto/base/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STILL 0.5

static double step(const uint8_t *a, const uint8_t *b, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += (uint64_t)abs(a[i] - b[i]);
    return (double)sum / (double)n;
}

void seam_see(struct seam *s, const uint8_t *luma, size_t n)
{
    if (!s->last) s->last = malloc(n);
    BUG_IF(!s->last, "no memory for a picture");
    if (s->has_last && s->begun) {
        s->inner += step(s->last, luma, n);
        s->n_inner++;
    } else if (s->has_last) {
        s->border = step(s->last, luma, n);
        s->has_border = true;
    }
    memcpy(s->last, luma, n);
    s->has_last = s->begun = true;
}

double seam_end(struct seam *s)
{
    double score = -1;
    if (s->has_border && s->n_inner > 0) score = s->border / fmax(s->inner / (double)s->n_inner, STILL);
    s->begun = s->has_border = false;
    s->inner = 0;
    s->n_inner = 0;
    return score;
}

void seam_forget(struct seam *s)
{
    seam_end(s);
    s->has_last = false;
}

const uint8_t *seam_last(const struct seam *s) { return s->has_last ? s->last : NULL; }

void seam_follow(struct seam *s, const uint8_t *luma, size_t n)
{
    seam_forget(s);
    if (!s->last) s->last = malloc(n);
    BUG_IF(!s->last, "no memory for a picture");
    memcpy(s->last, luma, n);
    s->has_last = true;
}

void seam_free(struct seam *s)
{
    free(s->last);
    *s = (struct seam){0};
}
