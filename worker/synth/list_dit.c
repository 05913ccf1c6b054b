// The diffusion transformer and its adapter (spec: dit 2), name by name.
//
// Where scales are not one: a GELU or SiLU halves its input's power or worse, so the layer behind it gets more gain;
// attention averages over many keys, so output projections get more; time must move the modulation, whose sinusoids go
// through three layers and two SiLUs.
#include "worker/synth/parts.h"

static void list_block(struct synth_list *l, const struct synth_sizes *s, int i)
{
    static const char *const self[] = {"q", "k", "v"};
    static const char *const cross[] = {"q", "k", "v", "k_img", "v_img"};
    int64_t d = s->dim;
    list_add(l, (struct draw){0, 0.5f}, SHAPE(1, 6, d), "blocks.%d.modulation", i);
    for (int k = 0; k < 3; k++) list_layer(l, 1, SHAPE(d, d), "blocks.%d.self_attn.%s", i, self[k]);
    list_layer(l, 2, SHAPE(d, d), "blocks.%d.self_attn.o", i);
    list_gain(l, SHAPE(d), "blocks.%d.self_attn.norm_q.weight", i);
    list_gain(l, SHAPE(d), "blocks.%d.self_attn.norm_k.weight", i);
    list_norm(l, d, "blocks.%d.norm3", i);
    for (int k = 0; k < 5; k++) list_layer(l, 1, SHAPE(d, d), "blocks.%d.cross_attn.%s", i, cross[k]);
    list_layer(l, 2, SHAPE(d, d), "blocks.%d.cross_attn.o", i);
    list_gain(l, SHAPE(d), "blocks.%d.cross_attn.norm_q.weight", i);
    list_gain(l, SHAPE(d), "blocks.%d.cross_attn.norm_k.weight", i);
    list_gain(l, SHAPE(d), "blocks.%d.cross_attn.norm_k_img.weight", i);
    list_layer(l, 1, SHAPE(s->ffn, d), "blocks.%d.ffn.0", i);
    list_layer(l, 1.5, SHAPE(d, s->ffn), "blocks.%d.ffn.2", i);
}

void list_dit(struct synth_list *l, const struct synth_sizes *s)
{
    int64_t d = s->dim, z = s->vae_z, c = s->clip_dim;
    list_layer(l, 1, SHAPE(d, 2 * z + 4, 1, 2, 2), "patch_embedding");
    list_layer(l, 1, SHAPE(d, s->text_dim), "text_embedding.0");
    list_layer(l, 1.5, SHAPE(d, d), "text_embedding.2");
    list_layer(l, 1.5, SHAPE(d, s->freq), "time_embedding.0");
    list_layer(l, 2, SHAPE(d, d), "time_embedding.2");
    list_layer(l, 1.5, SHAPE(6 * d, d), "time_projection.1");
    list_norm(l, c, "img_emb.proj.0");
    list_layer(l, 1, SHAPE(c, c), "img_emb.proj.1");
    list_layer(l, 1.5, SHAPE(d, c), "img_emb.proj.3");
    list_norm(l, d, "img_emb.proj.4");
    for (int i = 0; i < s->layers; i++) list_block(l, s, i);
    list_layer(l, 0.6, SHAPE(4 * z, d), "head.head");
    list_add(l, (struct draw){0, 0.5f}, SHAPE(1, 2, d), "head.modulation");
}

void list_adapter(struct synth_list *l, const struct synth_sizes *s)
{
    int64_t d = s->dim, width = s->voice_layers * s->voice_dim, inner = s->audio_inner, a = s->audio_dim;
    list_layer(l, 1, SHAPE(inner, 5 * width), "audio_proj.proj1");
    list_layer(l, 1, SHAPE(inner, 8 * width), "audio_proj.proj1_vf");
    list_layer(l, 1.4, SHAPE(inner, inner), "audio_proj.proj2");
    list_layer(l, 1.4, SHAPE(s->audio_tokens * a, inner), "audio_proj.proj3");
    list_norm(l, a, "audio_proj.norm");
    for (int i = 0; i < s->layers; i++) {
        list_norm(l, d, "blocks.%d.norm_x", i);
        list_layer(l, 1, SHAPE(d, d), "blocks.%d.audio_cross_attn.q_linear", i);
        list_layer(l, 1, SHAPE(2 * d, a), "blocks.%d.audio_cross_attn.kv_linear", i);
        list_layer(l, 2, SHAPE(d, d), "blocks.%d.audio_cross_attn.proj", i);
    }
}
