// Loading the diffusion transformer. The forward pass stands in dit_forward.c, what is computed once per job or
// segment in dit_context.c, the table of a block's tensors in dit_blocks.c.
//
// Names and shapes are those of the published checkpoint plus adapter (dit 2). Sizes come from the shapes; only what
// they cannot tell (head count, text length, audio window) is asked of the caller.
#include "worker/models/dit.h"

#include "worker/models/dit_parts.h"
#include "worker/models/load.h"

#include <stdio.h>
#include <stdlib.h>

// A field that the shapes tell: takes it, or refuses a declaration that says otherwise.
static void settle(struct load *l, int *field, int64_t found, const char *what)
{
    if (l->rc < 0) return;
    if (*field > 0 && *field != found)
        l->rc = err_set(l->e, E_INPUT, "the model declares %s %d, but its weights have %lld", what, *field,
                        (long long)found);
    *field = (int)found;
}

static void default_to(int *field, int value)
{
    if (*field == 0) *field = value;
}

static int count_layers(const struct weights *w)
{
    for (int i = 0;; i++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%d.modulation", i);
        if (!weights_has(w, name)) return i;
    }
}

static int config_derive(struct load *l, struct dit_config *c)
{
    if (weights_has(l->w, "patch_embedding.weight") && !weights_has(l->w, "img_emb.proj.0.weight"))
        return l->rc = err_set(l->e, E_INPUT,
                               "%s makes videos from words alone (it has no img_emb.proj); a picture needs an "
                               "image-to-video model: fetch Wan2.1-I2V-14B",
                               weights_file(l->w, "patch_embedding.weight"));
    settle(l, &c->dim, load_axis(l, "patch_embedding.weight", 0), "dim");
    settle(l, &c->in_dim, load_axis(l, "patch_embedding.weight", 1), "in_dim");
    settle(l, &c->out_dim, load_axis(l, "head.head.weight", 0) / 4, "out_dim");
    settle(l, &c->ffn_dim, load_axis(l, "blocks.0.ffn.0.weight", 0), "ffn_dim");
    settle(l, &c->freq_dim, load_axis(l, "time_embedding.0.weight", 1), "freq_dim");
    settle(l, &c->text_dim, load_axis(l, "text_embedding.0.weight", 1), "text_dim");
    settle(l, &c->clip_dim, load_axis(l, "img_emb.proj.0.weight", 0), "clip_dim");
    load_axis(l, "blocks.0.modulation", 0); // one block at least
    if (l->rc < 0) return l->rc;
    settle(l, &c->n_layers, count_layers(l->w), "num_layers");
    default_to(&c->n_heads, 40);
    default_to(&c->text_len, 512);
    default_to(&c->clip_tokens, 257);
    default_to(&c->audio_window, 5);
    default_to(&c->vae_scale, 4);
    if (c->eps == 0) c->eps = 1e-6f;
    if (l->rc == 0 && (c->dim % c->n_heads || c->dim / c->n_heads % 2 || c->dim / c->n_heads < 6))
        l->rc = err_set(l->e, E_INPUT,
                        "a width of %d does not split into %d heads of an even width of 6 or more; declare the right "
                        "num_heads in config.json",
                        c->dim, c->n_heads);
    if (l->rc == 0 && c->in_dim != 2 * c->out_dim + 4)
        l->rc = err_set(l->e, E_INPUT, "the patch embedding takes %d channels where an image-to-video model takes %d",
                        c->in_dim, 2 * c->out_dim + 4);
    return l->rc;
}

static void load_dit_linear(struct load *l, struct dit_linear *p, int64_t n_out, int64_t n_in, const char *name)
{
    load_linear(l, &p->w, &p->b, n_out, n_in, "%s", name);
}

// The patch convolution has kernel = stride, so it is a linear layer over patch vectors, channel slowest.
static void load_patch(struct load *l, struct dit *m)
{
    tensor w = NO_TENSOR;
    int64_t d = m->c.dim, n = m->c.in_dim * 4;
    if (l->rc == 0)
        l->rc =
            weights_load(l->w, l->arena, &w, l->dtype, "patch_embedding.weight", SHAPE(d, m->c.in_dim, 1, 2, 2), l->e);
    m->patch.b = load_vector(l, d, "patch_embedding.bias");
    if (l->rc == 0) m->patch.w = op_pack(l->dev, l->arena, tensor_reshape(w, SHAPE(d, n)), PACK_LINEAR);
}

static void load_global(struct load *l, struct dit *m)
{
    const struct dit_config *c = &m->c;
    int64_t d = c->dim;
    load_patch(l, m);
    load_dit_linear(l, &m->text0, d, c->text_dim, "text_embedding.0");
    load_dit_linear(l, &m->text2, d, d, "text_embedding.2");
    load_dit_linear(l, &m->time0, d, c->freq_dim, "time_embedding.0");
    load_dit_linear(l, &m->time2, d, d, "time_embedding.2");
    load_dit_linear(l, &m->time_proj, 6 * d, d, "time_projection.1");
    m->img0_w = load_vector(l, c->clip_dim, "img_emb.proj.0.weight");
    m->img0_b = load_vector(l, c->clip_dim, "img_emb.proj.0.bias");
    load_dit_linear(l, &m->img1, c->clip_dim, c->clip_dim, "img_emb.proj.1");
    load_dit_linear(l, &m->img3, d, c->clip_dim, "img_emb.proj.3");
    m->img4_w = load_vector(l, d, "img_emb.proj.4.weight");
    m->img4_b = load_vector(l, d, "img_emb.proj.4.bias");
    load_dit_linear(l, &m->head, c->out_dim * 4, d, "head.head");
    tensor hm = load_vector(l, 2 * d, "head.modulation");
    if (l->rc == 0) m->head_modulation = tensor_reshape(hm, SHAPE(2, d));
}

static int make(struct dit **out, struct dev *d, const struct weights *w, const struct dit_config *want, enum dtype t,
                struct comm *group, bool streamed, struct err *e)
{
    struct dit *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, E_FATAL, "no memory for the diffusion model");
    m->dev = d;
    m->dtype = t;
    m->c = *want;
    m->arena = dev_arena_new(d, "dit", load_capacity(w));
    struct load l = {.w = w, .dev = d, .arena = m->arena, .dtype = t, .e = e};
    if (config_derive(&l, &m->c) == 0)
        l.rc = audio_proj_load(&m->audio, d, m->arena, w, m->c.audio_window, m->c.vae_scale, t, e);
    if (l.rc == 0) {
        settle(&l, &m->c.audio_width, m->audio.width, "audio features");
        settle(&l, &m->c.audio_dim, m->audio.dim, "audio_dim");
        settle(&l, &m->c.audio_tokens, m->audio.tokens, "audio_tokens");
    }
    m->block = calloc((size_t)(m->c.n_layers > 0 ? m->c.n_layers : 1), sizeof *m->block);
    if (l.rc == 0) load_global(&l, m);
    if (group) {
        l.rc = comm_agree(group, l.rc, NULL, e);
        if (l.rc == 0) l.rc = dit_blocks_share(m, w, group, streamed, e);
    } else
        dit_blocks_load(&l, m);
    if (l.rc == 0) l.rc = dev_sync(d, e);
    if (l.rc < 0)
        dit_free(&m);
    else
        *out = m;
    return l.rc;
}

int dit_new(struct dit **out, struct dev *d, const struct weights *w, const struct dit_config *want, enum dtype t,
            struct err *e)
{
    return make(out, d, w, want, t, NULL, false, e);
}

int dit_new_shared(struct dit **out, struct dev *d, const struct weights *w, const struct dit_config *want,
                   enum dtype t, struct comm *group, struct err *e)
{
    return make(out, d, w, want, t, group, false, e);
}

int dit_new_streamed(struct dit **out, struct dev *d, const struct weights *w, const struct dit_config *want,
                     enum dtype t, struct comm *alone, struct err *e)
{
    return make(out, d, w, want, t, alone, true, e);
}

void dit_free(struct dit **pm)
{
    struct dit *m = *pm;
    if (!m) return;
    dit_blocks_free(m);
    dev_arena_free(&m->arena);
    free(m);
    *pm = NULL;
}

const struct dit_config *dit_config_of(const struct dit *m) { return &m->c; }
enum dtype dit_dtype(const struct dit *m) { return m->dtype; }
int64_t dit_bytes(const struct dit *m) { return dev_arena_mark(m->arena); }
