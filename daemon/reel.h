// The media of one job: what its worker hears and sees, and the film that it becomes.
//
// Life: reel_open reads all inputs, refuses bad ones, fits the spec to them (size, length) and opens the film, anew or
// where an earlier run was cut off; then pictures and voice for the worker, frames from it; reel_finish or
// reel_abandon; reel_close. The growing film and the worker's log lie in the folder that is given.
#ifndef DAEMON_REEL_H
#define DAEMON_REEL_H

#include "proto/plan_segments.h"
#include "proto/spec.h"

#include <stdbool.h>
#include <stdint.h>

struct reel;

struct reel_info {
    int64_t n_frames, n_segments;
    uint64_t n_samples[SPEC_SPEAKERS]; // of each speaker's own 16 kHz track
    uint8_t voice_hash[32];
    int src_h, src_w;
    char notices[6144]; // sentences, one a line, about the inputs
    char growing[4200]; // the film while it grows
};

struct reel_options {
    const char *self;      // this program, for media children
    const char *folder;    // private, on the disk of the output
    int64_t frames, bytes; // of the film that stand from an earlier run; 0: none
};

// Fills s->r.h, w and n_frames. E_INPUT: an input is refused.
int reel_open(struct reel **out, struct spec *s, const struct model *m, const struct reel_options *o, struct err *e);
const struct reel_info *reel_info(const struct reel *r);
struct plan_segment reel_segment(const struct reel *r, int64_t number);

// The picture that colours are matched to, [h, w, 3], and the speakers' masks, [n, h, w] (NULL for one speaker).
const uint8_t *reel_colour_picture(const struct reel *r);
const uint8_t *reel_masks(const struct reel *r);
// The reference picture of a segment, [h, w, 3]. May take long; calls come from one thread at a time.
int reel_picture(struct reel *r, int64_t segment, uint8_t *rgb, struct err *e);
// What the last picture has shown of the video that the user should know: sentences, one a line, or NULL.
const char *reel_notice(struct reel *r);
int reel_voice(struct reel *r, int speaker, float *to, int64_t from, int64_t n, struct err *e);

// Frames into the film; a segment's end syncs it: *bytes of the growing file are on disk.
int reel_push(struct reel *r, int64_t first, int n, const uint8_t *yuv, struct err *e);
int reel_end_segment(struct reel *r, int64_t *bytes, struct err *e);
int64_t reel_frames(const struct reel *r); // that the film has
// Writes the delivered file; then the growing one goes.
int reel_finish(struct reel *r, struct err *e);
// Ends the film where it is. What was made stays, playable; without a frame it is removed. True: something stays.
bool reel_abandon(struct reel *r);
void reel_close(struct reel **r);

// The film of a job that was being finished is delivered: its growing file, in `folder`, has gone.
bool reel_is_delivered(const char *folder, const char *output);

#endif
