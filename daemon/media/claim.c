// Decoders answer an absurd size as they answer damage: with nothing. Whoever scanned a poster at 1200 dpi should be
// told that it is too large, so the two formats that pictures of that kind come in are looked at here, by position, a
// few bytes at a time. The decoder for PNG does not know the chunk in which HDR is told.
//
//   PNG   8 bytes of signature, then chunks: length, name, content, a sum of 4 bytes. IHDR: width, height. cICP, before
//         the pixels: primaries, transfer, matrix, range
//   WebP  RIFF, length, WEBP, then chunks: name, length, content. VP8X, if it is there, comes first, with a byte of
//         marks: 2 says that it moves
//   MP4   boxes: length, name, content; the first one is ftyp
//   JPEG  segments FF xx, length; the first frame header (C0 to CF, but for the tables C4, C8, CC) has height and width
#include "daemon/media/claim.h"

#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { SEGMENTS_MAX = 1000, BEFORE_PIXELS_MIB = 16 };

static long big_endian(const uint8_t *p, int n)
{
    long v = 0;
    for (int i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

static bool jpeg_size(int fd, long *w, long *h)
{
    uint8_t b[9];
    off_t at = 2;
    for (int i = 0; i < SEGMENTS_MAX && pread(fd, b, sizeof b, at) == (ssize_t)sizeof b && b[0] == 0xff; i++) {
        if (b[1] >= 0xc0 && b[1] <= 0xcf && b[1] != 0xc4 && b[1] != 0xc8 && b[1] != 0xcc) {
            *h = big_endian(b + 5, 2);
            *w = big_endian(b + 7, 2);
            return true;
        }
        at += 2 + big_endian(b + 2, 2);
    }
    return false;
}

static bool is_png(const uint8_t *b)
{
    return memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0 && memcmp(b + 12, "IHDR", 4) == 0;
}

bool claim_size(int fd, long *w, long *h)
{
    uint8_t b[24];
    if (pread(fd, b, sizeof b, 0) != (ssize_t)sizeof b) return false;
    if (b[0] == 0xff && b[1] == 0xd8) return jpeg_size(fd, w, h);
    if (!is_png(b)) return false;
    *w = big_endian(b + 16, 4);
    *h = big_endian(b + 20, 4);
    return true;
}

int claim_colour(int fd, const char *path, struct claim_colour *c, struct err *e)
{
    uint8_t b[24];
    if (pread(fd, b, sizeof b, 0) != (ssize_t)sizeof b || !is_png(b)) return 0;
    off_t at = 8;
    for (; pread(fd, b, 12, at) == 12 && memcmp(b + 4, "IDAT", 4) != 0; at += 12 + (off_t)big_endian(b, 4)) {
        if (at > (off_t)BEFORE_PIXELS_MIB << 20)
            return err_set(e, E_INPUT,
                           "picture %s has more than %d MiB of other things before its pixels; save it anew, without "
                           "its notes",
                           path, BEFORE_PIXELS_MIB);
        if (memcmp(b + 4, "cICP", 4) != 0) continue;
        *c = (struct claim_colour){.primaries = b[8], .transfer = b[9]};
        return 1;
    }
    return 0;
}

bool claim_animated_webp(int fd)
{
    uint8_t b[21];
    return pread(fd, b, sizeof b, 0) == (ssize_t)sizeof b && memcmp(b, "RIFF", 4) == 0 &&
           memcmp(b + 8, "WEBPVP8X", 8) == 0 && b[20] & 2;
}

bool claim_mp4(int fd)
{
    uint8_t b[8];
    return pread(fd, b, sizeof b, 0) == (ssize_t)sizeof b && memcmp(b + 4, "ftyp", 4) == 0;
}
