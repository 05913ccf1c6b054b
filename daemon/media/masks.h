// Where the speakers are: regions of the source picture to masks of the output picture (pipeline.md 8.2).
#ifndef DAEMON_MEDIA_MASKS_H
#define DAEMON_MEDIA_MASKS_H

#include "proto/spec.h"

// Fills masks [n_speakers, h, w] with 0 and 255. A region is a box in source pixels, or the plane of a mask file
// (`plane[p]`, [sh, sw], inside when > 127), or, without either, the left and right half of the picture less
// `face_scale` of a margin. E_INPUT when a box lies outside the picture, is inverted, or covers no 16x16 cell of the
// output picture. `notices` (NULL, or of n bytes) receives sentences about boxes that were cut or look transposed.
int masks_fill(uint8_t *masks, const struct spec_region *region, const uint8_t *const *plane, int n_speakers, int sh,
               int sw, int h, int w, double face_scale, char *notices, size_t n, struct err *e);

#endif
