// Marks of weights: equal for equal files, on whatever machine, so that two programs can tell whether they have the
// same model without reading all of it.
#ifndef PROTO_MARK_H
#define PROTO_MARK_H

#include "proto/model.h"

#include <stdint.h>

enum { MARK_BYTES = 32 };

// What decides which weights a group loads, and how. NULL: the model folder's own.
struct mark_set {
    const char *dit, *adapter, *voice; // parts elsewhere than in the folder
    int n_speakers;
    bool bf16, published;
    const char *const *lora;
    const double *lora_scale;
    int n_lora;
};

// Of the model's parts: the names, sizes, first and last bytes of their files.
void mark_weights(uint8_t mark[MARK_BYTES], const struct model *m);
// Of a set that is loaded from it.
void mark_set(uint8_t mark[MARK_BYTES], const struct model *m, const struct mark_set *s);

#endif
