// A decoder that is told to go on after an error leaves alone what it could not decode, and does not say where that
// begins. So the picture is decoded twice, into memory that was filled differently before: rows that come out equal are
// the picture's own, the first that differ are the end of it.
//
// Trap: the rest of a broken row of blocks is memory too, so such a row counts as missing whole. A progressive JPEG has
// all its rows from its first scan on, only without their detail, and nothing tells how much is lacking: it is refused.
#include "daemon/media/partial.h"

#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JPEG_MAX = 1 << 28 };

static int buffer_filled(AVCodecContext *c, AVFrame *f, int flags)
{
    int rc = avcodec_default_get_buffer2(c, f, flags);
    for (int i = 0; rc >= 0 && i < AV_NUM_DATA_POINTERS; i++)
        if (f->buf[i]) memset(f->buf[i]->data, *(const uint8_t *)c->opaque, f->buf[i]->size);
    return rc;
}

static bool decode(AVFrame *out, const AVPacket *packet, uint8_t fill)
{
    const AVCodec *codec = avcodec_find_decoder(AV_CODEC_ID_MJPEG);
    AVCodecContext *c = codec ? avcodec_alloc_context3(codec) : NULL;
    if (!c) return false;
    c->opaque = &fill;
    c->get_buffer2 = buffer_filled;
    c->thread_count = 1;
    bool ok = avcodec_open2(c, codec, NULL) >= 0 && avcodec_send_packet(c, packet) >= 0 &&
              avcodec_receive_frame(c, out) >= 0 && c->profile != FF_PROFILE_MJPEG_HUFFMAN_PROGRESSIVE_DCT;
    avcodec_free_context(&c);
    return ok;
}

static AVPacket *read_all(int fd)
{
    struct stat st;
    AVPacket *p = av_packet_alloc();
    bool ok = p && fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= JPEG_MAX &&
              av_new_packet(p, (int)st.st_size) >= 0 && pread(fd, p->data, (size_t)st.st_size, 0) == st.st_size;
    if (!ok) av_packet_free(&p);
    return p;
}

// ---- rows

static int plane_shift(const AVPixFmtDescriptor *d, int plane)
{
    return plane == 1 || plane == 2 ? d->log2_chroma_h : 0;
}

static size_t row_bytes(const AVFrame *f, int plane)
{
    int n = av_image_get_linesize((enum AVPixelFormat)f->format, f->width, plane);
    return n > 0 ? (size_t)n : 0;
}

// Rows at the top that are the picture's, in all planes.
static int rows_there(const AVFrame *a, const AVFrame *b, const AVPixFmtDescriptor *d)
{
    int there = a->height;
    for (int p = 0; p < 4 && a->data[p]; p++) {
        int shift = plane_shift(d, p), n = AV_CEIL_RSHIFT(a->height, shift), y = 0;
        size_t bytes = row_bytes(a, p);
        while (y < n && memcmp(a->data[p] + (ptrdiff_t)y * a->linesize[p], b->data[p] + (ptrdiff_t)y * b->linesize[p],
                               bytes) == 0)
            y++;
        if (y < n && y << shift < there) there = y << shift;
    }
    return there;
}

static void rows_repeat(AVFrame *f, const AVPixFmtDescriptor *d, int there)
{
    for (int p = 0; p < 4 && f->data[p]; p++) {
        int shift = plane_shift(d, p), n = AV_CEIL_RSHIFT(f->height, shift), first = there >> shift;
        for (int y = first; y < n && first > 0; y++)
            memcpy(f->data[p] + (ptrdiff_t)y * f->linesize[p], f->data[p] + (ptrdiff_t)(first - 1) * f->linesize[p],
                   row_bytes(f, p));
    }
}

double partial_jpeg(AVFrame *out, int fd)
{
    double missing = 1;
    AVPacket *packet = read_all(fd);
    AVFrame *other = av_frame_alloc();
    bool ok = packet && other && decode(out, packet, 0) && decode(other, packet, 255);
    const AVPixFmtDescriptor *d = ok ? av_pix_fmt_desc_get((enum AVPixelFormat)out->format) : NULL;
    if (d && out->height == other->height && out->width == other->width && out->format == other->format) {
        int there = rows_there(out, other, d);
        missing = 1 - (double)there / out->height;
        if (there < out->height) rows_repeat(out, d, there);
    }
    av_packet_free(&packet);
    av_frame_free(&other);
    if (missing >= 1) av_frame_unref(out);
    return missing;
}
