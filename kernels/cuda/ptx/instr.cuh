// The instructions that kernels use, one line each, as a real device has them. tests/gpusim has a file of the same name
// and the same functions for the host compiler; the build list chooses. Kernels touch memory by load and store alone,
// whether it is the device's or the block's: that is what lets the simulation see every access.
#ifndef KERNELS_CUDA_INSTR_CUH
#define KERNELS_CUDA_INSTR_CUH

#include <cuda_runtime.h>

// ---- memory

template <class T> __device__ __forceinline__ T load(const T *p) { return *p; }
template <class T> __device__ __forceinline__ void store(T *p, T v) { *p = v; }
// The block's dynamic shared memory, as many bytes as the launch asked for.
__device__ __forceinline__ char *shared_memory()
{
    extern __shared__ __align__(128) char block_memory[];
    return block_memory;
}
__device__ __forceinline__ unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }
// 16 bytes from the device to the block without a register between; those past `bytes` arrive as zero.
__device__ __forceinline__ void copy_start16(void *to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
}
// Closes a group of copies; waits until at most N groups are under way (then a barrier shows them to the block).
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- threads

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }
__device__ __forceinline__ float shuffle_xor(float v, int lanes) { return __shfl_xor_sync(0xffffffffu, v, lanes); }
__device__ __forceinline__ double shuffle_xor(double v, int lanes) { return __shfl_xor_sync(0xffffffffu, v, lanes); }
__device__ __forceinline__ bool any_lane(bool v) { return __any_sync(0xffffffffu, v); }
// Ends the launch with a fault that dev_sync reports.
__device__ __forceinline__ void device_fault() { __trap(); }

// ---- tensor cores: 8 x 8 matrices of 16-bit elements, a row of 16 bytes at each lane's address

__device__ __forceinline__ void matrix_load4(unsigned r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)));
}
__device__ __forceinline__ void matrix_load4_turned(unsigned r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)));
}
// c [16, 8] += a [16, 16] b [16, 8], BF16 with F32 sums.
__device__ __forceinline__ void mma_bf16(float c[4], const unsigned a[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- numbers

__device__ __forceinline__ unsigned short bf16_bits(float v)
{
    unsigned short h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
// Two in one register, `low` in the lower half.
__device__ __forceinline__ unsigned bf16_pair(float low, float high)
{
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ unsigned short f16_bits(float v)
{
    unsigned short h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
__device__ __forceinline__ float f16_value(unsigned short h)
{
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h));
    return v;
}
__device__ __forceinline__ float power_of_2(float v)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

// ---- launches: LAUNCH(device, kernel, blocks, threads, shared bytes, the kernel's arguments...). No blocks: no
// launch.

#define LAUNCH(d, kernel, blocks, threads, shared, ...)                                                                \
    do {                                                                                                               \
        const dim3 blocks_(blocks);                                                                                    \
        if (blocks_.x == 0 || blocks_.y == 0 || blocks_.z == 0) break;                                                 \
        if ((shared) > 48 * 1024)                                                                                      \
            cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(shared));  \
        (kernel)<<<blocks_, (threads), (shared), cuda_stream(d)>>>(__VA_ARGS__);                                       \
        cuda_launched(d, #kernel);                                                                                     \
    } while (0)

// Tensors are handed out and taken back: the driver needs no word of it.
static inline void memory_taken(const void *, int64_t) {}
static inline void memory_given_back(struct dev *, const void *, int64_t) {}
enum { MEMORY_GAP = 0 };

#endif
