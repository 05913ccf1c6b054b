// daemon/media/source: pictures and videos made by the ffmpeg program, seen through the media child, which is this very
// program. What is shown is compared with what was put in, by value and by time.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/media/child.h"
#include "daemon/media/profile.h"
#include "daemon/media/source.h"

#include <libavutil/bswap.h>
#include <libavutil/crc.h>
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/source-test-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[8][256];
    static int turn;
    char *p = path[turn++ % 8];
    snprintf(p, 256, "%s/%s", folder, name);
    return p;
}

static void __attribute__((format(printf, 1, 2))) run(const char *fmt, ...)
{
    char line[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (system(line) != 0) fail_msg("failed: %s", line);
}

static void file_write(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static uint8_t *file_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*n);
    assert_int_equal(fread(data, 1, *n, f), *n);
    fclose(f);
    return data;
}

// Raw pixels as a file of another kind.
static const char *convert(const void *pixels, size_t n, const char *format, int w, int h, const char *options,
                           const char *name)
{
    const char *raw = in_folder("raw"), *path = in_folder(name);
    file_write(raw, pixels, n);
    run("ffmpeg -v error -y -f rawvideo -pix_fmt %s -s %dx%d -i %s %s %s", format, w, h, raw, options, path);
    return path;
}

static struct source *open_end(const char *path, enum spec_video_end end, bool published, struct source_info *info)
{
    struct err e = {0};
    struct source *s = NULL;
    struct source_options o = {.self = "/proc/self/exe", .path = path, .end = end, .published = published};
    if (source_open(&s, &o, info, &e) < 0) fail_msg("%s", e.text);
    if (source_measure(s, 0, info, &e) < 0) fail_msg("%s", e.text);
    return s;
}

static struct source *open_source(const char *path, struct source_info *info)
{
    return open_end(path, SPEC_END_HOLD, false, info);
}

static void refused(const char *path, const char *says)
{
    struct err e = {0};
    struct source *s = NULL;
    struct source_info info;
    struct source_options o = {.self = "/proc/self/exe", .path = path};
    assert_int_equal(source_open(&s, &o, &info, &e), E_INPUT);
    assert_null(s);
    if (!strstr(e.text, says) || !strstr(e.text, path)) fail_msg("'%s' lacks '%s' or %s", e.text, says, path);
}

static void picture(struct source *s, int64_t frame, int h, int w, uint8_t *rgb)
{
    struct err e = {0};
    if (source_picture(s, frame, h, w, rgb, &e) < 0) fail_msg("%s", e.text);
}

// ---- pictures

enum { W = 96, H = 64, N = W * H };

static uint8_t pattern(int y, int x, int c) { return (uint8_t)(x * 2 + y + 40 * c); }

static void fill(uint8_t *rgb)
{
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            for (int c = 0; c < 3; c++) rgb[(y * W + x) * 3 + c] = pattern(y, x, c);
}

static void rgb_pictures_come_through_exactly(void **state)
{
    (void)state;
    static uint8_t rgb[N * 3], got[N * 3];
    static const char *const names[] = {"a.png", "a.bmp", "misnamed.jpg.mp4.png"};
    fill(rgb);
    for (int i = 0; i < 3; i++) {
        struct source_info info;
        const char *path = convert(rgb, sizeof rgb, "rgb24", W, H, "", names[i]);
        if (i == 2) {
            assert_int_equal(rename(path, in_folder("misnamed.mp4")), 0); // content decides
            path = in_folder("misnamed.mp4");
        }
        struct source *s = open_source(path, &info);
        assert_int_equal(info.h, H);
        assert_int_equal(info.w, W);
        assert_true(info.still);
        assert_int_equal(info.n_frames, 0);
        for (int64_t frame = 0; frame < 10000000; frame += 4999999) { // a picture lasts for ever
            memset(got, 0, sizeof got);
            picture(s, frame, H, W, got);
            assert_memory_equal(got, rgb, sizeof rgb);
        }
        source_close(s);
    }
}

static void sixteen_bits_are_rounded_to_eight(void **state)
{
    (void)state;
    static uint16_t deep[N * 3], grey[N];
    static uint8_t got[N * 3];
    for (int i = 0; i < N * 3; i++) deep[i] = (uint16_t)(i * 37);
    for (int i = 0; i < N; i++) grey[i] = (uint16_t)(i * 10);
    struct source_info info;
    struct source *s = open_source(convert(deep, sizeof deep, "rgb48le", W, H, "-pix_fmt rgb48be", "deep.png"), &info);
    picture(s, 0, H, W, got);
    for (int i = 0; i < N * 3; i++) assert_int_equal(got[i], lrint(deep[i] / 257.0));
    source_close(s);
    s = open_source(convert(grey, sizeof grey, "gray16le", W, H, "-pix_fmt gray16be", "grey.png"), &info);
    picture(s, 0, H, W, got);
    for (int i = 0; i < N * 3; i++) assert_int_equal(got[i], lrint(grey[i / 3] / 257.0));
    source_close(s);
}

static void alpha_lies_on_grey_unless_published(void **state)
{
    (void)state;
    static uint8_t rgba[N * 4], got[N * 3];
    for (int i = 0; i < N; i++) {
        rgba[i * 4] = (uint8_t)i;
        rgba[i * 4 + 1] = (uint8_t)(i / W);
        rgba[i * 4 + 2] = 200;
        rgba[i * 4 + 3] = (uint8_t)(i * 7);
    }
    const char *path = convert(rgba, sizeof rgba, "rgba", W, H, "", "alpha.png");
    for (int published = 0; published < 2; published++) {
        struct source_info info;
        struct source *s = open_end(path, SPEC_END_HOLD, published, &info);
        picture(s, 0, H, W, got);
        for (int i = 0; i < N * 3; i++) {
            int a = published ? 255 : rgba[i / 3 * 4 + 3], v = rgba[i / 3 * 4 + i % 3];
            assert_int_equal(got[i], (v * a + 128 * (255 - a) + 127) / 255);
        }
        assert_int_equal(strstr(info.warnings, "transparent") != NULL, !published);
        source_close(s);
    }
}

static void palettes_and_single_bits_are_read(void **state)
{
    (void)state;
    static uint8_t rgb[N * 3], got[N * 3], bits[H * W / 8];
    struct source_info info;
    for (int i = 0; i < N; i++) memcpy(rgb + i * 3, i % W < W / 2 ? "\x10\x80\xf0" : "\xf0\x20\x08", 3);
    const char *raw = in_folder("raw");
    file_write(raw, rgb, sizeof rgb);
    run("ffmpeg -v error -y -f rawvideo -pix_fmt rgb24 -s %dx%d -i %s -filter_complex "
        "'[0]split[a][b];[a]palettegen=reserve_transparent=0[p];[b][p]paletteuse=dither=none' %s",
        W, H, raw, in_folder("palette.png"));
    struct source *s = open_source(in_folder("palette.png"), &info);
    picture(s, 0, H, W, got);
    for (int i = 0; i < N * 3; i++) assert_true(abs(got[i] - rgb[i]) <= 2); // the palette's own rounding
    source_close(s);
    for (int i = 0; i < H * W / 8; i++) bits[i] = i / (W / 8) % 2 ? 0xf0 : 0x0f;
    s = open_source(convert(bits, sizeof bits, "monob", W, H, "-pix_fmt monob", "bits.png"), &info);
    picture(s, 0, H, W, got);
    for (int i = 0; i < N * 3; i++) {
        int x = i / 3 % W, y = i / 3 / W;
        assert_int_equal(got[i], (bits[(y * W + x) / 8] >> (7 - x % 8) & 1) * 255);
    }
    source_close(s);
}

// What stands between the first two bytes of a picture and the rest: EXIF that holds nothing but an orientation.
static void turned_jpeg(FILE *f, const uint8_t *jpeg, size_t n, const uint8_t *tiff, size_t n_tiff)
{
    fwrite(jpeg, 1, 2, f);
    fwrite((uint8_t[]){0xff, 0xe1, 0, (uint8_t)(n_tiff + 8)}, 1, 4, f);
    fwrite("Exif\0\0", 1, 6, f);
    fwrite(tiff, 1, n_tiff, f);
    fwrite(jpeg + 2, 1, n - 2, f);
}

// A PNG with one chunk more, right behind its header.
static void png_with(FILE *f, const uint8_t *png, size_t n, const char name[4], const uint8_t *data, size_t n_data)
{
    enum { IHDR_END = 33 };
    const AVCRC *table = av_crc_get_table(AV_CRC_32_IEEE_LE);
    fwrite(png, 1, IHDR_END, f);
    fwrite((uint8_t[]){0, 0, 0, (uint8_t)n_data}, 1, 4, f);
    fwrite(name, 1, 4, f);
    fwrite(data, 1, n_data, f);
    uint32_t crc = av_bswap32(av_crc(table, av_crc(table, ~0u, (const uint8_t *)name, 4), data, n_data) ^ ~0u);
    fwrite(&crc, 1, 4, f);
    fwrite(png + IHDR_END, 1, n - IHDR_END, f);
}

static void turned_png(FILE *f, const uint8_t *png, size_t n, const uint8_t *tiff, size_t n_tiff)
{
    png_with(f, png, n, "eXIf", tiff, n_tiff);
}

static void turned_webp(FILE *f, const uint8_t *webp, size_t n, const uint8_t *tiff, size_t n_tiff)
{
    uint32_t size = (uint32_t)(n - 8 + 18 + 8 + n_tiff);
    fwrite("RIFF", 1, 4, f);
    fwrite(&size, 1, 4, f);
    fwrite("WEBPVP8X\x0a\0\0\0\x08\0\0\0", 1, 16, f);
    fwrite((uint8_t[]){W - 1, 0, 0, H - 1, 0, 0}, 1, 6, f);
    fwrite(webp + 12, 1, n - 12, f);
    fwrite("EXIF", 1, 4, f);
    fwrite((uint8_t[]){(uint8_t)n_tiff, 0, 0, 0}, 1, 4, f);
    fwrite(tiff, 1, n_tiff, f);
}

// An orientation, 1..8, in each kind of file: what the eye sees is the same picture each time.
static void exif_turns_pictures_upright(void **state)
{
    (void)state;
    static const struct {
        const char *name, *options;
        void (*turn)(FILE *f, const uint8_t *data, size_t n, const uint8_t *tiff, size_t n_tiff);
    } kinds[] = {{"plain.jpg", "-q:v 1", turned_jpeg},
                 {"plain.png", "", turned_png},
                 {"plain.webp", "-lossless 1", turned_webp}};
    static uint8_t rgb[N * 3], got[N * 3];
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) // four quarters: 60 100 / 160 220
            memset(rgb + (y * W + x) * 3, y < H / 2 ? (x < W / 2 ? 60 : 100) : (x < W / 2 ? 160 : 220), 3);
    // quarters of the stored picture that come to stand at the upright one's top left, top right, bottom left
    static const uint8_t seen[9][3] = {{0},
                                       {60, 100, 160},
                                       {100, 60, 220},
                                       {220, 160, 100},
                                       {160, 220, 60},
                                       {60, 160, 100},
                                       {160, 60, 220},
                                       {220, 100, 160},
                                       {100, 220, 60}};
    for (int kind = 0; kind < 3; kind++)
        for (int turn = 1; turn <= 8; turn++) {
            size_t n;
            uint8_t *data =
                file_read(convert(rgb, sizeof rgb, "rgb24", W, H, kinds[kind].options, kinds[kind].name), &n);
            uint8_t tiff[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
            tiff[19] = (uint8_t)turn;
            char name[32];
            snprintf(name, sizeof name, "turned-%s", kinds[kind].name);
            const char *path = in_folder(name);
            FILE *f = fopen(path, "wb");
            kinds[kind].turn(f, data, n, tiff, sizeof tiff);
            fclose(f);
            free(data);
            for (int published = 0; published < 2; published++) {
                struct source_info info;
                struct source *s = open_end(path, SPEC_END_HOLD, published, &info);
                bool across = turn > 4 && !published;
                int h = across ? W : H, w = across ? H : W;
                assert_int_equal(info.h, h);
                assert_int_equal(info.w, w);
                picture(s, 0, h, w, got);
                const uint8_t *want = seen[published ? 1 : turn];
                int at[3] = {(h / 4 * w + w / 4) * 3, (h / 4 * w + w * 3 / 4) * 3, (h * 3 / 4 * w + w / 4) * 3};
                for (int i = 0; i < 3; i++)
                    if (abs(got[at[i]] - want[i]) > 3)
                        fail_msg("%s, orientation %d, corner %d: %d", name, turn, i, got[at[i]]);
                source_close(s);
            }
        }
}

// ---- colour profiles

static void put_be(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

// An ICC profile of three primaries (XYZ under D50) and sRGB's curve.
static size_t icc_make(uint8_t *icc, const double primaries[3][3])
{
    static const char *const names[] = {"rXYZ", "gXYZ", "bXYZ", "rTRC", "gTRC", "bTRC"};
    static const double curve[] = {2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045};
    enum { XYZ = 128 + 4 + 6 * 12, CURVE = XYZ + 3 * 20, END = CURVE + 32 };
    memset(icc, 0, END);
    put_be(icc, END);
    memcpy(icc + 16, "RGB XYZ ", 8);
    put_be(icc + 128, 6);
    for (int i = 0; i < 6; i++) {
        uint8_t *entry = icc + 132 + 12 * i;
        memcpy(entry, names[i], 4);
        put_be(entry + 4, i < 3 ? XYZ + 20 * (uint32_t)i : CURVE);
        put_be(entry + 8, i < 3 ? 20 : 32);
    }
    for (int i = 0; i < 3; i++) {
        memcpy(icc + XYZ + 20 * i, "XYZ ", 4);
        for (int k = 0; k < 3; k++) put_be(icc + XYZ + 20 * i + 8 + 4 * k, (uint32_t)lrint(primaries[i][k] * 65536));
    }
    memcpy(icc + CURVE, "para", 4);
    icc[CURVE + 9] = 3;
    for (int k = 0; k < 5; k++) put_be(icc + CURVE + 12 + 4 * k, (uint32_t)lrint(curve[k] * 65536));
    return END;
}

static void flat_jpeg(const char *path, const uint8_t colour[3], const uint8_t *icc, size_t n_icc)
{
    static uint8_t rgb[N * 3];
    size_t n;
    for (int i = 0; i < N; i++) memcpy(rgb + i * 3, colour, 3);
    uint8_t *jpeg = file_read(convert(rgb, sizeof rgb, "rgb24", W, H, "-q:v 1 -pix_fmt yuvj444p", "flat.jpg"), &n);
    FILE *f = fopen(path, "wb");
    fwrite(jpeg, 1, 2, f);
    size_t length = n_icc + 16;
    fwrite((uint8_t[]){0xff, 0xe2, (uint8_t)(length >> 8), (uint8_t)length}, 1, 4, f);
    fwrite("ICC_PROFILE\0\1\1", 1, 14, f);
    fwrite(icc, 1, n_icc, f);
    fwrite(jpeg + 2, 1, n - 2, f);
    fclose(f);
    free(jpeg);
}

static void colour_profiles_are_followed(void **state)
{
    (void)state;
    static const double p3[3][3] = {
        {0.51512, 0.24120, -0.00105}, {0.29198, 0.69225, 0.04189}, {0.15710, 0.06657, 0.78407}};
    static const double srgb[3][3] = {
        {0.43607, 0.22249, 0.01392}, {0.38515, 0.71687, 0.09708}, {0.14307, 0.06061, 0.71410}};
    // the same colours in Display P3 and in sRGB
    static const struct {
        uint8_t wide[3], plain[3];
    } pairs[] = {{{234, 51, 35}, {255, 0, 0}}, {{117, 251, 76}, {0, 255, 0}}, {{128, 128, 128}, {128, 128, 128}}};
    static uint8_t got[N * 3], icc[512];
    const char *path = in_folder("profile.jpg");
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (int kind = 0; kind < 3; kind++) { // P3, sRGB, and P3 in published parity
            struct source_info info;
            flat_jpeg(path, pairs[i].wide, icc, icc_make(icc, kind == 1 ? srgb : p3));
            struct source *s = open_end(path, SPEC_END_HOLD, kind == 2, &info);
            picture(s, 0, H, W, got);
            const uint8_t *want = kind ? pairs[i].wide : pairs[i].plain;
            for (int c = 0; c < 3; c++)
                if (abs(got[c] - want[c]) > (kind ? 2 : 10)) fail_msg("pair %zu, kind %d, %d: %d", i, kind, c, got[c]);
            assert_null(strstr(info.warnings, "profile"));
            source_close(s);
        }
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {                         // the same by their number
        static const int numbers[][2] = {{12, 13}, {1, 13}, {2, 2}, {22, 13}, {12, 9}}; // the last two are not followed
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            memcpy(got, pairs[i].wide, 3);
            assert_int_equal(profile_named(numbers[k][0], numbers[k][1], got, 1), k < 3);
            const uint8_t *want = k == 0 ? pairs[i].plain : pairs[i].wide;
            for (int c = 0; c < 3; c++)
                if (abs(got[c] - want[c]) > (k ? 0 : 10)) fail_msg("pair %zu, case %zu, %d: %d", i, k, c, got[c]);
        }
    }
    // broken ones change nothing and are told
    size_t n = icc_make(icc, p3);
    memcpy(icc + 16, "CMYK", 4);
    flat_jpeg(path, pairs[0].wide, icc, n);
    struct source_info info;
    struct source *s = open_source(path, &info);
    picture(s, 0, H, W, got);
    for (int c = 0; c < 3; c++) assert_true(abs(got[c] - pairs[0].wide[c]) <= 2);
    assert_non_null(strstr(info.warnings, "profile"));
    source_close(s);
    for (size_t at = 128; at < n; at++) { // no byte of it can do harm
        icc_make(icc, p3);
        icc[at] ^= 0xff;
        uint8_t rgb[6] = {1, 2, 3, 250, 251, 252};
        uint8_t *exact = malloc(n);
        memcpy(exact, icc, n);
        profile_apply(exact, n, rgb, 2);
        profile_apply(exact, at, rgb, 2);
        free(exact);
    }
}

// A PNG that says how its values were made of light.
static void a_pictures_gamma_is_followed(void **state)
{
    (void)state;
    static const uint8_t want[] = {0, 137, 188, 225, 255}; // of light 0, 1/4, 1/2, 3/4, 1
    static uint8_t rgb[N * 3], got[N * 3];
    struct source_info info;
    for (int level = 0; level < 5; level++) {
        memset(rgb, (level * 255 + 2) / 4, sizeof rgb);
        for (int kind = 0; kind < 3; kind++) { // linear, sRGB, and linear in published parity
            size_t n;
            uint8_t *png = file_read(convert(rgb, sizeof rgb, "rgb24", W, H, "", "plain.png"), &n);
            const char *path = in_folder("gamma.png");
            FILE *f = fopen(path, "wb");
            assert_non_null(f);
            if (kind == 1)
                png_with(f, png, n, "sRGB", (uint8_t[]){0}, 1);
            else
                png_with(f, png, n, "gAMA", (uint8_t[]){0, 1, 0x86, 0xa0}, 4); // 100000
            fclose(f);
            free(png);
            struct source *s = open_end(path, SPEC_END_HOLD, kind == 2, &info);
            picture(s, 0, H, W, got);
            int is = kind ? rgb[0] : want[level];
            for (int c = 0; c < 3; c++)
                if (abs(got[c] - is) > (kind ? 0 : 1))
                    fail_msg("level %d, kind %d: %d, not %d", level, kind, got[c], is);
            source_close(s);
        }
    }
    uint8_t rgb1[3] = {1, 100, 200}; // what is no gamma, and what is sRGB's own
    static const double none[] = {0, -1, 1e9, 0.45455};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) profile_gamma(none[i], rgb1, 1);
    profile_gamma(NAN, rgb1, 1);
    assert_true(rgb1[0] == 1 && rgb1[1] == 100 && rgb1[2] == 200);
}

// The smallest file that is one: all coefficients 0.
static const char *cmyk_jpeg(void)
{
    static uint8_t b[1024];
    size_t n = 0;
    static const uint8_t head[] = {0xff, 0xd8, 0xff, 0xee, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, 0};
    memcpy(b, head, sizeof head);
    n += sizeof head;
    b[n++] = 0xff, b[n++] = 0xdb, b[n++] = 0, b[n++] = 67, b[n++] = 0;
    memset(b + n, 1, 64);
    n += 64;
    static const uint8_t frame[] = {0xff, 0xc0, 0, 20,   8, 0, 64,   0, 64, 4,    1,
                                    0x11, 0,    2, 0x11, 0, 3, 0x11, 0, 4,  0x11, 0};
    memcpy(b + n, frame, sizeof frame);
    n += sizeof frame;
    for (int table = 0; table < 2; table++) {
        b[n++] = 0xff, b[n++] = 0xc4, b[n++] = 0, b[n++] = 20, b[n++] = (uint8_t)(table << 4), b[n++] = 1;
        memset(b + n, 0, 16);
        n += 16; // fifteen empty lengths, then the one symbol: 0
    }
    static const uint8_t scan[] = {0xff, 0xda, 0, 14, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0};
    memcpy(b + n, scan, sizeof scan);
    n += sizeof scan;
    memset(b + n, 0, 64); // 64 blocks of four components, two bits each
    n += 64;
    b[n++] = 0xff, b[n++] = 0xd9;
    const char *path = in_folder("cmyk.jpg");
    file_write(path, b, n);
    return path;
}

static void bad_pictures_are_refused_by_name(void **state)
{
    (void)state;
    static uint8_t rgb[N * 3];
    size_t n;
    fill(rgb);
    refused(in_folder("absent.png"), "there is no such file");
    refused(folder, "is a folder");
    file_write(in_folder("empty.png"), "", 0);
    refused(in_folder("empty.png"), "is empty (0 bytes)");
    file_write(in_folder("text.png"), "this is no picture, whatever its name says; it goes on for a while\n", 67);
    refused(in_folder("text.png"), "neither a picture");
    refused(TEST_DIR "/../deploy/media/voice.wav", "neither a picture");
    run("ffmpeg -v error -y -i %s %s", TEST_DIR "/../deploy/media/voice.wav", in_folder("sound.m4a"));
    refused(in_folder("sound.m4a"), "holds sound only");
    refused(cmyk_jpeg(), "is in CMYK");
    refused(convert(rgb, 1 * 1 * 3, "rgb24", 1, 1, "", "one.png"), "has 1x1 pixels, too few");
    static uint8_t strip[2000 * 64 * 3];
    refused(convert(strip, sizeof strip, "rgb24", 2000, 64, "", "strip.png"), "aspect ratio beyond 1:5");
    uint8_t *png = file_read(convert(rgb, sizeof rgb, "rgb24", W, H, "", "whole.png"), &n);
    file_write(in_folder("cut.png"), png, n / 2);
    refused(in_folder("cut.png"), "damaged or cut short");
    free(png);
    uint8_t *jpg = file_read(convert(rgb, sizeof rgb, "rgb24", W, H, "", "whole.jpg"), &n);
    file_write(in_folder("cut.jpg"), jpg, n / 2);
    refused(in_folder("cut.jpg"), "damaged or cut short");
    free(jpg);
    run("printf '<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"99\" height=\"99\"/>' > %s", in_folder("a.svg"));
    refused(in_folder("a.svg"), "neither a picture");
    run("printf '#EXTM3U\\n#EXT-X-TARGETDURATION:9\\n#EXTINF:9,\\n/etc/passwd\\n' > %s", in_folder("list.mp4"));
    refused(in_folder("list.mp4"), "neither a picture"); // opens no other file
}

// ---- videos: the brightness of a picture is its number

static const char *video(const char *rate, const char *filter, int n, const char *codec, const char *name)
{
    const char *path = in_folder(name);
    run("ffmpeg -v error -y -f lavfi -i color=black:s=96x64:r=%s -vf \"format=gray,geq=lum=mod(N\\,250)%s%s\" "
        "-frames:v %d -fps_mode passthrough %s %s",
        rate, *filter ? "," : "", filter, n, codec, path);
    return path;
}

#define FFV1 "-c:v ffv1 -pix_fmt gray -g 10"
#define X264 "-c:v libx264 -qp 0 -pix_fmt yuv444p -g 12 -bf 3 -preset fast"

static int number_at(struct source *s, int64_t frame)
{
    static uint8_t rgb[N * 3];
    picture(s, frame, H, W, rgb);
    for (int i = 1; i < N * 3; i++)
        if (abs(rgb[i] - rgb[0]) > 2) fail_msg("frame %lld is torn", (long long)frame);
    return rgb[0];
}

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

static void any_rate_is_seen_by_time(void **state)
{
    (void)state;
    static const struct {
        const char *rate, *name;
        int num, den;
    } cases[] = {{"25", "25.mkv", 25, 1},
                 {"30000/1001", "ntsc.mp4", 30000, 1001},
                 {"24000/1001", "film.mkv", 24000, 1001},
                 {"60", "60.mov", 60, 1},
                 {"50", "50.avi", 50, 1},
                 {"12", "12.mkv", 12, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int n = 120;
        struct source_info info;
        bool x264 = strcmp(strrchr(cases[i].name, '.'), ".mkv") != 0;
        const char *gray = "-c:v libx264 -qp 0 -pix_fmt gray -color_range pc -g 12 -bf 3 -preset fast";
        const char *path = video(cases[i].rate, "", n, x264 ? gray : FFV1, cases[i].name);
        struct source *s = open_source(path, &info);
        assert_false(info.still);
        int64_t frames = (25ll * n * cases[i].den + cases[i].num - 1) / cases[i].num;
        if (info.n_frames != frames)
            fail_msg("%s: %lld frames, not %lld", path, (long long)info.n_frames, (long long)frames);
        for (int pass = 0; pass < 2; pass++) // forward, then back
            for (int64_t k = 0; k < frames + 20; k += 7) {
                int64_t f = pass ? frames + 20 - k : k;
                int64_t want = minimum((40 * f + 1) * cases[i].num / (1000ll * cases[i].den), n - 1);
                if (number_at(s, f) != want)
                    fail_msg("%s: frame %lld shows %d, not %lld", path, (long long)f, number_at(s, f), (long long)want);
            }
        source_close(s);
    }
}

static void uneven_times_are_followed(void **state)
{
    (void)state;
    // picture j at 20 j + 2 j^2 ms
    const char *path = video("1000", "setpts=(20*N+2*N*N)/(1000*TB)", 40, FFV1, "vfr.mkv");
    struct source_info info;
    struct source *s = open_source(path, &info);
    for (int64_t f = 0; f < 97; f++) {
        int want = 0;
        while (want < 39 && 20 * (want + 1) + 2 * (want + 1) * (want + 1) <= 40 * f + 1) want++;
        if (number_at(s, f) != want) fail_msg("frame %lld shows %d, not %d", (long long)f, number_at(s, f), want);
    }
    source_close(s);
}

static void published_parity_counts_pictures(void **state)
{
    (void)state;
    struct source_info info;
    struct source *s = open_end(video("60", "", 100, FFV1, "sixty.mkv"), SPEC_END_HOLD, true, &info);
    assert_int_equal(info.n_frames, 100);
    static const int asked[] = {0, 72, 99, 144, 30, 31};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++)
        assert_int_equal(number_at(s, asked[i]), minimum(asked[i], 99));
    source_close(s);
}

static void what_follows_the_end_is_as_asked(void **state)
{
    (void)state;
    const char *path = video("25", "", 50, FFV1, "two-seconds.mkv");
    for (int64_t f = 0; f < 300; f += 23) {
        struct source_info info;
        static const enum spec_video_end ends[] = {SPEC_END_HOLD, SPEC_END_LOOP};
        int64_t want[] = {minimum(f, 49), f % 50};
        for (int i = 0; i < 2; i++) {
            struct source *s = open_end(path, ends[i], false, &info);
            assert_int_equal(info.n_frames, 50);
            assert_int_equal(number_at(s, f), want[i]);
            source_close(s);
        }
    }
    struct source_info info;
    struct source *s = open_end(path, SPEC_END_PINGPONG, false, &info);
    int before = number_at(s, 0);
    for (int64_t f = 1; f < 220; f++) { // never a jump, and both ends are reached again and again
        int now = number_at(s, f);
        if (abs(now - before) > 1) fail_msg("from %d to %d at frame %lld", before, now, (long long)f);
        before = now;
    }
    assert_int_equal(number_at(s, 30), 30);
    assert_true(abs(number_at(s, 75) - 25) <= 1);
    assert_true(abs(number_at(s, 130) - 30) <= 1);
    source_close(s);
}

static void far_places_are_reached_from_anywhere(void **state)
{
    (void)state;
    // 100 s in which a picture's number is its second
    const char *path = in_folder("long.mp4");
    run("ffmpeg -v error -y -f lavfi -i color=black:s=96x64:r=25 -vf \"format=gray,geq=lum=floor(N/25)\" "
        "-frames:v 2500 -c:v libx264 -qp 0 -pix_fmt gray -color_range pc -preset ultrafast -g 40 %s",
        path);
    struct source_info info;
    struct source *s = open_source(path, &info);
    assert_int_equal(info.n_frames, 2500);
    static const int asked[] = {2400, 3, 1999, 2000, 24, 25, 1250, 1249, 2499, 0, 9999};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++)
        assert_int_equal(number_at(s, asked[i]), minimum(asked[i], 2499) / 25);
    source_close(s);
}

// As the ffmpeg program shows them.
static void phones_videos_are_turned(void **state)
{
    (void)state;
    run("ffmpeg -v error -y -f lavfi -i color=white:s=96x64:r=25 -vf \"format=gray,geq=lum=20+X+Y\" -frames:v 5 "
        "-c:v libx264 -qp 0 -pix_fmt yuv420p %s",
        in_folder("flat.mp4"));
    for (int turn = 90; turn < 360; turn += 90) {
        static uint8_t rgb[N * 3];
        struct source_info info;
        const char *phone = in_folder("phone.mp4"), *raw = in_folder("raw");
        run("ffmpeg -v error -y -i %s -c copy -metadata:s:v:0 rotate=%d %s", in_folder("flat.mp4"), turn, phone);
        run("ffmpeg -v error -y -i %s -frames:v 1 -f rawvideo -pix_fmt rgb24 %s", phone, raw);
        struct source *s = open_source(phone, &info);
        int h = turn == 180 ? H : W, w = turn == 180 ? W : H;
        assert_int_equal(info.h, h);
        assert_int_equal(info.w, w);
        picture(s, 0, h, w, rgb);
        size_t n;
        uint8_t *want = file_read(raw, &n);
        assert_int_equal(n, sizeof rgb);
        for (size_t i = 0; i < n; i++) assert_true(abs(rgb[i] - want[i]) <= 2);
        free(want);
        source_close(s);
    }
}

static void pixels_that_are_not_square_are_stretched(void **state)
{
    (void)state;
    struct source_info info;
    const char *path = in_folder("wide.mp4");
    run("ffmpeg -v error -y -f lavfi -i color=white:s=96x64:r=25 -vf setsar=4/3 -frames:v 3 -c:v libx264 %s", path);
    struct source *s = open_source(path, &info);
    assert_int_equal(info.h, 64);
    assert_int_equal(info.w, 128);
    source_close(s);
}

static void colours_follow_the_marked_matrix(void **state)
{
    (void)state;
    static const char *const marks[] = {"smpte170m:in_range=full", "bt709:in_range=full"};
    static const char *const tags[] = {"smpte170m", "bt709"};
    for (int i = 0; i < 2; i++) {
        static uint8_t rgb[N * 3], got[N * 3];
        for (int k = 0; k < N; k++) memcpy(rgb + 3 * k, "\xc8\x32\x1e", 3);
        char options[256];
        snprintf(options, sizeof options,
                 "-vf scale=out_color_matrix=%.*s:out_range=limited -colorspace %s -color_range tv -pix_fmt yuv444p "
                 "-c:v libx264 -qp 0 -frames:v 1",
                 (int)strcspn(marks[i], ":"), marks[i], tags[i]);
        struct source_info info;
        struct source *s = open_source(convert(rgb, sizeof rgb, "rgb24", W, H, options, "tagged.mp4"), &info);
        picture(s, 0, H, W, got);
        for (int c = 0; c < 3; c++) assert_true(abs(got[c] - rgb[c]) <= 3);
        source_close(s);
    }
}

static void damage_is_passed_over(void **state)
{
    (void)state;
    size_t n;
    struct source_info info;
    uint8_t *data = file_read(video("25", "", 100, FFV1, "good.mkv"), &n);
    file_write(in_folder("half.mkv"), data, n / 2); // no index, cut inside a picture
    struct source *s = open_source(in_folder("half.mkv"), &info);
    assert_true(info.n_frames > 20 && info.n_frames < 80);
    assert_int_equal(number_at(s, 10), 10);
    int last = number_at(s, 99);
    assert_true(last >= info.n_frames - 2 && last < info.n_frames);
    source_close(s);
    free(data);
}

static void a_dark_start_does_not_set_the_colours(void **state)
{
    (void)state;
    static uint8_t rgb[N * 3];
    struct err e = {0};
    struct source_info info;
    const char *path = in_folder("fade.mkv");
    run("ffmpeg -v error -y -f lavfi -i color=black:s=96x64:r=25 -vf \"format=gray,geq=lum=if(lt(N\\,10)\\,0\\,X*2)\" "
        "-frames:v 60 -c:v ffv1 %s",
        path);
    struct source *s = open_source(path, &info);
    assert_int_equal(source_colour_picture(s, 0, H, W, rgb, &info, &e), 0);
    assert_non_null(strstr(info.warnings, "colours are matched to the one at 0.40 s"));
    assert_int_equal(rgb[50 * 3], 100);
    picture(s, 0, H, W, rgb); // what is shown stays dark
    assert_int_equal(rgb[50 * 3], 0);
    source_close(s);
}

static void masks_are_stretched_to_the_picture(void **state)
{
    (void)state;
    static uint8_t mask[32 * 16];
    uint8_t *plane = NULL;
    struct err e = {0};
    for (int i = 0; i < 32 * 16; i++) mask[i] = i % 32 < 16 ? 255 : 0;
    const char *path = convert(mask, sizeof mask, "gray", 32, 16, "", "mask.png");
    assert_int_equal(source_mask(&plane, "/proc/self/exe", path, 64, 96, &e), 0);
    for (int i = 0; i < 64 * 96; i++) assert_int_equal(plane[i], i % 96 < 48 ? 255 : 0);
    free(plane);
    assert_int_equal(source_mask(&plane, "/proc/self/exe", in_folder("none.png"), 64, 96, &e), E_INPUT);
    assert_non_null(strstr(e.text, "mask: picture"));
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char line[300];
    snprintf(line, sizeof line, "rm -rf %s", folder);
    return system(line);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "__media") == 0) return media_child_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rgb_pictures_come_through_exactly),
        cmocka_unit_test(sixteen_bits_are_rounded_to_eight),
        cmocka_unit_test(alpha_lies_on_grey_unless_published),
        cmocka_unit_test(palettes_and_single_bits_are_read),
        cmocka_unit_test(exif_turns_pictures_upright),
        cmocka_unit_test(colour_profiles_are_followed),
        cmocka_unit_test(a_pictures_gamma_is_followed),
        cmocka_unit_test(bad_pictures_are_refused_by_name),
        cmocka_unit_test(any_rate_is_seen_by_time),
        cmocka_unit_test(uneven_times_are_followed),
        cmocka_unit_test(published_parity_counts_pictures),
        cmocka_unit_test(what_follows_the_end_is_as_asked),
        cmocka_unit_test(far_places_are_reached_from_anywhere),
        cmocka_unit_test(phones_videos_are_turned),
        cmocka_unit_test(pixels_that_are_not_square_are_stretched),
        cmocka_unit_test(colours_follow_the_marked_matrix),
        cmocka_unit_test(damage_is_passed_over),
        cmocka_unit_test(a_dark_start_does_not_set_the_colours),
        cmocka_unit_test(masks_are_stretched_to_the_picture),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
