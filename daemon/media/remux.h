// A fragmented MP4 as an ordinary one, index in front, packets unchanged.
#ifndef DAEMON_MEDIA_REMUX_H
#define DAEMON_MEDIA_REMUX_H

#include "proto/base/err.h"

#include <stdint.h>

// Writes `to` (container "mp4" or "mov") from `from` and syncs it. E_FATAL unless it holds n_frames pictures. The
// sound ends after n_audio samples.
int remux_faststart(const char *from, const char *to, const char *container, int64_t n_frames, int64_t n_audio,
                    struct err *e);

#endif
