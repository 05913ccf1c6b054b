// Ranks as threads of this process: for tests, which then need no launcher, and for a CPU group in one process.
//
// A rank whose function returns is gone: who still waits for it is at fault at once (E_LOST), not at the deadline.
#ifndef PARALLEL_COMM_THREAD_H
#define PARALLEL_COMM_THREAD_H

#include "parallel/comm.h"

// Runs `rank` once per rank, each on its own thread with its own world, which it must not close; children it made it
// must. Returns the worst code, with the sentence of the lowest rank that has it.
int comm_thread_run(int n, int (*rank)(struct comm *world, void *ctx, struct err *e), void *ctx, struct err *e);

#endif
