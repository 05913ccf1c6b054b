// One decoder that walks forward, and ways to get it to an earlier place.
//
//   held    the picture that is shown at the time last asked for
//   ahead   the one after it, decoded to know that its time has not come
//
// Going forward decodes on. Going back, or far forward, seeks in containers that have an index of key pictures, and
// trusts only what comes out: the first clean picture after a seek must not lie past the time asked for. Otherwise the
// seek is repeated from earlier, and at last the file is read from its beginning. So the answer never depends on what
// was asked before.
//
// Trap: times of packets are those of decoding order; only decoded pictures are in order of presentation. The length is
// taken from packets all the same, as the largest time: nothing is decoded for it.
#include "daemon/media/film.h"

#include "daemon/media/claim.h"
#include "daemon/media/exif.h"
#include "daemon/media/input.h"
#include "daemon/media/partial.h"

#include <libavcodec/avcodec.h>
#include <libavutil/avstring.h>
#include <libavutil/pixdesc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char formats[] =
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,gif,apng,mov,mp4,m4a,3gp,matroska,webm,avi,flv,asf,"
    "mpeg,mpegts,mpegvideo,ogg,mxf,h264,hevc,ivf,m4v,dv,nut,yuv4mpegpipe";
static const char *const seekable[] = {"mov", "matroska", "avi", "flv"}; // their seeks end at a key picture

enum {
    GRACE_US = 1000,
    CUT_US = 100000,
    FAR_US = 10000000,
    PIXELS_MAX = 100000000,
    SIDE_MAX = 32768,
    THREADS = 2,
    FED = 64
};
#define MISSING_MAX 0.1 // rows of a picture

struct film {
    const char *path;
    int fd, stream;
    AVFormatContext *in;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *held, *ahead;
    bool has_held, has_ahead, ended;
    int64_t held_us, ahead_us, last_us; // last_us: of the last decoded, for those without a time
    int64_t index;                      // of held
    bool index_known;                   // no seek since the beginning
    int64_t first_ts;                   // in the stream's time base
    bool has_first;
    bool still;
    int32_t matrix[9]; // of a still picture whose decoder tells an orientation in words, or not at all
    bool has_matrix;
    struct claim_colour colour; // likewise
    bool has_colour;
    bool locked;      // its packets are encrypted
    int64_t fed[FED]; // times, in the stream's time base, of what the decoder was given and has not given back
    int n_fed;
    double missing;
};

static AVStream *film_stream(const struct film *f) { return f->in->streams[f->stream]; }

static AVRational film_rate(const struct film *f)
{
    const AVStream *st = film_stream(f);
    AVRational r = st->avg_frame_rate.num > 0 && st->avg_frame_rate.den > 0 ? st->avg_frame_rate : st->r_frame_rate;
    return r.num > 0 && r.den > 0 ? r : (AVRational){25, 1};
}

static int64_t film_us(const struct film *f, int64_t ts)
{
    return av_rescale_q(ts - f->first_ts, film_stream(f)->time_base, (AVRational){1, 1000000});
}

// Packets of other tracks need not be read.
static void others_discard(AVFormatContext *in, int stream)
{
    for (unsigned s = 0; s < in->nb_streams; s++)
        if ((int)s != stream) in->streams[s]->discard = AVDISCARD_ALL;
}

// ---- what goes in and does not come out is damaged

static void fed_add(struct film *f, const AVPacket *p)
{
    if (f->still || p->pts == AV_NOPTS_VALUE || p->flags & AV_PKT_FLAG_DISCARD) return;
    if (f->n_fed == FED) memmove(f->fed, f->fed + 1, (size_t)--f->n_fed * sizeof *f->fed);
    f->fed[f->n_fed++] = p->pts;
}

static void fed_take(struct film *f, int64_t pts)
{
    int n = 0;
    for (int i = 0; i < f->n_fed; i++)
        if (f->fed[i] != pts) f->fed[n++] = f->fed[i];
    f->n_fed = n;
}

static void fed_forget(struct film *f, int64_t until_us)
{
    int n = 0;
    for (int i = 0; i < f->n_fed; i++)
        if (film_us(f, f->fed[i]) > until_us) f->fed[n++] = f->fed[i];
    f->n_fed = n;
}

// A second field may go in by itself: nothing is missed within most of a picture's time.
int64_t film_damaged_us(const struct film *f, int64_t us)
{
    AVRational rate = film_rate(f);
    int64_t from = f->held_us + av_rescale(750000, rate.den, rate.num), first = -1;
    for (int i = 0; i < f->n_fed && f->has_held; i++) {
        int64_t at = film_us(f, f->fed[i]);
        bool passed = f->has_ahead ? at < f->ahead_us : f->ended;
        if (passed && at > from && at <= us + GRACE_US && (first < 0 || at < first)) first = at;
    }
    return first;
}

// ---- decoding on

// The next frame as the decoder gives it: 1, or 0 at the end.
static int frame_next(struct film *f, AVFrame *frame)
{
    for (;;) {
        int rc = avcodec_receive_frame(f->codec, frame);
        if (rc >= 0) return 1;
        if (rc == AVERROR_EOF) return 0;
        // EAGAIN, or a picture that could not be decoded: on with the next packet
        if (f->ended) return 0;
        for (rc = 0; rc >= 0;) {
            rc = av_read_frame(f->in, f->packet);
            if (rc >= 0 && f->packet->stream_index == f->stream) break;
            av_packet_unref(f->packet);
        }
        f->ended = rc < 0;
        f->locked |= !f->ended && input_encrypted(f->packet);
        if (!f->ended) fed_add(f, f->packet);
        avcodec_send_packet(f->codec, f->ended ? NULL : f->packet);
        av_packet_unref(f->packet);
    }
}

// The next undamaged picture into `ahead`.
static bool ahead_fill(struct film *f)
{
    while (!f->has_ahead) {
        av_frame_unref(f->ahead);
        if (!frame_next(f, f->ahead)) return false;
        if (f->ahead->flags & AV_FRAME_FLAG_CORRUPT || f->ahead->decode_error_flags) continue;
        int64_t ts = f->ahead->best_effort_timestamp;
        fed_take(f, f->ahead->pts);
        AVRational rate = film_rate(f);
        if (!f->has_first) {
            f->first_ts = ts == AV_NOPTS_VALUE ? 0 : ts;
            f->ahead_us = 0;
            f->has_first = true;
        } else if (ts != AV_NOPTS_VALUE)
            f->ahead_us = film_us(f, ts);
        else
            f->ahead_us = f->last_us + av_rescale(1000000, rate.den, rate.num);
        f->last_us = f->ahead_us;
        f->has_ahead = true;
    }
    return true;
}

static void held_take(struct film *f)
{
    AVFrame *old = f->held;
    f->held = f->ahead;
    f->ahead = old;
    f->held_us = f->ahead_us;
    f->index = f->has_held ? f->index + 1 : 0;
    f->has_held = true;
    f->has_ahead = false;
    fed_forget(f, f->held_us);
}

// ---- going elsewhere

static void decoder_reset(struct film *f)
{
    avcodec_flush_buffers(f->codec);
    f->has_held = f->has_ahead = f->ended = false;
    f->n_fed = 0;
}

static int film_rewind(struct film *f, struct err *e)
{
    input_close(&f->in);
    if (input_demux(&f->in, f->fd, formats) < 0 || f->stream >= (int)f->in->nb_streams)
        return err_set(e, E_INPUT, "picture %s changed while it was read; leave it alone until the film is done",
                       f->path);
    others_discard(f->in, f->stream);
    decoder_reset(f);
    f->index_known = true;
    f->last_us = 0;
    return 0;
}

static bool film_seek(struct film *f, int64_t us)
{
    static const int64_t back_us[] = {0, 2000000, 10000000, 60000000};
    bool can = false;
    for (size_t i = 0; i < sizeof seekable / sizeof *seekable; i++)
        can |= av_match_name(seekable[i], f->in->iformat->name) != 0;
    if (!can) return false;
    for (size_t i = 0; i < sizeof back_us / sizeof *back_us && us > back_us[i]; i++) {
        int64_t ts = f->first_ts + av_rescale_q(us - back_us[i], (AVRational){1, 1000000}, film_stream(f)->time_base);
        if (avformat_seek_file(f->in, f->stream, INT64_MIN, ts, ts, 0) < 0) continue;
        decoder_reset(f);
        f->index_known = false;
        if (ahead_fill(f) && f->ahead->best_effort_timestamp != AV_NOPTS_VALUE && f->ahead_us <= us + GRACE_US)
            return true;
    }
    return false;
}

static int film_go(struct film *f, int64_t us, struct err *e) { return film_seek(f, us) ? 0 : film_rewind(f, e); }

static int no_picture(const struct film *f, struct err *e)
{
    return err_set(e, E_INPUT,
                   "picture %s: none of it can be decoded; copy it again, or convert it to PNG or MP4 (H.264)",
                   f->path);
}

int film_at_us(struct film *f, int64_t us, const AVFrame **out, struct err *e)
{
    int rc = 0;
    if (us < 0) us = 0;
    if (f->has_held && us + GRACE_US < f->held_us && f->held_us > 0)
        rc = film_go(f, us, e);
    else if (f->has_held && us - f->held_us > FAR_US && !f->ended)
        rc = film_go(f, us, e);
    if (rc < 0) return rc;
    while (ahead_fill(f) && (!f->has_held || f->ahead_us <= us + GRACE_US)) held_take(f);
    if (!f->has_held) return no_picture(f, e);
    *out = f->held;
    return 0;
}

int film_at_index(struct film *f, int64_t i, const AVFrame **out, struct err *e)
{
    int rc = f->has_held && (!f->index_known || i < f->index) ? film_rewind(f, e) : 0;
    if (rc < 0) return rc;
    while ((!f->has_held || f->index < i) && ahead_fill(f)) held_take(f);
    if (!f->has_held) return no_picture(f, e);
    *out = f->held;
    return 0;
}

int film_step(struct film *f, bool first, const AVFrame **out, int64_t *us, struct err *e)
{
    int rc = first ? film_rewind(f, e) : 0;
    if (rc < 0) return rc;
    if (!ahead_fill(f)) return 0;
    held_take(f);
    *out = f->held;
    *us = f->held_us;
    return 1;
}

// ---- the length

int film_length(struct film *f, int64_t limit_us, struct film_length *n, struct err *e)
{
    AVFormatContext *in = NULL;
    if (input_demux(&in, f->fd, formats) < 0 || f->stream >= (int)in->nb_streams) {
        input_close(&in);
        return err_set(e, E_INPUT, "picture %s changed while it was read; try again", f->path);
    }
    AVRational rate = film_rate(f);
    int64_t frame_us = av_rescale(1000000, rate.den, rate.num), end_us = 0;
    *n = (struct film_length){.rate_num = rate.num, .rate_den = rate.den};
    others_discard(in, f->stream);
    bool ended = false;
    while ((limit_us <= 0 || end_us < limit_us) && !(ended = av_read_frame(in, f->packet) < 0)) {
        const AVPacket *p = f->packet;
        if (p->stream_index == f->stream && !(p->flags & AV_PKT_FLAG_DISCARD)) {
            int64_t ts = p->pts != AV_NOPTS_VALUE ? p->pts : p->dts, lasts = frame_us;
            if (p->duration > 0) lasts = av_rescale_q(p->duration, film_stream(f)->time_base, (AVRational){1, 1000000});
            int64_t end = ts == AV_NOPTS_VALUE ? end_us + frame_us : film_us(f, ts) + lasts;
            if (end > end_us) end_us = end;
            n->n_pictures++;
        }
        av_packet_unref(f->packet);
    }
    const AVStream *st = in->streams[f->stream];
    int64_t promised = st->duration > 0 ? av_rescale_q(st->duration, st->time_base, (AVRational){1, 1000000}) : 0;
    if (ended && !f->still && promised > end_us + 2 * frame_us + CUT_US) n->promised_us = promised;
    input_close(&in);
    if (n->n_pictures < 1 || f->still) n->n_pictures = 1;
    n->n_us = end_us > 0 ? end_us : frame_us;
    return 0;
}

// ---- opening

static int refuse_format(const char *path, int fd, int rc, struct err *e)
{
    char why[AV_ERROR_MAX_STRING_SIZE];
    av_strerror(rc, why, sizeof why);
    if (rc == AVERROR_INVALIDDATA && claim_mp4(fd))
        return err_set(e, E_INPUT,
                       "picture %s is a video that is cut short or was never finished: its index (moov) is missing or "
                       "damaged; copy "
                       "it again, or record it anew",
                       path);
    if (rc == AVERROR(EINVAL) || rc == AVERROR_INVALIDDATA)
        return err_set(e, E_INPUT,
                       "picture %s is neither a picture (PNG, JPEG, WebP, BMP) nor a video that can be read (MP4, MOV, "
                       "MKV, WebM, AVI); convert it to one of these",
                       path);
    return err_set(e, E_INPUT, "picture %s is not a readable picture or video: %s; convert it to PNG or MP4", path,
                   why);
}

static int refuse_size(const char *path, long w, long h, struct err *e)
{
    return err_set(e, E_INPUT,
                   "picture %s has %ldx%ld pixels; at most %d megapixels and %d a side are taken: make it smaller",
                   path, w, h, PIXELS_MAX / 1000000, SIDE_MAX);
}

static const char *pictures_codec(const AVFormatContext *in)
{
    for (unsigned s = 0; s < in->nb_streams; s++)
        if (in->streams[s]->codecpar->codec_type == AVMEDIA_TYPE_VIDEO)
            return avcodec_get_name(in->streams[s]->codecpar->codec_id);
    return "unknown";
}

static int track_find(struct film *f, struct err *e)
{
    const AVCodec *codec = NULL;
    int i = av_find_best_stream(f->in, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (i == AVERROR_DECODER_NOT_FOUND)
        return err_set(
            e, E_INPUT,
            "picture %s: its pictures are in a format (%s) that this FFmpeg cannot decode; convert it to MP4 "
            "(H.264)",
            f->path, pictures_codec(f->in));
    if (i < 0 || f->in->streams[i]->disposition & AV_DISPOSITION_ATTACHED_PIC)
        return err_set(e, E_INPUT, "picture %s holds %s; give a portrait picture, or a video with pictures", f->path,
                       f->in->nb_streams > 0 ? "sound only" : "nothing");
    f->stream = i;
    others_discard(f->in, i);
    const AVCodecParameters *p = f->in->streams[i]->codecpar;
    if ((int64_t)p->width * p->height > PIXELS_MAX || p->width > SIDE_MAX || p->height > SIDE_MAX)
        return refuse_size(f->path, p->width, p->height, e);
    f->codec = avcodec_alloc_context3(codec);
    BUG_IF(!f->codec, "no memory for a decoder");
    f->codec->pkt_timebase = f->in->streams[i]->time_base;
    f->codec->thread_count = f->still ? 1 : THREADS;
    f->codec->max_pixels = PIXELS_MAX;
    if (f->still) f->codec->err_recognition = AV_EF_EXPLODE; // half a picture is none
    if (avcodec_parameters_to_context(f->codec, p) < 0 || avcodec_open2(f->codec, codec, NULL) < 0)
        return err_set(e, E_INPUT, "picture %s: its %s pictures cannot be decoded; convert it to MP4 (H.264)", f->path,
                       codec->name);
    return 0;
}

// Of a JPEG that is cut short, nearly all may be enough.
static bool part_take(struct film *f)
{
    av_frame_unref(f->ahead);
    f->missing = partial_jpeg(f->ahead, f->fd);
    f->has_ahead = f->missing <= MISSING_MAX;
    return f->has_ahead;
}

static int first_picture(struct film *f, struct err *e)
{
    bool any = ahead_fill(f);
    if (f->locked)
        return err_set(e, E_INPUT,
                       "picture %s is encrypted (DRM) and cannot be decoded; give a copy without protection", f->path);
    long w = 0, h = 0;
    if (!any && f->still && f->codec->codec_id == AV_CODEC_ID_MJPEG) any = part_take(f);
    if (!any && f->still && claim_size(f->fd, &w, &h) && (w > SIDE_MAX || h > SIDE_MAX || w * h > PIXELS_MAX))
        return refuse_size(f->path, w, h, e);
    if (!any && f->still && claim_animated_webp(f->fd))
        return err_set(
            e, E_INPUT,
            "picture %s is an animated WebP, which is not read; save one of its pictures as PNG, or all as MP4",
            f->path);
    if (!any && f->still)
        return err_set(e, E_INPUT, "picture %s is damaged or cut short; make or copy it again", f->path);
    if (!f->has_ahead) return no_picture(f, e);
    const AVFrame *p = f->ahead;
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get((enum AVPixelFormat)p->format);
    if (f->codec->codec_id == AV_CODEC_ID_MJPEG && d && d->nb_components == 4)
        return err_set(e, E_INPUT, "picture %s is in CMYK, the colours of printing; save it as RGB (sRGB) first",
                       f->path);
    int rc = f->still ? claim_colour(f->fd, f->path, &f->colour, e) : 0, light = p->color_trc;
    if (rc < 0) return rc;
    f->has_colour = rc == 1;
    if (f->has_colour) light = f->colour.transfer;
    if (light == AVCOL_TRC_SMPTE2084 || light == AVCOL_TRC_ARIB_STD_B67)
        return err_set(e, E_INPUT, "picture %s is HDR (%s), which is not taken; convert it to SDR (BT.709) first",
                       f->path, light == AVCOL_TRC_SMPTE2084 ? "PQ" : "HLG");
    const AVDictionaryEntry *word = av_dict_get(p->metadata, "Orientation", NULL, 0); // WebP
    int orientation = f->still ? word ? (int)strtol(word->value, NULL, 10) : exif_orientation_png(f->fd) : 0;
    f->has_matrix = orientation >= 1 && orientation <= 8;
    if (f->has_matrix) exif_matrix(orientation, f->matrix);
    held_take(f);
    return 0;
}

int film_open(struct film **out, const char *path, struct err *e)
{
    int fd = input_fd("picture", path, e);
    if (fd < 0) return fd;
    struct film *f = calloc(1, sizeof *f);
    BUG_IF(!f, "no memory for a film");
    f->path = path;
    f->fd = fd;
    f->index_known = true;
    f->packet = av_packet_alloc();
    f->held = av_frame_alloc();
    f->ahead = av_frame_alloc();
    BUG_IF(!f->packet || !f->held || !f->ahead, "no memory for a film");
    int rc = input_demux(&f->in, fd, formats);
    if (rc < 0)
        rc = refuse_format(path, fd, rc, e);
    else {
        const char *name = f->in->iformat->name;
        f->still = strstr(name, "_pipe") != NULL || strcmp(name, "gif") == 0 || strcmp(name, "apng") == 0;
        rc = track_find(f, e);
    }
    if (rc >= 0) rc = first_picture(f, e);
    if (rc >= 0)
        *out = f;
    else
        film_close(f);
    return rc;
}

void film_close(struct film *f)
{
    if (!f) return;
    avcodec_free_context(&f->codec);
    input_close(&f->in);
    av_packet_free(&f->packet);
    av_frame_free(&f->held);
    av_frame_free(&f->ahead);
    close(f->fd);
    free(f);
}

double film_missing(const struct film *f) { return f->missing; }

bool film_still(const struct film *f) { return f->still; }

const char *film_kind(const struct film *f) { return f->in->iformat->name; }

bool film_canned(const struct film *f)
{
    return strcmp(f->in->iformat->name, "gif") == 0 || strcmp(f->in->iformat->name, "apng") == 0;
}

const int32_t *film_matrix(const struct film *f, const AVFrame *frame)
{
    const AVFrameSideData *own = av_frame_get_side_data(frame, AV_FRAME_DATA_DISPLAYMATRIX);
    if (own && own->size >= 9 * sizeof(int32_t)) return (const int32_t *)(const void *)own->data;
    if (f->has_matrix) return f->matrix;
    size_t n = 0;
    const uint8_t *track = av_stream_get_side_data(film_stream(f), AV_PKT_DATA_DISPLAYMATRIX, &n);
    return track && n >= 9 * sizeof(int32_t) ? (const int32_t *)(const void *)track : NULL;
}

const struct claim_colour *film_colour(const struct film *f) { return f->has_colour ? &f->colour : NULL; }

AVRational film_shape(const struct film *f, const AVFrame *frame)
{
    if (f->still) return (AVRational){1, 1}; // a scanner's resolution is no shape
    return av_guess_sample_aspect_ratio(f->in, film_stream(f), (AVFrame *)frame);
}
