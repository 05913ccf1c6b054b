// Opening the set's picture encoder, for the cases that need it.
#ifndef TESTS_GOLDENRUN_CLIP_H
#define TESTS_GOLDENRUN_CLIP_H

#include "tests/goldenrun/golden.h"
#include "worker/models/clip.h"

// weights_clip with what its metadata declares. NULL (and a failed line) when it does not load.
struct clip *golden_clip_open(struct golden *g, struct weights **w);

#endif
