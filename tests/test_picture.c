// Pictures that stand still, through daemon/media/source: kinds, depths, turns, colours, and what is refused. What is
// shown is compared with what was put in, by value.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/media/profile.h"
#include "tests/source_maker.h"

#include <libavutil/bswap.h>
#include <libavutil/crc.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

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
            assert_int_equal(rename(path, in_top("misnamed.mp4")), 0); // content decides
            path = in_top("misnamed.mp4");
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
    const char *raw = in_top("raw");
    file_put(raw, rgb, sizeof rgb);
    run("ffmpeg -v error -y -f rawvideo -pix_fmt rgb24 -s %dx%d -i %s -filter_complex "
        "'[0]split[a][b];[a]palettegen=reserve_transparent=0[p];[b][p]paletteuse=dither=none' %s",
        W, H, raw, in_top("palette.png"));
    struct source *s = open_source(in_top("palette.png"), &info);
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
                file_bytes(convert(rgb, sizeof rgb, "rgb24", W, H, kinds[kind].options, kinds[kind].name), &n);
            uint8_t tiff[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
            tiff[19] = (uint8_t)turn;
            char name[32];
            snprintf(name, sizeof name, "turned-%s", kinds[kind].name);
            const char *path = in_top(name);
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
    uint8_t *jpeg = file_bytes(convert(rgb, sizeof rgb, "rgb24", W, H, "-q:v 1 -pix_fmt yuvj444p", "flat.jpg"), &n);
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
    const char *path = in_top("profile.jpg");
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
            uint8_t *png = file_bytes(convert(rgb, sizeof rgb, "rgb24", W, H, "", "plain.png"), &n);
            const char *path = in_top("gamma.png");
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
    const char *path = in_top("cmyk.jpg");
    file_put(path, b, n);
    return path;
}

static void bad_pictures_are_refused_by_name(void **state)
{
    (void)state;
    static uint8_t rgb[N * 3];
    size_t n;
    fill(rgb);
    refused(in_top("absent.png"), "there is no such file");
    refused(top, "is a folder");
    file_put(in_top("empty.png"), "", 0);
    refused(in_top("empty.png"), "is empty (0 bytes)");
    file_put(in_top("text.png"), "this is no picture, whatever its name says; it goes on for a while\n", 67);
    refused(in_top("text.png"), "neither a picture");
    refused(TEST_DIR "/../deploy/media/voice.wav", "neither a picture");
    run("ffmpeg -v error -y -i %s %s", TEST_DIR "/../deploy/media/voice.wav", in_top("sound.m4a"));
    refused(in_top("sound.m4a"), "holds sound only");
    refused(cmyk_jpeg(), "is in CMYK");
    refused(convert(rgb, 1 * 1 * 3, "rgb24", 1, 1, "", "one.png"), "has 1x1 pixels, too few");
    static uint8_t strip[2000 * 64 * 3];
    refused(convert(strip, sizeof strip, "rgb24", 2000, 64, "", "strip.png"), "aspect ratio beyond 1:5");
    uint8_t *png = file_bytes(convert(rgb, sizeof rgb, "rgb24", W, H, "", "whole.png"), &n);
    file_put(in_top("cut.png"), png, n / 2);
    refused(in_top("cut.png"), "damaged or cut short");
    free(png);
    uint8_t *jpg = file_bytes(convert(rgb, sizeof rgb, "rgb24", W, H, "", "whole.jpg"), &n);
    file_put(in_top("cut.jpg"), jpg, n / 2);
    refused(in_top("cut.jpg"), "damaged or cut short");
    free(jpg);
    run("printf '<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"99\" height=\"99\"/>' > %s", in_top("a.svg"));
    refused(in_top("a.svg"), "neither a picture");
    run("printf '#EXTM3U\\n#EXT-X-TARGETDURATION:9\\n#EXTINF:9,\\n/etc/passwd\\n' > %s", in_top("list.mp4"));
    refused(in_top("list.mp4"), "neither a picture"); // opens no other file
}

static int set_up(void **state)
{
    (void)state;
    return top_make("picture");
}

static int tear_down(void **state)
{
    (void)state;
    return top_remove();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "__media") == 0) return media_child_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rgb_pictures_come_through_exactly),   cmocka_unit_test(sixteen_bits_are_rounded_to_eight),
        cmocka_unit_test(alpha_lies_on_grey_unless_published), cmocka_unit_test(palettes_and_single_bits_are_read),
        cmocka_unit_test(exif_turns_pictures_upright),         cmocka_unit_test(colour_profiles_are_followed),
        cmocka_unit_test(a_pictures_gamma_is_followed),        cmocka_unit_test(bad_pictures_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
