// Files that clients bring, by the hash of their content: each is there once, whoever brings it, and whole or not at
// all.
#ifndef DAEMON_MEDIA_STORE_H
#define DAEMON_MEDIA_STORE_H

#include "proto/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct media_store;

// FOLDER/media. `most`: bytes of one file.
int media_store_open(struct media_store **out, const char *folder, int64_t most, struct err *e);
void media_store_close(struct media_store **m);
// The path of "content:HASH". E_INPUT: it is not there.
int media_store_path(const struct media_store *m, const char *name, char *path, size_t n, struct err *e);
// A piece, in order; *have: how much is there (all of it when the file is whole and synced). n = 0: only asks.
// E_INPUT: too large, or the bytes do not have the hash, and are dropped.
int media_store_put(struct media_store *m, const uint8_t hash[32], uint64_t offset, uint64_t total, const void *data,
                    size_t n, uint64_t *have, struct err *e);

#endif
