// The video VAE (spec: vae 3), name by name. Both halves are made from one rule: stages of residual blocks with widths
// times 1, 2, 4, 4, a resampler between stages; the encoder goes down, the decoder comes up and has a block more a
// stage.
//
// Every convolution of a residual block sees normalised, SiLU'd values, and the heads too; only the two pointwise
// convolutions at the latent end face the published deviations of the latents, about 2.2.
#include "worker/synth/parts.h"

enum { STAGES = 4 };

static void list_res(struct synth_list *l, int64_t ci, int64_t co, const char *half, const char *part, int i)
{
    list_gain(l, SHAPE(ci, 1, 1, 1), "%s.%s.%d.residual.0.gamma", half, part, i);
    list_layer(l, 1.5, SHAPE(co, ci, 3, 3, 3), "%s.%s.%d.residual.2", half, part, i);
    list_gain(l, SHAPE(co, 1, 1, 1), "%s.%s.%d.residual.3.gamma", half, part, i);
    list_layer(l, 1.5, SHAPE(co, co, 3, 3, 3), "%s.%s.%d.residual.6", half, part, i);
    if (ci != co) list_layer(l, 1, SHAPE(co, ci, 1, 1, 1), "%s.%s.%d.shortcut", half, part, i);
}

static void list_middle(struct synth_list *l, int64_t c, const char *half)
{
    list_res(l, c, c, half, "middle", 0);
    list_gain(l, SHAPE(c, 1, 1), "%s.middle.1.norm.gamma", half);
    list_layer(l, 1, SHAPE(3 * c, c, 1, 1), "%s.middle.1.to_qkv", half);
    list_layer(l, 1, SHAPE(c, c, 1, 1), "%s.middle.1.proj", half);
    list_res(l, c, c, half, "middle", 2);
}

static void list_head(struct synth_list *l, double gain, int64_t ci, int64_t co, const char *half)
{
    list_gain(l, SHAPE(ci, 1, 1, 1), "%s.head.0.gamma", half);
    list_layer(l, gain, SHAPE(co, ci, 3, 3, 3), "%s.head.2", half);
}

static void list_encoder(struct synth_list *l, const int64_t *width, int64_t z)
{
    int n = 0;
    int64_t c = width[0];
    list_layer(l, 2, SHAPE(c, 3, 3, 3, 3), "encoder.conv1");
    for (int stage = 0; stage < STAGES; stage++) {
        for (int k = 0; k < 2; k++) {
            list_res(l, c, width[stage], "encoder", "downsamples", n++);
            c = width[stage];
        }
        if (stage == STAGES - 1) break;
        list_layer(l, 1, SHAPE(c, c, 3, 3), "encoder.downsamples.%d.resample.1", n);
        if (stage > 0) list_layer(l, 1, SHAPE(c, c, 3, 1, 1), "encoder.downsamples.%d.time_conv", n);
        n++;
    }
    list_middle(l, c, "encoder");
    list_head(l, 1.5, c, 2 * z, "encoder");
}

static void list_decoder(struct synth_list *l, const int64_t *width, int64_t z)
{
    int n = 0;
    int64_t c = width[STAGES - 1];
    list_layer(l, 1, SHAPE(c, z, 3, 3, 3), "decoder.conv1");
    list_middle(l, c, "decoder");
    for (int stage = STAGES - 1; stage >= 0; stage--) {
        for (int k = 0; k < 3; k++) {
            list_res(l, c, width[stage], "decoder", "upsamples", n++);
            c = width[stage];
        }
        if (stage == 0) break;
        if (stage > 1) list_layer(l, 1, SHAPE(2 * c, c, 3, 1, 1), "decoder.upsamples.%d.time_conv", n);
        list_layer(l, 1, SHAPE(c / 2, c, 3, 3), "decoder.upsamples.%d.resample.1", n++);
        c /= 2;
    }
    list_head(l, 0.6, c, 3, "decoder");
}

void list_vae(struct synth_list *l, const struct synth_sizes *s)
{
    int64_t d = s->vae_dim, z = s->vae_z, width[STAGES] = {d, 2 * d, 4 * d, 4 * d};
    list_encoder(l, width, z);
    list_layer(l, 2.2, SHAPE(2 * z, 2 * z, 1, 1, 1), "conv1");
    list_layer(l, 0.45, SHAPE(z, z, 1, 1, 1), "conv2");
    list_decoder(l, width, z);
}
