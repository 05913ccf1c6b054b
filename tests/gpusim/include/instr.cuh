// Stand-in for kernels/cuda/ptx/instr.cuh: the same functions, done by the simulation.
#ifndef GPUSIM_INSTR_CUH
#define GPUSIM_INSTR_CUH

#include "tests/gpusim/sim.h"

#include <cuda_runtime.h>

#include <functional>

template <class T> inline T load(const T *p)
{
    T v;
    memcpy(&v, sim_read(p, sizeof(T)), sizeof(T));
    return v;
}
template <class T> inline void store(T *p, T v) { memcpy(sim_write(p, sizeof(T)), &v, sizeof(T)); }
inline char *shared_memory() { return sim_shared(); }
inline void copy_start16(void *to, const void *from, int bytes) { sim_copy_start(to, from, bytes); }
inline void copy_commit() { sim_copy_commit(); }
template <int N> inline void copy_wait() { sim_copy_wait(N); }

inline void sync_block() { sim_sync_block(); }
inline void sync_warp() { sim_sync_warp(); }
inline float shuffle_xor(float v, int lanes)
{
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = sim_shuffle_xor(bits, lanes);
    memcpy(&v, &bits, sizeof v);
    return v;
}
inline double shuffle_xor(double v, int lanes)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof v);
    bits = sim_shuffle_xor(bits, lanes);
    memcpy(&v, &bits, sizeof v);
    return v;
}
inline bool any_lane(bool v) { return sim_any_lane(v); }
inline void device_fault() { sim_fault("the kernel trapped"); }

inline void matrix_load4(unsigned r[4], const void *row) { sim_matrix_load4(r, row, false); }
inline void matrix_load4_turned(unsigned r[4], const void *row) { sim_matrix_load4(r, row, true); }
inline void mma_bf16(float c[4], const unsigned a[4], unsigned b0, unsigned b1) { sim_mma_bf16(c, a, b0, b1); }

inline unsigned short bf16_bits(float v) { return f32_to_bf16(v); }
inline unsigned bf16_pair(float low, float high) { return f32_to_bf16(low) | (unsigned)f32_to_bf16(high) << 16; }
inline unsigned short f16_bits(float v) { return f32_to_f16(v); }
inline float f16_value(unsigned short h) { return f16_to_f32(h); }
inline float power_of_2(float v) { return exp2f(v); }

void sim_catch_up(cudaStream_t s);
bool sim_note(cudaStream_t s, std::function<void()> work); // while s is captured: kept instead of done
void sim_tensor_taken(const void *p, int64_t bytes);
void sim_tensor_given_back(cudaStream_t s, const void *p, int64_t bytes);
template <class F> void sim_call(void *f) { (*(F *)f)(); }
template <class K, class... A>
void sim_launch_of(cudaStream_t s, const char *name, dim3 blocks, dim3 threads, size_t shared, K kernel, A... arguments)
{
    auto f = [=] { kernel(arguments...); };
    auto launch = [=] { sim_launch(name, blocks, threads, shared, sim_call<decltype(f)>, (void *)&f); };
    if (sim_note(s, launch)) return;
    sim_catch_up(s);
    launch();
}
#define LAUNCH(d, kernel, blocks, threads, shared, ...)                                                                \
    do {                                                                                                               \
        const dim3 blocks_(blocks);                                                                                    \
        if (blocks_.x == 0 || blocks_.y == 0 || blocks_.z == 0) break;                                                 \
        sim_launch_of(cuda_stream(d), #kernel, blocks_, (threads), (size_t)(shared), (kernel), __VA_ARGS__);           \
        cuda_launched(d, #kernel);                                                                                     \
    } while (0)

inline void memory_taken(const void *p, int64_t bytes) { sim_tensor_taken(p, bytes); }
// What the stream still has to do may touch it.
#define memory_given_back(d, p, bytes) sim_tensor_given_back(cuda_stream(d), p, bytes)
enum { MEMORY_GAP = 256 };

#endif
