// Attention on AVX-512 with BF16 products: softmax weights are rounded to BF16, sums are F32.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")
#include "kernels/cpu/x86/vec512.h"

#include <stdint.h>

typedef uint32_t STEP;
enum { STEP_SUMS = 2, TILE_ROWS = 8, TILE_PANELS = 2 };
#define DOT(acc, panel, row)                                                                                           \
    _mm512_dpbf16_ps(acc, (__m512bh)_mm512_loadu_si512(panel), (__m512bh)_mm512_set1_epi32((int)(row)))
#define PUT(to, w)  _mm256_storeu_si256((__m256i *)(to), (__m256i)_mm512_cvtneps_pbh(w))
#define attend_name attend_bf16
#include "kernels/cpu/x86/attend_body.h"
#endif
