// Time grid and noise.
//
// The grid is formed in F32 where the published program does so: u = t' / 1000, t = 1000 shift u / (1 + (shift - 1) u).
// Noise is a function of (seed, segment, element) alone: no generator state exists that a retry or another split of the
// work could disturb.
#include "worker/sampler.h"

#include <math.h>

enum { CHUNK = 4096 };

void sampler_times(float *t, int steps, double shift)
{
    for (int i = 0; i < steps; i++) {
        double even = steps > 1 ? 1000.0 - (double)i * (999.0 / (double)(steps - 1)) : 1000.0;
        float u = (float)even / 1000.0f, s = (float)shift;
        t[i] = 1000.0f * (s * u / (1.0f + (s - 1.0f) * u));
    }
    t[steps] = 0;
}

static uint64_t multiply(uint32_t a, uint32_t b) { return (uint64_t)a * b; }

void philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t p = multiply(0xd2511f53u, c[0]), q = multiply(0xcd9e8d57u, c[2]);
        uint32_t next[4] = {(uint32_t)(q >> 32) ^ c[1] ^ k[0], (uint32_t)q, (uint32_t)(p >> 32) ^ c[3] ^ k[1],
                            (uint32_t)p};
        for (int i = 0; i < 4; i++) c[i] = next[i];
        k[0] += 0x9e3779b9u;
        k[1] += 0xbb67ae85u;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

// Two uniform words to two normals. The first uniform is in (0, 1], so its logarithm is finite.
static void box_muller(float out[2], uint32_t a, uint32_t b)
{
    double u = ((double)a + 1) * 0x1p-32, angle = (double)b * 0x1p-32 * 2 * M_PI, r = sqrt(-2 * log(u));
    out[0] = (float)(r * cos(angle));
    out[1] = (float)(r * sin(angle));
}

void sampler_noise(struct dev *d, tensor x, int64_t seed, int64_t segment, uint32_t purpose)
{
    tensor flat = tensor_reshape(x, SHAPE(-1));
    int64_t n = tensor_count(flat);
    uint32_t key[2] = {(uint32_t)(uint64_t)seed, (uint32_t)((uint64_t)seed >> 32)}, word[4];
    float chunk[CHUNK];
    for (int64_t from = 0; from < n; from += CHUNK) {
        int64_t to = from + CHUNK < n ? from + CHUNK : n;
        for (int64_t i = from; i < from + CHUNK; i += 4) {
            philox(word, (uint32_t[]){(uint32_t)(i / 4), (uint32_t)segment, purpose, 0}, key);
            box_muller(chunk + (i - from), word[0], word[1]);
            box_muller(chunk + (i - from) + 2, word[2], word[3]);
        }
        dev_upload(d, tensor_slice(flat, 0, from, to), chunk, DT_F32);
    }
}
