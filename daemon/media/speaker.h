// One speaker's file: as decoded, and as 16 kHz mono with its loudness.
#ifndef DAEMON_MEDIA_SPEAKER_H
#define DAEMON_MEDIA_SPEAKER_H

#include "daemon/media/decode.h"
#include "daemon/media/track.h"

#include <stdbool.h>
#include <stddef.h>

struct speaker {
    struct track native;            // as in the file
    struct track heard;             // 16 kHz mono, before the gain
    float weights[DECODE_CHANNELS]; // of the native channels in the mono mix
    double lufs, gain;
};

// What is odd about the file, one sentence a line, is appended to `warnings` (`room` bytes in all).
// `published`: plain mean of the channels, and a gain without limit.
int speaker_open(struct speaker *s, const char *self, const char *path, int track, const char *folder, bool published,
                 char *warnings, size_t room, struct err *e);
void speaker_close(struct speaker *s);

// [n, channels] to [n] by the weights; in place is fine.
void speaker_mono(const struct speaker *s, const float *x, int64_t n, float *mono);

// Appends a sentence and a newline, if there is room for it.
void warn_add(char *warnings, size_t room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
