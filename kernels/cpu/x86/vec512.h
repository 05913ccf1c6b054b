// Sixteen floats. Include below the file's own `#pragma GCC target`.
#ifndef KERNELS_CPU_X86_VEC512_H
#define KERNELS_CPU_X86_VEC512_H

#include <immintrin.h>

typedef __m512 V;
enum { VN = 16 };

#define VEC static inline __attribute__((always_inline))
VEC V v_load(const float *p) { return _mm512_loadu_ps(p); }
VEC void v_store(float *p, V v) { _mm512_storeu_ps(p, v); }
VEC V v_set1(float f) { return _mm512_set1_ps(f); }
VEC V v_fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); } // a b + c
VEC V v_max(V a, V b) { return _mm512_max_ps(b, a); }           // a when either is NaN
VEC float v_reduce_add(V v) { return _mm512_reduce_add_ps(v); }
VEC float v_reduce_max(V v) { return _mm512_reduce_max_ps(v); }

// 2^t, to 2e-7; 0 far below, NaN kept.
VEC V v_exp2(V t)
{
    t = v_max(t, v_set1(-200));
    V whole = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = t - whole;
    V p = v_set1(1.5403530e-4f);
    p = v_fma(p, r, v_set1(1.33335581e-3f));
    p = v_fma(p, r, v_set1(9.61812911e-3f));
    p = v_fma(p, r, v_set1(5.55041087e-2f));
    p = v_fma(p, r, v_set1(2.40226507e-1f));
    p = v_fma(p, r, v_set1(6.93147181e-1f));
    p = v_fma(p, r, v_set1(1));
    return _mm512_scalef_ps(p, whole);
}

#endif
