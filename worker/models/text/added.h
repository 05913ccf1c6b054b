// The `added_tokens` of tokenizer.json: texts that are a token wherever they stand, whatever the segmentation says.
#ifndef WORKER_MODELS_TEXT_ADDED_H
#define WORKER_MODELS_TEXT_ADDED_H

#include "worker/models/text/normalize.h"
#include "worker/models/text/pieces.h"

struct added_token;
struct added {
    struct added_token *token;
    int32_t n;
    struct pieces raw, normal; // by number of token: sought in the text as written, in the normalised text
};

// `j` is the list, JSON's null, or NULL. A token that is also a piece of `vocab` has that piece's id. What is kept
// lives in `a`.
int added_read(struct added *t, struct arena *a, const json_t *j, const struct pieces *vocab,
               const struct normalizer *normalizer, struct err *e);
int32_t added_id(const struct added *t, const char *content); // or -1
int32_t added_highest_id(const struct added *t);              // or -1

// Cuts s into tokens and what is between. Each call gives the next part: its end, and the id of the token it is, or -1.
struct added_cut {
    const struct added *t;
    const struct pieces *set; // &t->raw or &t->normal
    const char *s;
    size_t n;
    size_t at;        // where the next part begins
    size_t end;       // of this part
    size_t next_end;  // of the token found behind this part; 0: none is waiting
    int32_t id, next; // id of this part or -1; of the waiting token
};
bool added_next(struct added_cut *c); // false: nothing is left

#endif
