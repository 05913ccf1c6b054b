// gpusim: a device that is not there. Kernels compiled by the host compiler run one fiber per CUDA thread, block after
// block, and every access to memory passes through here.
//
// Device memory has addresses that nothing maps: a pointer that is followed without load or store ends the program, be
// it a kernel's or the host's. Behind each byte stands its state: not handed out, handed out but never written,
// written. Shared memory is alike and starts as NaN; who touched which element since the last barrier is kept, so that
// a missing barrier is found even where the order of that run happens to be harmless. Warps take turns in an order
// drawn from a seed.
//
// What a kernel does wrong is the device's fault from then on: launches do nothing, cudaStreamSynchronize fails, and
// sim_fault_text tells what, which kernel, block and thread. What it cannot show: speed, and races between blocks.
#ifndef TESTS_GPUSIM_SIM_H
#define TESTS_GPUSIM_SIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/tensor.h"

// ---- for tests

void sim_seed(uint64_t seed);     // the order of warps from here on
const char *sim_fault_text(void); // "" when there is none
void sim_clear(void);             // forgets the fault
void sim_cards(int n, int arch);  // how many there are, and their architecture (default 1 card of sm_80)
void sim_driver(int version);     // that the machine has, as 1000 major + 10 minor; 0: none (default as the runtime's)
int sim_card_arch(void);          // 80, 90 ...
int sim_card_chosen(void);        // the process's card
void sim_card_bytes(int64_t n);   // its memory (default 16 GiB)
// What candidate i of the matrix library takes (default 1 each), and whether it refuses when it is run.
void sim_candidate(int i, float ms, bool refuses);
// Back to "handed out, never written", with NaN in it; then how many bytes of it are still so.
void sim_forget(const void *p, int64_t bytes);
int64_t sim_unwritten(const void *p, int64_t bytes);
// Loads from these bytes are counted apart as well; at most 8 ranges, and bytes 0 forgets them all.
void sim_watch(const void *p, int64_t bytes);
// Graphs that are launched do nothing.
void sim_graphs_fail(bool they_do);
struct sim_counts {
    int64_t launches, loaded, stored; // bytes of device memory
    int64_t watched;                  // of the loaded ones, those from watched ranges
    int64_t syncs, allocations;       // host waits; memory asked of the runtime or the driver
    int64_t graphs;                   // launched; what is in them counts as launches too
};
struct sim_counts sim_take_counts(void); // since the last call
const char *sim_capture_broken_by(void); // what the last capture that failed was asked for

// ---- for the stand-ins of libraries

// Device memory as the host may touch it, or NULL and a fault: n bytes that are written (read) or handed out (write).
const void *sim_host_read(const void *p, int64_t n, const char *who);
void *sim_host_write(void *p, int64_t n, const char *who);
void *sim_reserve(int64_t bytes); // addresses
void sim_memory_taken(const void *p, int64_t bytes);
void sim_memory_given_back(const void *p, int64_t bytes);
void sim_fault(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// ---- for instr.cuh: what a running thread may ask for

const void *sim_read(const void *p, size_t n);
void *sim_write(void *p, size_t n);
char *sim_shared(void);
void sim_copy_start(void *to, const void *from, int bytes);
void sim_copy_commit(void);
void sim_copy_wait(int n_left);
void sim_sync_block(void);
void sim_sync_warp(void);
uint64_t sim_shuffle_xor(uint64_t v, int lanes);
bool sim_any_lane(bool v);
void sim_matrix_load4(unsigned r[4], const void *row, bool turned);
void sim_mma_bf16(float c[4], const unsigned a[4], unsigned b0, unsigned b1);

#ifdef __cplusplus
}

struct dim3;
void sim_launch(const char *kernel, const dim3 &blocks, const dim3 &threads, size_t shared, void (*call)(void *),
                void *kernel_of);
#endif

#endif
