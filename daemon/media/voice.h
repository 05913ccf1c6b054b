// The voices of a job: decoded once, measured, and read in pieces ever after.
//
// Two readings of the same sound. The worker hears 16 kHz mono, one track a speaker, brought to -23 LUFS, 640 samples a
// frame: cut or padded to the film's length (`published`: all samples, as the published program's encoder hears them).
// The muxer hears the original: one speaker's own rate and channels, two speakers mixed at the higher of their rates,
// each at -23 LUFS; `published`: the 16 kHz track itself, cut to the film. What the muxer hears is never beyond full
// scale.
//
// Two speakers: SPEC_PARA, both from the start, the shorter one padded; SPEC_ADD, one after the other. A speaker
// without a file is silent, and SPEC_ADD with a silent one is SPEC_PARA (`published`: it waits as long as the other
// speaks).
//
// Everything decoded lies in nameless files in `folder`: about 1.5 GB an hour for 48 kHz stereo. Memory does not grow.
#ifndef DAEMON_MEDIA_VOICE_H
#define DAEMON_MEDIA_VOICE_H

#include "proto/base/err.h"
#include "proto/base/hash.h"
#include "proto/spec.h"

#include <stdbool.h>
#include <stdint.h>

enum { VOICE_RATE = 16000, VOICE_FRAME = 640 }; // samples of the worker's track, a second and a frame

struct voice;

struct voice_options {
    const char *self;                 // this program, for the media child (child.h)
    const char *folder;               // private, on a disk with room
    const char *audio[SPEC_SPEAKERS]; // NULL: silent
    int n_speakers;
    int audio_type; // enum spec_audio_type, with two speakers
    int track;      // of files with several sound tracks, 1 is the first; 0: the default one
    bool published;
    int64_t max_frames; // 0: no limit
};

struct voice_info {
    int64_t n_samples16;           // of each speaker's 16 kHz track
    uint64_t own16[SPEC_SPEAKERS]; // of them, up to where only silence follows because another speaks longer
    int64_t n_frames;              // L
    int64_t n_mux;                 // samples a channel for the muxer
    int mux_rate;                  // one that the muxer takes
    int mux_channels;              // likewise
    uint8_t hash[HASH_BYTES];      // of what the worker hears
    double seconds;                // of the voice, before any limit
    double lufs[SPEC_SPEAKERS];    // as found; -INFINITY: silent, NAN: too short to measure
    char warnings[2048];           // sentences, one a line
};

int voice_open(struct voice **out, const struct voice_options *o, struct voice_info *info, struct err *e);
// Samples [from, from + n) of a speaker's 16 kHz track; within n_samples16.
int voice_read16(struct voice *v, int speaker, float *dst, int64_t from, int64_t n, struct err *e);
// Samples [from, from + n) for the muxer, interleaved; within n_mux.
int voice_read_mux(struct voice *v, float *interleaved, int64_t from, int64_t n, struct err *e);
// The same, as mux_options wants it.
int voice_read_audio(void *voice, float *interleaved, int64_t from, int64_t n, struct err *e);
void voice_close(struct voice *v);

#endif
