// Inside of kernels/ only: the table of ops that a backend fills, and the device that holds it.
#ifndef KERNELS_TABLE_H
#define KERNELS_TABLE_H

#include "kernels/ops.h"

#include <stdio.h>

// A slot has the public op's signature. `pack` stands beside them because it returns a tensor.
#define OPS_SLOT(name) __typeof__(op_##name) *name;
struct ops {
    OPS_LIST(OPS_SLOT)
    __typeof__(op_pack) *pack;
    // NULL: no packed form comes in pieces
    __typeof__(op_packed_form) *packed_form;
    __typeof__(op_pack_rows) *pack_rows;
    __typeof__(op_packed_at) *packed_at;
};
#undef OPS_SLOT

// Where a table's tensors live. An arena owns an extent: address space, of which a device with memory of its own makes
// usable only what is taken.
struct extent {
    char *base;
    int64_t bytes;
    void *held; // the backend's own
};
struct memory {
    int64_t align, gap; // of every tensor; bytes left free behind it
    bool shared;        // it is the host's own
    // Fills x of `bytes` (0: as much as the device has). False: there is no such address space.
    bool (*reserve)(struct dev *d, struct extent *x, int64_t bytes);
    void (*release)(struct dev *d, struct extent *x);
    // A tensor takes [from, from + bytes) of the extent; false when the device has no memory left.
    bool (*take)(struct dev *d, struct extent *x, int64_t from, int64_t bytes);
    void (*give_back)(struct dev *d, struct extent *x, int64_t from, int64_t bytes);
    int64_t (*left)(const struct dev *d);
    void (*upload)(struct dev *d, tensor dst, const void *src, enum dtype src_dtype);
    void (*download)(struct dev *d, void *dst, enum dtype dst_dtype, tensor src);
    void (*sync)(struct dev *d); // waits; what went wrong becomes dev_fault
    // Of a device with memory of its own only. Memory behind the first `bytes` of an extent, ahead of the tensors.
    bool (*hold)(struct dev *d, struct extent *x, int64_t bytes);
    void *(*pin)(struct dev *d, int64_t bytes); // host memory that fetches read
    void (*unpin)(struct dev *d, void *p);
    void (*fetch)(struct dev *d, int slot, tensor dst, const void *pinned);
    void (*fetched)(struct dev *d, int slot);
};
extern const struct memory host_memory; // of the tables that compute on the CPU

// Of a device that can note ops and do them again (dev_record_begin).
struct recorder {
    void (*begin)(struct dev *d);
    void *(*end)(struct dev *d); // NULL: it could not be, and the log says why
    bool (*repeat)(struct dev *d, void *record);
    void (*free)(struct dev *d, void *record);
};

struct dev {
    struct ops ops; // filled by dev_open
    const struct memory *memory;
    const struct recorder *recorder; // NULL: there is none
    int n_threads;
    bool dry;
    int64_t held;      // bytes that arenas have given out
    bool no_records;   // not wanted, or one failed
    bool trusted;      // a record did what its ops do
    bool quantised;    // products of quantised weights are worth having
    bool packed_alone; // a packed weight needs no plain one beside it
    char name[96];
    struct err fault;                            // sticky; code 0: none
    void *backend;                               // the table's own state
    void *stream;                                // what ops are enqueued on; NULL where they end before they return
    void (*close)(struct dev *d);                // frees it; NULL when there is none
    void (*tell)(const struct dev *d, FILE *to); // dev_tell; NULL: nothing is chosen by timing
};

// The threads to wake for `work`, given in about nanoseconds of one thread: all, or the calling one alone, for waking
// the others takes tens of microseconds, and far more on a machine that is busy. Nothing in between: the runtime ends
// the threads that a smaller team leaves over.
static inline int dev_team(const struct dev *d, int64_t work) { return work < 1 << 16 ? 1 : d->n_threads; }

// The plain loops, a file each.
void ref_linear_slots(struct ops *o);
void ref_scaled_slots(struct ops *o);
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
// The table of a CUDA device, all slots and its memory; `which` is the card's number or -1 for the one that the
// launcher's local rank names. A build without the toolkit has cuda_absent.c in its place, which says so.
int cuda_open(struct dev *d, int which, struct err *e);
void cuda_choose(int which); // that card, or none where there is none: cuda_open will tell

#endif
