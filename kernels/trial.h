// Trials: one op on random tensors of given sizes, the same on every table, so that two tables can be compared. The
// tests' rows and the self-test of a device are made of these.
//
// A case lays its tensors in one block of host memory, with gaps between them; whoever wants them elsewhere copies the
// block and moves the pointers. What the sizes mean for an op stands in tests/op_cases.h above its rows.
#ifndef KERNELS_TRIAL_H
#define KERNELS_TRIAL_H

#include "kernels/ops.h"

enum {
    HOW_STRIDED = 1,   // rows with gaps between them, heads not beside each other
    HOW_PACKED = 2,    // weights through op_pack
    HOW_BIAS = 4,      // with a bias (linear, conv, attention) or an affine part (norms)
    HOW_MODULATED = 8, // norms: with shift and scale
    HOW_WIDE = 16,     // norms: F32 result
    HOW_GATE = 32,     // with a gate
    HOW_INPLACE = 64,  // the output is the input
    HOW_MASKED = 128,  // attention: whole blocks of keys are at -inf
    HOW_PUBLISHED = 256,
    HOW_TAKEN = 512, // weights through op_pack_take: only the packed ones are left
    HOW_EVEN = 1024, // with HOW_STRIDED: gaps that keep 16-byte alignment
    HOW_MILD = 2048, // attention: scores near each other, so that every key counts
};

struct op_case {
    const char *op;
    int64_t s[14];
    enum dtype t, wt; // activations, weights (0: as activations)
    enum act act;
    unsigned how;
    double bound;
};

enum { TRIAL_TENSORS = 8, TRIAL_RUNS = 16 };

// The tensors of a case; the first n_out are written.
struct trial_set {
    tensor t[TRIAL_TENSORS];
    int n, n_out;
};

struct trial {
    char *block; // the caller's, aligned to 64
    size_t size, used;
    uint64_t seed;
    struct trial_set set;
    struct { // where tensors lie in the block
        size_t at, bytes;
    } run[TRIAL_RUNS];
    int n_runs;
};

// A contiguous tensor of random values around 0 with the given reach; then all that a case needs.
tensor trial_tensor(struct trial *b, enum dtype t, double reach, int n, const int64_t *shape);
void trial_lay(struct trial *b, const struct op_case *c);
void trial_run(struct dev *d, struct dev_arena *a, const struct op_case *c, struct trial_set *set);
// Multiplications and additions of the op; 0 where memory is what counts. Bytes: each input once, each output once.
double trial_work(const struct op_case *c);
double trial_bytes(const struct op_case *c, const struct trial_set *set);
// Whether the op reads what output k held.
bool trial_reads(const struct op_case *c, int k);
// The largest difference over the largest wanted value; both in host memory.
double trial_error(tensor got, tensor want);
// The part of values that are not the reference's own, for ops that round only where the contract puts it (BF16, many
// values); 0 for the others.
double trial_unlike(const struct op_case *c, tensor got, tensor want);
double trial_bound(const struct op_case *c);
const char *trial_text(const struct op_case *c, char *text, size_t n);
// The memory of element i, counting over all axes.
void *trial_element(tensor t, int64_t i);

#endif
