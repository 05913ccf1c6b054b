// Inside of the DiT only: its weights, as dit.c loads them and dit_context.c and dit_forward.c use them.
#ifndef WORKER_MODELS_DIT_PARTS_H
#define WORKER_MODELS_DIT_PARTS_H

#include "worker/models/audio_proj.h"
#include "worker/models/dit.h"
#include "worker/models/load.h"
#include "worker/models/spread.h"

struct dit_linear {
    tensor w, b;
};

// Vectors are F32 [dim]; matrices of the model's dtype.
struct dit_block {
    tensor modulation;                                // F32 [6, dim]: shift, scale, gate of self, then of ffn
    struct dit_linear q, k, v, o;                     // self
    tensor norm_q, norm_k;                            // self
    tensor norm3_w, norm3_b;                          // before text and picture
    struct dit_linear cq, ck, cv, co, ck_img, cv_img; // text and picture
    tensor cnorm_q, cnorm_k, cnorm_k_img;             // text and picture
    tensor norm_x_w, norm_x_b;                        // before audio
    struct dit_linear aq, akv, ao;                    // audio; akv [2 dim, audio_dim], keys first
    struct dit_linear ffn0, ffn2;
};

struct dit_share;

struct dit {
    struct dev *dev;
    struct dev_arena *arena;
    struct dit_config c;
    enum dtype dtype;
    struct dit_linear patch, text0, text2, time0, time2, time_proj, img1, img3, head;
    tensor img0_w, img0_b, img4_w, img4_b;
    tensor head_modulation; // F32 [2, dim]: shift, scale
    struct audio_proj audio;
    struct dit_block *block;          // [n_layers]; of a shared model without tensors
    struct dit_share *step, *context; // of a shared model; else NULL
};

// ---- dit_blocks.c
void dit_blocks_load(struct load *l, struct dit *m);
// Collective over `group`; streamed: a group of one, whose blocks come from the host's memory.
int dit_blocks_share(struct dit *m, const struct weights *w, struct comm *group, bool streamed, struct err *e);
void dit_blocks_free(struct dit *m);
// Block i's tensors for the step loop or for making contexts, until given back: one block of a use at a time, by all
// ranks of a group in the same order.
struct dit_block dit_block_take(const struct dit *m, int i, enum dit_use use);
void dit_block_give(const struct dit *m, int i, enum dit_use use);

static inline tensor heads_of(const struct dit *m, tensor rows) // [.., dim] as [.., n_heads, width]
{
    return tensor_split(rows, rows.n - 1, m->c.n_heads, m->c.dim / m->c.n_heads);
}

#endif
