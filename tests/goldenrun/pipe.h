// What the two files of the pipeline case share: a golden file as a job, and the record of its run.
#ifndef TESTS_GOLDENRUN_PIPE_H
#define TESTS_GOLDENRUN_PIPE_H

#include "proto/plan_segments.h"
#include "tests/goldenrun/golden.h"
#include "worker/features.h"
#include "worker/sampler.h"
#include "worker/segment.h"

// The job that a file's metadata and inputs describe, in published parity.
struct pipe_job {
    struct spec_render r;
    struct plan_segments plan;
    int n_segments; // that the file holds
    int64_t *starts;
    struct plan_film film;
    bool still;
    uint8_t *source; // [film.n_frames, sh, sw, 3]
    int sh, sw;
    uint8_t *masks; // [n_speakers, h, w]; NULL for one speaker
    struct features *voice;
    char dir[64]; // of the voice's rows
};

// False (and failed lines) where the file does not make sense. Close in any case.
bool pipe_job_open(struct pipe_job *j, struct golden *g);
void pipe_job_close(struct pipe_job *j);
// The reference picture of the segment that begins at `frame`, [h, w, 3].
void pipe_job_picture(const struct pipe_job *j, int64_t frame, uint8_t *rgb);

// What a run leaves, filled by its tap and its sink; everything else is compared on the way.
struct pipe_record {
    struct golden *g;
    const struct pipe_job *j;
    struct plan_segment segment; // under way
    tensor decoded, corrected;   // F32 [F, h, w, 3], of the segment under way
    tensor film;                 // F32 [n_frames, h, w, 3], what is delivered
    float *skipped;              // per forward pass, all segments
    int n_forwards;
    uint8_t *yuv;     // the frames as the sink took them
    int64_t n_frames; // of them
    void *tail;
    size_t tail_bytes;
};

void pipe_record_open(struct pipe_record *r, struct golden *g, const struct pipe_job *j, int n_branches);
void pipe_record_close(struct pipe_record *r);
struct tap pipe_record_tap(struct pipe_record *r);
struct render_sink pipe_record_sink(struct pipe_record *r);
// After each segment, and after the last.
void pipe_record_segment(struct pipe_record *r, const uint8_t *picture);
void pipe_record_end(struct pipe_record *r);

#endif
