// Roofs. Products: twelve independent chains of multiply-adds in registers, so that neither latency nor memory counts.
// Copy: each thread copies its own part, which it touched first.
#include "bench/roof.h"

#include "proto/base/err.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHAINS = 12, TURNS = 1 << 20, TRIES = 5 };

#define SECONDS 1 // at least: on a busy machine a moment may have no CPU to itself

double roof_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// Each returns the operations of one run; the sum goes out so that nothing is optimised away.
typedef double spin_fn(float *out);

#define SPIN(name, target_text, V, ZERO, BITS, STEP_CODE, ops_per_step)                                                \
    __attribute__((target(target_text))) static double name(float *out)                                                \
    {                                                                                                                  \
        V acc[CHAINS], m = BITS;                                                                                       \
        __asm__ volatile("" : "+v"(m)); /* not a constant to the compiler */                                           \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] = ZERO + (float)i; /* no two alike */         \
        for (int t = 0; t < TURNS; t++) _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] = STEP_CODE;  \
        for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];                                                             \
        *out = acc[0][0];                                                                                              \
        return (double)TURNS * CHAINS * (ops_per_step);                                                                \
    }

// Small factors, so that sums stay normal numbers.
SPIN(spin_avx2, "avx2,fma", __m256, _mm256_set1_ps(1), _mm256_set1_ps(1e-4f), _mm256_fmadd_ps(m, m, acc[i]), 16)
SPIN(spin_avx512, "avx512f", __m512, _mm512_set1_ps(1), _mm512_set1_ps(1e-4f), _mm512_fmadd_ps(m, m, acc[i]), 32)
SPIN(spin_bf16, "avx512f,avx512bf16", __m512, _mm512_set1_ps(1), (__m512)_mm512_set1_epi32(0x3c003c00),
     _mm512_dpbf16_ps(acc[i], (__m512bh)m, (__m512bh)m), 64)

static spin_fn *spin_for(enum dtype t, const char **name)
{
    __builtin_cpu_init();
    bool avx512 = __builtin_cpu_supports("avx512f"), half = __builtin_cpu_supports("avx512bf16");
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    *name = t == DT_BF16 && half ? "avx512_bf16" : avx512 ? "avx512" : avx2 ? "avx2" : "none";
    return t == DT_BF16 && half ? spin_bf16 : avx512 ? spin_avx512 : avx2 ? spin_avx2 : NULL;
}

const char *roof_instruction(enum dtype t)
{
    const char *name;
    spin_for(t, &name);
    return name;
}

double roof_products(enum dtype t, int n_threads)
{
    const char *name;
    spin_fn *spin = spin_for(t, &name);
    double best = 0, begun = roof_now();
    for (int i = 0; spin && (i < TRIES || roof_now() - begun < SECONDS); i++) {
        double ops = 0, start = roof_now();
#pragma omp parallel num_threads(n_threads) reduction(+ : ops)
        {
            float sink;
            ops += spin(&sink);
            __asm__ volatile("" ::"r"(&sink) : "memory");
        }
        double rate = ops / (roof_now() - start);
        if (rate > best) best = rate;
    }
    return best;
}

double roof_copy(int n_threads)
{
    const size_t bytes = (size_t)256 << 20, part = bytes / (size_t)n_threads / 64 * 64;
    char *from = aligned_alloc(64, bytes), *to = aligned_alloc(64, bytes);
    BUG_IF(!from || !to, "no memory for the copy roof");
    double best = 0;
    for (int i = 0; i <= TRIES; i++) {
        double start = roof_now();
#pragma omp parallel for num_threads(n_threads) schedule(static)
        for (int k = 0; k < n_threads; k++)
            if (i == 0) {
                memset(from + part * (size_t)k, 1, part);
                memset(to + part * (size_t)k, 2, part);
            } else
                memcpy(to + part * (size_t)k, from + part * (size_t)k, part);
        double rate = 2 * (double)(part * (size_t)n_threads) / (roof_now() - start);
        if (i > 0 && rate > best) best = rate;
    }
    free(from);
    free(to);
    return best;
}
