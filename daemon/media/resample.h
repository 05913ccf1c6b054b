// Sound at another rate: linear phase, no delay (output sample 0 lies on input sample 0), pass band to 0.91 of the
// lower Nyquist, stop band beyond 100 dB. n samples become ceil(n * to / from), exactly.
//
// Life: resample_new, resample_push in pieces of any size, resample_end once (what the filter still held),
// resample_free. Output goes to the sink; memory does not grow.
#ifndef DAEMON_MEDIA_RESAMPLE_H
#define DAEMON_MEDIA_RESAMPLE_H

#include "proto/base/err.h"

#include <stdint.h>

struct resample;

// Takes `n` samples a channel, interleaved.
typedef int (*resample_sink)(void *ctx, const float *x, int64_t n, struct err *e);

int resample_new(struct resample **out, int from, int to, int channels, resample_sink sink, void *ctx, struct err *e);
int resample_push(struct resample *r, const float *x, int64_t n, struct err *e);
int resample_end(struct resample *r, struct err *e);
void resample_free(struct resample *r);

// ceil(n * to / from)
int64_t resample_length(int64_t n, int from, int to);

#endif
