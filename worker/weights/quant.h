// Inside of worker/weights only: weights that are stored as bytes with factors beside them.
#ifndef WORKER_WEIGHTS_QUANT_H
#define WORKER_WEIGHTS_QUANT_H

#include "worker/weights/format.h"

// Of the set that is being added: the parts of a quantised weight become one tensor under the weight's own name, with a
// factor for each of its outputs (tensor.scale); marks beside them go. What is stored in a way that is not read is
// E_INPUT, naming the tensor.
int quant_settle(struct weights *w, struct err *e);

#endif
