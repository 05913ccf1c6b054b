// Opening the set's VAE, for the cases that need it.
#ifndef TESTS_GOLDENRUN_VAE_H
#define TESTS_GOLDENRUN_VAE_H

#include "tests/goldenrun/golden.h"
#include "worker/models/vae.h"

// weights_vae with the mean and deviation of its metadata. NULL (and a failed line) when it does not load.
struct vae *golden_vae_open(struct golden *g, struct weights **w);

#endif
