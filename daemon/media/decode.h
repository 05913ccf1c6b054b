// The sound of a file, decoded: hostile bytes in, plain floats out. Runs in a child process (child.h).
#ifndef DAEMON_MEDIA_DECODE_H
#define DAEMON_MEDIA_DECODE_H

#include "proto/base/err.h"

#include <stdint.h>

enum { DECODE_CHANNELS = 8 };

struct decode_head {
    int32_t rate, channels;
    int32_t center, lfe; // channel numbers, -1: none
    int32_t n_tracks;    // sound tracks in the file
};

struct decode_tail {
    int64_t n;            // samples a channel
    int64_t n_damaged;    // of them: replaced by silence, what was there could not be decoded
    int64_t first_damage; // the first such sample
    int64_t n_bad;        // values that were no numbers, replaced by 0
    int64_t offset;       // silence put in front (or cut, < 0) because the sound does not start with the picture
};

// Where the samples go; a negative return stops.
struct decode_sink {
    void *ctx;
    int (*head)(void *ctx, const struct decode_head *h, struct err *e);
    int (*samples)(void *ctx, const float *x, int64_t n, struct err *e); // interleaved
};

// `track`: of several, 1 is the first; 0: the one a player would choose. E_INPUT with a sentence for whatever the file
// is instead of a voice.
int decode_voice(const char *path, int track, const struct decode_sink *sink, struct decode_tail *tail, struct err *e);

#endif
