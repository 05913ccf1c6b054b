// The self-test of messages between devices: every verb on device memory against the same on the host's.
#ifndef WORKER_SELFTEST_RANKS_H
#define WORKER_SELFTEST_RANKS_H

#include "kernels/dev.h"
#include "parallel/comm.h"

#include <stdio.h>

// Collective over `card`, a transport of devices; rank 0 prints a line a verb with its rate and one of verdict. 0, or
// E_FATAL on all ranks when a value is wrong.
int selftest_ranks(struct dev *d, struct comm *card, FILE *to, struct err *e);

#endif
