// The worker as a server of orders: OPEN, RUN after RUN, CLOSE, until the coordinator says BYE.
#ifndef WORKER_SERVE_H
#define WORKER_SERVE_H

#include "worker/link.h"
#include "worker/ranks.h"
#include "worker/set.h"

// Serves until ORDER_BYE. 0, or the error that ends this process: a job's own mistakes are told as FAILED and do not.
// `advice` is told with every job, as a notice; "": nothing is.
// Collective: rank 0 has the link, the others NULL, and all act in step.
int serve_run(struct link *l, struct ranks *r, struct set *s, const char *cache_dir, const char *advice, struct err *e);

#endif
