// One segment: conditions and noise in, tail and frames out. The part that runs the networks, and that `golden` drives.
//
// A job opens one `struct segment` and runs it once per segment. All that varies comes through `struct segment_in` as
// pictures and tensors, so recorded noise, words and voices enter at the same door as real ones.
#ifndef WORKER_SEGMENT_H
#define WORKER_SEGMENT_H

#include "worker/condition.h"
#include "worker/render.h"

struct segment;

// What does not change over a job. All pointers are borrowed until segment_close.
struct segment_job {
    const struct dit *dit;
    const struct vae *vae;
    struct clip *clip; // of several ranks, one has it
    int clip_rank;
    const struct spec_render *spec;
    const struct dit_words *words;
    const struct dit_words *negative; // needed when segment_wants_negative, else ignored
    const uint8_t *color_picture;     // [h, w, 3] RGB, of the first span
    const uint8_t *masks;             // [n_speakers, h, w], NULL for one speaker
    const struct mesh *mesh;          // the ranks that render it together, all with the same job and runs, its
                                      // world following the device; NULL: alone
    bool together;                    // see struct denoise
    // Memory by lifetime: of the job, of one reference picture (holds nothing else), of a segment.
    struct dev_arena *keep, *picture, *work;
    // "y", "cond_image", "clip_fea", "ref_target_masks", "step0.pred0", "latent_out", and per slice, by the number of
    // its first frame, "decoded0" and "corrected0" as pixels [t, h, w, 3]
    const struct tap *tap;
};

struct segment_in {
    int64_t number;             // absolute: counts noise, names the segment in messages
    int64_t start;              // first frame on the 25 fps timeline
    int64_t keep_from, keep_to; // frames of the segment that are delivered
    bool want_tail;
    const uint8_t *picture; // [h, w, 3] RGB
    tensor windows;         // F32 [n_speakers, F, window, layers, channels]
    const void *tail;       // of the segment before; NULL where a span begins
    size_t tail_bytes;
    tensor noise; // F32 [16, t, h/8, w/8]; NO_TENSOR: drawn from the seed
};

// Whether the guidance of this job has a branch with the negative words.
bool segment_wants_negative(const struct spec_render *spec);

int segment_open(struct segment **out, const struct segment_job *j, struct err *e);
void segment_close(struct segment **s);
// Colours are matched to this picture [h, w, 3] from now on: another span begins.
void segment_match(struct segment *s, const uint8_t *picture);
// Scratch comes from the job's `work` arena and is given back. `sink` NULL: nothing is sent (dry runs).
int segment_run(struct segment *s, const struct segment_in *in, const struct render_sink *sink, struct render_times *t,
                struct err *e);

#endif
