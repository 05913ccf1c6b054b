// The diffusion transformer of InfiniteTalk (Wan2.1-I2V plus audio adapter): velocity from noisy latents.
//
// Life: dit_new loads and packs; dit_words and dit_picture once per job (or per new picture), dit_voice once per
// segment, dit_time once per step; dit_forward per branch and step. Keys and values of all blocks are kept in these
// contexts, so that a step recomputes none. Contexts go by value; their tensors live in the arena they were made in.
#ifndef WORKER_MODELS_DIT_H
#define WORKER_MODELS_DIT_H

#include "kernels/ops.h"
#include "kernels/tap.h"
#include "parallel/mesh.h"
#include "worker/weights/weights.h"

struct dit;

// Zero fields are derived from tensor shapes or take the published value. A value that contradicts the shapes is
// refused.
struct dit_config {
    int dim, n_heads, n_layers, ffn_dim, freq_dim, text_dim, text_len, in_dim, out_dim;
    int audio_window, vae_scale, audio_width; // audio_width: layers x channels of one frame's speech features
    int audio_dim, audio_tokens, clip_dim, clip_tokens;
    float eps;
    bool published; // keep 0/0 of an empty speaker class
};

// Weights go to an arena of the model; activations of dtype `t` (F32 or BF16). Weights are rounded to `t` too.
int dit_new(struct dit **out, struct dev *d, const struct weights *w, const struct dit_config *want, enum dtype t,
            struct err *e);
// The same with the blocks' weights spread over the ranks of `group` (borrowed), each of which reads and keeps its
// share and gathers a block ahead of its use. Collective, as is then every call that makes a context or runs blocks.
int dit_new_shared(struct dit **out, struct dev *d, const struct weights *w, const struct dit_config *want,
                   enum dtype t, struct comm *group, struct err *e);
// The same with the blocks' weights in the host's memory, each fetched ahead of its use, where the device has memory of
// its own. `alone` is a world of one, borrowed.
int dit_new_streamed(struct dit **out, struct dev *d, const struct weights *w, const struct dit_config *want,
                     enum dtype t, struct comm *alone, struct err *e);
void dit_free(struct dit **m);
// Counters of the gathers, and what to poll while computing; NULL when the blocks are not shared.
enum dit_use { DIT_STEP, DIT_CONTEXT };
struct comm *dit_block_comm(const struct dit *m, enum dit_use use);
const struct dit_config *dit_config_of(const struct dit *m);
enum dtype dit_dtype(const struct dit *m); // of the activations
int64_t dit_bytes(const struct dit *m);    // of the device that its weights take; counted by a dry run too

// Keys and values that do not change over the steps, of all blocks.
struct dit_words { // of one text
    tensor k, v;   // [n_layers, text_len, dim]
};
struct dit_picture { // of one reference picture
    tensor k, v;     // [n_layers, clip_tokens, dim]
};
struct dit_voice { // of one segment's audio windows
    tensor k, v;   // [n_layers, t, n_speakers x audio_tokens, dim]
    int n_speakers;
};
// text [lt, text_dim] F32, lt <= text_len (zero padded inside).
struct dit_words dit_words_new(const struct dit *m, struct dev_arena *a, tensor text, const struct tap *tap);
// clip [clip_tokens, clip_dim] F32.
struct dit_picture dit_picture_new(const struct dit *m, struct dev_arena *a, tensor clip, const struct tap *tap);
// windows F32 [p, fa, audio_window, layers, channels], fa = 1 + vae_scale (t - 1), p 1 or 2.
struct dit_voice dit_voice_new(const struct dit *m, struct dev_arena *a, tensor windows, const struct tap *tap);
// The zero-voice branch: as dit_voice_new of zeros with one speaker and `t` latent frames.
struct dit_voice dit_voice_null(const struct dit *m, struct dev_arena *a, int64_t t);
// Speaker masks F32 [3, mh, mw] (person 1, person 2, background) on the token grid: F32 [3, gh gw] of 0 and 1.
tensor dit_masks_new(const struct dit *m, struct dev_arena *a, tensor masks, int64_t gh, int64_t gw);

// The mask channels [4, t, h/8, w/8] of a segment: one where a latent is given, which is the first alone.
void dit_given(struct dev *d, tensor mask);

// Step time: depends on t only, shared by the branches.
struct dit_time {
    tensor e, e0; // F32 [dim], [6, dim]
};
struct dit_time dit_time_new(const struct dit *m, struct dev_arena *a, float t, const struct tap *tap);
// What a step time is told as: n / 2 cosines, then as many sines.
void dit_waves(float *wave, int64_t n, float t);

struct dit_in {
    tensor x;     // F32 [out_dim, t, h, w]
    tensor y;     // F32 [in_dim - out_dim, t, h, w]: mask channels, then condition latent
    tensor masks; // from dit_masks_new; needed with two speakers
    struct dit_time time;
    const struct dit_words *words;
    const struct dit_picture *picture;
    const struct dit_voice *voice;
    // Step cache: when `skip`, no block runs and `residual` is added to the patch embedding; else, when `residual` is
    // given, it receives (block output - block input), [dit_rows, dim] of the model's dtype.
    bool skip;
    tensor residual;
    bool wide; // all attention as struct attn has it; of the branches that go together, the first one's counts
};
// out F32 [out_dim, t, h, w]. Scratch comes from `a` and is given back.
void dit_forward(const struct dit *m, struct dev_arena *a, tensor out, const struct dit_in *in, const struct tap *tap);

// The same by the ranks of a mesh that share the sequence (`mesh` NULL: this rank alone), for `n` branches at once,
// which share x, y, masks, time, picture and skip. Every rank receives the whole of out[0..n). A block's weights are
// used once for all branches; memory grows with their number. Taps see this rank's rows, of all branches.
void dit_forward_branches(const struct dit *m, const struct mesh *mesh, struct dev_arena *a, const tensor *out,
                          const struct dit_in *in, int n, const struct tap *tap);
// Rows that this rank works on for latents [.., t, h, w], padding included.
int64_t dit_rows(const struct mesh *mesh, int64_t t, int64_t h, int64_t w);

#endif
