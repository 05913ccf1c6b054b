// A picture's colour profile (ICC), named colours (PNG's cICP) or gamma (PNG), followed: its RGB becomes sRGB. Cameras
// of phones write Display P3.
#ifndef DAEMON_MEDIA_PROFILE_H
#define DAEMON_MEDIA_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Converts n pixels in place; a profile that is sRGB changes none. False: a kind of profile that is not followed (not
// RGB, or by tables instead of three primaries), or a broken one; then nothing is changed.
bool profile_apply(const uint8_t *icc, size_t n_icc, uint8_t *rgb, size_t n);

// The same of colours that are named by the numbers of ITU-T H.273. False: of a kind that is not followed, and nothing
// is changed.
bool profile_named(int primaries, int transfer, uint8_t *rgb, size_t n);

// Converts n pixels whose values are light to the power of `gamma`, as PNG counts (1: linear). What lies near sRGB's
// own 1 / 2.2, or is no gamma, changes none.
void profile_gamma(double gamma, uint8_t *rgb, size_t n);

#endif
