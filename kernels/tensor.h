// A tensor is a typed, strided view of memory that somebody else owns. It goes by value and is never allocated itself.
//
// Shapes are row-major as in PyTorch: the last axis is the fastest. Strides count elements. `data == NULL` with `n ==
// 0` means "no tensor" (an optional bias, say); NO_TENSOR spells it.
#ifndef KERNELS_TENSOR_H
#define KERNELS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TENSOR_DIMS = 8 };

enum dtype {
    DT_NONE,
    DT_F32,
    DT_BF16,
    DT_F16,
    DT_F64,
    DT_F8_E4M3,
    DT_F8_E5M2,
    DT_I8,
    DT_I16,
    DT_I32,
    DT_I64,
    DT_U8,
    DT_BOOL,
    DT_COUNT
};

// One row per dtype: name as safetensors spells it ("F32"), bytes per element.
struct dtype_info {
    const char *name;
    int size;
};
extern const struct dtype_info dtype_table[DT_COUNT];
static inline int dtype_size(enum dtype t) { return dtype_table[t].size; }

typedef struct tensor {
    void *data;
    const float *scale; // of a quantised weight [out, in]: one factor an output, where `data` is; or NULL
    const void *packed; // backend's own reordered copy of a weight (op_pack), or NULL; `data` stays the plain one
    int64_t shape[TENSOR_DIMS];
    int64_t stride[TENSOR_DIMS];
    enum dtype dtype;
    int n; // axes in use
} tensor;

#define NO_TENSOR ((tensor){0})

// The shape of a tensor as an array literal and its length: tensor_of(p, DT_F32, SHAPE(3, 4)).
#define SHAPE(...)                                                                                                     \
    ((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))), (const int64_t[]) { __VA_ARGS__ }

tensor tensor_of(void *data, enum dtype t, int n, const int64_t *shape); // contiguous view
int64_t tensor_count(tensor t);                                          // elements
int64_t tensor_bytes(tensor t);                                          // bytes when contiguous
bool tensor_is_contiguous(tensor t);
bool tensor_same_shape(tensor a, tensor b);
bool tensor_overlaps(tensor a, tensor b);
static inline bool tensor_is_none(tensor t) { return t.n == 0 && t.data == NULL; }

// Views. None copies; each is BUG() when it does not fit.
tensor tensor_reshape(tensor t, int n, const int64_t *shape);          // contiguous only; one axis may be -1
tensor tensor_slice(tensor t, int axis, int64_t from, int64_t to);     // rows [from, to) of an axis
tensor tensor_at(tensor t, int64_t i);                                 // drops the first axis
tensor tensor_permute(tensor t, const int *order);                     // new axis i is old axis order[i]
tensor tensor_split(tensor t, int axis, int64_t outer, int64_t inner); // axis of outer*inner into two axes
tensor tensor_squeeze(tensor t);                                       // drops all axes of length 1 (keeps one)

// "[3, 4] BF16" into buf, for messages; returns buf.
const char *tensor_text(tensor t, char *buf, size_t n);

// Scalar conversions, round to nearest even, NaN kept.
static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};
    return v.f;
}
static inline uint16_t f32_to_bf16(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    if ((v.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((v.u >> 16) | 0x40u);
    return (uint16_t)((v.u + 0x7fffu + ((v.u >> 16) & 1u)) >> 16);
}
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float f8_e4m3_to_f32(uint8_t b);
uint8_t f32_to_f8_e4m3(float f); // what is too large becomes the largest
float f8_e5m2_to_f32(uint8_t b);

#endif
