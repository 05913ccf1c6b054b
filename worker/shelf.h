// What one job has made of a voice and the next one can use: features of the last few voices, by the hash of the voice.
//
// Life: shelf_new, shelf_free. A job takes features that fit and puts them back when it closes; meanwhile nobody else
// has them. Ranks of one mesh take and put alike, so that all of them find the same.
#ifndef WORKER_SHELF_H
#define WORKER_SHELF_H

#include "proto/base/hash.h"
#include "worker/features.h"

struct shelf;

// What decides the features of a job, but for the weights: those are the shelf's owner's.
struct shelf_key {
    uint8_t voice[HASH_BYTES];
    int64_t n_frames, n_reach;
    int n_speakers, frame_num, motion_frame;
    enum spec_mode mode;
    enum spec_tail tail;
    enum spec_parity parity;
};

void shelf_new(struct shelf **out);
void shelf_free(struct shelf **s);
void shelf_key_make(struct shelf_key *k, const struct spec_render *r, const uint8_t voice[HASH_BYTES]);
// NULL: there are none.
struct features *shelf_take(struct shelf *s, const struct shelf_key *k);
// The oldest go when there are too many.
void shelf_put(struct shelf *s, const struct shelf_key *k, struct features **f);

#endif
