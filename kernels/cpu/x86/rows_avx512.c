// The row loops on AVX-512. Whole vectors pay here, which the compiler would not choose by itself.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#define rows_name rows_avx512
#include "kernels/cpu/rows_body.h"
#endif
