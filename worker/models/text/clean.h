// Cleans a prompt as the published program does before it tokenises.
#ifndef WORKER_MODELS_TEXT_CLEAN_H
#define WORKER_MODELS_TEXT_CLEAN_H

#include "worker/models/text/text.h"

// `out` becomes the clean form of s: repaired, references of HTML decoded, runs of white space one blank, none at the
// ends.
void clean_prompt(struct text *out, const char *s, size_t n);

#endif
