// Inside of kernels/ only: the table of ops that a backend fills, and the device that holds it.
#ifndef KERNELS_TABLE_H
#define KERNELS_TABLE_H

#include "kernels/ops.h"

// A slot has the public op's signature. `pack` stands beside them because it returns a tensor.
#define OPS_SLOT(name) __typeof__(op_##name) *name;
struct ops {
    const char *name;
    OPS_LIST(OPS_SLOT)
    __typeof__(op_pack) *pack;
};
#undef OPS_SLOT

struct dev {
    const struct ops *ops;
    int n_threads;
    bool dry;
    char name[96];
    struct err fault; // sticky; code 0: none
    void *backend;    // the table's own state
};

// Plain loops, the reference.
extern const struct ops ops_ref;
void ref_linear_slots(struct ops *o);

#endif
