// Inside of the fast table only: its state, its scratch memory, its instruction sets, and what its files give each
// other.
//
// A device of the fast table keeps one `struct fast` in dev.backend. Its scratch buffers grow to the largest call seen
// and stay, so that nothing is allocated once every shape has been met.
#ifndef KERNELS_CPU_FAST_H
#define KERNELS_CPU_FAST_H

#include "kernels/cpu/rows.h"
#include "kernels/table.h"

// Ordered: each can do what the ones before it can.
enum fast_isa { ISA_PLAIN, ISA_AVX2, ISA_AVX512, ISA_AVX512_BF16 };

enum fast_slot {
    SCRATCH_X,
    SCRATCH_Y,
    SCRATCH_W,
    SCRATCH_W2,
    SCRATCH_PLAIN,
    SCRATCH_BIAS,
    SCRATCH_KEYS,
    SCRATCH_TILES,
    SCRATCH_COUNT
};

struct onednn;
struct fast {
    enum fast_isa isa;
    const struct row_fns *rows; // of that set
    struct ops ref;             // what a shape without a fast way falls back to
    struct onednn *onednn;
    struct {
        void *data;
        size_t size;
    } scratch[SCRATCH_COUNT];
};
static inline struct fast *fast_of(struct dev *d) { return d->backend; }

// At least `bytes` of memory aligned to 64, until the next call for the same slot.
void *fast_scratch(struct fast *f, enum fast_slot slot, size_t bytes);
// n contiguous elements from one dtype to another, on the calling thread.
void fast_cast(const struct row_fns *f, enum dtype to, void *dst, enum dtype from, const void *src, int64_t n);
// The rows of x as dense memory of dtype t: x itself when it is that already, else a copy in `slot`.
void *fast_dense(struct dev *d, tensor x, enum dtype t, enum fast_slot slot);
// Dense rows of dtype t into y; nothing when `src` is y's own memory.
void fast_spread(struct dev *d, tensor y, enum dtype t, const void *src);
// A vector as F32, or NULL for none.
const float *fast_vector(struct dev *d, tensor v, enum fast_slot slot);

// Floats from one row of width w to the next in scratch: whole cache lines.
static inline int64_t row_step(int64_t w) { return (w + 15) / 16 * 16; }

// The plain elements of a weight: its data, or unpacked into `slot` when only the packed one is kept.
const void *fast_plain(struct dev *d, tensor w, enum pack_use use, enum fast_slot slot);

void fast_linear_slots(struct ops *o);
void fast_conv_slots(struct ops *o);
void fast_attention_slots(struct ops *o);
void fast_norm_slots(struct ops *o);
void fast_rope_slots(struct ops *o);
void fast_pointwise_slots(struct ops *o);
void fast_layout_slots(struct ops *o);

// ---- dnnl.c: the matrix library. Everything is dense; dtypes are F32 or BF16, bias F32.
struct onednn_gemm {
    int64_t m, n, k, ldy; // y [m, n] with rows ldy apart = act(x [m, k] w[n, k]^T + bias)
    enum dtype dtype;     // of x, w, y
    const void *x, *w, *packed;
    const float *bias;
    void *y;
    enum act act;
};
struct onednn_conv {
    int64_t in[3], out[3], kernel[3], stride[3], pad[3][2]; // t, h, w
    int64_t ci, co, groups;
    enum dtype dtype; // of x, w, y
    const void *x, *w, *packed;
    const float *bias;
    void *y;
    enum act act;
};
struct onednn *onednn_open(int n_threads, bool bf16);
void onednn_close(struct onednn **o);
// 0, or -1 when the library has no way (the caller falls back), or -2 with a reason when it failed. A convolution
// without a plain weight gives -3 when the packed one is not in the order that it needs.
int onednn_gemm(struct onednn *o, const struct onednn_gemm *g, const char **why);
int onednn_conv(struct onednn *o, const struct onednn_conv *c, void *(*scratch)(void *ctx, size_t bytes), void *ctx,
                const char **why);
// The library's own order of a weight: bytes that it takes (0: it reads the plain one as well), then the reorder.
size_t onednn_packed_bytes(struct onednn *o, tensor w, enum pack_use use);
void onednn_pack(struct onednn *o, void *packed, tensor w, enum pack_use use);
// The same for who keeps the bytes himself (ops.h); `head` has onednn_header_bytes. False: the library failed.
struct pack_form onednn_packed_form(struct onednn *o, tensor w);
bool onednn_pack_rows(struct onednn *o, void *dst, tensor w, int64_t first, int64_t n, const void *rows);
size_t onednn_header_bytes(void);
bool onednn_head(struct onednn *o, void *head, tensor w, const void *bytes);
// The plain order of a packed weight, in its dtype. False when w.packed is not one of w's shape and use.
bool onednn_unpack(struct onednn *o, void *plain, tensor w, enum pack_use use);

#endif
