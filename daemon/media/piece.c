// One x264 run over one segment.
//
//   file: "LTPIECE1", then per packet (in order of decoding) u32 size, u32 picture and key flag, the bytes
//
// Numbers are little-endian. The file is read back with the same suspicion as any other: it may have been cut off by a
// disk that filled up, or by somebody.
#include "daemon/media/piece.h"

#include "daemon/media/growing.h"

#include <errno.h>
#include <fcntl.h>
#include <libavutil/cpu.h>
#include <libavutil/dict.h>
#include <libavutil/log.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS = 2, HEAD = 8, KEY_BIT = 1 << 30, FRAMES_MAX = 1 << 16 };
static const char mark[HEAD + 1] = "LTPIECE1";

struct packet {
    size_t at, n;
    int64_t pts;
    bool key;
};

struct piece {
    int w, h;
    AVCodecContext *encoder; // NULL once it has ended
    AVFrame *picture;
    AVPacket *packet;
    int64_t n_frames;
    struct packet *packets;
    int64_t n_packets, room;
    uint8_t *bytes;
    size_t n_bytes, bytes_room;
};

// ---- the encoder

static const char *const presets[] = {"ultrafast", "superfast", "veryfast", "faster",   "fast",
                                      "medium",    "slow",      "slower",   "veryslow", "placebo"};

static int preset_check(const char *preset, struct err *e)
{
    char all[128] = "";
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (!strcmp(preset, presets[i])) return 0;
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", presets[i]);
    }
    return err_set(e, E_INPUT, "preset: x264 has no \"%s\"; it has %s", preset, all);
}

int piece_encoder(AVCodecContext **out, const struct piece_options *o, struct err *e)
{
    const char *preset = o->preset ? o->preset : "medium";
    int rc = preset_check(preset, e);
    if (rc < 0) return rc;
    const AVCodec *x264 = avcodec_find_encoder_by_name("libx264");
    if (!x264) return err_set(e, E_FATAL, "this FFmpeg has no libx264; install a full libavcodec");
    AVCodecContext *c = avcodec_alloc_context3(x264);
    BUG_IF(!c, "no memory for an encoder");
    int fps = o->fps ? o->fps : PIECE_FPS;
    c->width = o->w;
    c->height = o->h;
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->time_base = (AVRational){1, fps};
    c->framerate = (AVRational){fps, 1};
    c->gop_size = PIECE_KEY_FRAMES;
    c->thread_count = o->threads ? o->threads : THREADS;
    c->sample_aspect_ratio = (AVRational){1, 1};
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;
    c->colorspace = AVCOL_SPC_BT709;
    c->color_range = AVCOL_RANGE_MPEG;
    c->chroma_sample_location = AVCHROMA_LOC_LEFT;
    c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    AVDictionary *d = NULL;
    av_dict_set(&d, "preset", preset, 0);
    av_dict_set(&d, "profile", o->crf > 0 ? "high" : "high444", 0); // no other one is lossless
    av_dict_set(&d, "8x8dct", "1", 0);                              // or the fastest preset would be a lower profile
    av_dict_set_int(&d, "crf", o->crf, 0);
    // Its AVX-512 code reads past the end of narrow pictures' rows while it plans bits: the bytes would depend on what
    // lay in memory, and on the machine.
    if (av_get_cpu_flags() & AV_CPU_FLAG_AVX512) av_dict_set(&d, "x264-params", "asm=avx2", 0);
    rc = avcodec_open2(c, x264, &d);
    av_dict_free(&d);
    if (rc < 0) {
        avcodec_free_context(&c);
        return err_set(e, E_INPUT,
                       "x264 does not start with crf %d at %dx%d, preset %s; take other ones (--crf, --preset)", o->crf,
                       o->w, o->h, preset);
    }
    *out = c;
    return 0;
}

// ---- packets

static void packet_add(struct piece *p, int64_t pts, bool key, const uint8_t *bytes, size_t n)
{
    if (p->n_packets == p->room) {
        p->room = p->room ? 2 * p->room : 128;
        p->packets = realloc(p->packets, (size_t)p->room * sizeof *p->packets);
        BUG_IF(!p->packets, "no memory for packets");
    }
    if (p->n_bytes + n > p->bytes_room) {
        p->bytes_room = 2 * (p->n_bytes + n);
        p->bytes = realloc(p->bytes, p->bytes_room);
        BUG_IF(!p->bytes, "no memory for %zu bytes of packets", p->bytes_room);
    }
    memcpy(p->bytes + p->n_bytes, bytes, n);
    p->packets[p->n_packets++] = (struct packet){.at = p->n_bytes, .n = n, .pts = pts, .key = key};
    p->n_bytes += n;
}

static int encode(struct piece *p, const AVFrame *picture, struct err *e)
{
    int rc = avcodec_send_frame(p->encoder, picture);
    while (rc >= 0 && (rc = avcodec_receive_packet(p->encoder, p->packet)) >= 0) {
        packet_add(p, p->packet->pts, p->packet->flags & AV_PKT_FLAG_KEY, p->packet->data, (size_t)p->packet->size);
        av_packet_unref(p->packet);
    }
    return rc == AVERROR(EAGAIN) || rc == AVERROR_EOF
               ? 0
               : err_set(e, E_FATAL, "x264 stopped with code %d; take another --preset or a smaller --size", rc);
}

static struct piece *piece_new(void)
{
    struct piece *p = calloc(1, sizeof *p);
    BUG_IF(!p, "no memory for a segment's pictures");
    return p;
}

int piece_open(struct piece **out, const struct piece_options *o, struct err *e)
{
    struct piece *p = piece_new();
    av_log_set_level(AV_LOG_QUIET); // what goes wrong comes back as a code
    int rc = piece_encoder(&p->encoder, o, e);
    if (rc < 0) {
        piece_free(&p);
        return rc;
    }
    p->w = o->w;
    p->h = o->h;
    p->packet = av_packet_alloc();
    p->picture = av_frame_alloc();
    BUG_IF(!p->packet || !p->picture, "no memory for a picture");
    p->picture->format = AV_PIX_FMT_YUV420P;
    p->picture->width = o->w;
    p->picture->height = o->h;
    BUG_IF(av_frame_get_buffer(p->picture, 0) < 0, "no memory for a picture");
    *out = p;
    return 0;
}

static int picture_push(struct piece *p, const uint8_t *yuv, struct err *e)
{
    BUG_IF(av_frame_make_writable(p->picture) < 0, "no memory for a picture");
    for (int k = 0; k < 3; k++) {
        int w = k ? p->w / 2 : p->w, h = k ? p->h / 2 : p->h;
        for (int y = 0; y < h; y++, yuv += w)
            memcpy(p->picture->data[k] + (ptrdiff_t)y * p->picture->linesize[k], yuv, (size_t)w);
    }
    p->picture->pts = p->n_frames++;
    return encode(p, p->picture, e);
}

int piece_push(struct piece *p, int n, const uint8_t *yuv, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < n && rc >= 0; i++, yuv += (size_t)p->w * (size_t)p->h * 3 / 2) rc = picture_push(p, yuv, e);
    return rc;
}

int piece_end(struct piece *p, struct err *e)
{
    int rc = encode(p, NULL, e);
    BUG_IF(rc >= 0 && p->n_packets != p->n_frames, "x264 gave %lld packets for %lld frames", (long long)p->n_packets,
           (long long)p->n_frames);
    avcodec_free_context(&p->encoder);
    return rc;
}

int64_t piece_frames(const struct piece *p) { return p->n_frames; }

struct piece_packet piece_at(const struct piece *p, int64_t i)
{
    const struct packet *k = &p->packets[i];
    return (struct piece_packet){.pts = k->pts, .key = k->key, .bytes = p->bytes + k->at, .n = k->n};
}

void piece_free(struct piece **pp)
{
    struct piece *p = *pp;
    if (!p) return;
    avcodec_free_context(&p->encoder);
    av_frame_free(&p->picture);
    av_packet_free(&p->packet);
    free(p->packets);
    free(p->bytes);
    free(p);
    *pp = NULL;
}

// ---- the file

static void put32(uint8_t *to, uint32_t v)
{
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get32(const uint8_t *from)
{
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static bool put_all(int fd, const void *bytes, size_t n)
{
    for (const char *p = bytes; n > 0;) {
        ssize_t some = write(fd, p, n);
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) return false;
        p += some;
        n -= (size_t)some;
    }
    return true;
}

static int told(const char *path, const char *what, struct err *e)
{
    const char *why = errno == ENOSPC ? "no space left on the disk; free some" : strerror(errno);
    return err_set(e, E_FATAL, "%s: cannot %s: %s", path, what, why);
}

int piece_write(const struct piece *p, const char *path, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc = 0;
    if (fd < 0) return told(path, "create", e);
    struct stat st;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    bool put = put_all(fd, mark, HEAD);
    for (int64_t i = 0; put && i < p->n_packets; i++) {
        struct piece_packet k = piece_at(p, i);
        uint8_t head[8];
        put32(head, (uint32_t)k.n);
        put32(head + 4, (uint32_t)k.pts | (k.key ? KEY_BIT : 0));
        put = put_all(fd, head, sizeof head) && put_all(fd, k.bytes, k.n);
    }
    if (!put) rc = told(path, "write", e);
    if (rc >= 0 && fsync(fd) < 0) rc = told(path, "sync", e);
    close(fd);
    if (rc >= 0 && growing_sync_folder(path) < 0) rc = told(path, "sync its folder", e);
    if (rc < 0 && regular) unlink(path); // its bytes may be what another file lacks
    return rc;
}

static int damaged(const char *path, struct err *e)
{
    return err_set(e, E_INPUT, "%s is damaged; retry the job from its beginning", path);
}

static int parse(struct piece *p, const char *path, const uint8_t *data, size_t size, struct err *e)
{
    size_t at = HEAD;
    if (size < HEAD || memcmp(data, mark, HEAD) != 0) return damaged(path, e);
    while (at < size) {
        if (size - at < 8) return damaged(path, e);
        uint32_t n = get32(data + at), word = get32(data + at + 4);
        at += 8;
        if (n == 0 || n > size - at || (word & ~(uint32_t)KEY_BIT) >= FRAMES_MAX) return damaged(path, e);
        packet_add(p, word & ~(uint32_t)KEY_BIT, word & KEY_BIT, data + at, n);
        at += n;
    }
    p->n_frames = p->n_packets;
    return 0;
}

int piece_read(struct piece **out, const char *path, int64_t n_frames, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int rc = told(path, "read", e);
        if (fd >= 0) close(fd);
        return rc;
    }
    size_t n = 0, size = (size_t)st.st_size;
    uint8_t *data = malloc(size + 1);
    BUG_IF(!data, "no memory for a segment's pictures");
    for (ssize_t some; n < size && (some = read(fd, data + n, size - n)) > 0;) n += (size_t)some;
    close(fd);
    struct piece *p = piece_new();
    int rc = n == size ? parse(p, path, data, size, e) : damaged(path, e);
    free(data);
    if (rc >= 0 && p->n_frames != n_frames) rc = damaged(path, e);
    for (int64_t i = 0; rc >= 0 && i < n_frames; i++)
        if (p->packets[i].pts >= n_frames) rc = damaged(path, e);
    if (rc < 0) {
        piece_free(&p);
        return rc;
    }
    *out = p;
    return 0;
}
