// The CLIP visual tower.
//
//   picture [h, w, 3] in -1..1 -- bicubic to image x image, colours normalised --> pixels
//   pixels -- patches, row-major --> [n, dim];  X = [class token; patches] + position table;  X = norm(X)
//   block: X += proj(attention(qkv(norm1 X)))                 one linear layer for q, k and v, in this order
//          X += mlp.2(gelu(mlp.0(norm2 X)))                   GELU by the error function
//   all blocks but the last; X itself is the result
//
// Easy to get wrong: no low pass when the picture shrinks, and the aspect ratio is not kept; bicubic overshoot is not
// clamped; the patch layer has no bias; there is a norm before the blocks and none after them; the last block, the
// final norm and the head are in the file but not in the result.
//
// Normalising maps v in -1..1 to ((v + 1) / 2 - mean) / std, which is (v - (2 mean - 1)) (1 / 2 std): one column norm.
#include "worker/models/clip.h"

#include "worker/models/load.h"

#include <stdio.h>
#include <stdlib.h>

static const float published_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float published_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

struct clip_linear {
    tensor w, b;
};
struct clip_block {
    tensor norm1_w, norm1_b, norm2_w, norm2_b; // [dim]
    struct clip_linear qkv, proj, mlp0, mlp2;  // [3 dim, dim], [dim, dim], [ffn, dim], [dim, ffn]
};
struct clip {
    struct dev *dev;
    struct dev_arena *arena;
    int n_heads, n_blocks; // n_blocks: those that run
    int64_t image, patch, grid, tokens, dim, ffn;
    float eps;
    tensor mean, scale, one, zero; // F32 [3]: pixel normalisation
    tensor patch_w;                // [dim, 3 patch patch]
    tensor cls, pos;               // [1, dim], [tokens, dim]
    tensor norm_w, norm_b;
    struct clip_block *block;
};

// ---- loading

static int count_blocks(const struct weights *w)
{
    for (int i = 0;; i++) {
        char name[64];
        snprintf(name, sizeof name, "visual.transformer.%d.norm1.weight", i);
        if (!weights_has(w, name)) return i;
    }
}

static int sizes(struct load *l, struct clip *m, const struct clip_config *c)
{
    m->dim = load_axis(l, "visual.patch_embedding.weight", 0);
    m->patch = load_axis(l, "visual.patch_embedding.weight", 3);
    m->ffn = load_axis(l, "visual.transformer.0.mlp.0.weight", 0);
    if (l->rc < 0) return l->rc;
    const char *file = weights_file(l->w, "visual.patch_embedding.weight");
    m->n_heads = c->n_heads ? c->n_heads : 16;
    m->image = c->image ? c->image : 224;
    m->eps = c->eps > 0 ? c->eps : 1e-5f;
    m->n_blocks = count_blocks(l->w) - 1;
    if (m->n_blocks < 1)
        return l->rc =
                   err_set(l->e, E_INPUT,
                           "%s holds %d layers of visual.transformer; the layer before the last is wanted, so there "
                           "must be two or more",
                           file, m->n_blocks + 1);
    if (m->n_heads < 1 || m->dim % m->n_heads)
        return l->rc = err_set(l->e, E_INPUT,
                               "%s: a width of %lld does not split into %d heads; declare the right number of heads of "
                               "the picture encoder",
                               file, (long long)m->dim, m->n_heads);
    if (m->patch < 1 || m->image < 1 || m->image % m->patch)
        return l->rc = err_set(l->e, E_INPUT, "%s: a picture of %lld pixels does not split into patches of %lld", file,
                               (long long)m->image, (long long)m->patch);
    m->grid = m->image / m->patch;
    m->tokens = 1 + m->grid * m->grid;
    tensor pos = NO_TENSOR;
    l->rc = weights_get(l->w, "visual.pos_embedding", &pos, l->e);
    if (l->rc == 0 && tensor_count(pos) != m->tokens * m->dim)
        l->rc =
            err_set(l->e, E_INPUT,
                    "%s: visual.pos_embedding holds %lld values where a picture of %lld pixels needs %lld x %lld; "
                    "declare the picture size that the encoder was made for",
                    file, (long long)tensor_count(pos), (long long)m->image, (long long)m->tokens, (long long)m->dim);
    return l->rc;
}

static tensor pixel_vector(struct load *l, const float v[3])
{
    tensor t = dev_tensor(l->arena, DT_F32, SHAPE(3));
    dev_upload(l->dev, t, v, DT_F32);
    return t;
}

static void load_pixels(struct load *l, struct clip *m)
{
    float mean[3], scale[3];
    for (int i = 0; i < 3; i++) {
        mean[i] = 2 * published_mean[i] - 1;
        scale[i] = 0.5f / published_std[i];
    }
    m->mean = pixel_vector(l, mean);
    m->scale = pixel_vector(l, scale);
    m->one = pixel_vector(l, (float[]){1, 1, 1});
    m->zero = pixel_vector(l, (float[]){0, 0, 0});
}

static void load_patch(struct load *l, struct clip *m)
{
    tensor w = NO_TENSOR;
    if (l->rc == 0)
        l->rc = weights_load(l->w, l->arena, &w, l->dtype, "visual.patch_embedding.weight",
                             SHAPE(m->dim, 3, m->patch, m->patch), l->e);
    if (l->rc < 0) return;
    m->patch_w = op_pack(l->dev, l->arena, tensor_reshape(w, SHAPE(m->dim, 3 * m->patch * m->patch)), PACK_LINEAR);
}

static void load_part(struct load *l, int i, struct clip_linear *p, int64_t n_out, int64_t n_in, const char *name)
{
    load_linear(l, &p->w, &p->b, n_out, n_in, "visual.transformer.%d.%s", i, name);
}

static void load_block(struct load *l, struct clip *m, int i)
{
    struct clip_block *b = &m->block[i];
    b->norm1_w = load_vector(l, m->dim, "visual.transformer.%d.norm1.weight", i);
    b->norm1_b = load_vector(l, m->dim, "visual.transformer.%d.norm1.bias", i);
    b->norm2_w = load_vector(l, m->dim, "visual.transformer.%d.norm2.weight", i);
    b->norm2_b = load_vector(l, m->dim, "visual.transformer.%d.norm2.bias", i);
    load_part(l, i, &b->qkv, 3 * m->dim, m->dim, "attn.to_qkv");
    load_part(l, i, &b->proj, m->dim, m->dim, "attn.proj");
    load_part(l, i, &b->mlp0, m->ffn, m->dim, "mlp.0");
    load_part(l, i, &b->mlp2, m->dim, m->ffn, "mlp.2");
}

int clip_new(struct clip **out, struct dev *d, const struct weights *w, const struct clip_config *c, struct err *e)
{
    struct clip *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, E_FATAL, "no memory for the picture encoder");
    m->dev = d;
    m->arena = dev_arena_new(d, "clip", load_capacity(w));
    struct load l = {.w = w, .dev = d, .arena = m->arena, .dtype = DT_F32, .e = e};
    if (sizes(&l, m, c) == 0) {
        m->block = calloc((size_t)m->n_blocks, sizeof *m->block);
        if (!m->block) l.rc = err_set(e, E_FATAL, "no memory for the picture encoder");
    }
    if (l.rc == 0) {
        load_pixels(&l, m);
        load_patch(&l, m);
        m->cls = load_vector(&l, m->dim, "visual.cls_embedding");
        m->pos = load_vector(&l, m->tokens * m->dim, "visual.pos_embedding");
        m->norm_w = load_vector(&l, m->dim, "visual.pre_norm.weight");
        m->norm_b = load_vector(&l, m->dim, "visual.pre_norm.bias");
        for (int i = 0; i < m->n_blocks; i++) load_block(&l, m, i);
    }
    if (l.rc == 0) l.rc = dev_sync(d, e);
    if (l.rc < 0) {
        clip_free(&m);
        return l.rc;
    }
    m->cls = tensor_reshape(m->cls, SHAPE(1, m->dim));
    m->pos = tensor_reshape(m->pos, SHAPE(m->tokens, m->dim));
    *out = m;
    return 0;
}

void clip_free(struct clip **pm)
{
    struct clip *m = *pm;
    if (!m) return;
    dev_arena_free(&m->arena);
    free(m->block);
    free(m);
    *pm = NULL;
}

int clip_dim(const struct clip *m) { return (int)m->dim; }
int clip_tokens(const struct clip *m) { return (int)m->tokens; }

// ---- forward

// The picture's tokens with their positions, not yet normed, in x.
static void embed(struct clip *m, struct dev_arena *a, tensor x, tensor picture, const struct tap *tap)
{
    struct dev *d = m->dev;
    int64_t mark = dev_arena_mark(a), n = m->grid * m->grid;
    tensor pixels = dev_tensor(a, DT_F32, SHAPE(m->image, m->image, 3));
    op_resize_cubic(d, pixels, picture);
    tensor rows = tensor_reshape(pixels, SHAPE(m->image * m->image, 3));
    op_col_norm(d, rows, rows, m->mean, m->one, m->scale, m->zero, ACT_NONE);
    tap_see(tap, tensor_permute(pixels, (int[]){2, 0, 1}), "pixels");
    tensor u = dev_tensor(a, DT_F32, SHAPE(m->grid, m->grid, 3, m->patch, m->patch));
    tensor split = tensor_split(tensor_split(pixels, 1, m->grid, m->patch), 0, m->grid, m->patch);
    op_copy(d, u, tensor_permute(split, (int[]){0, 2, 4, 1, 3})); // [row, y, column, x, 3] by patch
    tensor patches = tensor_slice(x, 0, 1, m->tokens);
    op_linear(d, patches, tensor_reshape(u, SHAPE(n, 3 * m->patch * m->patch)), m->patch_w, NO_TENSOR, ACT_NONE);
    tap_see(tap, tensor_permute(tensor_split(patches, 0, m->grid, m->grid), (int[]){2, 0, 1}), "patch_embed");
    op_copy(d, tensor_slice(x, 0, 0, 1), m->cls);
    op_axpby(d, x, 1, x, 1, m->pos);
    dev_arena_reset(a, mark);
}

struct clip_buffers {
    tensor x, h, y; // [tokens, dim]
    tensor qkv, f;  // [tokens, 3 dim], [tokens, ffn]
};

// One of q, k, v as [1, tokens, heads, width].
static tensor heads_of(const struct clip *m, tensor rows)
{
    return tensor_split(tensor_split(rows, 1, m->n_heads, m->dim / m->n_heads), 0, 1, m->tokens);
}

static void run_block(struct clip *m, const struct clip_buffers *p, int i, const struct tap *tap)
{
    struct dev *d = m->dev;
    const struct clip_block *b = &m->block[i];
    tensor qkv[3];
    for (int k = 0; k < 3; k++) qkv[k] = heads_of(m, tensor_slice(p->qkv, 1, k * m->dim, (k + 1) * m->dim));
    op_norm(d, p->h, p->x, (struct norm){.gain = b->norm1_w, .bias = b->norm1_b, .eps = m->eps});
    tap_see(tap, p->h, "block%d.norm1.out", i);
    op_linear(d, p->qkv, p->h, b->qkv.w, b->qkv.b, ACT_NONE);
    op_attention(d, heads_of(m, p->h), qkv[0], qkv[1], qkv[2], (struct attn){0});
    op_linear(d, p->y, p->h, b->proj.w, b->proj.b, ACT_NONE);
    tap_see(tap, p->y, "block%d.attn.out", i);
    op_add_norm(d, p->h, p->x, p->y, NO_TENSOR, (struct norm){.gain = b->norm2_w, .bias = b->norm2_b, .eps = m->eps});
    op_linear(d, p->f, p->h, b->mlp0.w, b->mlp0.b, ACT_GELU_ERF);
    op_linear(d, p->y, p->f, b->mlp2.w, b->mlp2.b, ACT_NONE);
    tap_see(tap, p->y, "block%d.mlp.out", i);
    op_gate_add(d, p->x, p->y, NO_TENSOR);
    tap_see(tap, p->x, "block%d.out", i);
}

void clip_encode(struct clip *m, struct dev_arena *a, tensor out, tensor picture, const struct tap *tap)
{
    BUG_IF(out.n != 2 || out.shape[0] != m->tokens || out.shape[1] != m->dim, "picture tokens of %lld x %lld",
           (long long)out.shape[0], (long long)out.shape[1]);
    int64_t mark = dev_arena_mark(a);
    struct clip_buffers p = {.x = dev_tensor(a, DT_F32, SHAPE(m->tokens, m->dim)),
                             .h = dev_tensor(a, DT_F32, SHAPE(m->tokens, m->dim)),
                             .y = dev_tensor(a, DT_F32, SHAPE(m->tokens, m->dim)),
                             .qkv = dev_tensor(a, DT_F32, SHAPE(m->tokens, 3 * m->dim)),
                             .f = dev_tensor(a, DT_F32, SHAPE(m->tokens, m->ffn))};
    embed(m, a, p.x, picture, tap);
    op_norm(m->dev, p.x, p.x, (struct norm){.gain = m->norm_w, .bias = m->norm_b, .eps = m->eps});
    tap_see(tap, p.x, "pre_norm.out");
    for (int i = 0; i < m->n_blocks; i++) run_block(m, &p, i, tap);
    op_copy(m->dev, out, p.x);
    dev_arena_reset(a, mark);
}
