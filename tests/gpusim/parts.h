// Inside of gpusim only: what sim.cpp and fibers.cpp give each other.
#ifndef TESTS_GPUSIM_PARTS_H
#define TESTS_GPUSIM_PARTS_H

#include "tests/gpusim/sim.h"

bool sim_is_device(const void *p);
const void *sim_device_read(const void *p, int64_t n, const char *who);
void *sim_device_write(void *p, int64_t n, const char *who);
void sim_count_launch();
// `what`, with the kernel, block and thread that run, into buf.
void sim_where(char *buf, size_t n, const char *what);
// Ends the running launch; returns when no thread runs.
void sim_thread_gives_up();

#endif
