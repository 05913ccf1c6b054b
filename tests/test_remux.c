// daemon/media/remux: the delivered film against FFmpeg's own remux of the same fragments; damaged fragments; long
// films.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/media/mp4_head.h"
#include "daemon/media/remux.h"
#include "tests/film_maker.h"
#include "tests/folder.h"

#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { W = 96, H = 64, FRAME = W * H * 3 / 2 };

static uint32_t draw(uint32_t *seed) { return *seed = *seed * 1664525 + 1013904223; }

// ---- films: grown by mux.c, or of packets that are no pictures

struct film {
    int64_t n_frames, segment, n_audio;
    int rate, channels;
    const char *preset;
};

static int hum(void *ctx, float *out, int64_t from, int64_t n, struct err *e)
{
    (void)e;
    const struct film *f = ctx;
    for (int64_t i = 0; i < n * f->channels; i++)
        out[i] = 0.3f * sinf((float)(from * f->channels + i) * (0.01f + 0.00001f * (float)((from + i) % 500)));
    return 0;
}

static void film_grow(const struct film *f, const char *path)
{
    struct err e = {0};
    struct mux *m = NULL;
    struct mux_options o = {.path = path,
                            .picture = {.w = W, .h = H, .crf = 20, .preset = f->preset},
                            .n_frames = f->n_frames,
                            .read_audio = hum,
                            .audio = (void *)f,
                            .rate = f->rate,
                            .channels = f->channels,
                            .n_audio = f->n_audio};
    if (mux_open(&m, &o, &e) < 0) fail_msg("%s", e.text);
    struct maker maker = {.mux = m, .picture = o.picture};
    char piece[512];
    snprintf(piece, sizeof piece, "%s.piece", path);
    static uint8_t yuv[FRAME];
    for (int64_t i = 0; i < f->n_frames; i++) {
        for (int k = 0; k < FRAME; k++) yuv[k] = (uint8_t)(60 + (k * 7 + k / W * (i % 9) + i * 11) % 120);
        bool ends = (i + 1) % f->segment == 0 || i + 1 == f->n_frames;
        if (maker_push(&maker, 1, yuv, &e) < 0) fail_msg("%s", e.text);
        if (ends && maker_end_segment(&maker, piece, &e) < 0) fail_msg("%s", e.text);
    }
    mux_abort(m, true);
}

static void codecs_copy(AVFormatContext *out, const AVFormatContext *in)
{
    for (unsigned i = 0; i < in->nb_streams; i++) {
        const AVStream *from = in->streams[i];
        AVStream *st = avformat_new_stream(out, NULL);
        assert_non_null(st);
        assert_true(avcodec_parameters_copy(st->codecpar, from->codecpar) >= 0);
        st->codecpar->codec_tag = 0;
        st->time_base = from->time_base;
        st->avg_frame_rate = from->avg_frame_rate;
        st->sample_aspect_ratio = from->sample_aspect_ratio;
    }
}

static AVFormatContext *film_open(const char *path)
{
    AVFormatContext *in = NULL;
    if (avformat_open_input(&in, path, NULL, NULL) < 0) fail_msg("%s does not open", path);
    assert_true(avformat_find_stream_info(in, NULL) >= 0);
    return in;
}

static AVFormatContext *film_create(const char *path, const char *container)
{
    AVFormatContext *out = NULL;
    assert_true(avformat_alloc_output_context2(&out, NULL, container, path) >= 0);
    out->flags |= AVFMT_FLAG_BITEXACT;
    assert_true(avio_open(&out->pb, path, AVIO_FLAG_WRITE) >= 0);
    return out;
}

static void film_close(AVFormatContext *out)
{
    assert_true(av_write_trailer(out) >= 0);
    avio_closep(&out->pb);
    avformat_free_context(out);
}

// Fragments of `n_frames` packets of a few bytes and the sound to them, with the head of the grown film `like`.
static void film_synthesize(const char *path, const char *like, int64_t n_frames)
{
    AVFormatContext *in = film_open(like), *out = film_create(path, "mp4");
    codecs_copy(out, in);
    AVDictionary *d = NULL;
    av_dict_set(&d, "movflags", "frag_keyframe+empty_moov+delay_moov+default_base_moof+skip_trailer", 0);
    assert_true(avformat_write_header(out, &d) >= 0);
    av_dict_free(&d);
    AVPacket *p = av_packet_alloc();
    uint32_t seed = 5;
    int64_t n_sound = -1, rate = in->streams[1]->codecpar->sample_rate;
    for (int64_t i = 0; i < n_frames; i++) {
        while (n_sound * 1024 * 25 < i * rate) { // the first one is the encoder's priming
            assert_true(av_new_packet(p, 1 + (int)(draw(&seed) >> 28)) >= 0);
            p->stream_index = 1;
            p->pts = p->dts = n_sound++ * 1024;
            p->duration = 1024;
            p->flags = AV_PKT_FLAG_KEY;
            assert_true(av_write_frame(out, p) >= 0);
            av_packet_unref(p);
        }
        assert_true(av_new_packet(p, 6 + (int)(draw(&seed) >> 28)) >= 0);
        memset(p->data, 0, (size_t)p->size);
        memcpy(p->data, "\0\0\0\2\x09\x10", 6); // a NAL unit
        p->dts = (i - 2) * 512;
        p->pts = (i + (i % 3 == 1) - (i % 3 == 2)) * 512;
        p->duration = 512;
        p->flags = i % 48 == 0 ? AV_PKT_FLAG_KEY : 0;
        assert_true(av_write_frame(out, p) >= 0);
        av_packet_unref(p);
    }
    av_packet_free(&p);
    film_close(out);
    avformat_close_input(&in);
}

// ---- FFmpeg's remux

static void reference_write(const char *from, const char *to, const char *container, int64_t n_audio)
{
    AVFormatContext *in = film_open(from), *out = film_create(to, container);
    codecs_copy(out, in);
    AVDictionary *d = NULL;
    av_dict_set(&d, "movflags", "faststart", 0);
    av_dict_set_int(&d, "movie_timescale", in->nb_streams > 1 ? in->streams[1]->codecpar->sample_rate : 12800, 0);
    assert_true(avformat_write_header(out, &d) >= 0);
    av_dict_free(&d);
    AVPacket *p = av_packet_alloc();
    while (av_read_frame(in, p) >= 0) {
        if (p->stream_index == 1 && p->duration == 0)
            p->duration = 1024; // it asks a decoder, which knows no made-up one
        if (p->stream_index == 1 && p->duration > n_audio - p->pts) p->duration = n_audio - p->pts;
        av_packet_rescale_ts(p, in->streams[p->stream_index]->time_base, out->streams[p->stream_index]->time_base);
        p->pos = -1;
        assert_true(av_interleaved_write_frame(out, p) >= 0);
    }
    av_packet_free(&p);
    film_close(out);
    avformat_close_input(&in);
}

// ---- two films, packet by packet

// The next packet of one stream.
static bool packet_of(AVFormatContext *in, int stream, AVPacket *p)
{
    while (av_read_frame(in, p) >= 0) {
        if (p->stream_index == stream) return true;
        av_packet_unref(p);
    }
    return false;
}

static void packets_equal(const AVPacket *a, const AVPacket *b)
{
    assert_int_equal(a->pts, b->pts);
    assert_int_equal(a->dts, b->dts);
    assert_int_equal(a->duration, b->duration);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->data, b->data, (size_t)a->size);
    assert_int_equal(a->side_data_elems, b->side_data_elems); // what to skip of the priming
    for (int i = 0; i < a->side_data_elems; i++) {
        assert_int_equal(a->side_data[i].type, b->side_data[i].type);
        assert_int_equal(a->side_data[i].size, b->side_data[i].size);
        assert_memory_equal(a->side_data[i].data, b->side_data[i].data, a->side_data[i].size);
    }
}

static void streams_equal(const AVStream *a, const AVStream *b)
{
    const AVCodecParameters *p = a->codecpar, *q = b->codecpar;
    assert_int_equal(a->nb_frames, b->nb_frames);
    assert_int_equal(a->duration, b->duration);
    assert_int_equal(a->start_time, b->start_time);
    assert_int_equal(av_cmp_q(a->time_base, b->time_base), 0);
    assert_int_equal(a->avg_frame_rate.num, b->avg_frame_rate.num); // 0/0 of sound equals nothing
    assert_int_equal(a->avg_frame_rate.den, b->avg_frame_rate.den);
    assert_int_equal(a->disposition, b->disposition);
    assert_int_equal(p->codec_id, q->codec_id);
    assert_int_equal(p->codec_tag, q->codec_tag);
    assert_int_equal(p->extradata_size, q->extradata_size);
    assert_memory_equal(p->extradata, q->extradata, (size_t)p->extradata_size);
    assert_int_equal(p->width, q->width);
    assert_int_equal(p->height, q->height);
    assert_int_equal(p->color_primaries, q->color_primaries);
    assert_int_equal(p->color_trc, q->color_trc);
    assert_int_equal(p->color_space, q->color_space);
    assert_int_equal(p->color_range, q->color_range);
    assert_int_equal(p->sample_rate, q->sample_rate);
    assert_int_equal(p->bit_rate, q->bit_rate);
    assert_int_equal(av_channel_layout_compare(&p->ch_layout, &q->ch_layout), 0);
    for (const char *const *k = (const char *const[]){"handler_name", "language", NULL}; *k; k++) {
        const AVDictionaryEntry *v = av_dict_get(a->metadata, *k, NULL, 0), *w = av_dict_get(b->metadata, *k, NULL, 0);
        assert_true(!v == !w);
        if (v) assert_string_equal(v->value, w->value);
    }
}

static void films_equal(const char *a, const char *b)
{
    AVFormatContext *in[2] = {film_open(a), film_open(b)};
    assert_int_equal(in[0]->nb_streams, in[1]->nb_streams);
    assert_int_equal(in[0]->duration, in[1]->duration);
    assert_int_equal(in[0]->start_time, in[1]->start_time);
    unsigned n = in[0]->nb_streams;
    AVPacket *p[2] = {av_packet_alloc(), av_packet_alloc()};
    for (unsigned i = 0; i < n; i++) {
        streams_equal(in[0]->streams[i], in[1]->streams[i]);
        while (packet_of(in[0], (int)i, p[0])) {
            assert_true(packet_of(in[1], (int)i, p[1]));
            packets_equal(p[0], p[1]);
            av_packet_unref(p[0]);
            av_packet_unref(p[1]);
        }
        assert_false(packet_of(in[1], (int)i, p[1]));
        for (int k = 0; k < 2; k++) {
            avformat_close_input(&in[k]);
            in[k] = film_open(k ? b : a);
        }
    }
    for (int k = 0; k < 2; k++) {
        av_packet_free(&p[k]);
        avformat_close_input(&in[k]);
    }
}

// ftyp, moov, mdat, and nothing else; the boxes fill the file.
static void boxes_are_in_order(const char *path)
{
    size_t n, at = 0;
    uint8_t *d = file_bytes(path, &n);
    for (const char *const *type = (const char *const[]){"ftyp", "moov", "mdat", NULL}; *type; type++) {
        assert_true(at + 8 <= n);
        assert_memory_equal(d + at + 4, *type, 4);
        at += mp4_get32(d + at);
    }
    assert_int_equal(at, n);
    free(d);
}

// Along the file, the two tracks are never more than a second apart.
static void tracks_lie_together(const char *path)
{
    AVFormatContext *in = film_open(path);
    int64_t at[2] = {0, 0};
    double time[2] = {0, 0};
    for (bool more = true; more;) {
        more = false;
        int first = -1;
        int64_t pos[2];
        for (int i = 0; i < (int)in->nb_streams; i++) {
            const AVIndexEntry *x = avformat_index_get_entry(in->streams[i], (int)at[i]);
            pos[i] = x ? x->pos : INT64_MAX;
            if (x && (first < 0 || pos[i] < pos[first])) first = i;
        }
        if (first < 0) break;
        const AVIndexEntry *x = avformat_index_get_entry(in->streams[first], (int)at[first]++);
        time[first] = (double)x->timestamp * av_q2d(in->streams[first]->time_base);
        more = true;
        if (at[0] && at[1] && at[0] < avformat_index_get_entries_count(in->streams[0]) &&
            at[1] < avformat_index_get_entries_count(in->streams[1]))
            assert_true(fabs(time[0] - time[1]) < 1);
    }
    avformat_close_input(&in);
}

static void remux_ok(const char *from, const char *to, const char *container, int64_t n_frames, int64_t n_audio)
{
    struct err e = {0};
    if (remux_faststart(from, to, container, n_frames, n_audio, &e) < 0) fail_msg("%s", e.text);
}

static const struct film films[] = {
    {100, 72, 4 * 16000, 16000, 1, "medium"},
    {157, 31, 276947, 44100, 2, "ultrafast"}, // no B pictures, several segments
    {130, 130, 130 * 1920 - 700, 48000, 2, "slow"},
    {11, 1, 11 * 320 + 159, 8000, 1, "medium"}, // all keys
    {25, 81, 44100, 44100, 6, "fast"},
    {30, 10, 115200, 96000, 8, "veryfast"},
    {1, 81, 640, 16000, 1, "medium"},
    {1, 81, 0, 0, 0, "medium"},
    {60, 25, 0, 0, 0, "fast"},
    {200, 81, 8 * 16000 + 5000, 16000, 3, "veryfast"}, // more voice than pictures
};

static void films_are_what_ffmpeg_makes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof films / sizeof *films; i++) {
        const struct film *f = &films[i];
        const char *from = in_top("growing.mp4");
        film_grow(f, from);
        for (int quicktime = 0; quicktime < 2; quicktime++) {
            const char *container = quicktime ? "mov" : "mp4";
            const char *ours = in_top("ours"), *theirs = in_top("theirs");
            remux_ok(from, ours, container, f->n_frames, f->n_audio);
            reference_write(from, theirs, container, f->n_audio);
            films_equal(theirs, ours);
            boxes_are_in_order(ours);
            tracks_lie_together(ours);
        }
    }
}

// Every packet that FFmpeg's reader finds is decoded, and it complains of nothing.
static int n_complaints;

static void complaint_count(void *ctx, int level, const char *format, va_list args)
{
    (void)ctx;
    if (level > AV_LOG_WARNING) return;
    n_complaints++;
    vprintf(format, args);
}

static int64_t frames_decode(AVFormatContext *in, int stream)
{
    int64_t n = 0;
    const AVCodecParameters *par = in->streams[stream]->codecpar;
    AVCodecContext *c = avcodec_alloc_context3(NULL);
    avcodec_parameters_to_context(c, par);
    assert_int_equal(avcodec_open2(c, avcodec_find_decoder(par->codec_id), NULL), 0);
    AVPacket *p = av_packet_alloc();
    AVFrame *f = av_frame_alloc();
    for (bool more = true; more;) {
        more = packet_of(in, stream, p);
        assert_int_equal(avcodec_send_packet(c, more ? p : NULL), 0);
        while (avcodec_receive_frame(c, f) == 0) n += par->codec_type == AVMEDIA_TYPE_VIDEO ? 1 : f->nb_samples;
        av_packet_unref(p);
    }
    av_frame_free(&f);
    av_packet_free(&p);
    avcodec_free_context(&c);
    return n;
}

static void films_decode_without_a_complaint(void **state)
{
    (void)state;
    const struct film *f = &films[0];
    film_grow(f, in_top("growing.mp4"));
    for (int quicktime = 0; quicktime < 2; quicktime++) {
        const char *ours = in_top("ours");
        remux_ok(in_top("growing.mp4"), ours, quicktime ? "mov" : "mp4", f->n_frames, f->n_audio);
        av_log_set_callback(complaint_count);
        for (int i = 0; i < 2; i++) {
            AVFormatContext *in = film_open(ours);
            assert_int_equal(av_cmp_q(in->streams[0]->sample_aspect_ratio, (AVRational){1, 1}), 0);
            int64_t n = frames_decode(in, i);
            assert_true(i ? n >= f->n_audio && n < f->n_audio + 1024 : n == f->n_frames);
            avformat_close_input(&in);
        }
        av_log_set_callback(av_log_default_callback);
        assert_int_equal(n_complaints, 0);
    }
}

static void counts_are_held_to(void **state)
{
    (void)state;
    const struct film *f = &films[0];
    const char *from = in_top("growing.mp4"), *to = in_top("ours.mp4");
    struct err e = {0};
    film_grow(f, from);
    assert_int_equal(remux_faststart(from, to, "mp4", f->n_frames + 1, f->n_audio, &e), E_FATAL);
    assert_non_null(strstr(e.text, "has 100 pictures where 101 were written"));
    assert_int_equal(remux_faststart(from, to, "mp4", f->n_frames, f->n_audio + 1, &e), E_FATAL);
    assert_non_null(strstr(e.text, "has 64000 samples of sound where 64001 were written"));
    assert_int_equal(remux_faststart(from, to, "mp4", f->n_frames, 0, &e), E_FATAL);
    assert_int_equal(access(to, F_OK), -1); // counted before anything is written
    for (int64_t n = 1; n < f->n_audio; n = n * 3 + 700) {
        remux_ok(from, to, "mp4", f->n_frames, n);
        AVFormatContext *in = film_open(to);
        assert_int_equal(in->streams[1]->duration, n);
        avformat_close_input(&in);
    }
    assert_int_equal(remux_faststart(from, in_top("nowhere/x.mp4"), "mp4", f->n_frames, f->n_audio, &e), E_FATAL);
    assert_non_null(strstr(e.text, "nowhere/x.mp4"));
    assert_int_equal(remux_faststart(in_top("none.mp4"), to, "mp4", 1, 0, &e), E_FATAL);
    assert_non_null(strstr(e.text, "none.mp4"));
    assert_int_equal(remux_faststart(from, "/dev/full", "mp4", f->n_frames, f->n_audio, &e), E_FATAL);
    assert_non_null(strstr(e.text, "no space left on the disk"));
}

// ---- damage

static void cut_files_are_sentences(void **state)
{
    (void)state;
    const struct film f = {60, 30, 60 * 640, 16000, 1, "veryfast"};
    film_grow(&f, in_top("growing.mp4"));
    size_t n;
    uint8_t *d = file_bytes(in_top("growing.mp4"), &n);
    const char *cut = in_top("cut.mp4"), *to = in_top("ours.mp4");
    file_put(cut, d, n);
    for (size_t m = n - 1; m < n; m = m >= 13 ? m - 13 : n) {
        struct err e = {0};
        assert_int_equal(truncate(cut, (off_t)m), 0);
        if (remux_faststart(cut, to, m % 2 ? "mp4" : "mov", f.n_frames, f.n_audio, &e) != E_FATAL ||
            !strstr(e.text, cut))
            fail_msg("%zu of %zu bytes: %s", m, n, e.text);
    }
    free(d);
}

static void flipped_bits_are_sentences_or_films(void **state)
{
    (void)state;
    const struct film f = {24, 8, 24 * 640, 16000, 1, "veryfast"};
    film_grow(&f, in_top("growing.mp4"));
    size_t n;
    uint8_t *d = file_bytes(in_top("growing.mp4"), &n);
    const char *flipped = in_top("flipped.mp4"), *to = in_top("ours.mp4");
    file_put(flipped, d, n);
    int fd = open(flipped, O_WRONLY);
    size_t *said = malloc(n * sizeof *said), n_said = 0; // all bytes but the media, which no one reads
    for (size_t box = 0; box + 8 <= n; box += mp4_get32(d + box))
        for (size_t i = 0; i < (memcmp(d + box + 4, "mdat", 4) ? mp4_get32(d + box) : 8); i++) said[n_said++] = box + i;
    uint32_t seed = 77;
    int n_films = 0;
    for (int i = 0; i < 2000; i++) {
        size_t at = said[draw(&seed) % n_said];
        uint8_t b = (uint8_t)(d[at] ^ 1 << (draw(&seed) >> 29));
        assert_int_equal(pwrite(fd, &b, 1, (off_t)at), 1);
        struct err e = {0};
        int rc = remux_faststart(flipped, to, i % 2 ? "mov" : "mp4", f.n_frames, f.n_audio, &e);
        if (rc == 0) {
            n_films++;
            AVFormatContext *in = NULL; // its head may speak nonsense of a codec, but the count is right
            if (avformat_open_input(&in, to, NULL, NULL) == 0 && in->nb_streams == 2)
                assert_int_equal(in->streams[0]->nb_frames, f.n_frames);
            avformat_close_input(&in);
        } else {
            assert_int_equal(rc, E_FATAL);
            assert_non_null(strstr(e.text, flipped));
        }
        assert_int_equal(pwrite(fd, d + at, 1, (off_t)at), 1);
    }
    printf("seed 77: 2000 flips, %d of them films\n", n_films);
    assert_true(n_films > 0 && n_films < 2000);
    close(fd);
    free(said);
    free(d);
}

// ---- long films

static long peak_kib(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1) break;
    if (f) fclose(f);
    return kib;
}

static void an_hour_takes_no_memory(void **state)
{
    (void)state;
    enum { HOUR = 90000 };
    const struct film like = {60, 60, 60 * 1920, 48000, 2, "medium"};
    const char *from = in_top("hour.mp4"), *to = in_top("ours.mp4");
    film_grow(&like, in_top("growing.mp4"));
    film_synthesize(from, in_top("growing.mp4"), HOUR);
    pid_t child = fork();
    if (child == 0) { // its peak begins with what it has
        FILE *f = fopen("/proc/self/clear_refs", "w");
        if (f) fputs("5", f);
        if (f) fclose(f);
        struct err e = {0};
        long before = peak_kib();
        int rc = remux_faststart(from, to, "mp4", HOUR, HOUR * 1920LL - 1024, &e);
        long grown = peak_kib() - before;
        if (rc < 0) puts(e.text);
        printf("an hour: %ld KiB more at the peak\n", grown);
        fflush(stdout);
        _exit(rc < 0 || grown >= 1024);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    reference_write(from, in_top("theirs"), "mp4", HOUR * 1920LL - 1024);
    films_equal(in_top("theirs"), in_top("ours.mp4"));
}

// The index of a film of 9 GB and 3 days, without its media: what is between is a hole.
static void a_large_film_has_wide_numbers(void **state)
{
    (void)state;
    enum { N = 90, SIZE = 100000001, HOURS = 3600 };
    const struct film like = {10, 10, 10 * 1920, 48000, 2, "medium"};
    const char *from = in_top("growing.mp4"), *to = in_top("large.mp4");
    struct err e = {0};
    film_grow(&like, from);
    struct mp4_film f;
    assert_int_equal(mp4_open(&f, from, &e), 0);
    struct mp4_index *x = malloc(sizeof *x);
    struct mp4_head h = {0};
    int64_t at[2][N];
    for (int pass = 0; pass < 2; pass++) {
        int fd = pass ? open(to, O_CREAT | O_WRONLY | O_TRUNC, 0600) : -1;
        mp4_index_init(x, fd, to);
        for (int i = 0; pass && i < MP4_TRACKS; i++)
            for (int k = 0; k < MP4_TABLES; k++) x->c[i].t[k].at = h.at[i][k];
        x->wide = h.wide;
        x->media = h.media;
        for (int i = 0; i < N; i++)
            for (int track = 0; track < MP4_TRACKS; track++) {
                uint32_t duration = f.t[track].timescale * HOURS;
                struct mp4_packet p = {
                    .track = track, .opens = true, .key = true, .size = SIZE - (uint32_t)track * 99999000};
                p.dts = (int64_t)i * duration;
                p.duration = duration;
                at[track][i] = x->media;
                assert_int_equal(mp4_index_add(x, &p, &e), 0);
            }
        assert_int_equal(mp4_index_end(x, &e), 0);
        if (pass == 0) assert_int_equal(mp4_head_build(&h, &f, x, false, &e), 0);
        if (pass == 1) {
            assert_int_equal(mp4_head_write(&h, fd, to, &e), 0);
            assert_int_equal(ftruncate(fd, h.end), 0);
            close(fd);
        }
    }
    assert_true(h.wide && h.end > 9000000000);
    AVFormatContext *in = NULL;
    assert_int_equal(avformat_open_input(&in, to, NULL, NULL), 0);
    for (int track = 0; track < MP4_TRACKS; track++) {
        const AVStream *s = in->streams[track];
        assert_int_equal(s->nb_frames, N);
        assert_int_equal(s->duration, (int64_t)N * HOURS * f.t[track].timescale - f.t[track].media_time);
        for (int i = 0; i < N; i++) {
            const AVIndexEntry *p = avformat_index_get_entry(in->streams[track], i);
            assert_non_null(p);
            assert_int_equal(p->pos, at[track][i]);
            assert_int_equal(p->size, SIZE - track * 99999000);
        }
    }
    avformat_close_input(&in);
    mp4_head_free(&h);
    mp4_close(&f);
    free(x);
}

// Fragments past 4 GiB: a hole before the second one, in a large mdat.
static void a_large_film_is_read(void **state)
{
    (void)state;
    const struct film f = {20, 10, 0, 0, 0, "medium"};
    const int64_t hole = 5LL << 30;
    film_grow(&f, in_top("growing.mp4"));
    size_t n;
    uint8_t *d = file_bytes(in_top("growing.mp4"), &n);
    size_t at[2] = {0}, n_found = 0;
    for (size_t i = 0; i + 8 <= n; i += mp4_get32(d + i))
        if (!memcmp(d + i + 4, "moof", 4) && n_found < 2) at[n_found++] = i;
    assert_int_equal(n_found, 2);
    const char *large = in_top("large.mp4");
    int fd = open(large, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    uint8_t box[16] = {0, 0, 0, 1, 'm', 'd', 'a', 't'};
    mp4_set64(box + 8, (uint64_t)hole);
    assert_int_equal(pwrite(fd, d, at[1], 0), at[1]);
    assert_int_equal(pwrite(fd, box, 16, (off_t)at[1]), 16);
    assert_int_equal(pwrite(fd, d + at[1], n - at[1], (off_t)at[1] + hole), n - at[1]);
    close(fd);
    remux_ok(in_top("growing.mp4"), in_top("small"), "mp4", f.n_frames, 0);
    remux_ok(large, in_top("ours"), "mp4", f.n_frames, 0);
    size_t n_small, n_ours;
    uint8_t *small = file_bytes(in_top("small"), &n_small), *ours = file_bytes(in_top("ours"), &n_ours);
    assert_int_equal(n_small, n_ours);
    assert_memory_equal(small, ours, n_small);
    free(small);
    free(ours);
    free(d);
}

static int folder_make(void **state)
{
    (void)state;
    av_log_set_level(AV_LOG_QUIET);
    return top_make("remux");
}

static int folder_remove(void **state)
{
    (void)state;
    return top_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(films_are_what_ffmpeg_makes),
        cmocka_unit_test(films_decode_without_a_complaint),
        cmocka_unit_test(counts_are_held_to),
        cmocka_unit_test(cut_files_are_sentences),
        cmocka_unit_test(flipped_bits_are_sentences_or_films),
        cmocka_unit_test(an_hour_takes_no_memory),
        cmocka_unit_test(a_large_film_has_wide_numbers),
        cmocka_unit_test(a_large_film_is_read),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
