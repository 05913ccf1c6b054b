// Inside of worker/weights only: a mapped file and the records that its reader adds.
#ifndef WORKER_WEIGHTS_FORMAT_H
#define WORKER_WEIGHTS_FORMAT_H

#include "proto/base/arena.h"
#include "worker/weights/weights.h"

struct weights_file {
    char *path;
    const uint8_t *map;
    uint64_t size;
    struct weights_file *next;
};

// Adds one tensor. `t.dtype` DT_NONE keeps the record but refuses its use, naming `dtype_name`. E_INPUT when this file
// has the name already. Data that is not aligned to its element size is copied.
int weights_add_record(struct weights *w, struct weights_file *f, const char *name, tensor t, const char *dtype_name,
                       struct err *e);
void weights_add_meta(struct weights *w, const char *key, const char *value);

// One file, by its content.
int weights_add_file(struct weights *w, const char *path, struct err *e);
// The record called `name` also under `canonical`.
void weights_alias(struct weights *w, const char *name, const char *canonical);
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
