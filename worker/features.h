// The voice features of a job, made on demand and kept on disk: rows [layers x channels] per video frame and speaker.
//
// A voice is as long as its track, in whole frames; of two, the shorter one is followed by silence. Up to
// FEATURES_EXACT frames a voice is encoded in one exact pass; above that in windows of FEATURES_WINDOW frames with
// FEATURES_CONTEXT frames on both sides, with statistics of the whole track. Memory does not grow with the length.
//
// Beyond the voice's end: the last segment hears silence (encoded, with the statistics of the voice alone), or, where
// the spec asks for it, the last frames backwards.
#ifndef WORKER_FEATURES_H
#define WORKER_FEATURES_H

#include "proto/spec.h"
#include "worker/models/wav2vec2.h"

enum { FEATURES_EXACT = 7500, FEATURES_WINDOW = 1500, FEATURES_CONTEXT = 125 };

struct features;

// `track` [n_speakers] at 16 kHz, readable until features_close; a file lies in `dir` meanwhile. Scratch comes from `a`
// and is given back after every call.
int features_open(struct features **out, struct wav2vec2 *m, struct dev_arena *a, const struct spec_render *s,
                  const struct track *track, const char *dir, struct err *e);
// The same from rows that exist already: rows[p] F32 [n_frames[p], layers, channels]. The tail can only be mirrored.
int features_of_rows(struct features **out, struct dev_arena *a, const struct spec_render *s, int layers, int channels,
                     const float *const *rows, const int64_t *n_frames, const char *dir, struct err *e);
void features_close(struct features **f);
// Another job of the same voices goes on with them: its tracks and its arena take the place of those given before.
void features_lend(struct features *f, struct dev_arena *a, const struct track *track);

// Windows of the segment that starts at frame `start`: F32 [n_speakers, F, window, layers, channels] in arena `a`.
// `last`: the final segment of a job of several.
int features_windows(struct features *f, struct dev_arena *a, tensor *out, int64_t start, int window, bool last,
                     struct err *e);

#endif
