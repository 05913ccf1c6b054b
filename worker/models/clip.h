// CLIP ViT-H/14 visual tower: a reference picture to its tokens (penultimate layer, no final norm).
#ifndef WORKER_MODELS_CLIP_H
#define WORKER_MODELS_CLIP_H

#include "kernels/ops.h"
#include "kernels/tap.h"
#include "worker/weights/weights.h"

struct clip;
struct clip_config {
    int n_heads; // 0: 16
    int image;   // 0: 224
    float eps;   // 0: 1e-5
};

int clip_new(struct clip **out, struct dev *d, const struct weights *w, const struct clip_config *c, struct err *e);
void clip_free(struct clip **m);
int clip_dim(const struct clip *m);
int clip_tokens(const struct clip *m);
// picture F32 [h, w, 3] in -1..1 (resized inside, aspect ignored); out F32 [tokens, dim].
void clip_encode(struct clip *m, struct dev_arena *a, tensor out, tensor picture, const struct tap *tap);

#endif
