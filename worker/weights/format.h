// Inside of worker/weights only: a mapped file and the records that its reader adds.
#ifndef WORKER_WEIGHTS_FORMAT_H
#define WORKER_WEIGHTS_FORMAT_H

#include "proto/base/arena.h"
#include "worker/weights/weights.h"

struct weights_file {
    char *path;
    const uint8_t *map;
    uint64_t size;
    int set; // which weights_add brought it, from 1
    struct weights_file *next;
};

// Adds one tensor. `t.dtype` DT_NONE keeps the record but refuses its use, naming `dtype_name`. E_INPUT when this file
// has the name already. Data that is not aligned to its element size is copied.
int weights_add_record(struct weights *w, struct weights_file *f, const char *name, tensor t, const char *dtype_name,
                       struct err *e);
void weights_add_meta(struct weights *w, const char *key, const char *value);

// One file, by its content.
int weights_add_file(struct weights *w, const char *path, struct err *e);
// Whether `name` came with the set that is being added.
bool weights_is_new(const struct weights *w, const char *name);
// Gives the tensors of the set that is being added the names that `rename` makes of theirs (false: they keep them).
// Over those of earlier sets they win, as ever.
typedef bool rename_fn(const void *ctx, const char *name, char *out, size_t n);
int weights_rename(struct weights *w, rename_fn *rename, const void *ctx, struct err *e);
// Drops the tensors of the set that is being added whose names `is` knows.
int weights_drop(struct weights *w, bool (*is)(const char *name), struct err *e);
void weights_set(struct weights *w, const char *name, tensor t); // another view of what a file holds
// Memory that lives as long as the set.
void *weights_alloc(struct weights *w, size_t n_bytes);
// Sharded sets: an index file, or a folder with an index, with numbered shards, or with one weights file.
int shards_add_index(struct weights *w, const char *path, struct err *e);
int shards_add_folder(struct weights *w, const char *path, struct err *e);

int safetensors_read(struct weights *w, struct weights_file *f, struct err *e);
int torchpt_read(struct weights *w, struct weights_file *f, struct err *e);

// Checked arithmetic of hostile numbers: true on overflow.
static inline bool add_overflows(uint64_t a, uint64_t b, uint64_t *sum) { return __builtin_add_overflow(a, b, sum); }
static inline bool mul_overflows(uint64_t a, uint64_t b, uint64_t *product)
{
    return __builtin_mul_overflow(a, b, product);
}
static inline uint64_t le_bytes(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}
// A name of at most 4096 bytes of UTF-8 without NUL.
bool name_is_valid(const char *s, size_t n);

#endif
