// Stand-in for cuBLASLt: column-major products with F32 sums, and the library's own care for its arguments.
//
// It offers two candidates for every product that the real library would take: in the second, the sum runs backwards,
// so its bytes differ now and then, as those of another tile order do; a test says how long each takes. All of a matrix
// must be handed-out memory, and all that is read must have been written. Products of bytes it knows from the
// architecture on that does, and factors of rows and columns on sm_90 alone; what it does not know has no candidate.
#include "tests/gpusim/parts.h"

#include <cublasLt.h>

#include <vector>

enum { MAGIC = 0x6c74, CANDIDATES = 2 };

static struct {
    float ms;
    bool refuses;
} candidates[CANDIDATES] = {{1, false}, {1, false}};

void sim_candidate(int i, float ms, bool refuses) { candidates[i] = {ms, refuses}; }

struct sim_lt {
    int magic;
};
struct sim_lt_product {
    cublasOperation_t turn_a;
    cublasLtEpilogue_t epilogue;
    const void *bias, *scale[2]; // of a, of b
    int32_t scale_mode[2];
    bool whole; // numbers
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
    bool whole = compute == CUBLAS_COMPUTE_32I;
    if (scale != (whole ? CUDA_R_32I : CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
    *p = new sim_lt_product{CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, {}, {}, whole};
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
    const struct {
        cublasLtMatmulDescAttributes_t which;
        void *at;
        size_t size;
    } known[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &p->turn_a, 4},
                 {CUBLASLT_MATMUL_DESC_EPILOGUE, &p->epilogue, 4},
                 {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias},
                 {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p->scale[0], sizeof p->bias},
                 {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p->scale[1], sizeof p->bias},
                 {CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &p->scale_mode[0], 4},
                 {CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &p->scale_mode[1], 4}};
    void *to = nullptr;
    for (const auto &k : known)
        if (k.which == which && k.size == size) to = k.at;
    if (!to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType type, uint64_t rows, uint64_t cols,
                                          int64_t ld)
{
    if (rows == 0 || cols == 0 || ld < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
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

static int size_of(cudaDataType t) { return t == CUDA_R_32F || t == CUDA_R_32I ? 4 : t == CUDA_R_16BF ? 2 : 1; }

// Whether there is such a product on this card.
static bool is_known(const sim_lt_product *p, const sim_lt_layout *a, const sim_lt_layout *b, const sim_lt_layout *d)
{
    bool plain = p->epilogue == CUBLASLT_EPILOGUE_DEFAULT, rows = p->scale_mode[0] != 0 || p->scale_mode[1] != 0;
    if (a->type != b->type || p->whole != (a->type == CUDA_R_8I)) return false;
    switch (a->type) {
    case CUDA_R_32F:
        return d->type == CUDA_R_32F && !rows;
    case CUDA_R_16BF:
        return (d->type == CUDA_R_16BF || (d->type == CUDA_R_32F && plain)) && !rows;
    case CUDA_R_8I:
        return d->type == CUDA_R_32I && plain && !rows && a->ld % 4 == 0 && b->ld % 4 == 0 && a->rows % 4 == 0;
    case CUDA_R_8F_E4M3:
        if (rows && (sim_card_arch() != 90 || p->scale_mode[0] != CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F ||
                     p->scale_mode[1] != CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F || !p->scale[0] || !p->scale[1]))
            return false;
        return sim_card_arch() >= 89 && (d->type == CUDA_R_16BF || (d->type == CUDA_R_32F && plain)) &&
               a->ld % 16 == 0 && b->ld % 16 == 0 && a->rows % 16 == 0 && d->rows % 16 == 0;
    default:
        return false;
    }
}

// What the real library checks of a product, whatever the addresses.
static bool fits(const sim_lt *lt, const sim_lt_product *p, const sim_lt_layout *a, const sim_lt_layout *b,
                 const sim_lt_layout *d)
{
    bool with_bias = (p->epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
    int64_t m = p->turn_a == CUBLAS_OP_T ? a->cols : a->rows, k = p->turn_a == CUBLAS_OP_T ? a->rows : a->cols;
    return lt->magic == MAGIC && m == d->rows && b->cols == d->cols && k == b->rows &&
           (!with_bias || (p->bias && (uintptr_t)p->bias % 16 == 0));
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t p, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t w, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t *found, int *n_found)
{
    *n_found = 0;
    if (!fits(lt, p, a, b, d) || n_wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    if (!is_known(p, a, b, d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < CANDIDATES && i < n_wanted; i++) {
        found[i] = {};
        found[i].algo.data[0] = MAGIC;
        found[i].algo.data[1] = (uint64_t)i;
        found[i].workspaceSize = w->workspace;
        *n_found = i + 1;
    }
    return CUBLAS_STATUS_SUCCESS;
}

static float element(cudaDataType t, const void *p, int64_t i)
{
    return t == CUDA_R_32F       ? ((const float *)p)[i]
           : t == CUDA_R_16BF    ? bf16_to_f32(((const uint16_t *)p)[i])
           : t == CUDA_R_8F_E4M3 ? f8_e4m3_to_f32(((const uint8_t *)p)[i])
                                 : (float)((const int8_t *)p)[i];
}

// n factors, or ones; empty after a fault.
static std::vector<float> factors(const void *p, int64_t n)
{
    std::vector<float> v((size_t)n, 1.f);
    if (!p) return v;
    const float *at = (const float *)sim_host_read(p, n * 4, "cublasLtMatmul reads");
    if (!at) return {};
    for (int64_t i = 0; i < n; i++) v[(size_t)i] = at[i];
    return v;
}

// A matrix as F32, column after column; empty after a fault.
static std::vector<float> matrix(const void *p, const sim_lt_layout *l)
{
    std::vector<float> v((size_t)(l->rows * l->cols));
    for (int64_t c = 0; c < l->cols; c++) {
        const char *at = (const char *)p + c * l->ld * size_of(l->type);
        const void *col = sim_host_read(at, l->rows * size_of(l->type), "cublasLtMatmul reads");
        if (!col) return {};
        for (int64_t r = 0; r < l->rows; r++) v[(size_t)(c * l->rows + r)] = element(l->type, col, r);
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

static int dot_whole(const float *a, const float *b, int64_t k)
{
    int sum = 0;
    for (int64_t i = 0; i < k; i++) sum += (int)a[i] * (int)b[i];
    return sum;
}

// The product itself, from copies of what describes it.
static cublasStatus_t multiply(sim_lt_product p, const void *a, sim_lt_layout la, const void *b, sim_lt_layout lb,
                               void *d, sim_lt_layout ld, bool backwards)
{
    std::vector<float> av = matrix(a, &la), bv = matrix(b, &lb), bias;
    if (p.epilogue & CUBLASLT_EPILOGUE_BIAS) {
        sim_lt_layout column = {ld.type, ld.rows, 1, ld.rows};
        bias = matrix(p.bias, &column);
        if (bias.empty()) return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    std::vector<float> fa = factors(p.scale[0], ld.rows), fb = factors(p.scale[1], ld.cols);
    if (av.empty() || bv.empty() || fa.empty() || fb.empty()) return CUBLAS_STATUS_EXECUTION_FAILED;
    sim_counting()->launches++;
    for (int64_t c = 0; c < ld.cols; c++) {
        void *col = sim_host_write((char *)d + c * ld.ld * size_of(ld.type), ld.rows * size_of(ld.type),
                                   "cublasLtMatmul writes");
        if (!col) return CUBLAS_STATUS_EXECUTION_FAILED;
        for (int64_t r = 0; r < ld.rows; r++) {
            float v = dot(&av[(size_t)(r * la.rows)], &bv[(size_t)(c * lb.rows)], la.rows, backwards);
            v = finish(p.epilogue, v * fa[(size_t)r] * fb[(size_t)c] + (bias.empty() ? 0 : bias[(size_t)r]));
            if (ld.type == CUDA_R_32F)
                ((float *)col)[r] = v;
            else if (ld.type == CUDA_R_32I)
                ((int *)col)[r] = dot_whole(&av[(size_t)(r * la.rows)], &bv[(size_t)(c * lb.rows)], la.rows);
            else
                ((uint16_t *)col)[r] = f32_to_bf16(v);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t p, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *, cublasLtMatrixLayout_t, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_size, cudaStream_t s)
{
    if (sim_fault_text()[0]) return CUBLAS_STATUS_EXECUTION_FAILED;
    bool unit = p->whole ? *(const int *)alpha == 1 && *(const int *)beta == 0
                         : *(const float *)alpha == 1 && *(const float *)beta == 0;
    if (!fits(lt, p, la, lb, ld) || !is_known(p, la, lb, ld) || !unit || !s || p->turn_a != CUBLAS_OP_T ||
        algo->data[0] != MAGIC || !sim_is_device(workspace) || workspace_size == 0 ||
        (uintptr_t)a % (uintptr_t)size_of(la->type) != 0 ||
        (size_of(la->type) == 1 && ((uintptr_t)a % 16 != 0 || (uintptr_t)b % 16 != 0)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (candidates[algo->data[1]].refuses) return CUBLAS_STATUS_NOT_SUPPORTED;
    sim_time_passes(candidates[algo->data[1]].ms);
    const bool backwards = algo->data[1] != 0;
    const sim_lt_product product = *p;
    const sim_lt_layout a_is = *la, b_is = *lb, d_is = *ld;
    auto work = [=] { return multiply(product, a, a_is, b, b_is, d, d_is, backwards); };
    if (sim_note(s, [=] { work(); })) return CUBLAS_STATUS_SUCCESS;
    sim_catch_up(s);
    return work();
}
