// Segmentation of a word into the pieces of a unigram vocabulary: the sequence with the highest sum of scores.
#ifndef WORKER_MODELS_TEXT_SEGMENT_H
#define WORKER_MODELS_TEXT_SEGMENT_H

#include "proto/base/arena.h"
#include "proto/json.h"
#include "worker/models/text/pieces.h"

struct vocabulary {
    struct pieces pieces;
    double *score;  // by id
    int32_t n;      // ids
    int32_t unk_id; // of what no piece covers
    double unk_score;
    bool byte_fallback;
    int32_t byte[256]; // ids of "<0xNN>", or -1
};

// `model` is that part of tokenizer.json. What is kept lives in `a`.
int vocabulary_read(struct vocabulary *v, struct arena *a, const json_t *model, struct err *e);

struct segment_node;
struct segmenter {
    const struct vocabulary *v;
    void (*put)(void *ctx, int32_t id); // gets the ids in order
    void *ctx;
    struct segment_node *node; // owned; zero to begin
    size_t capacity;
};
void segmenter_word(struct segmenter *g, const char *s, size_t n);
void segmenter_release(struct segmenter *g);

#endif
