// Attention in F32 on AVX2: a register tile of 6 rows and one panel.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include "kernels/cpu/x86/vec256.h"

typedef float STEP;
enum { STEP_SUMS = 1, TILE_ROWS = 6, TILE_PANELS = 1 };
#define DOT(acc, panel, row) v_fma(v_load(panel), v_set1(row), acc)
#define PUT(to, w)           v_store(to, w)
#define attend_name          attend_avx2
#include "kernels/cpu/x86/attend_body.h"
#endif
