// The mesh: world = guide x ring x heads. Guide ranks take different branches of guidance; ring and heads ranks share
// one sequence. Heads vary fastest, so that they are neighbours on one node: rank = (guide R + ring) U + heads.
#ifndef PARALLEL_MESH_H
#define PARALLEL_MESH_H

#include "parallel/comm.h"

struct mesh_shape {
    int guide, ring, heads; // ranks along each axis; in a wish 0 means "choose"
};
struct mesh_for { // what the ranks are to share
    int n_heads, n_branches;
};

// Completes a wish for `n` ranks, or refuses it in plain words (E_INPUT): heads must divide the model's, a guide axis
// has one rank or one per branch, and the product is the number of ranks. Chosen: a rank per branch when that divides
// n, then as many heads as divide, the rest in a ring.
int mesh_plan(struct mesh_shape *out, int n, struct mesh_shape wish, struct mesh_for f, struct err *e);

struct mesh {
    struct mesh_shape n;
    int i_guide, i_ring, i_heads;
    struct comm *world;    // not owned
    struct comm *guide;    // same place in the sequence, one per branch group
    struct comm *sequence; // ring x heads, in the order of rows
    struct comm *ring, *heads;
};
// Collective over `world`, which must have as many ranks as the shape.
int mesh_open(struct mesh *m, struct comm *world, struct mesh_shape shape, struct err *e);
void mesh_close(struct mesh *m);
// comm_keep and comm_forget of all its communicators. `m` may be NULL.
void mesh_keep(const struct mesh *m, void *at, int64_t bytes);
void mesh_forget(const struct mesh *m, const void *at);

#endif
