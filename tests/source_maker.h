// What tests of the media child's pictures share: pictures and videos made by the ffmpeg program, seen through that
// child, which is the test program itself. Include below cmocka.
#ifndef TESTS_SOURCE_MAKER_H
#define TESTS_SOURCE_MAKER_H

#include "daemon/media/child.h"
#include "daemon/media/source.h"
#include "tests/folder.h"

#include <stdarg.h>
#include <string.h>

static inline void __attribute__((format(printf, 1, 2))) run(const char *fmt, ...)
{
    char line[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (system(line) != 0) fail_msg("failed: %s", line);
}

// Raw pixels as a file of another kind.
static inline const char *convert(const void *pixels, size_t n, const char *format, int w, int h, const char *options,
                                  const char *name)
{
    const char *raw = in_top("raw"), *path = in_top(name);
    file_put(raw, pixels, n);
    run("ffmpeg -v error -y -f rawvideo -pix_fmt %s -s %dx%d -i %s %s %s", format, w, h, raw, options, path);
    return path;
}

static inline struct source *open_end(const char *path, enum spec_video_end end, bool published,
                                      struct source_info *info)
{
    struct err e = {0};
    struct source *s = NULL;
    struct source_options o = {.self = "/proc/self/exe", .path = path, .end = end, .published = published};
    if (source_open(&s, &o, info, &e) < 0) fail_msg("%s", e.text);
    if (source_measure(s, 0, info, &e) < 0) fail_msg("%s", e.text);
    return s;
}

static inline struct source *open_source(const char *path, struct source_info *info)
{
    return open_end(path, SPEC_END_HOLD, false, info);
}

static inline void refused(const char *path, const char *says)
{
    struct err e = {0};
    struct source *s = NULL;
    struct source_info info;
    struct source_options o = {.self = "/proc/self/exe", .path = path};
    assert_int_equal(source_open(&s, &o, &info, &e), E_INPUT);
    assert_null(s);
    if (!strstr(e.text, says) || !strstr(e.text, path)) fail_msg("'%s' lacks '%s' or %s", e.text, says, path);
}

static inline void picture(struct source *s, int64_t frame, int h, int w, uint8_t *rgb)
{
    struct err e = {0};
    if (source_picture(s, frame, h, w, rgb, &e) < 0) fail_msg("%s", e.text);
}

enum { W = 96, H = 64, N = W * H };

static inline uint8_t pattern(int y, int x, int c) { return (uint8_t)(x * 2 + y + 40 * c); }

static inline void fill(uint8_t *rgb)
{
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            for (int c = 0; c < 3; c++) rgb[(y * W + x) * 3 + c] = pattern(y, x, c);
}

#endif
