// The step loop: from noise to the latents of one segment.
#ifndef WORKER_DENOISE_H
#define WORKER_DENOISE_H

#include "worker/cache.h"
#include "worker/guide.h"
#include "worker/models/dit.h"
#include "worker/repeat.h"

struct denoise {
    const struct dit *dit;
    int64_t segment; // its number, for messages
    int n_steps;     // of the schedule
    const float *t;  // [n_steps + 1] from 1000 to 0
    tensor y;        // as dit_forward takes it
    tensor masks;    // from dit_masks_new
    tensor motion;   // F32 [c, m, h, w]: stands in the first m latent frames, clean, at every step; or none
    const struct dit_picture *picture;
    const struct dit_words *words, *negative; // `negative` only where the guide has a branch with it
    const struct dit_voice *voice, *silence;  // `silence`, of zeros, only where the guide has a branch with it
    struct guide *guide;
    struct cache *cache;     // NULL: every forward runs whole
    const struct mesh *mesh; // the ranks that do this together, all with the same fields; NULL: alone
    bool together;           // a rank's branches go through a block as one batch: more memory, weights used once
    bool wide;               // attention as struct attn has it
    struct repeat *repeat;   // forwards that were met before; NULL: all are run plainly
    int (*step)(void *ctx, int i, int n); // after each step; a negative code ends the loop. NULL: nobody listens
    void *ctx;
    const struct tap *tap; // "step0.latent_in", "step0.cache0", "step0.pred0", "step0.latent_out", ...
};

// x F32 [c, t, h, w], noise on entry, latents on return, the same on every rank. Scratch comes from `a` and is given
// back. A device fault, an ended loop and a value that is not finite are errors; the last is E_INPUT, which no `step`
// gives, and is told with segment, step and branch. Ranks agree once a step, so an error or an end on one is an error
// on all.
int denoise_run(const struct denoise *n, struct dev_arena *a, tensor x, struct err *e);

#endif
