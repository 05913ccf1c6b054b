// Which frames of a job each segment renders and delivers, and which picture of a film stands for a frame.
//
// One timeline: frame i of the job is shown during [i/25, (i+1)/25) seconds. A job is one span, or several where its
// film has cuts; a span is a chain of segments of F frames, each beginning F - M after the one before. What segments
// keep covers [0, n_frames) exactly once, in order. All functions are pure, in whole numbers: the coordinator plans
// with them, and so does whoever checks a worker.
#ifndef PROTO_PLAN_SEGMENTS_H
#define PROTO_PLAN_SEGMENTS_H

#include "proto/spec.h"

struct plan_segments {
    int frame_num, motion_frame;
    int64_t n_frames;   // delivered
    int64_t n_reach;    // what the segments must cover: n_frames, except in published parity with unequal voices
    const int64_t *cut; // first frame of each span but the first: rising, inside (0, n_frames); borrowed
    int n_cuts;
};

struct plan_segment {
    int64_t number;             // absolute in the job
    int64_t start;              // its frame 0 on the timeline; also the frame whose picture it looks at
    int64_t keep_from, keep_to; // frames [keep_from, keep_to) of its F are delivered
    bool first;                 // begins a span: no tail goes in
    bool last;                  // ends the job
    bool wants_tail;            // the next segment goes on from this one
    int span;
    int64_t span_start; // the frame whose picture the span's colours are matched to
};

// The plan of a job without cuts. `r`: frame_num, motion_frame, mode and parity are read. `limit`: 0, or frames that
// are delivered at most (max_frame_num; the film's length where its end stops the job). `n_voice`: frames of each
// speaker's voice. The longest decides, and clip mode delivers no more than F. The published program asks the first
// voice where to stop and the last one where to cut, and delivers F frames in clip mode; so does published parity.
void plan_segments_init(struct plan_segments *p, const struct spec_render *r, int64_t limit, const int64_t *n_voice,
                        int n_voices);
int64_t plan_segments_count(const struct plan_segments *p);
struct plan_segment plan_segments_at(const struct plan_segments *p, int64_t number);
// Sorts cuts in place and drops those that leave a span shorter than half a second (13 frames) before them or lie
// outside (0, n_frames). Returns how many remain.
int plan_cuts_tidy(int64_t *cut, int n, int64_t n_frames);

// A film as a source of reference pictures.
struct plan_film {
    int64_t n_frames;           // pictures in it, at least 1
    int64_t rate_num, rate_den; // pictures a second
    enum spec_video_end end;    // what is shown beyond its end; SPEC_END_STOP: nothing is asked, so the last picture
    bool by_index;              // published parity: picture i for frame i, whatever the rate
};
// The picture shown at the time of frame i: the last that begins by then, with a millisecond of grace.
int64_t plan_film_picture(const struct plan_film *f, int64_t frame);
// The first frame that shows picture `picture`, or a later one (to place a cut on the timeline).
int64_t plan_film_frame(const struct plan_film *f, int64_t picture);
// Frames until the film ends: the limit that SPEC_END_STOP means.
int64_t plan_film_length(const struct plan_film *f);
// For films whose pictures lie at uneven times: when to look, in microseconds from the first picture, in a film of
// `n_us`. Show the last picture that begins by then, with a millisecond of grace.
int64_t plan_film_us(int64_t n_us, enum spec_video_end end, int64_t frame);

#endif
