// Inside of kernels/cuda only: one product of the library, chosen once per shape (linear.cu).
#ifndef KERNELS_CUDA_GEMM_CUH
#define KERNELS_CUDA_GEMM_CUH

#include "kernels/cuda/common.cuh"

// y [m, n] = x [m, k] w [n, k]^T, rows of x and y so many elements apart. Compared as bytes: zero it first.
struct gemm_shape {
    int64_t m, n, k, ldx, ldy;
    enum dtype in, out; // BF16 or F32 alike; BF16, F8_E4M3 to F32 or BF16; I8 to I32
    int epilogue;
    int scaled; // by a factor a row of x and a row of w: F8_E4M3 on architectures that do so
};
struct gemm {
    struct gemm_shape s;
    const void *x, *w, *bias; // bias of the output's dtype, on 16 bytes
    const float *x_scale, *w_scale;
    void *y;
};

// False where the library has no way; nothing was done then. True after a fault.
bool cuda_product(struct dev *d, const struct gemm *g);
int cuda_epilogue_of(bool bias, enum act act); // that of the acts that are inside
static inline bool act_is_inside(enum act a) { return a == ACT_NONE || a == ACT_GELU_TANH || a == ACT_RELU; }
// A bias as the library takes it; NULL for none, and after a fault.
const void *cuda_bias_of(struct dev *d, tensor b, enum dtype t);
// Whether rows lie one fixed stride apart, as the library takes them: `step` elements.
bool cuda_even_rows(tensor t, int64_t *step);
void cuda_act_rows(struct dev *d, tensor y, enum act act);

#endif
