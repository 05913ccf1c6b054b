// The pipeline on a worker: a pure function from an order (OPEN, then RUN by RUN) to a tail and frames.
//
// render_open prepares what is constant over the job (words, negative words, masks, schedule, colour statistics); each
// render_segment conditions on its reference picture, voice window and tail, denoises, decodes, corrects colours, hands
// the tail to the sink first and then the frames, slice by slice. Nothing grows with the length of the job.
//
// By the ranks of a mesh (struct set): all make the same calls with the same orders, one of them has a sink that sends.
// An error or an end on one is one on all.
#ifndef WORKER_RENDER_H
#define WORKER_RENDER_H

#include "kernels/tap.h"
#include "proto/spec.h"
#include "worker/set.h"
#include "worker/shelf.h"

struct render;

struct render_order { // OPEN
    const struct spec_render *spec;
    const uint8_t *color_picture; // [h, w, 3] RGB: the first span's first reference picture
    const uint8_t *masks;         // [n_speakers, h, w] 0/255 after crop, or NULL for one speaker
    // 16 kHz voices, F32, one track per speaker, original samples (cut or padded to 640 L unless published; of two at
    // once, the shorter one ends where it ends)
    const struct track *voice; // [n_speakers], readable until render_close
    struct shelf *shelf;       // features of earlier jobs; NULL: none are kept
    struct texts *texts;       // read by earlier jobs; NULL: none are kept
    const uint8_t *voice_hash; // of the voices, with a shelf
    const char *cache_dir;     // voice features beyond one window live in a file here
    // What the user should know of a job that goes on, a sentence; NULL: nobody listens.
    void (*notice)(void *ctx, const char *text);
    void *ctx; // of notice
};

struct render_run {             // RUN
    int64_t segment;            // absolute number: counts noise
    int64_t start;              // first frame on the 25 fps timeline
    bool first;                 // begins a span: no tail
    bool last;                  // the final segment of the job
    bool ends;                  // its span: no tail is wanted
    int64_t keep_from, keep_to; // frames [keep_from, keep_to) of the segment's F are delivered
    const uint8_t *picture;     // [h, w, 3] RGB
    const void *tail;           // opaque bytes of the segment before, NULL when first
    size_t tail_bytes;
    const uint8_t *color_picture; // [h, w, 3] RGB that colours are matched to from here on; NULL: as before
};

struct render_sink {
    void *ctx;
    // Each returns 0, or a negative code that ends the segment (cancelled, peer lost).
    int (*step)(void *ctx, const char *stage, int i, int n);            // progress: "condition", "denoise", "decode"
    int (*tail)(void *ctx, const void *bytes, size_t n);                // before any frame
    int (*frames)(void *ctx, int64_t first, int n, const uint8_t *yuv); // absolute index; n frames of h*w*3/2 bytes
    void (*notice)(void *ctx, const char *text);                        // as of an order; may be NULL
};

struct render_times { // milliseconds, for DONE
    int64_t condition, denoise, decode, tail;
    double drift; // mean Lab distance of the decoded frames to the colour reference, before correction
};

int render_open(struct render **out, struct set *s, const struct render_order *o, struct err *e);
int render_segment(struct render *r, const struct render_run *run, const struct render_sink *sink,
                   struct render_times *t, struct err *e);
// What was made of its voices is wrong, and goes with the job instead of to the shelf.
void render_forget_voice(struct render *r);
void render_close(struct render **r);

#endif
