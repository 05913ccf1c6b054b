// The child's side of a source: opens, checks, then answers until the parent is satisfied and kills it.
//
// Pictures are cut to size here, so that the pipe carries what the model sees and not 8K frames.
#include "daemon/media/picture.h"

#include "daemon/media/child.h"
#include "daemon/media/crop.h"
#include "daemon/media/film.h"
#include "daemon/media/profile.h"
#include "daemon/media/shots.h"
#include "daemon/media/speaker.h"
#include "daemon/media/upright.h"

#include <libavutil/log.h>
#include <libavutil/parseutils.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { GREY = 128, SHORT_MIN = 64, SHORT_SMALL = 256, SHOTS_ALIVE = 100 };

struct server {
    const char *path;
    struct film *film;
    bool mask, published;
    bool odd_profile; // colours that could not be followed
    int h, w;         // of the first picture
    int out;
};

static int server_upright(struct server *s, const AVFrame *f, struct upright *u, struct err *e)
{
    bool stored = s->published && film_still(s->film); // the published program knows no EXIF
    const int32_t *matrix = stored ? NULL : film_matrix(s->film, f);
    AVRational shape = s->published ? (AVRational){1, 1} : film_shape(s->film, f);
    int rc = upright_make(u, f, matrix, shape, s->mask ? 0 : s->published ? -1 : GREY, e);
    if (rc < 0) return err_wrap(e, "picture %s", s->path);
    if (s->published || s->mask) return 0;
    const AVFrameSideData *profile = av_frame_get_side_data(f, AV_FRAME_DATA_ICC_PROFILE);
    const AVDictionaryEntry *gamma = av_dict_get(f->metadata, "gamma", NULL, 0); // PNG: "45455/100000"
    size_t n = (size_t)u->h * (size_t)u->w;
    AVRational g = {0, 1};
    const struct claim_colour *named = film_colour(s->film);
    if (named)
        s->odd_profile = !profile_named(named->primaries, named->transfer, u->rgb, n);
    else if (profile)
        s->odd_profile = !profile_apply(profile->data, profile->size, u->rgb, n);
    else if (gamma && f->color_trc != AVCOL_TRC_IEC61966_2_1 && av_parse_ratio(&g, gamma->value, INT_MAX, 0, NULL) == 0)
        profile_gamma(av_q2d(g), u->rgb, n);
    return 0;
}

// ---- the first picture

// The content decides, so that a wrong name does no harm; but who gave it may have meant another file.
static void warn_name(const struct server *s, struct picture_head *h)
{
    static const struct {
        const char *end, *kinds, *is;
    } names[] = {
        {".png", "png_pipe,apng", "a PNG"},  {".jpg", "jpeg_pipe", "a JPEG"}, {".jpeg", "jpeg_pipe", "a JPEG"},
        {".webp", "webp_pipe", "a WebP"},    {".bmp", "bmp_pipe", "a BMP"},   {".gif", "gif", "a GIF"},
        {".mp4", "mov,mp4", "an MP4"},       {".mov", "mov,mp4", "an MP4"},   {".mkv", "matroska", "a Matroska"},
        {".webm", "matroska", "a Matroska"}, {".avi", "avi", "an AVI"}};
    enum { N = sizeof names / sizeof *names };
    const char *dot = strrchr(s->path, '.'), *kind = film_kind(s->film), *is = NULL;
    size_t named = N;
    for (size_t i = N; i-- > 0;) {
        if (dot && strcasecmp(dot, names[i].end) == 0) named = i;
        if (strstr(names[i].kinds, kind) || strstr(kind, names[i].kinds)) is = names[i].is;
    }
    if (named == N || !is || strcmp(is, names[named].is) == 0) return;
    warn_add(h->warnings, sizeof h->warnings, "%s is %s file, whatever its name says; it is read as one", s->path, is);
}

static int check(const struct server *s, const AVFrame *f, const struct upright *u, struct picture_head *h,
                 struct err *e)
{
    int low = u->h < u->w ? u->h : u->w;
    double ratio = (double)u->h / u->w;
    if (s->mask) return 0;
    if (ratio < 0.2 || ratio > 5)
        return err_set(e, E_INPUT,
                       "picture %s has %dx%d pixels, an aspect ratio beyond 1:5; cut it to the part that matters",
                       s->path, u->w, u->h);
    if (low < SHORT_MIN)
        return err_set(e, E_INPUT,
                       "picture %s has %dx%d pixels, too few to show a face; give one of at least %d on "
                       "the short side",
                       s->path, u->w, u->h, SHORT_MIN);
    size_t room = sizeof h->warnings;
    warn_name(s, h);
    if (low < SHORT_SMALL) warn_add(h->warnings, room, "the picture has only %dx%d pixels", u->w, u->h);
    if (ratio < 0.25 || ratio > 4)
        warn_add(h->warnings, room, "the picture is very long (%dx%d); much of it is cut away", u->w, u->h);
    if (u->clear > 0.01 && !s->published)
        warn_add(h->warnings, room, "%.0f %% of the picture is transparent and lies on grey", 100 * u->clear);
    if (film_missing(s->film) > 0)
        warn_add(h->warnings, room,
                 "the picture is cut short or damaged: the lowest %.1f %% of its rows are missing, the last one there "
                 "is stands in their place; copy it again",
                 100 * film_missing(s->film));
    if (film_canned(s->film)) warn_add(h->warnings, room, "of an animation, only the first picture is used");
    if (f->interlaced_frame && !film_still(s->film))
        warn_add(h->warnings, room, "the video is interlaced; one field of each picture is used");
    if (s->odd_profile)
        warn_add(h->warnings, room,
                 "the picture's colour profile is of a kind that is not followed; colours may shift");
    return 0;
}

static int first_say(struct server *s, struct err *e)
{
    const AVFrame *f;
    struct upright u;
    struct picture_head h = {.still = film_still(s->film)};
    int rc = film_at_us(s->film, 0, &f, e);
    if (rc >= 0) rc = server_upright(s, f, &u, e);
    if (rc < 0) return rc;
    h.h = s->h = u.h;
    h.w = s->w = u.w;
    rc = check(s, f, &u, &h, e);
    free(u.rgb);
    return rc < 0 ? rc : child_write(s->out, &h, sizeof h, e);
}

// ---- answers

static void plane_fill(const struct upright *u, uint8_t *to, int h, int w)
{
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            int sy = (int)((int64_t)y * u->h / h), sx = (int)((int64_t)x * u->w / w);
            const uint8_t *p = u->rgb + ((size_t)sy * (size_t)u->w + (size_t)sx) * 3;
            to[(size_t)y * (size_t)w + (size_t)x] = (uint8_t)((p[0] + p[1] + p[2]) / 3);
        }
}

// Pictures of another size in midstream: regions and places are those of the first.
static void stretch(const struct server *s, struct upright *u)
{
    uint8_t *rgb = malloc((size_t)s->h * (size_t)s->w * 3);
    BUG_IF(!rgb, "no memory for a picture");
    struct crop whole = {.fh = s->h, .fw = s->w};
    crop_resize(u->rgb, u->h, u->w, whole, rgb, s->h, s->w);
    free(u->rgb);
    *u = (struct upright){.h = s->h, .w = s->w, .rgb = rgb, .clear = u->clear};
}

static int picture_say(struct server *s, const struct picture_ask *a, struct err *e)
{
    const AVFrame *f;
    struct upright u;
    int rc = a->what == PICTURE_AT_INDEX ? film_at_index(s->film, a->at, &f, e) : film_at_us(s->film, a->at, &f, e);
    if (rc >= 0) rc = server_upright(s, f, &u, e);
    if (rc < 0) return rc;
    int channels = a->what == PICTURE_PLANE ? 1 : 3;
    struct picture_answer answer = {.n = (int64_t)a->h * a->w * channels, .damaged_us = -1, .h = u.h, .w = u.w};
    if (a->what == PICTURE_AT_US) answer.damaged_us = film_damaged_us(s->film, a->at);
    if (u.h != s->h || u.w != s->w) stretch(s, &u);
    uint8_t *bytes = malloc((size_t)answer.n);
    BUG_IF(!bytes, "no memory for a picture");
    if (a->what == PICTURE_PLANE)
        plane_fill(&u, bytes, a->h, a->w);
    else
        crop_picture(u.rgb, u.h, u.w, bytes, a->h, a->w);
    rc = child_write(s->out, &answer, sizeof answer, e);
    if (rc >= 0) rc = child_write(s->out, bytes, (size_t)answer.n, e);
    free(bytes);
    free(u.rgb);
    return rc;
}

static int length_say(struct server *s, const struct picture_ask *a, struct err *e)
{
    struct film_length n;
    int rc = film_length(s->film, a->at, &n, e);
    struct picture_answer answer = {.n_us = n.n_us,
                                    .n_pictures = n.n_pictures,
                                    .rate_num = n.rate_num,
                                    .rate_den = n.rate_den,
                                    .promised_us = n.promised_us,
                                    .damaged_us = -1};
    return rc < 0 ? rc : child_write(s->out, &answer, sizeof answer, e);
}

// Looks at every picture until the limit, small and grey enough that the colour's exact meaning does not matter.
static int shots_say(struct server *s, const struct picture_ask *a, struct err *e)
{
    struct shots *w = shots_new();
    const AVFrame *f;
    int64_t us, *at;
    int rc, n;
    for (int64_t i = 0; (rc = film_step(s->film, i == 0, &f, &us, e)) == 1 && us < a->at; i++) {
        struct picture_answer alive = {.n_pictures = -1};
        shots_see(w, f, us);
        if (i % SHOTS_ALIVE == 0 && (rc = child_write(s->out, &alive, sizeof alive, e)) < 0) break;
    }
    n = shots_end(w, &at, PICTURE_SHOTS_MAX);
    struct picture_answer answer = {.n_pictures = n};
    if (rc >= 0) rc = child_write(s->out, &answer, sizeof answer, e);
    if (rc >= 0) rc = child_write(s->out, at, (size_t)n * sizeof *at, e);
    free(at);
    return rc;
}

int picture_child(int argc, char **argv, int out, struct err *e)
{
    if (argc != 3) return err_set(e, E_FATAL, "picture takes a file and two words");
    struct server s = {.path = argv[0],
                       .mask = strcmp(argv[1], "mask") == 0,
                       .published = strcmp(argv[2], "published") == 0,
                       .out = out};
    struct picture_ask a;
    av_log_set_level(AV_LOG_QUIET); // what goes wrong is said in a sentence
    int rc = film_open(&s.film, s.path, e);
    if (rc < 0) return rc;
    child_seal(); // the file is open, the decoder runs
    rc = first_say(&s, e);
    while (rc >= 0 && child_asked(&a, sizeof a))
        rc = a.what == PICTURE_LENGTH  ? length_say(&s, &a, e)
             : a.what == PICTURE_SHOTS ? shots_say(&s, &a, e)
                                       : picture_say(&s, &a, e);
    film_close(s.film);
    return rc;
}
