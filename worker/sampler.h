// The time grid of a segment and its noise.
#ifndef WORKER_SAMPLER_H
#define WORKER_SAMPLER_H

#include "kernels/ops.h"

// t[0..steps]: from 1000 down to 0, bent by `shift` (pipeline.md 5.1), as the step embedding takes them.
void sampler_times(float *t, int steps, double shift);

// Standard normals into x (F32, dense): Philox4x32-10, key = seed, counter = (element / 4, segment, purpose, 0), by
// Box-Muller. Depends on nothing else, so a segment can be rendered anywhere, any number of times.
enum { SAMPLER_NOISE = 0 };
void sampler_noise(struct dev *d, tensor x, int64_t seed, int64_t segment, uint32_t purpose);

// The generator itself: four words of one counter.
void philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
