// Attention in F32 on AVX-512: a register tile of 8 rows and two panels.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "kernels/cpu/x86/vec512.h"

typedef float STEP;
enum { STEP_SUMS = 1, TILE_ROWS = 8, TILE_PANELS = 2 };
#define DOT(acc, panel, row) v_fma(v_load(panel), v_set1(row), acc)
#define PUT(to, w)           v_store(to, w)
#define attend_name          attend_avx512
#include "kernels/cpu/x86/attend_body.h"
#endif
