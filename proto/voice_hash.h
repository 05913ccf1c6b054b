// The name of what a worker hears: BLAKE2b of the counts, then of each speaker's 16 kHz F32 samples, one after another.
// The coordinator announces it in OPEN, the worker checks it when the last BLOB has come.
#ifndef PROTO_VOICE_HASH_H
#define PROTO_VOICE_HASH_H

#include "proto/base/hash.h"

// Begins it; the samples follow by hash_update in pieces of any size, the name comes by hash_final. `n_samples`: of
// each speaker.
void voice_hash_init(struct hash *h, int n_speakers, const uint64_t *n_samples);

#endif
