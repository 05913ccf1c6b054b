// Inside of worker/weights: models that others have saved under names of their own (spec: weights 6). Recognised by
// their names, a set's tensors get ours, so that nothing above knows of it.
#ifndef WORKER_WEIGHTS_SPELLING_H
#define WORKER_WEIGHTS_SPELLING_H

#include "worker/weights/format.h"

// Gives the set that is being added our names. E_INPUT when it holds a tensor in two spellings.
int spelling_settle(struct weights *w, struct err *e);

#endif
