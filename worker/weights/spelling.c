// Spellings of whole models.
//
// A kind of model in one spelling is a row: a tensor that shows it, the prefixes that may stand before it, and a list
// of rules. A rule rewrites a name's head; '#' stands for a number on both sides, and a '*' at the end keeps the rest,
// which a second list of rules may rewrite in turn. The first rule that fits wins; a name that fits none is kept.
//
// A LoRA has none of the tensors that show a model, so its keys are never touched.
#include "worker/weights/spelling.h"

#include "worker/weights/names.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

struct rule {
    const char *from, *to;
};

struct kind {
    const char *mark;            // behind the prefix
    const char *const *prefixes; // NULL-terminated; "" among them where none is usual
    const struct rule *rules, *rest;
    bool diffusers; // the transformer's own table, names.c
};

static const char *const dit_prefixes[] = {"", "model.diffusion_model.", "diffusion_model.", "model.", NULL};
static const char *const text_prefixes[] = {"", "text_encoders.umt5xxl.transformer.", "text_encoder.", "transformer.",
                                            NULL};
static const char *const vae_prefixes[] = {"", "model.", "vae.", "first_stage_model.", NULL};
static const char *const clip_prefixes[] = {"", NULL};

static const struct rule keep[] = {{NULL, NULL}};
static const struct rule adapter_rules[] = {{"multitalk_audio_proj.*", "audio_proj.*"}, {NULL, NULL}};

static const struct rule text_rules[] = {
    {"shared.weight", "token_embedding.weight"},
    {"encoder.final_layer_norm.weight", "norm.weight"},
    {"encoder.block.#.layer.0.layer_norm.weight", "blocks.#.norm1.weight"},
    {"encoder.block.#.layer.1.layer_norm.weight", "blocks.#.norm2.weight"},
    {"encoder.block.#.layer.0.SelfAttention.relative_attention_bias.weight", "blocks.#.pos_embedding.embedding.weight"},
    {"encoder.block.#.layer.0.SelfAttention.*", "blocks.#.attn.*"},
    {"encoder.block.#.layer.1.DenseReluDense.wi_0.weight", "blocks.#.ffn.gate.0.weight"},
    {"encoder.block.#.layer.1.DenseReluDense.wi_1.weight", "blocks.#.ffn.fc1.weight"},
    {"encoder.block.#.layer.1.DenseReluDense.wo.weight", "blocks.#.ffn.fc2.weight"},
    {NULL, NULL},
};

static const struct rule clip_rules[] = {
    {"vision_model.embeddings.class_embedding", "visual.cls_embedding"},
    {"vision_model.embeddings.patch_embedding.*", "visual.patch_embedding.*"},
    {"vision_model.embeddings.position_embedding.weight", "visual.pos_embedding"},
    {"vision_model.pre_layrnorm.*", "visual.pre_norm.*"},
    {"vision_model.pre_layernorm.*", "visual.pre_norm.*"},
    {"vision_model.post_layernorm.*", "visual.post_norm.*"},
    {"vision_model.encoder.layers.#.layer_norm1.*", "visual.transformer.#.norm1.*"},
    {"vision_model.encoder.layers.#.layer_norm2.*", "visual.transformer.#.norm2.*"},
    {"vision_model.encoder.layers.#.self_attn.out_proj.*", "visual.transformer.#.attn.proj.*"},
    {"vision_model.encoder.layers.#.mlp.fc1.*", "visual.transformer.#.mlp.0.*"},
    {"vision_model.encoder.layers.#.mlp.fc2.*", "visual.transformer.#.mlp.2.*"},
    {NULL, NULL},
};

static const struct rule vae_rules[] = {
    {"encoder.conv_in.*", "encoder.conv1.*"},
    {"decoder.conv_in.*", "decoder.conv1.*"},
    {"encoder.norm_out.*", "encoder.head.0.*"},
    {"decoder.norm_out.*", "decoder.head.0.*"},
    {"encoder.conv_out.*", "encoder.head.2.*"},
    {"decoder.conv_out.*", "decoder.head.2.*"},
    {"quant_conv.*", "conv1.*"},
    {"post_quant_conv.*", "conv2.*"},
    {"encoder.mid_block.resnets.0.*", "encoder.middle.0.*"},
    {"encoder.mid_block.resnets.1.*", "encoder.middle.2.*"},
    {"encoder.mid_block.attentions.0.*", "encoder.middle.1.*"},
    {"decoder.mid_block.resnets.0.*", "decoder.middle.0.*"},
    {"decoder.mid_block.resnets.1.*", "decoder.middle.2.*"},
    {"decoder.mid_block.attentions.0.*", "decoder.middle.1.*"},
    {"encoder.down_blocks.#.*", "encoder.downsamples.#.*"},
    {"decoder.up_blocks.0.resnets.#.*", "decoder.upsamples.#.*"},
    {"decoder.up_blocks.0.upsamplers.0.*", "decoder.upsamples.3.*"},
    {"decoder.up_blocks.1.resnets.0.*", "decoder.upsamples.4.*"},
    {"decoder.up_blocks.1.resnets.1.*", "decoder.upsamples.5.*"},
    {"decoder.up_blocks.1.resnets.2.*", "decoder.upsamples.6.*"},
    {"decoder.up_blocks.1.upsamplers.0.*", "decoder.upsamples.7.*"},
    {"decoder.up_blocks.2.resnets.0.*", "decoder.upsamples.8.*"},
    {"decoder.up_blocks.2.resnets.1.*", "decoder.upsamples.9.*"},
    {"decoder.up_blocks.2.resnets.2.*", "decoder.upsamples.10.*"},
    {"decoder.up_blocks.2.upsamplers.0.*", "decoder.upsamples.11.*"},
    {"decoder.up_blocks.3.resnets.0.*", "decoder.upsamples.12.*"},
    {"decoder.up_blocks.3.resnets.1.*", "decoder.upsamples.13.*"},
    {"decoder.up_blocks.3.resnets.2.*", "decoder.upsamples.14.*"},
    {NULL, NULL},
};
static const struct rule vae_rest[] = {
    {"norm1.gamma", "residual.0.gamma"}, {"conv1.*", "residual.2.*"},       {"norm2.gamma", "residual.3.gamma"},
    {"conv2.*", "residual.6.*"},         {"conv_shortcut.*", "shortcut.*"}, {NULL, NULL},
};

// A whole model in our own names comes last of its kind: it may still have a prefix.
static const struct kind kinds[] = {
    {"condition_embedder.time_proj.weight", dit_prefixes, keep, NULL, true},
    {"blocks.0.self_attn.q.weight", dit_prefixes, adapter_rules, NULL, false},
    {"audio_proj.proj1.weight", dit_prefixes, keep, NULL, false},
    {"multitalk_audio_proj.proj1.weight", dit_prefixes, adapter_rules, NULL, false},
    {"encoder.block.0.layer.0.SelfAttention.q.weight", text_prefixes, text_rules, NULL, false},
    {"blocks.0.attn.q.weight", text_prefixes, keep, NULL, false},
    {"vision_model.embeddings.patch_embedding.weight", clip_prefixes, clip_rules, NULL, false},
    {"encoder.conv_in.weight", vae_prefixes, vae_rules, vae_rest, false},
    {"decoder.upsamples.0.residual.2.weight", vae_prefixes, keep, NULL, false},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

// Whether `name` fits r->from; *number is what '#' stands for, *rest what '*' does.
static bool fits(const struct rule *r, const char *name, char number[16], const char **rest)
{
    const char *p = r->from;
    *rest = "";
    number[0] = 0;
    for (; *p; p++) {
        if (*p == '*') {
            *rest = name;
            return true;
        }
        if (*p != '#') {
            if (*p != *name++) return false;
            continue;
        }
        size_t n = 0;
        while (isdigit((unsigned char)name[n])) n++;
        if (n == 0 || n >= 16) return false;
        memcpy(number, name, n);
        number[n] = 0;
        name += n;
    }
    return *name == 0;
}

static bool rewrite(const struct rule *rules, const struct rule *more, const char *name, char *out, size_t n)
{
    for (const struct rule *r = rules; r->from; r++) {
        char number[16], inner[512];
        const char *rest, *p;
        size_t at = 0;
        if (!fits(r, name, number, &rest)) continue;
        if (more && rewrite(more, NULL, rest, inner, sizeof inner)) rest = inner;
        for (p = r->to; *p && at < n; p++) {
            if (*p == '#')
                at += (size_t)snprintf(out + at, n - at, "%s", number);
            else if (*p == '*')
                at += (size_t)snprintf(out + at, n - at, "%s", rest);
            else
                out[at++] = *p;
        }
        if (at >= n) return false;
        out[at] = 0;
        return true;
    }
    return false;
}

struct spelling {
    const struct kind *kind;
    const char *prefix;
};

static bool our_name(const void *ctx, const char *name, char *out, size_t n)
{
    const struct spelling *s = ctx;
    const struct kind *k = s->kind;
    size_t m = strlen(s->prefix);
    if (strncmp(name, s->prefix, m) != 0) return false;
    if (k->diffusers ? names_from_diffusers(out, n, name + m) : rewrite(k->rules, k->rest, name + m, out, n))
        return true;
    if (m > 0) snprintf(out, n, "%s", name + m);
    return m > 0;
}

// ---- CLIP's three projections in one

// Rows of q, k and v below each other, as new[3 dim, ...].
static int fuse_one(struct weights *w, int layer, const char *tail, struct err *e)
{
    tensor part[3] = {0};
    char name[160];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "vision_model.encoder.layers.%d.self_attn.%c_proj.%s", layer, "qkv"[i], tail);
        int rc = weights_get(w, name, &part[i], e);
        if (rc < 0) return rc;
        if (part[i].n < 1 || part[i].dtype != part[0].dtype || !tensor_same_shape(part[i], part[0]) ||
            !tensor_is_contiguous(part[i]) || part[i].scale)
            return err_set(e, E_INPUT, "%s: '%s' is not made like its neighbours", weights_file(w, name), name);
    }
    int64_t shape[TENSOR_DIMS], bytes = tensor_bytes(part[0]);
    memcpy(shape, part[0].shape, sizeof shape);
    shape[0] *= 3;
    char *data = weights_alloc(w, (size_t)bytes * 3);
    for (int i = 0; i < 3; i++) memcpy(data + i * bytes, part[i].data, (size_t)bytes);
    snprintf(name, sizeof name, "visual.transformer.%d.attn.to_qkv.%s", layer, tail);
    weights_put(w, name, tensor_of(data, part[0].dtype, part[0].n, shape));
    return 0;
}

static int fuse(struct weights *w, struct err *e)
{
    int rc = 0;
    for (int i = 0; rc == 0; i++) {
        char name[160];
        snprintf(name, sizeof name, "vision_model.encoder.layers.%d.self_attn.q_proj.weight", i);
        if (!weights_is_new(w, name)) break;
        rc = fuse_one(w, i, "weight", e);
        if (rc == 0) rc = fuse_one(w, i, "bias", e);
    }
    return rc;
}

// ---- all kinds

static bool find_prefix(const struct weights *w, struct spelling *s)
{
    for (const char *const *p = s->kind->prefixes; *p; p++) {
        char name[160];
        s->prefix = *p;
        snprintf(name, sizeof name, "%s%s", *p, s->kind->mark);
        if (weights_is_new(w, name)) return true;
    }
    return false;
}

int spelling_settle(struct weights *w, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < N_KINDS && rc == 0; i++) {
        struct spelling s = {.kind = &kinds[i]};
        if (!find_prefix(w, &s)) continue;
        rc = weights_rename(w, our_name, &s, e);
        if (rc == 0 && s.kind->rules == clip_rules) rc = fuse(w, e);
    }
    return rc;
}
