// Stand-in for cuBLASLt: column-major products with F32 sums, and the library's own care for its arguments.
//
// It offers two candidates for every product that the real library would take: in the second, the sum runs backwards,
// so its bytes differ now and then, as those of another tile order do. All of a matrix must be handed-out memory, and
// all that is read must have been written.
#include "tests/gpusim/parts.h"

#include <cublasLt.h>

#include <vector>

enum { MAGIC = 0x6c74 };

struct sim_lt {
    int magic;
};
struct sim_lt_product {
    cublasOperation_t turn_a;
    cublasLtEpilogue_t epilogue;
    const void *bias;
};
struct sim_lt_layout {
    cudaDataType type;
    int64_t rows, cols, ld;
};
struct sim_lt_wish {
    size_t workspace;
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lt)
{
    *lt = new sim_lt{MAGIC};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lt)
{
    delete lt;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *p, cublasComputeType_t compute, cudaDataType scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *p = new sim_lt_product{CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t p)
{
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t p, cublasLtMatmulDescAttributes_t which,
                                              const void *value, size_t size)
{
    void *to = which == CUBLASLT_MATMUL_DESC_TRANSA     ? (void *)&p->turn_a
               : which == CUBLASLT_MATMUL_DESC_EPILOGUE ? (void *)&p->epilogue
                                                        : (void *)&p->bias;
    size_t wanted = which == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof p->bias : 4;
    if (size != wanted) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType type, uint64_t rows, uint64_t cols,
                                          int64_t ld)
{
    if ((type != CUDA_R_32F && type != CUDA_R_16BF) || rows == 0 || cols == 0 || ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *l = new sim_lt_layout{type, (int64_t)rows, (int64_t)cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *w)
{
    *w = new sim_lt_wish{};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t w)
{
    delete w;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t w, cublasLtMatmulPreferenceAttributes_t,
                                                    const void *value, size_t size)
{
    if (size != sizeof w->workspace) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&w->workspace, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

static int size_of(cudaDataType t) { return t == CUDA_R_32F ? 4 : 2; }

// What the real library checks of a product, whatever the addresses.
static bool fits(const sim_lt *lt, const sim_lt_product *p, const sim_lt_layout *a, const sim_lt_layout *b,
                 const sim_lt_layout *d)
{
    bool with_bias = (p->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
    int64_t m = p->turn_a == CUBLAS_OP_T ? a->cols : a->rows, k = p->turn_a == CUBLAS_OP_T ? a->rows : a->cols;
    return lt->magic == MAGIC && a->type == b->type && b->type == d->type && m == d->rows && b->cols == d->cols &&
           k == b->rows && (!with_bias || (p->bias && (uintptr_t)p->bias % 16 == 0));
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t p, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t w, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t *found, int *n_found)
{
    *n_found = 0;
    if (!fits(lt, p, a, b, d) || n_wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 2 && i < n_wanted; i++) {
        found[i] = {};
        found[i].algo.data[0] = MAGIC;
        found[i].algo.data[1] = (uint64_t)i;
        found[i].workspaceSize = w->workspace;
        *n_found = i + 1;
    }
    return CUBLAS_STATUS_SUCCESS;
}

// A matrix as F32, column after column; empty after a fault.
static std::vector<float> matrix(const void *p, const sim_lt_layout *l)
{
    std::vector<float> v((size_t)(l->rows * l->cols));
    for (int64_t c = 0; c < l->cols; c++) {
        const char *at = (const char *)p + c * l->ld * size_of(l->type);
        const void *col = sim_host_read(at, l->rows * size_of(l->type), "cublasLtMatmul reads");
        if (!col) return {};
        for (int64_t r = 0; r < l->rows; r++)
            v[(size_t)(c * l->rows + r)] =
                l->type == CUDA_R_32F ? ((const float *)col)[r] : bf16_to_f32(((const uint16_t *)col)[r]);
    }
    return v;
}

static float finish(int epilogue, float v)
{
    if (epilogue & CUBLASLT_EPILOGUE_RELU) return v > 0 ? v : 0;
    if (epilogue & CUBLASLT_EPILOGUE_GELU)
        return 0.5f * v * (1 + tanhf(0.7978845608028654f * (v + 0.044715f * v * v * v)));
    return v;
}

static float dot(const float *a, const float *b, int64_t k, bool backwards)
{
    float sum = 0;
    for (int64_t i = 0; i < k; i++) sum += backwards ? a[k - 1 - i] * b[k - 1 - i] : a[i] * b[i];
    return sum;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t p, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *, cublasLtMatrixLayout_t, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_size, cudaStream_t s)
{
    if (sim_fault_text()[0]) return CUBLAS_STATUS_EXECUTION_FAILED;
    if (!fits(lt, p, la, lb, ld) || *(const float *)alpha != 1 || *(const float *)beta != 0 || !s ||
        p->turn_a != CUBLAS_OP_T || algo->data[0] != MAGIC || !sim_is_device(workspace) || workspace_size == 0 ||
        (uintptr_t)a % (uintptr_t)size_of(la->type) != 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    sim_catch_up(s);
    std::vector<float> av = matrix(a, la), bv = matrix(b, lb), bias;
    if (p->epilogue & CUBLASLT_EPILOGUE_BIAS) {
        sim_lt_layout column = {ld->type, ld->rows, 1, ld->rows};
        bias = matrix(p->bias, &column);
        if (bias.empty()) return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    if (av.empty() || bv.empty()) return CUBLAS_STATUS_EXECUTION_FAILED;
    sim_counting()->launches++;
    for (int64_t c = 0; c < ld->cols; c++) {
        void *col = sim_host_write((char *)d + c * ld->ld * size_of(ld->type), ld->rows * size_of(ld->type),
                                   "cublasLtMatmul writes");
        if (!col) return CUBLAS_STATUS_EXECUTION_FAILED;
        for (int64_t r = 0; r < ld->rows; r++) {
            float v = dot(&av[(size_t)(r * la->rows)], &bv[(size_t)(c * lb->rows)], la->rows, algo->data[1] != 0);
            v = finish(p->epilogue, v + (bias.empty() ? 0 : bias[(size_t)r]));
            if (ld->type == CUDA_R_32F)
                ((float *)col)[r] = v;
            else
                ((uint16_t *)col)[r] = f32_to_bf16(v);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}
