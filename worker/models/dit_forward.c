// One velocity prediction.
//
//   x [16], y [20] of [t, h, w] -- patches of 1x2x2 --> X [n, dim], n = t (h/2) (w/2), time slowest
//   block: X += gate * self(modulate(norm X))             q, k: RMS over the whole width, then 3D rope
//          X += cross(norm3 X)                            words and picture: one query, two softmaxes, summed
//          X += audio(norm_x X)                           per latent frame, its own tokens only
//          X += gate * ffn(modulate(norm X))
//   head: modulate(norm X) by e -> 64 per token -> [16, t, h, w]
//
// Easy to get wrong: norm3 belongs to the second part and norm2 (no parameters) to the last; patch vectors are channel
// slowest going in, channel fastest coming out; the head takes e, the blocks e0; with two speakers the map is made from
// q and k after rope and against the first latent frame only, per block; the branch without voice has one speaker.
//
// Memory: five buffers of [n, dim]; the feed-forward part runs in pieces of rows.
#include "worker/models/dit_parts.h"

enum { FFN_ROWS = 4096 };

struct pass {
    const struct dit *m;
    struct dev *d;
    struct dev_arena *a;
    const struct dit_in *in;
    const struct tap *tap;
    int64_t t, gh, gw, n;             // latent frames, token grid, tokens
    tensor x, h, q, k, v;             // [n, dim]
    tensor f;                         // [FFN_ROWS, ffn_dim]
    tensor mod;                       // F32 [6, dim] of the block under way
    tensor rope;                      // F32 [n, width / 2, 2]
    tensor map, lohi, pos, pos_table; // two speakers
};

static struct norm modulated(const struct pass *p, int shift)
{
    return (struct norm){.shift = tensor_at(p->mod, shift), .scale = tensor_at(p->mod, shift + 1), .eps = p->m->c.eps};
}

// A video tensor [c, t, h, w] as patches [t, gh, gw, c, 2, 2].
static tensor patches_of(const struct pass *p, tensor v)
{
    v = tensor_split(tensor_split(v, 3, p->gw, 2), 2, p->gh, 2); // [c, t, gh, 2, gw, 2]
    return tensor_permute(v, (int[]){1, 2, 4, 0, 3, 5});
}

static void embed_patches(struct pass *p)
{
    const struct dit *m = p->m;
    int64_t mark = dev_arena_mark(p->a), c = m->c.out_dim;
    tensor u = dev_tensor(p->a, m->dtype, SHAPE(p->t, p->gh, p->gw, m->c.in_dim, 2, 2));
    op_copy(p->d, tensor_slice(u, 3, 0, c), patches_of(p, p->in->x));
    op_copy(p->d, tensor_slice(u, 3, c, m->c.in_dim), patches_of(p, p->in->y));
    op_linear(p->d, p->x, tensor_reshape(u, SHAPE(p->n, m->c.in_dim * 4)), m->patch.w, m->patch.b, ACT_NONE);
    dev_arena_reset(p->a, mark);
    tap_see(p->tap, p->x, "patch_embed");
}

// [n, dim] as one batch of attention.
static tensor batch_of(const struct pass *p, tensor rows)
{
    rows = heads_of(p->m, rows);
    return tensor_split(rows, 0, 1, rows.shape[0]);
}

// What only a listener wants to see: q and k between norm and rope.
static void tap_normed(struct pass *p, const struct dit_block *b, int i)
{
    if (!p->tap) return;
    int64_t mark = dev_arena_mark(p->a);
    tensor y = dev_tensor(p->a, p->m->dtype, SHAPE(p->n, p->m->c.dim));
    op_rms_norm(p->d, y, p->q, b->norm_q, p->m->c.eps);
    tap_see(p->tap, heads_of(p->m, y), "block%d.self_attn.q_norm", i);
    op_rms_norm(p->d, y, p->k, b->norm_k, p->m->c.eps);
    tap_see(p->tap, heads_of(p->m, y), "block%d.self_attn.k_norm", i);
    dev_arena_reset(p->a, mark);
}

// Which speaker each token belongs to, as a position; from the rotated q and k. A listener sees the map with one
// speaker too.
static void find_speakers(struct pass *p, int i)
{
    bool two = p->in->voice->n_speakers == 2;
    if (!two && (!p->tap || tensor_is_none(p->in->masks))) return;
    const struct dit *m = p->m;
    tensor k = tensor_slice(heads_of(m, p->k), 0, 0, p->gh * p->gw);
    op_attention_map(p->d, p->map, heads_of(m, p->q), k, p->in->masks, m->c.published);
    tap_see(p->tap, p->map, "block%d.x_ref_attn_map", i);
    if (!two) return;
    op_row_range(p->d, p->lohi, p->map);
    op_class_pos(p->d, p->pos, p->map, p->lohi, m->dtype == DT_BF16);
    op_rope_line(p->d, p->pos_table, p->pos);
    tap_see(p->tap, p->pos, "block%d.audio_pos_q", i);
}

// Leaves the text attention's input in h.
static void self_attention(struct pass *p, const struct dit_block *b, int i)
{
    const struct dit *m = p->m;
    op_norm(p->d, p->h, p->x, modulated(p, 0));
    tap_see(p->tap, p->h, "block%d.self_attn.in", i);
    op_linear(p->d, p->q, p->h, b->q.w, b->q.b, ACT_NONE);
    op_linear(p->d, p->k, p->h, b->k.w, b->k.b, ACT_NONE);
    op_linear(p->d, p->v, p->h, b->v.w, b->v.b, ACT_NONE);
    tap_normed(p, b, i);
    op_qk_norm_rope(p->d, heads_of(m, p->q), heads_of(m, p->k), b->norm_q, b->norm_k, m->c.eps, p->rope);
    tap_see(p->tap, heads_of(m, p->q), "block%d.self_attn.q_rope", i);
    tap_see(p->tap, heads_of(m, p->k), "block%d.self_attn.k_rope", i);
    find_speakers(p, i);
    op_attention(p->d, batch_of(p, p->h), batch_of(p, p->q), batch_of(p, p->k), batch_of(p, p->v), (struct attn){0});
    op_linear(p->d, p->k, p->h, b->o.w, b->o.b, ACT_NONE);
    tap_see(p->tap, p->k, "block%d.self_attn.out", i);
    op_add_norm(p->d, p->h, p->x, p->k, tensor_at(p->mod, 2),
                (struct norm){.gain = b->norm3_w, .bias = b->norm3_b, .eps = m->c.eps});
    tap_see(p->tap, p->x, "block%d.after_self_attn", i);
    tap_see(p->tap, p->h, "block%d.norm3.out", i);
}

static tensor layer_keys(const struct pass *p, tensor keys, int i) { return batch_of(p, tensor_at(keys, i)); }

// Leaves the audio attention's input in h.
static void cross_attention(struct pass *p, const struct dit_block *b, int i)
{
    const struct dit *m = p->m;
    const struct dit_in *in = p->in;
    op_linear(p->d, p->q, p->h, b->cq.w, b->cq.b, ACT_NONE);
    op_rms_norm(p->d, p->q, p->q, b->cnorm_q, m->c.eps);
    tensor q = batch_of(p, p->q);
    op_attention(p->d, batch_of(p, p->k), q, layer_keys(p, in->picture->k, i), layer_keys(p, in->picture->v, i),
                 (struct attn){0});
    op_attention(p->d, batch_of(p, p->v), q, layer_keys(p, in->words->k, i), layer_keys(p, in->words->v, i),
                 (struct attn){0});
    op_axpby(p->d, p->v, 1, p->v, 1, p->k);
    op_linear(p->d, p->k, p->v, b->co.w, b->co.b, ACT_NONE);
    tap_see(p->tap, p->k, "block%d.cross_attn.out", i);
    op_add_norm(p->d, p->h, p->x, p->k, NO_TENSOR,
                (struct norm){.gain = b->norm_x_w, .bias = b->norm_x_b, .eps = m->c.eps});
    tap_see(p->tap, p->x, "block%d.after_cross_attn", i);
    tap_see(p->tap, p->h, "block%d.norm_x.out", i);
}

// Leaves the feed-forward part's input in h.
static void audio_attention(struct pass *p, const struct dit_block *b, int i)
{
    const struct dit *m = p->m;
    const struct dit_voice *voice = p->in->voice;
    op_linear(p->d, p->q, p->h, b->aq.w, b->aq.b, ACT_NONE);
    if (voice->n_speakers == 2) op_rope(p->d, heads_of(m, p->q), p->pos_table);
    int64_t s = p->gh * p->gw;
    tensor q = tensor_split(heads_of(m, p->q), 0, p->t, s), y = tensor_split(heads_of(m, p->k), 0, p->t, s);
    op_attention(p->d, y, q, heads_of(m, tensor_at(voice->k, i)), heads_of(m, tensor_at(voice->v, i)),
                 (struct attn){0});
    op_linear(p->d, p->v, p->k, b->ao.w, b->ao.b, ACT_NONE);
    tap_see(p->tap, p->v, "block%d.audio_cross_attn.out", i);
    op_add_norm(p->d, p->h, p->x, p->v, NO_TENSOR, modulated(p, 3));
    tap_see(p->tap, p->x, "block%d.after_audio_cross_attn", i);
}

static void feed_forward(struct pass *p, const struct dit_block *b, int i)
{
    tap_see(p->tap, p->h, "block%d.ffn.in", i);
    for (int64_t r = 0; r < p->n; r += FFN_ROWS) {
        int64_t to = r + FFN_ROWS < p->n ? r + FFN_ROWS : p->n;
        tensor f = tensor_slice(p->f, 0, 0, to - r);
        op_linear(p->d, f, tensor_slice(p->h, 0, r, to), b->ffn0.w, b->ffn0.b, ACT_GELU_TANH);
        op_linear(p->d, tensor_slice(p->k, 0, r, to), f, b->ffn2.w, b->ffn2.b, ACT_NONE);
    }
    tap_see(p->tap, p->k, "block%d.ffn.out", i);
    op_gate_add(p->d, p->x, p->k, tensor_at(p->mod, 5));
    tap_see(p->tap, p->x, "block%d.out", i);
}

static void run_blocks(struct pass *p)
{
    for (int i = 0; i < p->m->c.n_layers; i++) {
        const struct dit_block *b = &p->m->block[i];
        op_axpby(p->d, p->mod, 1, b->modulation, 1, p->in->time.e0);
        self_attention(p, b, i);
        cross_attention(p, b, i);
        audio_attention(p, b, i);
        feed_forward(p, b, i);
    }
}

static void head(struct pass *p, tensor out)
{
    const struct dit *m = p->m;
    int64_t mark = dev_arena_mark(p->a);
    tensor mod = dev_tensor(p->a, DT_F32, SHAPE(2, m->c.dim));
    tensor h = dev_tensor(p->a, DT_F32, SHAPE(p->n, m->c.dim));
    tensor y = dev_tensor(p->a, DT_F32, SHAPE(p->n, 4 * m->c.out_dim));
    for (int r = 0; r < 2; r++)
        op_axpby(p->d, tensor_at(mod, r), 1, tensor_at(m->head_modulation, r), 1, p->in->time.e);
    op_norm(p->d, h, p->x,
            (struct norm){.shift = tensor_at(mod, 0), .scale = tensor_at(mod, 1), .eps = m->c.eps, .wide = true});
    op_linear(p->d, y, h, m->head.w, m->head.b, ACT_NONE);
    tap_see(p->tap, y, "head.out");
    y = tensor_reshape(y, SHAPE(p->t, p->gh, p->gw, 2, 2, m->c.out_dim));
    op_copy(p->d, patches_of(p, out), tensor_permute(y, (int[]){0, 1, 2, 5, 3, 4}));
    dev_arena_reset(p->a, mark);
}

static void pass_buffers(struct pass *p)
{
    const struct dit *m = p->m;
    int64_t rows = p->n < FFN_ROWS ? p->n : FFN_ROWS, half = m->c.dim / m->c.n_heads / 2;
    tensor *buffers[] = {&p->h, &p->q, &p->k, &p->v};
    for (int i = 0; i < 4; i++) *buffers[i] = dev_tensor(p->a, m->dtype, SHAPE(p->n, m->c.dim));
    p->f = dev_tensor(p->a, m->dtype, SHAPE(rows, m->c.ffn_dim));
    p->mod = dev_tensor(p->a, DT_F32, SHAPE(6, m->c.dim));
    p->rope = dev_tensor(p->a, DT_F32, SHAPE(p->n, half, 2));
    op_rope_grid(p->d, p->rope, 0, p->t, p->gh, p->gw);
    p->map = dev_tensor(p->a, DT_F32, SHAPE(3, p->n));
    p->lohi = dev_tensor(p->a, DT_F32, SHAPE(3, 2));
    p->pos = dev_tensor(p->a, DT_F32, SHAPE(p->n));
    p->pos_table = dev_tensor(p->a, DT_F32, SHAPE(p->n, half, 2));
}

void dit_forward(const struct dit *m, struct dev_arena *a, tensor out, const struct dit_in *in, const struct tap *tap)
{
    BUG_IF(in->x.n != 4 || in->x.shape[0] != m->c.out_dim || in->x.shape[2] % 2 || in->x.shape[3] % 2,
           "latents of %lld x %lld x %lld", (long long)in->x.shape[1], (long long)in->x.shape[2],
           (long long)in->x.shape[3]);
    BUG_IF(in->voice->n_speakers == 2 && tensor_is_none(in->masks), "two speakers without masks");
    BUG_IF(in->voice->k.shape[1] != in->x.shape[1], "voice of %lld latent frames for %lld",
           (long long)in->voice->k.shape[1], (long long)in->x.shape[1]);
    struct pass p = {.m = m, .d = m->dev, .a = a, .in = in, .tap = tap};
    p.t = in->x.shape[1];
    p.gh = in->x.shape[2] / 2;
    p.gw = in->x.shape[3] / 2;
    p.n = p.t * p.gh * p.gw;
    int64_t mark = dev_arena_mark(a);
    p.x = dev_tensor(a, m->dtype, SHAPE(p.n, m->c.dim));
    embed_patches(&p);
    if (in->skip)
        op_axpby(p.d, p.x, 1, p.x, 1, in->residual);
    else {
        bool keep = !tensor_is_none(in->residual);
        int64_t inner = dev_arena_mark(a);
        if (keep) op_copy(p.d, in->residual, p.x);
        pass_buffers(&p);
        run_blocks(&p);
        if (keep) op_axpby(p.d, in->residual, 1, p.x, -1, in->residual);
        dev_arena_reset(a, inner);
    }
    head(&p, out);
    dev_arena_reset(a, mark);
}
