// Eight floats. Include below the file's own `#pragma GCC target`.
#ifndef KERNELS_CPU_X86_VEC256_H
#define KERNELS_CPU_X86_VEC256_H

#include <immintrin.h>

typedef __m256 V;
enum { VN = 8 };

#define VEC static inline __attribute__((always_inline))
VEC V v_load(const float *p) { return _mm256_loadu_ps(p); }
VEC void v_store(float *p, V v) { _mm256_storeu_ps(p, v); }
VEC V v_set1(float f) { return _mm256_set1_ps(f); }
VEC V v_fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); } // a b + c
VEC V v_max(V a, V b) { return _mm256_max_ps(b, a); }           // a when either is NaN

VEC float v_reduce_add(V v)
{
    __m128 h = _mm256_castps256_ps128(v) + _mm256_extractf128_ps(v, 1);
    h = h + _mm_movehl_ps(h, h);
    return h[0] + h[1];
}

VEC float v_reduce_max(V v)
{
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return h[0] > h[1] ? h[0] : h[1];
}

// 2^t, to 2e-7; 0 below 2^-126, NaN kept.
VEC V v_exp2(V t)
{
    V low = _mm256_cmp_ps(t, v_set1(-126), _CMP_LT_OQ);
    t = v_max(t, v_set1(-126));
    V whole = _mm256_round_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = t - whole;
    V p = v_set1(1.5403530e-4f);
    p = v_fma(p, r, v_set1(1.33335581e-3f));
    p = v_fma(p, r, v_set1(9.61812911e-3f));
    p = v_fma(p, r, v_set1(5.55041087e-2f));
    p = v_fma(p, r, v_set1(2.40226507e-1f));
    p = v_fma(p, r, v_set1(6.93147181e-1f));
    p = v_fma(p, r, v_set1(1));
    __m256i up = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(low, p * _mm256_castsi256_ps(up));
}

#endif
