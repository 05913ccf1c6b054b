// How loud a voice is, as the published program measures it: gated, K-weighted, in LUFS, one channel.
//
// Life: loudness_new, loudness_push in pieces of any size, loudness_lufs once, loudness_free. The result does not
// depend on the pieces. Keeps eight bytes for each tenth of a second.
#ifndef DAEMON_MEDIA_LOUDNESS_H
#define DAEMON_MEDIA_LOUDNESS_H

#include <stdint.h>

#define LOUDNESS_TARGET (-23.0) // LUFS

struct loudness;

struct loudness *loudness_new(int rate);
void loudness_push(struct loudness *l, const float *x, int64_t n);
// LUFS; -INFINITY for silence, NAN for less than 0.4 s. No more pushes after this.
double loudness_lufs(struct loudness *l);
void loudness_free(struct loudness *l);

// The factor that brings `lufs` to the target; 1 for silence and for what is too short to measure.
double loudness_gain(double lufs);

#endif
