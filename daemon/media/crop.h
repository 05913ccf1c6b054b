// Fitting a picture to the output size: cover, then cut the centre (pipeline.md 3.3). Byte for byte what the published
// program's imaging library does, without ever making the whole enlarged picture.
#ifndef DAEMON_MEDIA_CROP_H
#define DAEMON_MEDIA_CROP_H

#include <stdint.h>

// Where a source of sh x sw lands when it covers h x w: scaled to fh x fw, cut at (top, left).
struct crop {
    int64_t fh, fw, top, left;
};
struct crop crop_plan(int sh, int sw, int h, int w);

// RGB [sh, sw, 3] to [h, w, 3]: covered and cut.
void crop_picture(const uint8_t *src, int sh, int sw, uint8_t *dst, int h, int w);
// One 8-bit plane [sh, sw] likewise, nearest neighbour without centre offset: masks.
void crop_mask(const uint8_t *src, int sh, int sw, uint8_t *dst, int h, int w);
// The window [top, top+h) x [left, left+w) of the source scaled to fh x fw, antialiased bilinear in 8 bits.
void crop_resize(const uint8_t *src, int sh, int sw, struct crop c, uint8_t *dst, int h, int w);

#endif
