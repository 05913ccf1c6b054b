// Attention over a sequence whose rows are spread over ranks. A rank works on its own rows, with all heads, everywhere
// else; only here do rows meet.
//
// Heads axis: rows are exchanged for heads, one plain attention over the whole length, and back. Ring axis: keys and
// values go round, a softmax is carried from block to block. With both, a ring block is the rows of a heads group.
//
// Padding rows (the last ranks') are never seen as keys; as queries they give garbage that nobody reads.
#ifndef PARALLEL_SEQPAR_H
#define PARALLEL_SEQPAR_H

#include "kernels/ops.h"
#include "parallel/mesh.h"
#include "parallel/split.h"

struct seqpar_for {
    int64_t frames, frame_tokens; // tokens of a sequence: their product
    int n_heads, width;
    int batch;   // branches whose sequences go together; 0: 1
    int classes; // of the speaker map; 0: no map
    int maps;    // how many of the batch, the first ones, want it; 0: all
    enum dtype dtype;
    bool wide; // struct attn
};

struct seqpar {
    struct dev *dev;
    struct comm *sequence, *ring, *heads;
    struct seqpar_for f;
    struct split_rows rows; // this rank's: rows.own of rows.total; tensors have rows.each
    int n_ring, i_ring, n_heads, i_heads;
    int64_t block; // rows of a heads group, with padding
    struct split_group group[3];
    int n_groups;
    // Buffers of the arena, at fixed addresses.
    tensor send, recv;            // [batch, heads ranks, each, 3, heads / ranks, width]
    tensor out;                   // [batch, block, heads / ranks, width]
    tensor slot[2];               // [batch, block, 2, heads / ranks, width]: keys and values that travel
    tensor sum, state;            // the softmax under way
    tensor key0;                  // [maps, frame_tokens, heads / ranks, width]: keys of the first frame
    tensor part;                  // F32 [maps, classes, block]: the map of this block
    tensor q32, k32;              // F32 rows of q and the first frame's keys, where the dtype is not
    tensor rounded;               // part as the dtype keeps it
    tensor range, ranges, turned; // F32 [maps, classes, 2], gathered over the ring, and with the ring inside
};

// Buffers come from `a` and live as long; `m` must outlive it. `m` NULL: one rank, and no buffers but the map's.
void seqpar_init(struct seqpar *sp, const struct mesh *m, struct dev_arena *a, const struct seqpar_for *f);

// Which speaker a token looks at (op_attention_map over the first frame's keys), without moving a key for it.
struct seqpar_map {
    tensor masks; // F32 [classes, frame_tokens]
    bool published;
    tensor map;  // out, F32 [maps, classes, each]: own rows
    tensor lohi; // out, F32 [maps, classes, 2]: over all rows of all ranks
};
// y = attention of q over all ranks' k, v. All [batch, each, n_heads, width], last axis contiguous; y aliases
// none. `map` may be NULL, and is the same on all ranks. In a dry run the communicators must
// follow the device (comm_follow).
void seqpar_attention(struct seqpar *sp, tensor y, tensor q, tensor k, tensor v, const struct seqpar_map *map);

// Own rows against the keys of their own frame, no wire: q, y [each, n_heads, width], k, v [frames, n, n_heads, width].
void seqpar_grouped(struct seqpar *sp, tensor y, tensor q, tensor k, tensor v);

// All rows on every rank: all [total, w] from mine [each, w], dense. `scratch` gives [ranks, each, w] for the while.
void seqpar_gather(struct seqpar *sp, struct dev_arena *scratch, tensor all, tensor mine);

#endif
