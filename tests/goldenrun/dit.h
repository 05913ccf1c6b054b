// Opening the set's diffusion model, for the cases that need it.
#ifndef TESTS_GOLDENRUN_DIT_H
#define TESTS_GOLDENRUN_DIT_H

#include "tests/goldenrun/golden.h"
#include "worker/models/dit.h"

// What the metadata "config" of a weights file declares.
struct dit_config golden_dit_config(json_t *config);
// weights_<name> as a model in F32, published parity. NULL (and a failed line) when it does not load. The caller frees
// both.
struct dit *golden_dit_open(struct golden *g, const char *name, struct weights **w);

#endif
