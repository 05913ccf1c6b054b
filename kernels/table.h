// Inside of kernels/ only: the table of ops that a backend fills, and the device that holds it.
#ifndef KERNELS_TABLE_H
#define KERNELS_TABLE_H

#include "kernels/ops.h"

// A slot has the public op's signature. `pack` stands beside them because it returns a tensor.
#define OPS_SLOT(name) __typeof__(op_##name) *name;
struct ops {
    OPS_LIST(OPS_SLOT)
    __typeof__(op_pack) *pack;
};
#undef OPS_SLOT

struct dev {
    struct ops ops; // filled by dev_open
    int n_threads;
    bool dry;
    bool packed_alone; // a packed weight needs no plain one beside it
    char name[96];
    struct err fault;             // sticky; code 0: none
    void *backend;                // the table's own state
    void (*close)(struct dev *d); // frees it; NULL when there is none
};

// The plain loops, a file each.
void ref_linear_slots(struct ops *o);
void ref_attention_slots(struct ops *o);
void ref_norm_slots(struct ops *o);
void ref_rope_slots(struct ops *o);
void ref_conv_slots(struct ops *o);
void ref_layout_slots(struct ops *o);
void ref_pointwise_slots(struct ops *o);
void ref_pixels_slots(struct ops *o);
// All of them: the reference table.
void ref_slots(struct ops *o);
// The fast table: overlays the reference where it pays, and keeps its state in d->backend. `most` names the best
// instruction set it may use ("plain", "avx2", "avx512", "avx512_bf16"; NULL: what the CPU has). E_INPUT when the CPU
// has it not.
int fast_open(struct dev *d, const char *most, struct err *e);
// The table that runs both and compares.
int check_open(struct dev *d, const char *most, struct err *e);
// The fast half of a checking device.
struct dev *check_fast_of(struct dev *d);

#endif
