// Inside of worker/inspect: one set of weights, told by its names and shapes.
#ifndef WORKER_INSPECT_PART_H
#define WORKER_INSPECT_PART_H

#include "worker/weights/weights.h"

#include <jansson.h>

// Puts into `part` what `w` holds: counts, dtypes, "holds", "sizes"; appends a sentence to `problems` for whatever a
// network that it holds lacks.
void part_examine(json_t *part, json_t *problems, const struct weights *w);
// Appends every tensor to part["list"].
void part_list(json_t *part, const struct weights *w);
// part["lora"], if there are keys of a LoRA: "pairs", "changes", "alphas", "ranks": [n], "targets": {module: count}.
bool part_lora(json_t *part, json_t *problems, const struct weights *w);

// Text as JSON; bytes that are no UTF-8 become question marks.
json_t *text_json(const char *text);
// A sentence onto a list, printf style.
void problem_add(json_t *problems, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
