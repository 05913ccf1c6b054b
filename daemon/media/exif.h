// Which way up a picture is: EXIF's orientation where the decoder does not turn it into a matrix itself.
#ifndef DAEMON_MEDIA_EXIF_H
#define DAEMON_MEDIA_EXIF_H

#include <stddef.h>
#include <stdint.h>

// 1..8; 0: it does not say, or it is broken. `tiff` is what follows "Exif\0\0".
int exif_orientation(const uint8_t *tiff, size_t n);
// The same of a PNG file's eXIf chunk; 0 for other files.
int exif_orientation_png(int fd);
// The display matrix of an orientation.
void exif_matrix(int orientation, int32_t matrix[9]);

#endif
