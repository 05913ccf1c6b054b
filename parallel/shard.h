// Weights of a stack of equal blocks, spread over a group and gathered one block ahead of use.
//
// A block is one flat run of bytes: its tensors in a fixed order, each at a multiple of 256, the whole padded to ranks
// x 256. A rank keeps its share of every block and two whole blocks: the one in use and the one that arrives. The
// tensors are views into the gathered run. A group of one keeps all blocks whole and gathers nothing: that is
// "replicated", by the same calls. Or, streamed: the blocks stay in the host's memory, pinned, and come to the device
// one block ahead, beside the ops. What a group of several gathers may be the packed form of a matrix, so that nothing
// is left to reorder where it is used; its view has no plain data. Hybrid is a matter of which communicator is given:
// gather inside the node, replicate across nodes.
#ifndef PARALLEL_SHARD_H
#define PARALLEL_SHARD_H

#include "kernels/dev.h"
#include "parallel/comm.h"

struct shard;

struct shard_tensor {
    enum dtype dtype;
    int n;
    int64_t shape[TENSOR_DIMS];
    int64_t packed; // bytes of its packed form (op_packed_form), which then is kept and moves; 0: it is as it is
};
struct shard_for {
    int n_blocks, n_tensors;
    const struct shard_tensor *tensors; // [n_tensors], the same in every block; must outlive the shard
    // Bytes [from, to) of a tensor, in that dtype, or of its packed form, to host memory. A rank asks for its share
    // only.
    int (*read)(void *ctx, int block, int i_tensor, int64_t from, int64_t to, void *dst, struct err *e);
    void *ctx;
    bool streamed;  // of a group of one, where the device's memory is not the host's
    int fetch_slot; // then, the first of two (dev_fetch)
};

// Collective over `group` (of which it makes its own communicator). Memory comes from `a`. An error of one rank's
// reading is returned on all. The caller owns *out.
int shard_open(struct shard **out, struct dev_arena *a, struct comm *group, const struct shard_for *f, struct err *e);
void shard_close(struct shard **s);

// The tensors of `block`, whole, until shard_give; starts gathering the block after it (after the last, the first).
// All ranks take the same blocks in the same order. At most one block is taken at a time.
const tensor *shard_take(struct shard *s, int block);
void shard_give(struct shard *s, int block);

int64_t shard_block_bytes(const struct shard *s); // a whole run, with padding
int64_t shard_own_bytes(const struct shard *s);   // kept for good
struct comm *shard_comm(const struct shard *s);   // its communicator, for counters and polling

#endif
