// Sound on disk: f32 samples, interleaved, in a file that has no name, so nothing is left behind whatever happens.
// Reading touches no memory but the caller's; a track may be hours long.
#ifndef DAEMON_MEDIA_TRACK_H
#define DAEMON_MEDIA_TRACK_H

#include "proto/base/err.h"

#include <stdint.h>

struct track {
    int fd;
    int rate, channels;
    int64_t n; // samples a channel
};

enum { TRACK_PIECE = 16384 }; // samples a channel that callers move at a time

// A file in `folder`; rate and channels may be set later, before the first append.
int track_open(struct track *t, const char *folder, int rate, int channels, struct err *e);
int track_append(struct track *t, const float *x, int64_t n, struct err *e);
// Samples before the first and past the last are zero.
int track_read(const struct track *t, float *x, int64_t from, int64_t n, struct err *e);
void track_close(struct track *t);

#endif
