// Counts first, so that one voice of two lengths and two voices of one never share a name.
#include "proto/voice_hash.h"

void voice_hash_init(struct hash *h, int n_speakers, int64_t n_samples)
{
    int64_t head[2] = {n_speakers, n_samples};
    hash_init(h);
    hash_update(h, head, sizeof head);
}
