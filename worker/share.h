// Orders, and who the ranks are, told from rank 0 to all.
#ifndef WORKER_SHARE_H
#define WORKER_SHARE_H

#include "worker/link.h"
#include "worker/ranks.h"

// Rank 0 gives the order, the others NULL: all return it, the same bytes. Its voice stays with rank 0. Waits for rank 0
// without a limit of time, for an order may be long in coming. Collective. E_LOST when the ranks do not hear each
// other.
int share_order(const struct ranks *r, struct order **o, struct err *e);

#endif
