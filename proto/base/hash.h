// BLAKE2b-256 of bytes that come in pieces. A name for content: equal bytes, equal hash, however they were cut.
#ifndef PROTO_BASE_HASH_H
#define PROTO_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { HASH_BYTES = 32 };

// By value, on the stack; opaque inside.
struct hash {
    _Alignas(64) uint8_t state[384];
};

void hash_init(struct hash *h);
void hash_update(struct hash *h, const void *data, size_t n);
void hash_final(struct hash *h, uint8_t out[HASH_BYTES]);

#endif
