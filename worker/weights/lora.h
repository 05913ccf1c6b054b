// LoRA: low-rank changes merged into the weights once, at load (spec: weights 4, dit 8).
#ifndef WORKER_WEIGHTS_LORA_H
#define WORKER_WEIGHTS_LORA_H

#include "proto/base/arena.h"
#include "worker/weights/weights.h"

struct lora_report {
    int n_applied; // targets changed
    int n_ignored; // keys passed over (published mode only)
};

// Merges the file at `path` into `w` with `scale`: W += scale (alpha/rank) up down, in F32, rounded once to the stored
// dtype `t` (the compute dtype of the model). Merged tensors live in `a`. `published` reproduces the released program:
// only `diffusion_model.` keys with lora_down/lora_up/diff/diff_b, no alpha. A file that changes nothing, an unknown
// target or a wrong shape is E_INPUT by name.
// `t` is F32, BF16 or F16.
int lora_merge(struct weights *w, struct arena *a, const char *path, double scale, enum dtype t, bool published,
               struct lora_report *r, struct err *e);

#endif
