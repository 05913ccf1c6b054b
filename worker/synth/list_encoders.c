// The encoders of words, picture and voice (spec: encoders A3, B2, C5), name by name.
//
// Left out of the published files is CLIP's text half, which no renderer reads. The speech encoder keeps the heads of
// its pre-training, which readers must pass over.
//
// umT5 does not divide its scores by the root of the head width, so its queries are drawn smaller by that root. The
// speech encoder's convolutions are not normalised but for the first, so each makes up for the GELU before it. Its
// position convolution is split: weight_g is the length of each tap, sqrt(width / taps) for unit outputs.
#include "worker/synth/parts.h"

#include <math.h>

void list_text(struct synth_list *l, const struct synth_sizes *s)
{
    int64_t d = s->text_dim, a = s->text_inner, f = s->text_ffn;
    list_add(l, (struct draw){0, 1.7f}, SHAPE(s->vocabulary, d), "token_embedding.weight");
    for (int i = 0; i < s->text_layers; i++) {
        list_gain(l, SHAPE(d), "blocks.%d.norm1.weight", i);
        list_weight(l, 1 / sqrt((double)a / s->text_heads), SHAPE(a, d), "blocks.%d.attn.q", i);
        list_weight(l, 1, SHAPE(a, d), "blocks.%d.attn.k", i);
        list_weight(l, 1, SHAPE(a, d), "blocks.%d.attn.v", i);
        list_weight(l, 1, SHAPE(d, a), "blocks.%d.attn.o", i);
        list_gain(l, SHAPE(d), "blocks.%d.norm2.weight", i);
        list_weight(l, 1, SHAPE(f, d), "blocks.%d.ffn.gate.0", i);
        list_weight(l, 1, SHAPE(f, d), "blocks.%d.ffn.fc1", i);
        list_weight(l, 1.5, SHAPE(d, f), "blocks.%d.ffn.fc2", i);
        list_add(l, (struct draw){0, 1}, SHAPE(s->text_buckets, s->text_heads),
                 "blocks.%d.pos_embedding.embedding.weight", i);
    }
    list_gain(l, SHAPE(d), "norm.weight");
}

void list_clip(struct synth_list *l, const struct synth_sizes *s)
{
    int64_t d = s->clip_dim;
    struct draw half = {0, 0.8f};
    list_add(l, (struct draw){4, 0}, SHAPE(1), "log_scale");
    list_weight(l, 1, SHAPE(d, 3, 14, 14), "visual.patch_embedding");
    list_add(l, half, SHAPE(1, 1, d), "visual.cls_embedding");
    list_add(l, half, SHAPE(1, s->clip_tokens, d), "visual.pos_embedding");
    list_norm(l, d, "visual.pre_norm");
    for (int i = 0; i < s->clip_layers; i++) {
        list_norm(l, d, "visual.transformer.%d.norm1", i);
        list_layer(l, 1, SHAPE(3 * d, d), "visual.transformer.%d.attn.to_qkv", i);
        list_layer(l, 1, SHAPE(d, d), "visual.transformer.%d.attn.proj", i);
        list_norm(l, d, "visual.transformer.%d.norm2", i);
        list_layer(l, 1, SHAPE(s->clip_ffn, d), "visual.transformer.%d.mlp.0", i);
        list_layer(l, 1.5, SHAPE(d, s->clip_ffn), "visual.transformer.%d.mlp.2", i);
    }
    list_norm(l, d, "visual.post_norm");
    list_add(l, (struct draw){0, (float)(sqrt(3) / sqrt((double)d))}, SHAPE(d, s->clip_out), "visual.head");
}

static void list_voice_layer(struct synth_list *l, const struct synth_sizes *s, int i)
{
    static const char *const part[] = {"k", "v", "q", "out"};
    int64_t d = s->voice_dim;
    for (int k = 0; k < 4; k++)
        list_layer(l, 1, SHAPE(d, d), "wav2vec2.encoder.layers.%d.attention.%s_proj", i, part[k]);
    list_norm(l, d, "wav2vec2.encoder.layers.%d.layer_norm", i);
    list_layer(l, 1, SHAPE(s->voice_ffn, d), "wav2vec2.encoder.layers.%d.feed_forward.intermediate_dense", i);
    list_layer(l, 1.5, SHAPE(d, s->voice_ffn), "wav2vec2.encoder.layers.%d.feed_forward.output_dense", i);
    list_norm(l, d, "wav2vec2.encoder.layers.%d.final_layer_norm", i);
}

void list_voice(struct synth_list *l, const struct synth_sizes *s)
{
    static const int kernel[] = {10, 3, 3, 3, 3, 2, 2};
    int64_t d = s->voice_dim, c = s->voice_conv, code = s->voice_code;
    float tap = (float)sqrt((double)d / (double)s->voice_kernel);
    list_add(l, (struct draw){0, 1}, SHAPE(d), "wav2vec2.masked_spec_embed");
    for (int i = 0; i < 7; i++) {
        list_weight(l, i ? 1.5 : 1, SHAPE(c, i ? c : 1, kernel[i]), "wav2vec2.feature_extractor.conv_layers.%d.conv",
                    i);
        if (i == 0) list_norm(l, c, "wav2vec2.feature_extractor.conv_layers.0.layer_norm");
    }
    list_norm(l, c, "wav2vec2.feature_projection.layer_norm");
    list_layer(l, 1, SHAPE(d, c), "wav2vec2.feature_projection.projection");
    list_add(l, (struct draw){0, 0.05f}, SHAPE(d), "wav2vec2.encoder.pos_conv_embed.conv.bias");
    list_add(l, (struct draw){tap, 0.1f * tap}, SHAPE(1, 1, s->voice_kernel),
             "wav2vec2.encoder.pos_conv_embed.conv.weight_g");
    list_add(l, (struct draw){0, 1}, SHAPE(d, d / s->voice_groups, s->voice_kernel),
             "wav2vec2.encoder.pos_conv_embed.conv.weight_v");
    list_norm(l, d, "wav2vec2.encoder.layer_norm");
    for (int i = 0; i < s->voice_layers; i++) list_voice_layer(l, s, i);
    list_add(l, (struct draw){0, 1}, SHAPE(1, s->voice_codes, code / 2), "quantizer.codevectors");
    list_layer(l, 1, SHAPE(s->voice_codes, c), "quantizer.weight_proj");
    list_layer(l, 1, SHAPE(code, code), "project_q");
    list_layer(l, 1, SHAPE(code, d), "project_hid");
}
