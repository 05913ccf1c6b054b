// Inside of the VAE only: its layers as vae.c loads them and vae_stream.c runs them.
#ifndef WORKER_MODELS_VAE_PARTS_H
#define WORKER_MODELS_VAE_PARTS_H

#include "worker/models/vae.h"

enum { VAE_LAYERS_MAX = 32 };
enum vae_kind { VAE_RES, VAE_ATTN, VAE_DOWN2, VAE_DOWN3, VAE_UP2, VAE_UP3 };

struct vae_conv {
    tensor w, b; // [co, ci, kt, kh, kw], [co]
};

struct vae_layer {
    enum vae_kind kind;
    char name[32]; // "downsamples.3", for taps
    int64_t ci, co;
    tensor gamma0, gamma3;               // res: before each conv; attention: gamma0
    struct vae_conv conv2, conv6;        // res
    struct vae_conv space, time;         // resamplers; going up `space` has the bias alone and
    tensor phase[2][2];                  // [co, ci, 1, 2, 2], a kernel for even and odd lines, even and odd columns
    tensor short_w, short_b;             // res with ci != co: linear [co, ci]
    tensor qkv_w, qkv_b, proj_w, proj_b; // attention: linear [3 c, c], [c, c]
};

struct vae_half { // encoder or decoder
    struct vae_conv conv1, head;
    tensor head_gamma;
    int64_t c_in, c1, c_head; // channels into conv1, after it, into the head's conv
    int64_t c_out;            // after the head
    int n_layers;
    struct vae_layer layer[VAE_LAYERS_MAX];
};

struct vae {
    struct dev *dev;
    struct dev_arena *arena;
    struct comm *comm; // who shares the work, or NULL
    int64_t z_dim;
    struct vae_half encoder, decoder;
    tensor to_z_w, to_z_b;     // linear [z, 2 z]: mean half of conv1 with the normalisation folded in
    tensor from_z_w, from_z_b; // linear [z, z]: conv2 with the de-normalisation folded in
};

#endif
