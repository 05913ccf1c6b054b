// The umT5 tokenizer: cleaning, normalising and unigram segmentation of a prompt, from tokenizer.json.
#ifndef WORKER_MODELS_UNIGRAM_H
#define WORKER_MODELS_UNIGRAM_H

#include "proto/base/arena.h"
#include "proto/base/err.h"

#include <stdint.h>

struct unigram;

int unigram_open(struct unigram **out, const char *tokenizer_json, struct err *e);
void unigram_free(struct unigram **u);
// Ids of UTF-8 `text` with the end token, at most `max` (the end token is kept); *n_lost is how many pieces did not
// fit. ids has room for `max`. E_INPUT for invalid UTF-8.
int unigram_encode(const struct unigram *u, const char *text, int32_t *ids, int max, int *n, int *n_lost,
                   struct err *e);

#endif
