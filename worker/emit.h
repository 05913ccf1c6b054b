// Slices of pixels to 8-bit planar 4:2:0 frames, collected until the tail has gone ahead, then handed to the sink.
#ifndef WORKER_EMIT_H
#define WORKER_EMIT_H

#include "kernels/ops.h"
#include "worker/render.h"

struct emit {
    int64_t keep_from, keep_to; // frames of the segment that are delivered
    int64_t frame_bytes;        // h w 3/2
    tensor yuv;                 // U8 [keep_to - keep_from, frame_bytes], in the segment's arena
};

// Takes the memory for frames [keep_from, keep_to) of h x w from `a`. They may be none: a segment that only leads on.
void emit_open(struct emit *m, struct dev_arena *a, int h, int w, int64_t keep_from, int64_t keep_to);
// Pixels F32 [t, h, w, 3] of frames [first, first + t) of the segment; what is not kept is passed over.
void emit_slice(struct emit *m, struct dev *d, tensor pixels, int64_t first);
// Hands all kept frames to the sink, a few at a time, in order. `start` is the absolute number of the segment's frame
// 0. Returns the sink's code.
int emit_send(const struct emit *m, struct dev *d, const struct render_sink *sink, int64_t start);

#endif
