// What this machine can do at best, measured: multiplications in registers, and bytes through memory.
#ifndef BENCH_ROOF_H
#define BENCH_ROOF_H

#include "kernels/tensor.h"

// Seconds of a steady clock.
double roof_now(void);
// Operations a second (a multiply-add counts two) that n threads reach with their best instruction for products of
// dtype, operands in registers. 0 when there is none for it.
double roof_products(enum dtype t, int n_threads);
// Bytes a second, read plus written, that n threads copy between buffers far larger than the caches.
double roof_copy(int n_threads);
// "avx512_bf16", "avx2", ..: the instruction that roof_products used.
const char *roof_instruction(enum dtype t);

#endif
