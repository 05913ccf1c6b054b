// Words, pictures and regions as the network takes them.
//
// Words and masks are made once per job. A picture is made again only when its bytes change: a still serves the whole
// job, a video's reference picture one segment.
#ifndef WORKER_CONDITION_H
#define WORKER_CONDITION_H

#include "worker/models/clip.h"
#include "worker/models/dit.h"
#include "worker/models/umt5.h"
#include "worker/models/unigram.h"
#include "worker/models/vae.h"
#include "worker/texts.h"

// An encoder may live on one of several ranks, which hands its result on: there `world` has the ranks and `rank` the
// one that has it; the others give NULL for the encoder and take part. `world` NULL: every caller has it.

// What the text encoder is made of (a part of the set).
struct condition_reader {
    struct unigram *unigram;
    struct umt5 *umt5; // on ranks that lend too (umt5.h), which have no unigram
    const struct dit *dit;
    struct texts *texts; // read before; NULL: none are kept
    const char *what;    // the text is, for messages
    struct comm *world;
    int rank;
};

// The picture encoders; the VAE works on all ranks.
struct condition_eye {
    const struct dit *dit;
    const struct vae *vae;
    struct clip *clip;
    struct comm *world; // of clip
    int rank;
};

// The published program's negative prompt, used where a job gives none (pipeline.md appendix B).
extern const char condition_negative[];

// Text to keys and values in arena `keep`; `work` is scratch. Of its tokens, *n are taken and *n_lost are dropped:
// those beyond the model's text length.
int condition_words(struct dit_words *out, const struct condition_reader *r, struct dev_arena *keep,
                    struct dev_arena *work, const char *text, int *n, int *n_lost, struct err *e);

// Masks F32 [3, h/8, w/8] (first speaker, second, neither) from 8-bit masks [n_speakers, h, w]: cell (i, j) takes pixel
// (8i, 8j), inside when > 127. One speaker: ones, whatever `masks` is. E_INPUT when a speaker covers no token of the
// network (every second cell), unless `published`.
int condition_masks(tensor *out, struct dev_arena *keep, const uint8_t *masks, int n_speakers, int h, int w,
                    bool published, struct err *e);

// The 8-bit picture [h, w, 3] as F32 [h, w, 3] in -1..1.
tensor condition_pixels(struct dev_arena *a, const uint8_t *rgb, int h, int w);

// A reference picture as the network sees it. Zero-initialise, then condition_picture_open with an arena that holds
// nothing else.
struct condition_picture {
    struct dev_arena *arena; // borrowed, reset whenever the picture changes
    uint8_t *rgb;            // [h, w, 3] the bytes that the rest was made from; owned
    bool filled;             // false: nothing was made yet
    int h, w, n_frames;      // of a segment
    tensor pixels;           // F32 [h, w, 3]
    tensor clip;             // F32 [tokens, dim]
    tensor y;                // F32 [in_dim - out_dim, t, h/8, w/8]: mask channels, then the latent
    tensor latent;           // F32 [16, 1, h/8, w/8], a view of y: the picture alone, where a span begins
    struct dit_picture keys; // of the clip tokens
};

void condition_picture_open(struct condition_picture *p, struct dev_arena *arena, int h, int w, int n_frames);
void condition_picture_close(struct condition_picture *p);
// They are made again next time, whatever the bytes.
void condition_picture_forget(struct condition_picture *p);
// Makes the fields fit `rgb`; nothing happens when the bytes are those of the call before. `work` is scratch.
void condition_picture_set(struct condition_picture *p, const struct condition_eye *eye, struct dev_arena *work,
                           const uint8_t *rgb);

#endif
