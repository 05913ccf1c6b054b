// Counts first, so that one voice of two lengths and two voices of one never share a name.
#include "proto/voice_hash.h"

void voice_hash_init(struct hash *h, int n_speakers, const uint64_t *n_samples)
{
    uint64_t n = (uint64_t)n_speakers;
    hash_init(h);
    hash_update(h, &n, sizeof n);
    hash_update(h, n_samples, (size_t)n_speakers * sizeof *n_samples);
}
