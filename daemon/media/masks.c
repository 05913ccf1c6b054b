// Speaker masks.
//
// A mask is drawn on the source picture, then scaled and cut exactly as the picture is. Boxes are half-open and
// truncated to whole pixels, as the published program slices them; unlike it, what lies outside is refused or cut with
// a word, and nothing counts from the far end.
#include "daemon/media/masks.h"

#include "daemon/media/crop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELL = 16 };

struct box {
    int row0, col0, row1, col1;
};

static void notice(char *notices, size_t n, const char *text)
{
    size_t at = notices ? strlen(notices) : n;
    if (at + 1 < n) snprintf(notices + at, n - at, "%s\n", text);
}

// The halves of a picture that shows two people, without a margin of `scale`.
static struct box half_box(int speaker, int sh, int sw, double scale)
{
    int half = sw / 2, shift = speaker ? half : 0;
    return (struct box){.row0 = (int)(sh * scale),
                        .row1 = (int)(sh * (1 - scale)),
                        .col0 = (int)(half * scale + shift),
                        .col1 = (int)(half * (1 - scale) + shift)};
}

// A box that would fit if its axes were exchanged was probably written that way.
static const char *turned_hint(const struct spec_region *r, int sh, int sw)
{
    bool fits = r->row0 >= 0 && r->col0 >= 0 && r->row1 <= sw && r->col1 <= sh;
    return fits ? "; its numbers fit with the axes exchanged: bbox counts rows first, bbox_xyxy and --box columns" : "";
}

static int clip(double v, int high) { return v < 0 ? 0 : v > high ? high : (int)v; }

static int given_box(struct box *b, const struct spec_region *r, int speaker, int sh, int sw, char *notices, size_t n,
                     struct err *e)
{
    char text[256];
    *b = (struct box){clip(r->row0, sh), clip(r->col0, sw), clip(r->row1, sh), clip(r->col1, sw)};
    if (!(r->row1 > r->row0) || !(r->col1 > r->col0))
        return err_set(e, E_INPUT,
                       "the box of speaker %d is empty: x %g to %g, y %g to %g; give x0,y0,x1,y1 with the lower first",
                       speaker + 1, r->col0, r->col1, r->row0, r->row1);
    if (b->row1 <= b->row0 || b->col1 <= b->col0)
        return err_set(
            e, E_INPUT,
            "the box of speaker %d (x %g to %g, y %g to %g) lies outside the %dx%d picture%s; move it inside",
            speaker + 1, r->col0, r->col1, r->row0, r->row1, sw, sh, turned_hint(r, sh, sw));
    if (r->row0 < 0 || r->col0 < 0 || r->row1 > sh || r->col1 > sw) {
        snprintf(text, sizeof text, "the box of speaker %d reaches outside the %dx%d picture and was cut%s",
                 speaker + 1, sw, sh, turned_hint(r, sh, sw));
        notice(notices, n, text);
    }
    return 0;
}

static void draw_box(uint8_t *plane, int sw, struct box b)
{
    for (int i = b.row0; i < b.row1; i++)
        memset(plane + (size_t)i * (size_t)sw + (size_t)b.col0, 255, (size_t)(b.col1 - b.col0));
}

static bool covers_cell(const uint8_t *mask, int h, int w)
{
    for (int i = 0; i < h; i += CELL)
        for (int j = 0; j < w; j += CELL)
            if (mask[(size_t)i * (size_t)w + (size_t)j]) return true;
    return false;
}

// Both voices would move one face where regions lie on each other.
static void check_overlap(const uint8_t *masks, size_t target, char *notices, size_t n)
{
    const uint8_t *a = masks, *b = masks + target;
    size_t n_a = 0, n_b = 0, both = 0;
    char text[256];
    for (size_t i = 0; i < target; i++) {
        n_a += a[i] > 127;
        n_b += b[i] > 127;
        both += a[i] > 127 && b[i] > 127;
    }
    size_t smaller = n_a < n_b ? n_a : n_b;
    if (2 * both <= smaller) return;
    snprintf(text, sizeof text,
             "the regions of the two speakers overlap by %.0f %% of the smaller; each should hold one face only",
             100.0 * (double)both / (double)smaller);
    notice(notices, n, text);
}

int masks_fill(uint8_t *masks, const struct spec_region *region, const uint8_t *const *plane, int n_speakers, int sh,
               int sw, int h, int w, double face_scale, char *notices, size_t n, struct err *e)
{
    size_t source = (size_t)sh * (size_t)sw, target = (size_t)h * (size_t)w;
    uint8_t *drawn = malloc(source);
    if (!drawn) return err_set(e, E_FATAL, "no memory for a mask of %dx%d", sw, sh);
    int rc = 0;
    for (int p = 0; p < n_speakers && rc == 0; p++) {
        struct box b = half_box(p, sh, sw, face_scale);
        memset(drawn, 0, source);
        if (plane && plane[p])
            for (size_t i = 0; i < source; i++) drawn[i] = plane[p][i] > 127 ? 255 : 0;
        else {
            if (region[p].has_box) rc = given_box(&b, &region[p], p, sh, sw, notices, n, e);
            if (rc == 0) draw_box(drawn, sw, b);
        }
        if (rc < 0) break;
        uint8_t *mask = masks + (size_t)p * target;
        crop_mask(drawn, sh, sw, mask, h, w);
        struct crop c = crop_plan(sh, sw, h, w);
        if (!covers_cell(mask, h, w))
            rc =
                err_set(e, E_INPUT,
                        "the region of speaker %d covers no %dx%d cell of the %dx%d output picture; here it must be at "
                        "least %d pixels wide and %d high, inside the part that is shown",
                        p + 1, CELL, CELL, w, h, (int)ceil((double)CELL * sw / (double)c.fw),
                        (int)ceil((double)CELL * sh / (double)c.fh));
    }
    free(drawn);
    if (rc == 0 && n_speakers == 2) check_overlap(masks, target, notices, n);
    return rc;
}
