// wav2vec2: 16 kHz mono speech to one feature vector per video frame and layer.
//
// Convolutions, then linear interpolation to the video's frames, then projection and transformer (pipeline.md 2.5). The
// first layer's group norm runs over the whole track, so a long track is read twice: statistics, then windows.
#ifndef WORKER_MODELS_WAV2VEC2_H
#define WORKER_MODELS_WAV2VEC2_H

#include "kernels/ops.h"
#include "kernels/tap.h"
#include "worker/weights/weights.h"

struct wav2vec2;

// `dir` is a wav2vec2 folder: config.json, preprocessor_config.json, and pytorch_model.bin or model.safetensors.
int wav2vec2_open(struct wav2vec2 **out, struct dev *d, const char *dir, struct err *e);
// The weights of that folder, as they are stored. Owner: caller.
int wav2vec2_weights(struct weights **w, const char *dir, struct err *e);
// From a set of weights and the text of config.json (golden keeps it in the metadata); `normalize` as in the
// preprocessor file.
int wav2vec2_new(struct wav2vec2 **out, struct dev *d, const struct weights *w, const char *config_json, bool normalize,
                 struct err *e);
void wav2vec2_free(struct wav2vec2 **m);
int wav2vec2_layers(const struct wav2vec2 *m);
int wav2vec2_dim(const struct wav2vec2 *m);

// Samples on demand: copies [from, from + n) of the track to dst; zero beyond its ends.
struct track {
    void (*read)(void *ctx, float *dst, int64_t from, int64_t n);
    void *ctx;
    int64_t n_samples;
};

// Whole-track statistics: input mean and variance, first-layer mean and variance per channel. One pass, flat memory.
struct wav2vec2_stats;
struct wav2vec2_stats *wav2vec2_measure(struct wav2vec2 *m, struct dev_arena *a, const struct track *t);
void wav2vec2_stats_free(struct wav2vec2_stats **s);

// Features of video frames [from, to) of a track that has `n_frames` in all: out F32 [to - from, layers, dim] on the
// device. The transformer runs over exactly the frames [from, to); callers choose windows and context. `stats` of the
// original samples (silence appended later does not change them). tap as in golden ("conv0", "hidden1", ...).
void wav2vec2_encode(struct wav2vec2 *m, struct dev_arena *a, tensor out, const struct track *t,
                     const struct wav2vec2_stats *stats, int64_t n_frames, int64_t from, int64_t to,
                     const struct tap *tap);

#endif
