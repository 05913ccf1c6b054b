// Guidance: which evaluations of the network a step needs, and how they become one velocity.
#ifndef WORKER_GUIDE_H
#define WORKER_GUIDE_H

#include "kernels/ops.h"
#include "proto/spec.h"

enum { GUIDE_BRANCHES = 3 };

// One evaluation: with the job's words or the negative ones, with its voice or none.
struct guide_branch {
    bool negative_words, no_voice;
    int slot; // of the step cache, by identity: 0 words and voice, 1 one of them dropped, 2 both
};

struct guide {
    struct dev *dev;
    int n; // branches, in the order that they are evaluated
    struct guide_branch branch[GUIDE_BRANCHES];
    float weight[GUIDE_BRANCHES]; // without APG: v = sum of weight x prediction
    bool apg;
    float text_scale, audio_scale, momentum, limit;
    tensor text_sum, audio_sum; // APG's running sums, F32 like the predictions
};

// Which branches a job needs. One whose weight is zero is left out, unless the job asks for published parity: text
// scale 1 and audio scale 1 cost one evaluation a step.
void guide_plan(struct guide *g, const struct spec_render *s);
// The plan, and APG's sums [shape of x] in `a`; guide_reset clears them at every segment.
void guide_init(struct guide *g, struct dev_arena *a, const struct spec_render *s, tensor x);
void guide_reset(struct guide *g);
// "words and voice", for messages.
const char *guide_branch_name(const struct guide_branch *b);
bool guide_wants_negative(const struct guide *g);
bool guide_wants_silence(const struct guide *g);
// v = the guided velocity of predictions p[0..n); scratch from `a` is given back.
void guide_combine(struct guide *g, struct dev_arena *a, tensor v, const tensor *p);
// One step of adaptive projected guidance (dit.md 6.3): sum = diff + momentum sum; y = sum limited and without its part
// along cond.
void guide_project(struct guide *g, tensor y, tensor sum, tensor diff, tensor cond);

#endif
