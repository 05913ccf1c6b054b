// A decoded picture as people see it: RGB, 8 bits, full range, sRGB's matrix undone, turned upright, square pixels.
#ifndef DAEMON_MEDIA_UPRIGHT_H
#define DAEMON_MEDIA_UPRIGHT_H

#include "proto/base/err.h"

#include <libavutil/frame.h>
#include <stdint.h>

struct upright {
    int h, w;
    uint8_t *rgb; // [h, w, 3]; the caller frees it
    double clear; // share of the pixels that are not opaque
};

// `matrix`: nine numbers of a display matrix, or NULL. `shape`: width to height of a stored pixel, 0:0: square.
// `ground`: the grey that shows through transparent pixels; -1: the alpha channel is dropped.
int upright_make(struct upright *u, const AVFrame *f, const int32_t *matrix, AVRational shape, int ground,
                 struct err *e);

#endif
