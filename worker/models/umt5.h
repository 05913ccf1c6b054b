// umT5 text encoder: token ids to context vectors.
#ifndef WORKER_MODELS_UMT5_H
#define WORKER_MODELS_UMT5_H

#include "kernels/ops.h"
#include "kernels/tap.h"
#include "parallel/comm.h"
#include "worker/weights/weights.h"

struct umt5;
struct umt5_config {
    int n_heads, n_buckets; // 0: from the shape of the distance tables; else they must agree with it
    int max_distance;       // 0: 128
    float eps;              // 0: 1e-6
};

int umt5_new(struct umt5 **out, struct dev *d, const struct weights *w, const struct umt5_config *c, enum dtype t,
             struct err *e);
// The same with the blocks spread over the ranks of `group` (borrowed), each of which reads and keeps its share and
// gathers a block ahead of its use. One of them encodes; the others, that `lends`, have nothing but their shares, and
// call umt5_lend whenever it does. Collective.
int umt5_new_shared(struct umt5 **out, struct dev *d, const struct weights *w, const struct umt5_config *c,
                    enum dtype t, struct comm *group, bool lends, struct err *e);
void umt5_free(struct umt5 **m);
int umt5_dim(const struct umt5 *m);
int64_t umt5_vocab(const struct umt5 *m);     // rows of the embedding: every id must be below
int64_t umt5_bytes(const struct umt5 *m);     // of the device that its weights take
struct comm *umt5_comm(const struct umt5 *m); // of its gathers, for counters; NULL when it is not shared
// ids I32 [n] of which the first `n_real` are not padding (keys beyond are masked); out F32 [n_real, dim] rows. A
// caller without padding passes n_real = n: the rows come out the same.
void umt5_encode(struct umt5 *m, struct dev_arena *a, tensor out, tensor ids, int64_t n_real, const struct tap *tap);
// The part of a rank that lends in one umt5_encode.
void umt5_lend(struct umt5 *m);

// The row of a distance table for a key `distance` positions after its query (negative: before it).
int umt5_bucket(int64_t distance, int n_buckets, int max_distance);

#endif
