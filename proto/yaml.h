// YAML by libyaml into the same tree as JSON: mappings, sequences, scalars (plain scalars become null, bool, integer,
// real by the JSON schema of YAML 1.2; quoted ones stay strings). Aliases, tags and duplicate keys are refused.
#ifndef PROTO_YAML_H
#define PROTO_YAML_H

#include "proto/json.h"

int yaml_parse(json_t **out, const char *what, const void *text, size_t n, struct err *e); // E_INPUT gives the line
int yaml_read(json_t **out, const char *path, struct err *e);

#endif
