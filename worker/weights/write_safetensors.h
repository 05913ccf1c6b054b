// Writes safetensors as a stream: the directory first, then the tensors' bytes in its order.
#ifndef WORKER_WEIGHTS_WRITE_SAFETENSORS_H
#define WORKER_WEIGHTS_WRITE_SAFETENSORS_H

#include "worker/weights/outfile.h"

struct safetensors_out;

// `heads` must live until close. `meta` is NULL or key, value, key, value, ..., NULL for __metadata__.
int safetensors_create(struct safetensors_out **out, const char *path, const struct tensor_head *heads, int64_t n,
                       const char *const *meta, struct err *e);
// The next bytes, in pieces of any size; tensors follow each other without a gap.
int safetensors_put(struct safetensors_out *s, const void *bytes, size_t n, struct err *e);
// BUG when bytes are missing. The handle is gone in any case.
int safetensors_close(struct safetensors_out **s, struct err *e);
void safetensors_free(struct safetensors_out **s); // gives up

// ---- sharded sets

// Which shard (0-based) each tensor goes to, so that the shards are of about equal bytes and keep the order.
void shards_assign(int *shard, const struct tensor_head *heads, int64_t n, int n_shards);
// "diffusion_pytorch_model-00001-of-00007.safetensors" of stem "diffusion_pytorch_model", i 0.
void shard_file_name(char *buf, size_t size, const char *stem, int i, int n_shards);
// Writes PATH: {"metadata": {"total_size": bytes}, "weight_map": {name: file}}.
int shards_write_index(const char *path, const char *stem, const struct tensor_head *heads, const int *shard, int64_t n,
                       int n_shards, struct err *e);

#endif
