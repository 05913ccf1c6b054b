// The `normalizer` of tokenizer.json: a list of steps that a text goes through.
#ifndef WORKER_MODELS_TEXT_NORMALIZE_H
#define WORKER_MODELS_TEXT_NORMALIZE_H

#include "proto/json.h"
#include "worker/models/text/charsmap.h"

enum { NORMALIZE_STEPS_MAX = 16, NORMALIZED_MAX = 1 << 20 }; // steps; bytes of a text on the way

struct normalize_step;
struct normalizer {
    struct normalize_step *step;
    int n;
};

// `j` is the object, JSON's null, or NULL: no steps. What is kept lives in `a`.
int normalizer_read(struct normalizer *m, struct arena *a, const json_t *j, struct err *e);
// `out` becomes the normal form of s. E_INPUT when it grows beyond NORMALIZED_MAX.
int normalizer_apply(const struct normalizer *m, struct text *out, const char *s, size_t n, struct err *e);

#endif
