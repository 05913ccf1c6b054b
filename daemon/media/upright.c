// Four steps, each a plain [h, w, channels] picture to another:
//
//   colours     stored RGB, grey and palettes are copied exactly (16 bits rounded to 8); YUV goes through libswscale
//               with the picture's own matrix and range, chroma interpolated
//   alpha       laid over a ground
//   shape       pixels that are not square are stretched to the display's shape
//   turn        the eight ways of a display matrix
//
// Traps: libswscale's short cut from YUV to RGB repeats chroma samples and is switched off by SWS_ACCURATE_RND; its way
// from 16-bit RGB to 8-bit RGB leads through YUV, hence the exact copies. An unmarked matrix is BT.601 for small
// pictures and BT.709 for large ones, as players take it. Of an interlaced picture one field is used: the other one is
// another moment.
#include "daemon/media/upright.h"

#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MARGIN = 64, SMALL_H = 576, SMALL_W = 1024 }; // libswscale may write a little past the last row

struct plain {
    int h, w, channels; // 3, or 4 with alpha
    uint8_t *data;
};

static void plain_new(struct plain *p, int h, int w, int channels)
{
    *p = (struct plain){h, w, channels, calloc((size_t)h * (size_t)w * (size_t)channels + MARGIN, 1)};
    BUG_IF(!p->data, "no memory for a picture of %dx%d", w, h);
}

// ---- colours

static bool is_exact(const AVFrame *f, const AVPixFmtDescriptor *d)
{
    if (d->flags & (AV_PIX_FMT_FLAG_FLOAT | AV_PIX_FMT_FLAG_BAYER | AV_PIX_FMT_FLAG_HWACCEL)) return false;
    if (d->flags & (AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_RGB)) return true;
    return d->nb_components <= 2 && f->color_range != AVCOL_RANGE_MPEG; // grey
}

static void palette_row(const AVFrame *f, int y, uint8_t *out)
{
    const uint8_t *row = f->data[0] + (ptrdiff_t)y * f->linesize[0];
    for (int x = 0; x < f->width; x++, out += 4) {
        uint32_t argb;
        memcpy(&argb, f->data[1] + 4 * row[x], sizeof argb); // in the machine's order
        out[0] = (uint8_t)(argb >> 16);
        out[1] = (uint8_t)(argb >> 8);
        out[2] = (uint8_t)argb;
        out[3] = (uint8_t)(argb >> 24);
    }
}

static void exact_row(const AVFrame *f, const AVPixFmtDescriptor *d, int y, uint16_t *line, uint8_t *out, int channels)
{
    int n = d->nb_components;
    bool grey = n <= 2, inverted = f->format == AV_PIX_FMT_MONOWHITE;
    for (int c = 0; c < n; c++) {
        unsigned max = (1u << d->comp[c].depth) - 1;
        av_read_image_line(line, (const uint8_t **)f->data, f->linesize, d, 0, y, c, f->width, 0);
        bool alpha = d->flags & AV_PIX_FMT_FLAG_ALPHA && c == n - 1;
        int first = alpha ? 3 : grey ? 0 : c, last = alpha ? 3 : grey ? 2 : c;
        for (int x = 0; x < f->width; x++) {
            unsigned v = (line[x] * 255u + max / 2) / max;
            if (inverted) v = 255 - v;
            for (int to = first; to <= last; to++) out[x * channels + to] = (uint8_t)v;
        }
    }
}

static void exact_copy(const AVFrame *f, const AVPixFmtDescriptor *d, struct plain *p)
{
    bool palette = d->flags & AV_PIX_FMT_FLAG_PAL;
    plain_new(p, f->height, f->width, palette || d->flags & AV_PIX_FMT_FLAG_ALPHA ? 4 : 3);
    uint16_t *line = malloc((size_t)f->width * sizeof *line);
    BUG_IF(!line, "no memory for a line");
    for (int y = 0; y < f->height; y++) {
        uint8_t *out = p->data + (size_t)y * (size_t)f->width * (size_t)p->channels;
        if (palette)
            palette_row(f, y, out);
        else
            exact_row(f, d, y, line, out, p->channels);
    }
    free(line);
}

static int matrix_of(const AVFrame *f)
{
    switch (f->colorspace) {
    case AVCOL_SPC_BT709:
        return SWS_CS_ITU709;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
        return SWS_CS_BT2020;
    case AVCOL_SPC_FCC:
        return SWS_CS_FCC;
    case AVCOL_SPC_SMPTE240M:
        return SWS_CS_SMPTE240M;
    case AVCOL_SPC_BT470BG:
    case AVCOL_SPC_SMPTE170M:
        return SWS_CS_ITU601;
    default:
        return f->height > SMALL_H || f->width > SMALL_W ? SWS_CS_ITU709 : SWS_CS_ITU601;
    }
}

static int scaled_copy(const AVFrame *f, const AVPixFmtDescriptor *d, struct plain *p, struct err *e)
{
    bool alpha = d->flags & AV_PIX_FMT_FLAG_ALPHA, field = f->interlaced_frame && f->height >= 4;
    int rows = field ? f->height / 2 : f->height;
    plain_new(p, f->height, f->width, alpha ? 4 : 3);
    struct SwsContext *sws = sws_getContext(
        f->width, rows, (enum AVPixelFormat)f->format, f->width, f->height, alpha ? AV_PIX_FMT_RGBA : AV_PIX_FMT_RGB24,
        SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP, NULL, NULL, NULL);
    if (!sws) {
        free(p->data);
        return err_set(e, E_INPUT, "its pixel format %s is not taken; convert it to PNG or MP4 (H.264) first", d->name);
    }
    int full = f->color_range == AVCOL_RANGE_JPEG || strncmp(d->name, "yuvj", 4) == 0;
    sws_setColorspaceDetails(sws, sws_getCoefficients(matrix_of(f)), full, sws_getCoefficients(SWS_CS_DEFAULT), 1, 0,
                             1 << 16, 1 << 16);
    const uint8_t *from[4] = {0};
    int stride[4] = {0}, to_stride = f->width * p->channels;
    for (int i = 0; i < 4; i++) {
        if (!f->data[i]) continue;
        from[i] = f->data[i] + (field && !f->top_field_first ? f->linesize[i] : 0);
        stride[i] = f->linesize[i] * (field ? 2 : 1);
    }
    uint8_t *to = p->data;
    sws_scale(sws, from, stride, 0, rows, &to, &to_stride);
    sws_freeContext(sws);
    return 0;
}

// ---- alpha

static double alpha_flatten(struct plain *p, int ground)
{
    if (p->channels == 3) return 0;
    size_t n = (size_t)p->h * (size_t)p->w, n_clear = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *in = p->data + 4 * i;
        unsigned a = ground < 0 ? 255 : in[3];
        uint8_t rgb[3];
        for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)((in[c] * a + (unsigned)ground * (255 - a) + 127) / 255);
        n_clear += a < 255;
        memcpy(p->data + 3 * i, rgb, 3); // behind what is still to be read
    }
    p->channels = 3;
    return (double)n_clear / (double)n;
}

// ---- shape

static int shape_square(struct plain *p, AVRational sar, struct err *e)
{
    if (sar.num <= 0 || sar.den <= 0 || sar.num == sar.den) return 0;
    double ratio = av_q2d(sar);
    if (ratio < 0.1 || ratio > 10) return 0; // no display has such pixels: a broken header
    struct plain to;
    plain_new(&to, ratio < 1 ? (int)lrint(p->h / ratio) : p->h, ratio > 1 ? (int)lrint(p->w * ratio) : p->w, 3);
    struct SwsContext *sws =
        sws_getContext(p->w, p->h, AV_PIX_FMT_RGB24, to.w, to.h, AV_PIX_FMT_RGB24,
                       SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP, NULL, NULL, NULL);
    if (!sws) {
        free(to.data);
        return err_set(e, E_INPUT, "its pixels have the shape %d:%d, which is not taken; convert it to square pixels",
                       sar.num, sar.den);
    }
    const uint8_t *from = p->data;
    int stride = p->w * 3, to_stride = to.w * 3;
    sws_scale(sws, &from, &stride, 0, p->h, &to.data, &to_stride);
    sws_freeContext(sws);
    free(p->data);
    *p = to;
    return 0;
}

// ---- turn

static void turn(struct plain *p, const int32_t *m)
{
    int64_t a = m[0], b = m[1], c = m[3], d = m[4];
    bool across = llabs(a) + llabs(d) < llabs(b) + llabs(c); // x and y change places
    if (!across && a >= 0 && d >= 0) return;
    struct plain to;
    plain_new(&to, across ? p->w : p->h, across ? p->h : p->w, 3);
    for (int y = 0; y < to.h; y++)
        for (int x = 0; x < to.w; x++) {
            int sx = across ? (b >= 0 ? y : p->w - 1 - y) : (a >= 0 ? x : p->w - 1 - x);
            int sy = across ? (c >= 0 ? x : p->h - 1 - x) : (d >= 0 ? y : p->h - 1 - y);
            memcpy(to.data + ((size_t)y * (size_t)to.w + (size_t)x) * 3,
                   p->data + ((size_t)sy * (size_t)p->w + (size_t)sx) * 3, 3);
        }
    free(p->data);
    *p = to;
}

int upright_make(struct upright *u, const AVFrame *f, const int32_t *matrix, AVRational shape, int ground,
                 struct err *e)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get((enum AVPixelFormat)f->format);
    BUG_IF(!d, "a picture without a format");
    struct plain p;
    int rc = 0;
    if (is_exact(f, d))
        exact_copy(f, d, &p);
    else
        rc = scaled_copy(f, d, &p, e);
    if (rc < 0) return rc;
    u->clear = alpha_flatten(&p, ground);
    rc = shape_square(&p, shape, e);
    if (rc < 0) {
        free(p.data);
        return rc;
    }
    if (matrix) turn(&p, matrix);
    u->h = p.h;
    u->w = p.w;
    u->rgb = p.data;
    return 0;
}
