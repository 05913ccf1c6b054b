// What one layout costs a rank: time, wire and memory, predicted.
//
// Pure arithmetic: what the network is, what a job wants, and what a rank can do (measured or stated) go in. Bytes on
// the wire are what the counters of comm show.
#ifndef PARALLEL_PLAN_COST_H
#define PARALLEL_PLAN_COST_H

#include "parallel/mesh.h"

enum { PLAN_ENCODERS = 3 };

struct plan_model {
    int64_t dim, ffn, heads, layers, out_dim;
    int64_t words, picture, voice;        // keys of a text, of the picture, of a speaker in a latent frame
    int64_t step_bytes, context_bytes;    // weights of one block: of every step; of what is made once
    int64_t rest_bytes;                   // all other weights that every rank keeps
    int64_t encoder_bytes[PLAN_ENCODERS]; // words, picture, voice: each on a rank of its own, as far as they go
    int64_t words_blocks, words_block; // of the first: its blocks, which are spread where the others are; one of them
    int size;                          // bytes of an activation
    double decode_ops, encode_ops;     // of the VAE, for a pixel of a frame
    double decode_bytes;               // of its work space, for a pixel, beside the frames of a slice; 0: no decoder
};
struct plan_job {
    int64_t frames, gh, gw;   // latent frames, and the grid of tokens in each
    int64_t pictures, motion; // frames of a segment, and those that are handed on to the next
    int branches, texts, speakers, steps;
    bool silence; // a branch without voice
};
struct plan_rates {
    double linear, attention, conv; // operations a second, a multiply-add being two
    double copy;                    // bytes a second, read and written
    double near, far;               // bytes a second that a rank sends to ranks of its node, and to others
    double latency;                 // seconds of a message
    bool hides;                     // the wire works while the rank computes
    bool shared;                    // the ranks of a node divide its cores: fewer ranks have more each
    int node;                       // ranks of a node; 0: all
    int64_t memory;                 // bytes that a rank may use
};

// Where a block's weights are: whole on every rank; spread over the ranks of a sequence on one node, or over all of the
// sequence. What is spread is gathered once for all branches, which then go through a block together.
enum plan_shard { PLAN_WHOLE, PLAN_NODE, PLAN_ALL };

struct plan_row {
    struct mesh_shape shape;
    enum plan_shard shard;
    int sharers;  // ranks that spread a block; 1: whole
    int64_t rows; // of the sequence, padding included
    // bytes that a rank sends in one forward of one branch; those of weights in one pass of its branches
    int64_t exchange_bytes, ring_bytes, weight_bytes;
    // seconds of a step
    double linear, attention, small;        // computing: products, attention, what only moves data
    double exchange, ring, gather, weights; // waiting: heads, ring, velocities and speakers, weights
    double step;                            // their sum
    double edges, segment;                  // what surrounds the steps; all of a segment
    // bytes
    int64_t held, caches, work, memory; // weights; keys and values; the rest at its worst; the sum
    bool fits;
};

// `shape` is a legal one.
struct plan_row plan_predict(const struct plan_model *m, const struct plan_job *j, const struct plan_rates *r,
                             struct mesh_shape shape, enum plan_shard shard);

#endif
