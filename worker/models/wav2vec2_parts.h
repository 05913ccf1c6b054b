// What the files of wav2vec2 share: wav2vec2_config.c reads the declaration, wav2vec2.c loads, wav2vec2_conv.c goes
// from samples to features at the video's rate, wav2vec2_forward.c from there to hidden states.
#ifndef WORKER_MODELS_WAV2VEC2_PARTS_H
#define WORKER_MODELS_WAV2VEC2_PARTS_H

#include "worker/models/wav2vec2.h"

enum { WAV2VEC2_CONVS_MAX = 16 };

struct wav2vec2_config {
    int dim, n_layers, n_heads, ffn_dim;
    int n_convs, width[WAV2VEC2_CONVS_MAX], kernel[WAV2VEC2_CONVS_MAX], stride[WAV2VEC2_CONVS_MAX];
    int pos_kernel, pos_groups;
    float eps;
};
// From the text of config.json; absent fields have the published values, and what is not built here is refused.
int wav2vec2_config_parse(struct wav2vec2_config *c, const char *text, struct err *e);

struct wav2vec2_linear {
    tensor w, b;
};
struct wav2vec2_layer {
    struct wav2vec2_linear q, k, v, out;     // [dim, dim]
    struct wav2vec2_linear up, down;         // [ffn, dim], [dim, ffn]
    tensor norm_w, norm_b, final_w, final_b; // [dim]
};
struct wav2vec2 {
    struct dev *dev;
    struct dev_arena *arena;
    struct weights *own; // opened by wav2vec2_open, or NULL
    struct wav2vec2_config c;
    bool normalize;
    int64_t hop, field;              // samples from one feature to the next; samples that one feature hears
    int64_t piece_rows;              // first-layer rows measured at once
    int64_t tile_frames;             // video frames that go through the convolutions at once
    tensor conv[WAV2VEC2_CONVS_MAX]; // [width, width before, 1, 1, kernel]
    tensor first_w, first_b;         // [width[0]]: gain and bias of the first layer's norm
    tensor feature_w, feature_b;     // [width of the last]
    struct wav2vec2_linear project;  // [dim, width of the last]
    struct wav2vec2_linear pos;      // [dim, dim / groups, 1, 1, kernel], weight norm applied
    tensor norm_w, norm_b;
    struct wav2vec2_layer *layer;
};
struct wav2vec2_stats {
    double mean, var;  // of the samples
    float *channel[2]; // mean and 1/deviation of the first layer's channels, [width[0]]
};

// Features of the track at the video frames [from, from + rows of z), interpolated: z F32 [frames, width of the last].
void wav2vec2_features(struct wav2vec2 *m, struct dev_arena *a, tensor z, const struct track *t,
                       const struct wav2vec2_stats *stats, int64_t n_frames, int64_t from, const struct tap *tap);

#endif
