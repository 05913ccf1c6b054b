// What a forward of the transformer is given where only its cost is asked: one speaker, silent, inputs of 0.5 all over.
#ifndef BENCH_GIVEN_H
#define BENCH_GIVEN_H

#include "worker/models/dit.h"

struct given {
    struct dit_words words;
    struct dit_picture picture;
    struct dit_voice voice;
    struct dit_in in; // looks at the three above: the struct must stay where it is
    tensor out;       // F32 [out_dim, t, h / 8, w / 8]
};
// For a film of h x w pixels; everything in arena `a` of device `d`, which the model was loaded on.
void given_new(struct given *g, struct dev *d, const struct dit *m, struct dev_arena *a, int frames, int h, int w);

#endif
