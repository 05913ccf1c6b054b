// A drawing is made of areas of one colour, also after it was made small; light, skin and a camera's noise leave hardly
// two neighbours alike. So: the share of neighbouring pixels that differ by at most one level in every channel.
//
// At 96 x 96: drawn heads 0.72 to 0.88 (the lower ones were drawn large and made small); photographs of people, animals
// and things 0.03 to 0.25, of the night sky 0.6. The bound lies between. A drawing that went through a JPEG of low
// quality passes for a photograph, a photograph of a white wall for a drawing: hence only notices depend on it.
#include "daemon/media/drawn.h"

#include <stdlib.h>

#define FLAT_SHARE 0.64

static bool alike(const uint8_t *a, const uint8_t *b)
{
    return abs(a[0] - b[0]) <= 1 && abs(a[1] - b[1]) <= 1 && abs(a[2] - b[2]) <= 1;
}

bool drawn_looks(const uint8_t *rgb, int h, int w)
{
    int64_t flat = 0, row = 3 * (int64_t)w;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const uint8_t *at = rgb + y * row + 3 * x;
            flat += (x + 1 < w && alike(at, at + 3)) + (y + 1 < h && alike(at, at + row));
        }
    return (double)flat >= FLAT_SHARE * ((double)h * (w - 1) + (double)w * (h - 1));
}
