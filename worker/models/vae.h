// The Wan2.1 video VAE: frames to latents (stride 4 in time, 8 in space) and back, streaming, exact.
//
// Pixels are F32 channels-last [t, h, w, 3] in -1..1; latents F32 [16, t, h/8, w/8], normalised by mean and deviation.
// A stream takes frames (1, then 4 at a time) or latent frames (one at a time) and keeps what later steps need.
#ifndef WORKER_MODELS_VAE_H
#define WORKER_MODELS_VAE_H

#include "kernels/ops.h"
#include "kernels/tap.h"
#include "parallel/comm.h"
#include "worker/weights/weights.h"

struct vae;
struct vae_stream;

// Structure comes from tensor names and shapes; mean and std default to the published ones when NULL (16 each).
int vae_new(struct vae **out, struct dev *d, const struct weights *w, const float *mean, const float *std,
            struct err *e);
void vae_free(struct vae **v);
int vae_latent_channels(const struct vae *v);
// From now on the ranks of `c` (borrowed; NULL: this one alone) encode and decode together: each works on a band of the
// longer side of the picture, with exact edges. All of them make the same calls with the same whole inputs, and all
// receive the whole result. Taps see bands.
void vae_share(struct vae *v, struct comm *c);

// A stream's caches live in `a` until the caller resets it; h, w in pixels, multiples of 8. Taps get names such as
// "chunk0.conv1", "chunk0.downsamples.3", as [c, t, h, w] views. vae_stream_close frees the handle, not the caches.
struct vae_stream *vae_encode_open(const struct vae *v, struct dev_arena *a, int64_t h, int64_t w,
                                   const struct tap *tap);
struct vae_stream *vae_decode_open(const struct vae *v, struct dev_arena *a, int64_t h, int64_t w,
                                   const struct tap *tap);
void vae_stream_close(struct vae_stream **s);
// pixels [1 or 4, h, w, 3] to one latent frame z F32 [16, 1, h/8, w/8] (any strides). The first call takes 1 frame,
// every later one 4.
void vae_encode_slice(struct vae_stream *s, tensor z, tensor pixels);
// One latent frame z [16, 1, h/8, w/8] to pixels [1, h, w, 3] (first call) or [4, h, w, 3]; not clamped.
void vae_decode_slice(struct vae_stream *s, tensor pixels, tensor z);
// The same for rank `rank` of those that share the work; on the others `pixels` stays as it is.
void vae_decode_slice_for(struct vae_stream *s, int rank, tensor pixels, tensor z);

// Whole clips by slices: t pixels frames, of which 1 + 4 floor((t-1)/4) are used; z [16, 1 + (t-1)/4, h/8, w/8].
void vae_encode(const struct vae *v, struct dev_arena *a, tensor z, tensor pixels, const struct tap *tap);

#endif
