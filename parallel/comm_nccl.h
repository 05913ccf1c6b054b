// Ranks with a device each: messages and collectives by NCCL, on device memory.
//
// Takes a communicator of the host for what is not data: the id, agreement, splits. Verbs are enqueued behind what the
// compute stream holds, and what comes later on that stream waits for them; the host does not wait. comm_check does:
// it polls the streams and NCCL's asynchronous errors under the deadline, and aborts on either.
#ifndef PARALLEL_COMM_NCCL_H
#define PARALLEL_COMM_NCCL_H

#include "parallel/comm.h"

// Collective over `host`, which must outlive *out. `stream` is the cudaStream_t that ops run on; its device is the
// current one. comm_split of it makes children of both kinds.
int comm_nccl_open(struct comm **out, struct comm *host, void *stream, struct err *e);

#endif
