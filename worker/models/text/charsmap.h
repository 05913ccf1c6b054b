// The compiled character map of SentencePiece ("Precompiled" in tokenizer.json): a trie of texts and their
// replacements.
#ifndef WORKER_MODELS_TEXT_CHARSMAP_H
#define WORKER_MODELS_TEXT_CHARSMAP_H

#include "proto/base/arena.h"
#include "proto/base/err.h"
#include "worker/models/text/text.h"

struct charsmap {
    uint32_t *unit; // double-array trie
    size_t n_units;
    const char *replacement; // NUL-terminated texts, one behind the other
    size_t n_replacement;
};

// From the Base64 text of tokenizer.json; what it holds lives in `a`.
int charsmap_read(struct charsmap *m, struct arena *a, const char *base64, size_t n, struct err *e);
void charsmap_apply(const struct charsmap *m, struct text *out, const char *s, size_t n);

#endif
