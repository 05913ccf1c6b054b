// The audio projection of the adapter: windows of speech features to audio tokens, one set per latent frame.
#ifndef WORKER_MODELS_AUDIO_PROJ_H
#define WORKER_MODELS_AUDIO_PROJ_H

#include "kernels/ops.h"
#include "kernels/tap.h"
#include "worker/weights/weights.h"

struct audio_proj {
    int window, vae_scale;      // video frames of a window; video frames of a latent frame
    int64_t width;              // layers x channels of one frame's features
    int64_t inner, tokens, dim; // tokens of width dim per speaker and latent frame
    enum dtype dtype;
    tensor w1, b1, w1_vf, b1_vf, w2, b2, w3, b3, gain, bias;
};

// Sizes come from the shapes of audio_proj.*; `window` and `vae_scale` are given. Tensors live in `a`.
int audio_proj_load(struct audio_proj *m, struct dev *d, struct dev_arena *a, const struct weights *w, int window,
                    int vae_scale, enum dtype t, struct err *e);
// windows F32 [p, fa, window, layers, channels] with fa = 1 + vae_scale (t - 1); the result [t, p, tokens, dim] lives
// in `a`. Taps "<prefix>first" and "<prefix>latter".
tensor audio_proj_run(const struct audio_proj *m, struct dev *d, struct dev_arena *a, tensor windows,
                      const struct tap *tap, const char *prefix);

#endif
