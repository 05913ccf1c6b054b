// The media of one job: what its worker hears and sees, and the film that it becomes.
//
// Life: reel_open reads all inputs, refuses bad ones, fits the spec to them (size, length) and finds where spans begin;
// then pictures and voice for workers, pieces for the film, which begins with the first of them, anew or where an
// earlier run was cut off; reel_finish or reel_abandon; reel_close. The growing film lies in the folder that is given.
//
// Threads: pictures are asked for by one thread at a time, and so is the film; the two and reel_voice do not mind each
// other.
#ifndef DAEMON_REEL_H
#define DAEMON_REEL_H

#include "daemon/media/piece.h"
#include "proto/plan_segments.h"
#include "proto/spec.h"

#include <stdbool.h>
#include <stdint.h>

struct reel;

struct reel_info {
    int64_t n_frames, n_segments;
    int n_spans;
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
    bool planned;          // by an earlier run: spans begin at these frames and nowhere else
    const int64_t *cut;
    int n_cuts;
};

// Fills s->r.h, w, n_frames and n_reach. E_INPUT: an input is refused.
int reel_open(struct reel **out, struct spec *s, const struct model *m, const struct reel_options *o, struct err *e);
// Reads media as far as it takes to refuse them, and keeps nothing: picture (not the length of a video) with its masks,
// voices, or both.
enum reel_probed { REEL_PICTURE = 1, REEL_VOICE = 2 };
int reel_probe(struct spec *s, const struct model *m, const struct reel_options *o, enum reel_probed what,
               struct err *e);
const struct reel_info *reel_info(const struct reel *r);
struct plan_segment reel_segment(const struct reel *r, int64_t number);

// The segment after the last one of span `span`; where spans begin but the first, n_spans - 1 of them.
int64_t reel_span_end(const struct reel *r, int span);
const int64_t *reel_cuts(const struct reel *r);

// The picture that a span's colours are matched to, [h, w, 3]. May take long, but for the first span.
int reel_colour_picture(struct reel *r, int span, uint8_t *rgb, struct err *e);
// The speakers' masks, [n, h, w] (NULL for one speaker).
const uint8_t *reel_masks(const struct reel *r);
// The reference picture of a segment, [h, w, 3]. May take long; calls come from one thread at a time.
int reel_picture(struct reel *r, int64_t segment, uint8_t *rgb, struct err *e);
// What the last picture has shown of the video that the user should know: sentences, one a line, or NULL.
const char *reel_notice(struct reel *r);
// No picture is asked for in a while: what runs beside this process for it ends. Called by whoever asks for pictures.
void reel_rest(struct reel *r);
int reel_voice(struct reel *r, int speaker, float *to, int64_t from, int64_t n, struct err *e);

// How pieces of this film are made; the text lives as long as the spec.
struct piece_options reel_piece_options(const struct reel *r);
// The piece at `path`, of the next segment, into the film; on disk then: so many frames, in *bytes of the growing file.
int reel_add(struct reel *r, const char *path, int64_t segment, int64_t *bytes, struct err *e);
int64_t reel_frames(const struct reel *r); // that the film has
// Writes the delivered file; then the growing one goes.
int reel_finish(struct reel *r, struct err *e);
// Ends the film where it is. What was made stays, playable; without a frame it is removed. True: something stays.
bool reel_abandon(struct reel *r);
void reel_close(struct reel **r);

// The film of a job that was being finished is delivered: its growing file, in `folder`, has gone.
bool reel_is_delivered(const char *folder, const char *output);

#endif
