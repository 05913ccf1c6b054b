// Inside of gpusim only: what sim.cpp and fibers.cpp give each other.
#ifndef TESTS_GPUSIM_PARTS_H
#define TESTS_GPUSIM_PARTS_H

#include <cuda_runtime.h>

#include <functional>

#include "tests/gpusim/sim.h"

bool sim_is_device(const void *p);
const void *sim_device_read(const void *p, int64_t n, const char *who);
void *sim_device_write(void *p, int64_t n, const char *who);
struct sim_counts *sim_counting(void);
// Work of a stream that is done as late as the rules allow: when an event behind it or the stream is waited for, or
// something else is asked of the stream. It returns true when it is done; false: not yet.
void sim_later(cudaStream_t s, std::function<bool()> work);
void sim_catch_up(cudaStream_t s);
void sim_time_passes(float ms);
// While the stream is captured, work is kept and not done: true. What may not be asked then breaks the capture.
bool sim_note(cudaStream_t s, std::function<void()> work);
bool sim_breaks_capture(const char *what);
// `what`, with the kernel, block and thread that run, into buf.
void sim_where(char *buf, size_t n, const char *what);
// Ends the running launch; returns when no thread runs.
void sim_thread_gives_up();

#endif
