// Inside of worker/synth: the sizes of a model, and the tensors of each of its files by the published names.
#ifndef WORKER_SYNTH_PARTS_H
#define WORKER_SYNTH_PARTS_H

#include "worker/synth/list.h"

struct synth_sizes {
    // diffusion transformer
    int64_t dim, ffn, freq, text_len, text_dim, clip_dim, clip_tokens;
    int heads, layers;
    // adapter
    int64_t audio_inner, audio_dim, audio_tokens;
    // umT5
    int64_t vocabulary, text_inner, text_ffn, text_buckets; // text_inner: width of attention
    int text_layers, text_heads;
    // CLIP: tokens are 1 + (image / 14)^2
    int64_t clip_ffn, clip_out, clip_image;
    int clip_layers, clip_heads;
    // VAE: widths are vae_dim times 1, 2, 4, 4
    int64_t vae_dim, vae_z;
    // wav2vec2
    int64_t voice_conv, voice_dim, voice_ffn, voice_kernel, voice_groups, voice_code, voice_codes;
    int voice_layers, voice_heads;
};

extern const struct synth_sizes synth_tiny, synth_published;

void list_dit(struct synth_list *l, const struct synth_sizes *s);
void list_adapter(struct synth_list *l, const struct synth_sizes *s);
void list_text(struct synth_list *l, const struct synth_sizes *s);
void list_clip(struct synth_list *l, const struct synth_sizes *s);
void list_vae(struct synth_list *l, const struct synth_sizes *s);
void list_voice(struct synth_list *l, const struct synth_sizes *s);

#endif
