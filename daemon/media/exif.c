// EXIF is a TIFF file inside another one: a byte order, then a list of numbered entries. One of them is looked for.
#include "daemon/media/exif.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ORIENTATION = 0x0112, SHORT = 3, ENTRY = 12, EXIF_MAX = 1 << 20, CHUNKS_MAX = 100000 };

static uint32_t number(const uint8_t *p, int bytes, int big)
{
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint32_t)p[i] << 8 * (big ? bytes - 1 - i : i);
    return v;
}

int exif_orientation(const uint8_t *tiff, size_t n)
{
    if (n < 8 || (memcmp(tiff, "II", 2) != 0 && memcmp(tiff, "MM", 2) != 0)) return 0;
    int big = tiff[0] == 'M';
    size_t at = number(tiff + 4, 4, big);
    if (number(tiff + 2, 2, big) != 42 || at > n - 2) return 0;
    size_t n_entries = number(tiff + at, 2, big);
    at += 2;
    for (size_t i = 0; i < n_entries && n - at >= ENTRY; i++, at += ENTRY) {
        if (number(tiff + at, 2, big) != ORIENTATION || number(tiff + at + 2, 2, big) != SHORT) continue;
        uint32_t v = number(tiff + at + 8, 2, big);
        return v >= 1 && v <= 8 ? (int)v : 0;
    }
    return 0;
}

int exif_orientation_png(int fd)
{
    uint8_t head[8];
    off_t at = 8;
    if (pread(fd, head, 8, 0) != 8 || memcmp(head, "\x89PNG\r\n\x1a\n", 8) != 0) return 0;
    for (int i = 0; i < CHUNKS_MAX && pread(fd, head, 8, at) == 8; i++) {
        uint32_t n = number(head, 4, 1);
        if (memcmp(head + 4, "eXIf", 4) == 0 && n <= EXIF_MAX) {
            uint8_t *tiff = malloc(n + 1);
            int found = tiff && pread(fd, tiff, n, at + 8) == (ssize_t)n ? exif_orientation(tiff, n) : 0;
            free(tiff);
            return found;
        }
        at += 12 + (off_t)n; // length, name, data, sum
    }
    return 0;
}

void exif_matrix(int orientation, int32_t matrix[9])
{
    // x' = a x + c y, y' = b x + d y
    static const int8_t turn[9][4] = {{1, 0, 0, 1}, {1, 0, 0, 1},  {-1, 0, 0, 1},  {-1, 0, 0, -1}, {1, 0, 0, -1},
                                      {0, 1, 1, 0}, {0, 1, -1, 0}, {0, -1, -1, 0}, {0, -1, 1, 0}};
    const int8_t *t = turn[orientation];
    memset(matrix, 0, 9 * sizeof *matrix);
    matrix[0] = t[0] * 65536;
    matrix[1] = t[1] * 65536;
    matrix[3] = t[2] * 65536;
    matrix[4] = t[3] * 65536;
    matrix[8] = 1 << 30;
}
