// What a job is made from, by content: two jobs with equal trees give equal films.
#ifndef DAEMON_INPUTS_H
#define DAEMON_INPUTS_H

#include "proto/spec.h"

// The name of a file's content, its BLAKE2b as 64 hexadecimal digits. E_INPUT: "cannot read it: ..."; the
// caller says what it is.
int inputs_hash(char name[65], const char *path, struct err *e);
// The tree of a resolved spec (spec_write), with contents in place of paths, and marks of the weights and the program;
// where the film goes is left out. The caller owns *out (json_decref). E_INPUT names a file that cannot be read.
int inputs_name(json_t **out, const struct spec *s, const struct model *m, struct err *e);
// The first key in which two such trees differ, or NULL.
const char *inputs_differ(const json_t *a, const json_t *b);

#endif
