// umT5 text encoder: token ids to context vectors.
#ifndef WORKER_MODELS_UMT5_H
#define WORKER_MODELS_UMT5_H

#include "kernels/ops.h"
#include "kernels/tap.h"
#include "worker/weights/weights.h"

struct umt5;
struct umt5_config {
    int n_heads;                 // 0: 64
    int n_buckets, max_distance; // 0: from the table's shape, 128
    float eps;                   // 0: 1e-6
};

int umt5_new(struct umt5 **out, struct dev *d, const struct weights *w, const struct umt5_config *c, enum dtype t,
             struct err *e);
void umt5_free(struct umt5 **m);
int umt5_dim(const struct umt5 *m);
// ids I32 [n] of which the first `n_real` are not padding (keys beyond are masked); out F32 [n_real, dim] rows.
void umt5_encode(struct umt5 *m, struct dev_arena *a, tensor out, tensor ids, int64_t n_real, const struct tap *tap);

#endif
