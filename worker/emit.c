// Frames out.
//
// The tail must leave before the first frame so that the next segment can start, and it needs the segment's last
// frames; so all frames wait. They wait as bytes (a frame of 640x640 takes 0.6 MB, its pixels in F32 would take 4.9
// MB), which keeps a whole segment of 81 frames at 50 MB. They leave EMIT_BURST at a time through one small buffer in
// host memory.
#include "worker/emit.h"

#include <stdlib.h>

enum { EMIT_BURST = 4 };

void emit_open(struct emit *m, struct dev_arena *a, int h, int w, int64_t keep_from, int64_t keep_to)
{
    BUG_IF(keep_from < 0 || keep_to < keep_from, "frames [%lld, %lld) to keep", (long long)keep_from,
           (long long)keep_to);
    *m = (struct emit){.keep_from = keep_from, .keep_to = keep_to, .frame_bytes = (int64_t)h * w * 3 / 2};
    if (keep_to == keep_from) return;
    m->yuv = dev_tensor(a, DT_U8, SHAPE(keep_to - keep_from, m->frame_bytes));
}

void emit_slice(struct emit *m, struct dev *d, tensor pixels, int64_t first)
{
    int64_t from = first > m->keep_from ? first : m->keep_from;
    int64_t end = first + pixels.shape[0], to = end < m->keep_to ? end : m->keep_to;
    if (from >= to) return;
    op_yuv420(d, tensor_slice(m->yuv, 0, from - m->keep_from, to - m->keep_from),
              tensor_slice(pixels, 0, from - first, to - first));
}

int emit_send(const struct emit *m, struct dev *d, const struct render_sink *sink, int64_t start)
{
    uint8_t *burst = malloc((size_t)(EMIT_BURST * m->frame_bytes));
    BUG_IF(!burst, "no memory for %d frames of %lld bytes", EMIT_BURST, (long long)m->frame_bytes);
    int64_t n = m->keep_to - m->keep_from;
    int rc = 0;
    for (int64_t i = 0; i < n && rc == 0; i += EMIT_BURST) {
        int64_t end = i + EMIT_BURST < n ? i + EMIT_BURST : n;
        dev_download(d, burst, DT_U8, tensor_slice(m->yuv, 0, i, end));
        rc = sink->frames(sink->ctx, start + m->keep_from + i, (int)(end - i), burst);
    }
    free(burst);
    return rc;
}
