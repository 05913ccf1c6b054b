// A stack of equal blocks of a model's weights, found by name and held by parallel/shard: spread over a group of ranks,
// each of which reads and keeps its share, or streamed from the host's memory.
//
// On the CPU it is the packed form of a matrix that is spread and gathered, as whole blocks are packed: a product with
// a plain one reorders it each time.
//
// Values are those of whole blocks: matrices rounded to the model's dtype, vectors rounded to it and kept as F32.
#ifndef WORKER_MODELS_SPREAD_H
#define WORKER_MODELS_SPREAD_H

#include "parallel/shard.h"
#include "worker/weights/weights.h"

struct spread;

struct spread_tensor {
    const char *name; // behind "blocks.<i>."
    int64_t out, in;  // [out, in]; in 0: [out]
    bool vector;      // kept as F32, and stored with any axes
    bool table;       // a matrix that is looked up, never multiplied
};
struct spread_for {
    const struct weights *w;
    int n_blocks, n_tensors;
    const struct spread_tensor *tensors; // [n_tensors], the same in every block; only read while it is opened
    enum dtype dtype;                    // of matrices
    struct comm *group;                  // the ranks; borrowed while it is opened
    bool streamed;                       // a group of one, whose blocks stay in the host's memory
    int fetch_slot;                      // then, the first of two
};

// Collective over the group; memory comes from `a`. An error of one rank's reading is returned on all. The caller owns
// *out.
int spread_open(struct spread **out, struct dev_arena *a, const struct spread_for *f, struct err *e);
void spread_close(struct spread **s);
// As of shard: all ranks take the same blocks in the same order, and give each back before the next.
const tensor *spread_take(struct spread *s, int block);
void spread_give(struct spread *s, int block);
int64_t spread_block_bytes(const struct spread *s);
int64_t spread_own_bytes(const struct spread *s);
struct comm *spread_comm(const struct spread *s); // for counters and polling

#endif
