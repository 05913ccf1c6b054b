// What a weights file, a sharded set or a model folder holds, and what it lacks to be whole: for `longtake weights
// inspect`. Files are hostile until read: whatever they are, the answer is a tree.
//
//   {"path", "kind": "model" | "file", "whole": bool, "problems": [sentence],
//    "name" (of a model),
//    "parts": [{"part" (as model.yaml calls it, of a model), "path", "format", "files", "holds": [word], "tensors",
//               "parameters", "bytes", "dtypes": {dtype: tensors}, "sizes": {word: number}, "lora": {...},
//               "list": [{"name", "dtype", "shape"}] (if asked for)}]}
#ifndef WORKER_INSPECT_INSPECT_H
#define WORKER_INSPECT_INSPECT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

// The caller owns the tree. `list`: with every tensor.
json_t *inspect_path(const char *path, bool list);
// The same for people.
void inspect_print(const json_t *tree, FILE *to);

#endif
