// Names of the diffusion transformer's modules as others spell them: with underscores for dots (kohya), by the
// diffusers names (spec: weights 6.1), or both. A module is a tensor's name without .weight or .bias; a modulation
// table is one by itself.
#ifndef WORKER_WEIGHTS_NAMES_H
#define WORKER_WEIGHTS_NAMES_H

#include "worker/weights/weights.h"

struct names;

// The modules of the tensors of `w`, which must outlive the table. Owner: caller.
struct names *names_new(const struct weights *w);
void names_free(struct names **n);
// Our name of the module that `text` means, or NULL.
const char *names_find(const struct names *n, const char *text);
// How many modules are told by two spellings that mean another module too: 0 in a sound model.
int64_t names_collisions(const struct names *n);

// Our module's name as diffusers spells it; false where both spell it alike.
bool names_to_diffusers(char *out, size_t n, const char *module);
// A tensor's name as diffusers spells it, in our spelling; false where both spell it alike or it is unknown.
bool names_from_diffusers(char *out, size_t n, const char *name);

#endif
