// The row loops on AVX2.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define rows_name rows_avx2
#include "kernels/cpu/rows_body.h"
#endif
