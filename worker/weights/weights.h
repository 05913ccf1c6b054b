// A set of named tensors from one or more weight files, read only, by mmap.
//
// Files are recognised by content (spec: weights 0.2), never by extension: safetensors, PyTorch zip. A path may be a
// file, an index.json of shards, or a folder of shards. Files are added in order; a later file wins a name collision
// (reported once in the log). Models saved under the names of others get ours (spelling.h). Nothing is copied: a tensor
// from weights_get points into the map, in the file's dtype.
#ifndef WORKER_WEIGHTS_WEIGHTS_H
#define WORKER_WEIGHTS_WEIGHTS_H

#include "kernels/dev.h"
#include "proto/base/err.h"

struct weights;
#define WEIGHTS_WAY "copy or fetch it again" // out of most that is wrong with a model's file

int weights_open(struct weights **out, const char *path, struct err *e); // owner: caller
int weights_new(struct weights **out, struct err *e);                    // an empty set, for weights_put; owner: caller
int weights_add(struct weights *w, const char *path, struct err *e);     // merge another file over it
void weights_free(struct weights **w);

int64_t weights_count(const struct weights *w);
const char *weights_name(const struct weights *w, int64_t i); // canonical names, in file order
bool weights_has(const struct weights *w, const char *name);
// The tensor as stored; may be non-contiguous for PyTorch files. A quantised weight is its bytes, with .scale. E_INPUT
// naming file and tensor when missing.
int weights_get(const struct weights *w, const char *name, tensor *out, struct err *e);
// The file that `name` came from, for messages.
const char *weights_file(const struct weights *w, const char *name);
// The string stored under `key` in safetensors __metadata__ of the last file that has it, or NULL.
const char *weights_meta(const struct weights *w, const char *key);
// Replaces (or adds) a tensor by one in host memory that must outlive `w`: LoRA merges, tests.
void weights_put(struct weights *w, const char *name, tensor t);

// What a model asks for. `shape` axes of -1 accept any length. The result lives in arena `a` as a contiguous tensor of
// dtype `t` (DT_NONE: as stored), rounded to nearest even; when the stored bytes already are that, it points into the
// map. E_INPUT sentences name file, tensor, expected and actual shape.
int weights_load(const struct weights *w, struct dev_arena *a, tensor *out, enum dtype t, const char *name, int n,
                 const int64_t *shape, struct err *e);
// The same, then op_pack for its use. A quantised weight of BF16 rows stays as it is stored where the device has
// products of such weights (op_keeps_quantised), and is times its factors elsewhere, as all of the above.
int weights_load_linear(const struct weights *w, struct dev_arena *a, tensor *out, enum dtype t, const char *name,
                        int64_t n_out, int64_t n_in, struct err *e);
int weights_load_conv(const struct weights *w, struct dev_arena *a, tensor *out, enum dtype t, const char *name,
                      const int64_t shape[5], struct err *e); // stored [o,i,(t,)h,w]; missing axes are 1

// Elements [from, from + n) of a quantised tensor, counted over both axes, times their factors, to `dst` of dtype t
// (F32, BF16 or F16).
void weights_widen(void *dst, enum dtype t, tensor quantised, int64_t from, int64_t n);

#endif
