// The parent's side: times out of frames (proto/plan_segments.h), questions to the child, answers checked, since a
// decoder that was talked into something answers through the same pipe.
//
// A child costs a process and three descriptors, so it is only there while it is needed: one of a still picture goes
// when that has been cut to size, one of a video when its caller lets it rest. The next question starts another one.
#include "daemon/media/source.h"

#include "daemon/media/child.h"
#include "daemon/media/picture.h"
#include "daemon/media/speaker.h"
#include "proto/plan_segments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FPS = 25, FRAME_US = 1000000 / FPS, USABLE_WITHIN = 2 * FPS, SKETCH = 64 };
#define OTHER_SHOT 0.5 // share of the pixels that change their colour

struct source {
    struct child *child;     // NULL: none is needed now
    struct source_options o; // path is ours
    bool still;
    bool measured;
    struct plan_film film;
    int64_t n_us;
    uint8_t *kept; // a still picture, as last cut
    int kept_h, kept_w;
    int first_h, first_w; // of the video, upright
    bool told_damage, told_size, told_cut;
    float sketch[SKETCH]; // of the last reference picture
    int64_t sketched;     // its frame, -1: none
    char notice[512];
};

static int nonsense(const char *path, struct err *e)
{
    return err_set(e, E_INPUT, "picture %s: the decoder went wrong on it; convert it with another program first", path);
}

static int child_open(struct child **c, const char *self, const char *path, const char *kind, bool published,
                      struct picture_head *h, struct err *e)
{
    const char *args[] = {path, kind, published ? "published" : "", NULL};
    int rc = child_start(c, self, "picture", args, e);
    if (rc < 0) return rc;
    rc = child_read(*c, h, sizeof *h, e);
    if (rc >= 0 && (h->h < 1 || h->w < 1 || h->h > PICTURE_SIDE_MAX || h->w > PICTURE_SIDE_MAX)) rc = nonsense(path, e);
    h->warnings[sizeof h->warnings - 1] = 0;
    if (rc < 0) {
        child_kill(*c);
        *c = NULL;
    }
    return rc;
}

// Its child, started again where it has none.
static int awake(struct source *s, struct err *e)
{
    struct picture_head h;
    if (s->child) return 0;
    int rc = child_open(&s->child, s->o.self, s->o.path, "picture", s->o.published, &h, e);
    if (rc < 0 || (h.h == s->first_h && h.w == s->first_w)) return rc;
    source_rest(s);
    return err_set(e, E_INPUT, "picture %s has %dx%d pixels now, and had %dx%d when it was opened", s->o.path, h.w, h.h,
                   s->first_w, s->first_h);
}

void source_rest(struct source *s)
{
    child_kill(s->child);
    s->child = NULL;
}

static int ask(struct child *c, const char *path, struct picture_ask a, struct picture_answer *got, void *bytes,
               size_t n, struct err *e)
{
    int rc = child_ask(c, &a, sizeof a, e);
    if (rc >= 0) rc = child_read(c, got, sizeof *got, e);
    if (rc >= 0 && got->n != (int64_t)n) rc = nonsense(path, e);
    return rc < 0 || n == 0 ? rc : child_read(c, bytes, n, e);
}

int source_open(struct source **out, const struct source_options *o, struct source_info *info, struct err *e)
{
    struct picture_head h;
    struct child *c = NULL;
    int rc = child_open(&c, o->self, o->path, "picture", o->published, &h, e);
    if (rc < 0) return rc;
    struct source *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for a source");
    s->child = c;
    s->o = *o;
    s->o.path = strdup(o->path);
    BUG_IF(!s->o.path, "no memory for a source");
    s->still = h.still;
    s->first_h = h.h;
    s->first_w = h.w;
    s->sketched = -1;
    *info = (struct source_info){.h = h.h, .w = h.w, .still = h.still};
    snprintf(info->warnings, sizeof info->warnings, "%s", h.warnings);
    *out = s;
    return 0;
}

int source_measure(struct source *s, int64_t limit, struct source_info *info, struct err *e)
{
    if (s->still) return 0;
    struct picture_answer n;
    struct picture_ask a = {.what = PICTURE_LENGTH, .at = limit > 0 ? (limit + 1) * FRAME_US : 0};
    int rc = awake(s, e);
    if (rc >= 0) rc = ask(s->child, s->o.path, a, &n, NULL, 0, e);
    if (rc < 0) return rc;
    if (n.n_us < 1 || n.n_pictures < 1 || n.rate_num < 1 || n.rate_den < 1) return nonsense(s->o.path, e);
    s->n_us = n.n_us;
    if (n.promised_us > n.n_us)
        warn_add(info->warnings, sizeof info->warnings,
                 "the video is cut short: its header promises %.2f s and it ends at %.2f s",
                 (double)n.promised_us / 1e6, (double)n.n_us / 1e6);
    s->film = (struct plan_film){.n_frames = n.n_pictures,
                                 .rate_num = n.rate_num,
                                 .rate_den = n.rate_den,
                                 .end = s->o.end,
                                 .by_index = s->o.published};
    s->measured = true;
    s->still = n.n_pictures == 1;
    info->still = s->still;
    // frames that begin before the end, by the millisecond that containers round to
    int64_t within = (n.n_us - 1000 + FRAME_US - 1) / FRAME_US;
    info->n_frames = s->still ? 0 : s->o.published ? n.n_pictures : within > 1 ? within : 1;
    return 0;
}

// ---- what pictures tell

// How many pixels there are of each of 64 colours.
static void sketch_make(float sketch[SKETCH], const uint8_t *rgb, size_t n)
{
    memset(sketch, 0, SKETCH * sizeof *sketch);
    for (size_t i = 0; i < n; i++, rgb += 3) sketch[rgb[0] >> 6 << 4 | rgb[1] >> 6 << 2 | rgb[2] >> 6] += 1;
    for (int c = 0; c < SKETCH; c++) sketch[c] /= (float)n;
}

static void look_for_cut(struct source *s, int64_t frame, const uint8_t *rgb, size_t n)
{
    float now[SKETCH];
    double differ = 0;
    bool later = s->sketched >= 0 && frame > s->sketched;
    sketch_make(now, rgb, n);
    for (int c = 0; c < SKETCH; c++) {
        differ += fabs((double)now[c] - (double)s->sketch[c]) / 2;
        if (now[c] > 0.95f || s->sketch[c] > 0.95f) later = false; // nothing to be seen: a fade
    }
    if (later && differ > OTHER_SHOT && !s->told_cut) {
        s->told_cut = true;
        warn_add(s->notice, sizeof s->notice,
                 "the video seems to have a cut between %.2f s and %.2f s, and faces may melt there; with --cuts auto, "
                 "the film begins afresh at each shot",
                 (double)s->sketched / FPS, (double)frame / FPS);
    }
    memcpy(s->sketch, now, sizeof now);
    s->sketched = frame;
}

static void look(struct source *s, int64_t frame, const struct picture_answer *got, const uint8_t *rgb, size_t n)
{
    if (got->damaged_us >= 0 && !s->told_damage) {
        s->told_damage = true;
        warn_add(s->notice, sizeof s->notice,
                 "the video is damaged at %.2f s; the picture before stands in, there and wherever else it is",
                 (double)got->damaged_us / 1e6);
    }
    if ((got->h != s->first_h || got->w != s->first_w) && !s->told_size) {
        s->told_size = true;
        warn_add(s->notice, sizeof s->notice,
                 "the video's pictures change their size from %dx%d to %dx%d by %.2f s; they are scaled to the first",
                 s->first_w, s->first_h, got->w, got->h, (double)frame / FPS);
    }
    bool forward = s->o.end == SPEC_END_HOLD || s->o.end == SPEC_END_STOP;
    if (forward && !s->o.cut) look_for_cut(s, frame, rgb, n);
}

const char *source_notice(struct source *s) { return s->notice[0] ? s->notice : NULL; }

int source_picture(struct source *s, int64_t frame, int h, int w, uint8_t *rgb, struct err *e)
{
    size_t n = (size_t)h * (size_t)w * 3;
    if (s->kept && s->kept_h == h && s->kept_w == w) {
        memcpy(rgb, s->kept, n);
        return 0;
    }
    struct picture_ask a = {.what = PICTURE_AT_US, .h = h, .w = w};
    s->notice[0] = 0;
    struct picture_answer got;
    BUG_IF(!s->still && !s->measured, "a video that was not measured");
    if (!s->still && s->o.published) {
        a.what = PICTURE_AT_INDEX;
        a.at = plan_film_picture(&s->film, frame);
    } else if (!s->still)
        a.at = plan_film_us(s->n_us, s->o.end, frame);
    int rc = awake(s, e);
    if (rc >= 0) rc = ask(s->child, s->o.path, a, &got, rgb, n, e);
    if (rc >= 0 && !s->still) look(s, frame, &got, rgb, (size_t)h * (size_t)w);
    if (rc < 0 || !s->still) return rc;
    free(s->kept);
    s->kept = malloc(n);
    BUG_IF(!s->kept, "no memory for a picture");
    memcpy(s->kept, rgb, n);
    s->kept_h = h;
    s->kept_w = w;
    source_rest(s);
    return 0;
}

static int64_t frame_of_us(int64_t us) { return us <= 1000 ? 0 : (us - 1000 + FRAME_US - 1) / FRAME_US; }

int source_shots(struct source *s, int64_t n_frames, int64_t **frame, int *n, struct err *e)
{
    struct picture_ask a = {.what = PICTURE_SHOTS, .at = n_frames * FRAME_US};
    struct picture_answer got;
    int64_t *us = calloc(PICTURE_SHOTS_MAX + 1, sizeof *us);
    BUG_IF(!us, "no memory for shots");
    *n = 0;
    *frame = us;
    if (s->still) return 0;
    int rc = awake(s, e);
    if (rc >= 0) rc = child_ask(s->child, &a, sizeof a, e);
    do {
        if (rc >= 0) rc = child_read(s->child, &got, sizeof got, e);
    } while (rc >= 0 && got.n_pictures == -1);
    if (rc >= 0 && (got.n_pictures < 0 || got.n_pictures > PICTURE_SHOTS_MAX)) rc = nonsense(s->o.path, e);
    if (rc >= 0) rc = child_read(s->child, us, (size_t)got.n_pictures * sizeof *us, e);
    for (int i = 0; rc >= 0 && i < (int)got.n_pictures; i++)
        if (us[i] > 0 && us[i] < s->n_us) us[(*n)++] = frame_of_us(us[i]); // the first frame that shows it
    if (rc >= 0) return 0;
    free(us);
    *frame = NULL;
    return rc;
}

// Standard deviation of the brightness, in percent of the range.
static double contrast(const uint8_t *rgb, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++, rgb += 3) {
        double y = (0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]) * 100 / 255;
        sum += y;
        squares += y * y;
    }
    double mean = sum / (double)n;
    return sqrt(fmax(0, squares / (double)n - mean * mean));
}

int source_colour_picture(struct source *s, int64_t frame, int h, int w, uint8_t *rgb, struct source_info *info,
                          struct err *e)
{
    size_t n = (size_t)h * (size_t)w;
    int rc = source_picture(s, frame, h, w, rgb, e);
    if (rc < 0 || s->still || s->o.published || contrast(rgb, n) >= 2) return rc;
    for (int i = 1; i <= USABLE_WITHIN; i++) {
        s->sketched = -1; // a picture that comes up out of the dark is no cut
        rc = source_picture(s, frame + i, h, w, rgb, e);
        if (rc < 0) return rc;
        if (contrast(rgb, n) < 2) continue;
        warn_add(info->warnings, sizeof info->warnings,
                 "the video begins without a picture; colours are matched to the one at %.2f s",
                 (double)(frame + i) / FPS);
        return 0;
    }
    return source_picture(s, frame, h, w, rgb, e);
}

void source_close(struct source *s)
{
    if (!s) return;
    child_kill(s->child);
    free(s->kept);
    free((char *)s->o.path);
    free(s);
}

int source_mask(uint8_t **plane, const char *self, const char *path, int h, int w, struct err *e)
{
    struct picture_head head;
    struct picture_answer got;
    struct child *c = NULL;
    int rc = child_open(&c, self, path, "mask", false, &head, e);
    if (rc < 0) return err_wrap(e, "mask");
    *plane = malloc((size_t)h * (size_t)w);
    BUG_IF(!*plane, "no memory for a mask");
    struct picture_ask a = {.what = PICTURE_PLANE, .h = h, .w = w};
    rc = ask(c, path, a, &got, *plane, (size_t)h * (size_t)w, e);
    child_kill(c);
    if (rc >= 0) return 0;
    free(*plane);
    *plane = NULL;
    return err_wrap(e, "mask");
}
