// daemon/media/mux: counts and times read back by libavformat, files cut off anywhere, bytes that depend on nothing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/film_maker.h"
#include "tests/folder.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { W = 96, H = 64, FRAME = W * H * 3 / 2 };

static const char *piece_path(void)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/piece", top);
    return path;
}

// ---- a film to write: a moving slope whose mean brightness tells the frame's number, and a tone that starts with a
// click

static void frame_draw(uint8_t *yuv, int64_t i)
{
    int level = 40 + (int)(i * 37 % 160);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) yuv[y * W + x] = (uint8_t)(level + (x + y + i) % 16);
    memset(yuv + W * H, 110, W * H / 4);
    memset(yuv + W * H * 5 / 4, 140, W * H / 4);
}

struct tone {
    int rate, channels;
    int64_t n, asked;
};

static int tone_read(void *ctx, float *out, int64_t from, int64_t n, struct err *e)
{
    (void)e;
    struct tone *t = ctx;
    assert_int_equal(from, t->asked); // in order, each once
    assert_true(from + n <= t->n);
    t->asked += n;
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < t->channels; c++) {
            double s = (double)(from + i) / t->rate;
            out[i * t->channels + c] = (float)(0.3 * sin(2 * M_PI * (440 + 110 * c) * s) * (s >= 0.5 && s < 0.6));
        }
    return 0;
}

struct film {
    int64_t n_frames, segment; // frames a segment
    int push;                  // frames a push
    struct tone tone;
    const char *growing, *final;
    const char *preset;
    int64_t resume_frames, resume_bytes;
};

static struct maker film_open(struct film *f)
{
    struct err e = {0};
    struct mux_options o = {.path = f->growing,
                            .picture = {.w = W, .h = H, .crf = 18, .preset = f->preset},
                            .n_frames = f->n_frames,
                            .read_audio = tone_read,
                            .audio = &f->tone,
                            .rate = f->tone.rate,
                            .channels = f->tone.channels,
                            .n_audio = f->tone.n,
                            .resume_frames = f->resume_frames,
                            .resume_bytes = f->resume_bytes};
    struct maker k = {.picture = o.picture, .next = f->resume_frames};
    f->tone.asked = 0;
    if (mux_open(&k.mux, &o, &e) < 0) fail_msg("%s", e.text);
    return k;
}

static void film_push(struct film *f, struct maker *m, int64_t from, int64_t to)
{
    struct err e = {0};
    uint8_t *yuv = malloc((size_t)f->push * FRAME);
    for (int64_t i = from; i < to;) {
        int64_t end = (i / f->segment + 1) * f->segment;
        if (end > to) end = to;
        int n = (int)(end - i < f->push ? end - i : f->push);
        for (int j = 0; j < n; j++) frame_draw(yuv + j * FRAME, i + j);
        if (maker_push(m, n, yuv, &e) < 0) fail_msg("%s", e.text);
        i += n;
        bool ends = i == end || i == f->n_frames;
        if (ends && maker_end_segment(m, piece_path(), &e) < 0) fail_msg("%s", e.text);
    }
    free(yuv);
}

static void film_write(struct film *f)
{
    struct err e = {0};
    struct maker m = film_open(f);
    film_push(f, &m, 0, f->n_frames);
    assert_int_equal(mux_frames(m.mux), f->n_frames);
    assert_int_not_equal(access(f->final, F_OK), 0); // the name appears only when it is whole
    if (mux_finish(m.mux, f->final, &e) < 0) fail_msg("%s", e.text);
    assert_int_not_equal(access(f->growing, F_OK), 0);
}

// ---- reading back

struct seen {
    int64_t n_frames, n_keys, key_gap, n_samples;
    int64_t first_loud;   // sample
    int64_t sound_length; // as the file says
    int width, rate, channels;
    int64_t n_right; // leading frames with the right time and brightness
    bool times_exact, levels_right;
    int primaries, range, profile;
};

static void picture_seen(struct seen *s, const AVFrame *f, AVRational base)
{
    int64_t i = s->n_frames++;
    if (av_rescale_q(f->pts, base, (AVRational){1, 25}) != i || f->pts * base.num * 25 != i * base.den)
        s->times_exact = false;
    double sum = 0;
    for (int y = 0; y < f->height; y++)
        for (int x = 0; x < f->width; x++) sum += f->data[0][y * f->linesize[0] + x];
    double mean = sum / (f->width * f->height);
    if (fabs(mean - (40 + (double)(i * 37 % 160) + 7.5)) > 3) s->levels_right = false;
    if (s->times_exact && s->levels_right) s->n_right = s->n_frames;
    if (f->key_frame) s->n_keys++;
    s->key_gap = f->key_frame ? 1 : s->key_gap + 1;
    if (s->key_gap > PIECE_KEY_FRAMES) s->times_exact = false;
}

// By time, as a player does: the encoder's priming lies before zero, or is not given out at all.
static void sound_seen(struct seen *s, const AVFrame *f, AVRational base)
{
    int64_t at = av_rescale_q(f->pts, base, (AVRational){1, f->sample_rate});
    for (int i = 0; i < f->nb_samples; i++)
        if (s->first_loud < 0 && fabsf(((const float *)f->data[0])[i]) > 0.1f) s->first_loud = at + i;
    s->n_samples = at + f->nb_samples;
}

static void packet_seen(struct seen *s, AVCodecContext *c, const AVPacket *p, AVRational base)
{
    AVFrame *f = av_frame_alloc();
    avcodec_send_packet(c, p); // a broken one gives no frame
    while (avcodec_receive_frame(c, f) == 0) {
        if (c->codec_type == AVMEDIA_TYPE_VIDEO)
            picture_seen(s, f, base);
        else
            sound_seen(s, f, base);
    }
    av_frame_free(&f);
}

static struct seen film_read(const char *path)
{
    struct seen s = {.times_exact = true, .levels_right = true, .first_loud = -1};
    AVFormatContext *in = NULL;
    if (avformat_open_input(&in, path, NULL, NULL) < 0 || avformat_find_stream_info(in, NULL) < 0) {
        avformat_close_input(&in);
        return s;
    }
    AVCodecContext *c[2] = {0};
    for (unsigned i = 0; i < in->nb_streams; i++) {
        const AVCodecParameters *p = in->streams[i]->codecpar;
        c[i] = avcodec_alloc_context3(NULL);
        avcodec_parameters_to_context(c[i], p);
        c[i]->pkt_timebase = in->streams[i]->time_base;
        avcodec_open2(c[i], avcodec_find_decoder(p->codec_id), NULL);
        if (p->codec_type == AVMEDIA_TYPE_VIDEO) {
            s.width = p->width;
            s.primaries = p->color_primaries;
            s.range = p->color_range;
            s.profile = p->profile;
        } else {
            s.rate = p->sample_rate;
            s.sound_length = av_rescale_q(in->streams[i]->duration, in->streams[i]->time_base, (AVRational){1, s.rate});
            s.channels = p->ch_layout.nb_channels;
        }
    }
    AVPacket *p = av_packet_alloc();
    while (av_read_frame(in, p) == 0) {
        packet_seen(&s, c[p->stream_index], p, in->streams[p->stream_index]->time_base);
        av_packet_unref(p);
    }
    for (unsigned i = 0; i < in->nb_streams; i++) {
        packet_seen(&s, c[i], NULL, in->streams[i]->time_base);
        avcodec_free_context(&c[i]);
    }
    av_packet_free(&p);
    avformat_close_input(&in);
    return s;
}

// The order of the boxes "moov" and "mdat" at the top level.
static bool index_is_first(const char *path)
{
    size_t n;
    uint8_t *d = file_bytes(path, &n);
    bool first = false;
    for (size_t at = 0; at + 8 <= n;) {
        size_t size = (size_t)d[at] << 24 | (size_t)d[at + 1] << 16 | (size_t)d[at + 2] << 8 | d[at + 3];
        if (!memcmp(d + at + 4, "moov", 4)) first = true;
        if (!memcmp(d + at + 4, "mdat", 4) || size < 8) break;
        at += size;
    }
    free(d);
    return first;
}

static void counts_are_exact(void **state)
{
    (void)state;
    static const struct {
        int64_t n_frames, segment, n_audio;
        int rate, channels;
        const char *preset, *name;
    } cases[] = {
        {100, 72, 4 * 16000, 16000, 1, "veryfast", "a.mp4"},
        {157, 72, 276947, 44100, 2, "ultrafast", "b.mov"},
        {33, 8, 33 * 1920 - 700, 48000, 2, "medium", "c.mp4"},
        {11, 1, 11 * 320 + 159, 8000, 1, "medium", "d.MP4"},
        {25, 81, 44100, 44100, 6, "fast", "e.mp4"},
        {1, 81, 640, 16000, 1, "medium", "f.mp4"},
        {60, 25, 0, 0, 0, "medium", "silent.mp4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct film f = {cases[i].n_frames,
                         cases[i].segment,
                         5,
                         {cases[i].rate, cases[i].channels, cases[i].n_audio, 0},
                         in_top("growing.mp4"),
                         in_top(cases[i].name),
                         cases[i].preset};
        film_write(&f);
        struct seen s = film_read(f.final);
        printf("%s: %lld frames, %lld keys, %lld of %lld samples, loud at %lld\n", cases[i].name, (long long)s.n_frames,
               (long long)s.n_keys, (long long)s.n_samples, (long long)cases[i].n_audio, (long long)s.first_loud);
        assert_int_equal(s.n_frames, f.n_frames);
        assert_true(s.times_exact && s.levels_right);
        assert_int_equal(s.width, W);
        assert_int_equal(s.primaries, AVCOL_PRI_BT709);
        assert_int_equal(s.range, AVCOL_RANGE_MPEG);
        assert_int_equal(s.profile, FF_PROFILE_H264_HIGH);
        assert_true(index_is_first(f.final));
        assert_int_equal(s.rate, cases[i].rate);
        assert_int_equal(s.channels, cases[i].channels);
        assert_true(llabs(s.n_samples - f.tone.n) < 1024); // as decoded; as declared, exactly:
        assert_int_equal(s.sound_length, f.tone.n);
        // the tone starts at half a second: in sync within 5 ms (pre-echo and slope count against us)
        if (f.tone.n > f.tone.rate * 3 / 5) assert_true(llabs(s.first_loud - f.tone.rate / 2) < f.tone.rate / 200);
    }
}

static void cut_files_play(void **state)
{
    (void)state;
    struct film f = {120, 40, 7, {16000, 1, 120 * 640, 0}, in_top("growing.mp4"), in_top("x.mp4"), "veryfast"};
    struct maker m = film_open(&f);
    int64_t on_disk[4] = {0};
    struct stat st;
    for (int k = 0; k < 3; k++) {
        film_push(&f, &m, k * 40, (k + 1) * 40);
        assert_int_equal(stat(f.growing, &st), 0);
        on_disk[k + 1] = st.st_size;
        struct seen s = film_read(f.growing); // while it grows
        assert_int_equal(s.n_frames, (k + 1) * 40);
        assert_true(s.times_exact && s.levels_right);
        assert_true(s.n_samples >= (k + 1) * 40 * 640 - 1024);
        if (llabs(s.first_loud - 8000) >= 80) fail_msg("the click lies at %lld", (long long)s.first_loud);
    }
    mux_abort(m.mux, true);
    assert_int_equal(film_read(f.growing).n_frames, 120);
    size_t n;
    uint8_t *d = file_bytes(f.growing, &n);
    for (int64_t cut = on_disk[1]; cut < (int64_t)n; cut += 997) {
        const char *path = in_top("cut.mp4");
        file_put(path, d, (size_t)cut);
        struct seen s = film_read(path);
        int64_t whole = cut >= on_disk[3] ? 120 : cut >= on_disk[2] ? 80 : 40;
        if (s.n_right < whole) // pictures of the broken fragment may miss those they refer to
            fail_msg("cut at %lld: %lld frames play of %lld", (long long)cut, (long long)s.n_right, (long long)whole);
    }
    free(d);
}

static void bytes_depend_on_pixels_alone(void **state)
{
    (void)state;
    uint8_t *first = NULL;
    size_t n_first = 0;
    for (int push = 1; push <= 30; push += 29) {
        struct film f = {90, 30, push, {24000, 1, 90 * 960, 0}, in_top("growing.mp4"), in_top("y.mp4"), "fast"};
        film_write(&f);
        size_t n;
        uint8_t *d = file_bytes(f.final, &n);
        unlink(f.final);
        if (!first) {
            first = d;
            n_first = n;
            continue;
        }
        assert_int_equal(n, n_first);
        assert_memory_equal(d, first, n);
        free(d);
    }
    free(first);
}

// Stripes in a narrow picture, eight segments, with memory that is handed out filled with one byte or another.
static void bytes_do_not_depend_on_what_lay_in_memory(void **state)
{
    (void)state;
    enum { NARROW = 64, N_FRAMES = 96 };
    static uint8_t yuv[NARROW * NARROW * 3 / 2];
    uint8_t *first = NULL;
    size_t n_first = 0;
    for (int filling = 0; filling < 4; filling++) {
        struct err e = {0};
        struct mux *m = NULL;
        struct mux_options o = {
            .path = in_top("growing.mp4"), .picture = {.w = NARROW, .h = NARROW, .crf = 18}, .n_frames = N_FRAMES};
        mallopt(M_PERTURB, filling * 80);
        if (mux_open(&m, &o, &e) < 0) fail_msg("%s", e.text);
        struct maker maker = {.mux = m, .picture = o.picture};
        for (int i = 0; i < N_FRAMES; i++) {
            for (int k = 0; k < NARROW * NARROW; k++) yuv[k] = i >> (15 - k % NARROW / 4) & 1 ? 220 : 30;
            memset(yuv + NARROW * NARROW, 128, NARROW * NARROW / 2);
            assert_int_equal(maker_push(&maker, 1, yuv, &e), 0);
            if (i % 12 == 11) assert_int_equal(maker_end_segment(&maker, piece_path(), &e), 0);
        }
        if (mux_finish(m, in_top("narrow.mp4"), &e) < 0) fail_msg("%s", e.text);
        size_t n;
        uint8_t *d = file_bytes(in_top("narrow.mp4"), &n);
        if (filling) {
            assert_int_equal(n, n_first);
            assert_memory_equal(d, first, n);
            free(d);
        } else {
            first = d;
            n_first = n;
        }
    }
    mallopt(M_PERTURB, 0);
    free(first);
}

static void a_film_is_delivered_only_when_it_is_whole(void **state)
{
    (void)state;
    struct film f = {20, 10, 10, {16000, 1, 20 * 640, 0}, in_top("growing.mp4"), in_top("z.mp4"), "ultrafast"};
    struct maker m = film_open(&f);
    struct err e = {0};
    film_push(&f, &m, 0, 10);
    assert_int_equal(mux_finish(m.mux, f.final, &e), E_FATAL);
    assert_non_null(strstr(e.text, "has 10 of 20 frames"));
    assert_int_not_equal(access(f.final, F_OK), 0);
    struct piece *more = NULL;
    uint8_t *yuv = calloc(11, FRAME);
    assert_int_equal(piece_open(&more, &m.picture, &e), 0);
    assert_int_equal(piece_push(more, 11, yuv, &e), 0);
    assert_int_equal(piece_end(more, &e), 0);
    assert_int_equal(mux_piece(m.mux, more, &e), E_FATAL); // past the end
    assert_non_null(strstr(e.text, "1 frames more than the 20"));
    piece_free(&more);
    free(yuv);
    film_push(&f, &m, 10, 20);
    assert_int_equal(mux_finish(m.mux, "film.avi", &e), E_INPUT);
    assert_non_null(strstr(e.text, ".mp4 or .mov"));
    assert_int_equal(mux_finish(m.mux, in_top("nowhere/z.mp4"), &e), E_FATAL);
    if (mux_finish(m.mux, f.final, &e) < 0) fail_msg("%s", e.text);
    assert_true(film_read(f.final).levels_right);
}

static void aborts_leave_what_is_asked(void **state)
{
    (void)state;
    for (int keep = 0; keep < 2; keep++) {
        struct film f = {50, 20, 20, {16000, 1, 50 * 640, 0}, in_top("half.mp4"), NULL, "ultrafast"};
        struct maker m = film_open(&f);
        film_push(&f, &m, 0, 33);
        mux_abort(m.mux, keep);
        piece_free(&m.piece);
        assert_int_equal(access(f.growing, F_OK) == 0, keep);
        if (keep) assert_int_equal(film_read(f.growing).n_frames, 33);
    }
}

// A piece on disk that was cut off, or of which a byte was changed where sizes and places stand.
static void damaged_pieces_are_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct piece *p = NULL, *back = NULL;
    struct piece_options o = {.w = W, .h = H, .crf = 18, .preset = "ultrafast"};
    const char *path = piece_path();
    uint8_t *yuv = calloc(7, FRAME);
    assert_int_equal(piece_open(&p, &o, &e), 0);
    assert_int_equal(piece_push(p, 7, yuv, &e), 0);
    assert_int_equal(piece_end(p, &e), 0);
    assert_int_equal(piece_write(p, path, &e), 0);
    assert_int_equal(piece_read(&back, path, 7, &e), 0);
    for (int i = 0; i < 7; i++) {
        struct piece_packet a = piece_at(p, i), b = piece_at(back, i);
        assert_int_equal(a.n, b.n);
        assert_int_equal(a.pts, b.pts);
        assert_int_equal(a.key, b.key);
        assert_memory_equal(a.bytes, b.bytes, a.n);
    }
    piece_free(&back);
    assert_int_equal(piece_read(&back, path, 8, &e), E_INPUT);
    size_t n;
    uint8_t *d = file_bytes(path, &n);
    for (size_t cut = 0; cut < n; cut += 13) {
        file_put(path, d, cut);
        assert_int_equal(piece_read(&back, path, 7, &e), E_INPUT);
        assert_non_null(strstr(e.text, "is damaged"));
    }
    static const size_t places[] = {0, 10, 11, 13, 15};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        d[places[i]] ^= 0x55;
        file_put(path, d, n);
        assert_int_equal(piece_read(&back, path, 7, &e), E_INPUT);
        d[places[i]] ^= 0x55;
    }
    assert_int_equal(piece_write(p, "/dev/full", &e), E_FATAL);
    assert_non_null(strstr(e.text, "no space left on the disk"));
    remove(path);
    free(d);
    free(yuv);
    piece_free(&p);
}

static char *bytes_of(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *bytes = malloc(*n + 1);
    assert_int_equal(fread(bytes, 1, *n, f), *n);
    fclose(f);
    return bytes;
}

static void bytes_write(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void same_bytes(const char *path, const char *want, size_t n_want, const char *what, int64_t from)
{
    size_t n;
    char *got = bytes_of(path, &n);
    if (n != n_want || memcmp(got, want, n) != 0)
        fail_msg("%s, from frame %lld: %zu bytes, not the %zu that were expected", what, (long long)from, n, n_want);
    free(got);
}

// Cut off after each segment, with and without a piece of the next one behind it: the growing file and the delivered
// one become what they would have been.
static void a_film_goes_on_where_it_was_cut_off(void **state)
{
    (void)state;
    static const struct tone tones[] = {
        {16000, 1, 130 * 640, 0}, {48000, 2, 130 * 1920, 0}, {44100, 2, 44100, 0}, {44100, 1, 0, 0}};
    enum { SEGMENTS = 7 }; // of 20 frames, the last of 10
    for (size_t t = 0; t < sizeof tones / sizeof *tones; t++) {
        struct err e = {0};
        struct film f = {130, 20, 7, tones[t], in_top("going.mp4"), in_top("whole.mp4"), "veryfast", 0, 0};
        struct maker m = film_open(&f);
        int64_t end[SEGMENTS + 1] = {0};
        for (int k = 0; k < SEGMENTS; k++) {
            film_push(&f, &m, k * 20, k < SEGMENTS - 1 ? (k + 1) * 20 : 130);
            end[k + 1] = mux_bytes(m.mux);
        }
        size_t n_growing, n_final;
        char *growing = bytes_of(f.growing, &n_growing);
        assert_int_equal(n_growing, end[SEGMENTS]);
        if (mux_finish(m.mux, f.final, &e) < 0) fail_msg("%s", e.text);
        char *final = bytes_of(f.final, &n_final);
        for (int k = 1; k <= SEGMENTS; k++)
            for (int more = 0; more < 2; more++) {
                size_t stands = (size_t)end[k] + (more ? (n_growing - (size_t)end[k]) / 3 : 0);
                bytes_write(f.growing, growing, stands);
                f.resume_frames = k < SEGMENTS ? k * 20 : 130;
                f.resume_bytes = end[k];
                m = film_open(&f);
                assert_int_equal(mux_frames(m.mux), f.resume_frames);
                film_push(&f, &m, f.resume_frames, 130);
                if (k < SEGMENTS) same_bytes(f.growing, growing, n_growing, "growing", f.resume_frames);
                if (mux_finish(m.mux, f.final, &e) < 0) fail_msg("%s", e.text);
                same_bytes(f.final, final, n_final, "delivered", f.resume_frames);
            }
        free(growing);
        free(final);
    }
}

static void a_file_that_is_not_the_one_is_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct film f = {60, 20, 20, {16000, 1, 60 * 640, 0}, in_top("other.mp4"), NULL, "ultrafast", 0, 0};
    struct maker k = film_open(&f);
    struct mux *m = NULL;
    film_push(&f, &k, 0, 40);
    int64_t bytes = mux_bytes(k.mux);
    mux_abort(k.mux, true);
    struct mux_options o = {.path = f.growing,
                            .picture = {.w = W, .h = H, .crf = 18, .preset = "ultrafast"},
                            .n_frames = 60,
                            .resume_frames = 40,
                            .resume_bytes = bytes - 1};
    assert_int_equal(mux_open(&m, &o, &e), E_INPUT);
    assert_non_null(strstr(e.text, "no end of a fragment"));
    o.resume_bytes = bytes + 100000;
    assert_int_equal(mux_open(&m, &o, &e), E_INPUT);
    assert_non_null(strstr(e.text, "bytes where"));
    assert_int_equal(film_read(f.growing).n_frames, 40); // it was left alone
    bytes_write(f.growing, "\0\0\0\0 no film", 12);
    o.resume_bytes = 12;
    assert_int_equal(mux_open(&m, &o, &e), E_INPUT);
    assert_non_null(strstr(e.text, "damaged at byte 0"));
}

static void bad_options_are_sentences(void **state)
{
    (void)state;
    struct err e = {0};
    struct mux *m = NULL;
    struct mux_options o = {
        .path = in_top("bad.mp4"), .picture = {.w = W, .h = H, .crf = 18, .preset = "swift"}, .n_frames = 5};
    assert_int_equal(mux_open(&m, &o, &e), E_INPUT);
    assert_non_null(strstr(e.text, "swift"));
    assert_int_not_equal(access(o.path, F_OK), 0);
    o.picture.preset = "fast";
    o.path = in_top("nowhere/bad.mp4");
    assert_int_equal(mux_open(&m, &o, &e), E_FATAL);
    assert_non_null(strstr(e.text, "nowhere"));
    assert_int_equal(mux_check_path("a/b.mp4", &e), 0);
    assert_int_equal(mux_check_path("a.mp4/b", &e), E_INPUT);
}

static int folder_make(void **state)
{
    (void)state;
    av_log_set_level(AV_LOG_QUIET);
    return top_make("mux");
}

static int folder_remove(void **state)
{
    (void)state;
    return top_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_exact),
        cmocka_unit_test(cut_files_play),
        cmocka_unit_test(bytes_depend_on_pixels_alone),
        cmocka_unit_test(bytes_do_not_depend_on_what_lay_in_memory),
        cmocka_unit_test(a_film_is_delivered_only_when_it_is_whole),
        cmocka_unit_test(aborts_leave_what_is_asked),
        cmocka_unit_test(damaged_pieces_are_refused),
        cmocka_unit_test(a_film_goes_on_where_it_was_cut_off),
        cmocka_unit_test(a_file_that_is_not_the_one_is_refused),
        cmocka_unit_test(bad_options_are_sentences),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
