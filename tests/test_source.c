// daemon/media/source: videos of any rate and masks, through the media child. What is shown is compared with what was
// put in, by value and by time.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/source_maker.h"

#include <stdio.h>

// ---- videos: the brightness of a picture is its number

static const char *video(const char *rate, const char *filter, int n, const char *codec, const char *name)
{
    const char *path = in_top(name);
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
    const char *path = in_top("long.mp4");
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
        in_top("flat.mp4"));
    for (int turn = 90; turn < 360; turn += 90) {
        static uint8_t rgb[N * 3];
        struct source_info info;
        const char *phone = in_top("phone.mp4"), *raw = in_top("raw");
        run("ffmpeg -v error -y -i %s -c copy -metadata:s:v:0 rotate=%d %s", in_top("flat.mp4"), turn, phone);
        run("ffmpeg -v error -y -i %s -frames:v 1 -f rawvideo -pix_fmt rgb24 %s", phone, raw);
        struct source *s = open_source(phone, &info);
        int h = turn == 180 ? H : W, w = turn == 180 ? W : H;
        assert_int_equal(info.h, h);
        assert_int_equal(info.w, w);
        picture(s, 0, h, w, rgb);
        size_t n;
        uint8_t *want = file_bytes(raw, &n);
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
    const char *path = in_top("wide.mp4");
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
    uint8_t *data = file_bytes(video("25", "", 100, FFV1, "good.mkv"), &n);
    file_put(in_top("half.mkv"), data, n / 2); // no index, cut inside a picture
    struct source *s = open_source(in_top("half.mkv"), &info);
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
    const char *path = in_top("fade.mkv");
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
    assert_int_equal(source_mask(&plane, "/proc/self/exe", in_top("none.png"), 64, 96, &e), E_INPUT);
    assert_non_null(strstr(e.text, "mask: picture"));
}

static int set_up(void **state)
{
    (void)state;
    return top_make("source");
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
