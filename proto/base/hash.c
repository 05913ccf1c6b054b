// BLAKE2b-256, by libsodium. Its state is an opaque struct, kept here in bytes of our own so that no other file needs
// the library's header.
#include "proto/base/hash.h"

#include <assert.h>
#include <sodium.h>

#include "proto/base/err.h"

static_assert(sizeof(crypto_generichash_state) <= sizeof((struct hash *)0)->state, "the state fits");
static_assert((int)HASH_BYTES == (int)crypto_generichash_BYTES, "256 bits");

static crypto_generichash_state *state_of(struct hash *h) { return (crypto_generichash_state *)(void *)h->state; }

void hash_init(struct hash *h)
{
    BUG_IF(sodium_init() < 0, "libsodium does not start"); // picks the code for this CPU; again is harmless
    crypto_generichash_init(state_of(h), NULL, 0, HASH_BYTES);
}

void hash_update(struct hash *h, const void *data, size_t n) { crypto_generichash_update(state_of(h), data, n); }

void hash_final(struct hash *h, uint8_t out[HASH_BYTES]) { crypto_generichash_final(state_of(h), out, HASH_BYTES); }
