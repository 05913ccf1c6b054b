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
// Ranks: a rank owns n of the N rows of each of its b branches, padding at the very end, and works on them alone but
// for self-attention, where rows meet (parallel/seqpar), and the last gather, after which every rank has the whole
// output. Patches are cut for all rows and embedded for the own ones.
//
// Memory: five buffers of [b n, dim]; the feed-forward part runs in pieces of rows.
#include "worker/models/dit_parts.h"

#include "parallel/seqpar.h"

enum { FFN_ROWS = 4096, CLASSES = 3 };

struct pass {
    const struct dit *m;
    struct dev *d;
    struct dev_arena *a;
    const struct dit_in *in; // [b]
    const struct tap *tap;
    struct seqpar sp;
    int64_t t, gh, gw;     // latent frames, token grid
    int64_t b, n;          // branches; rows of each on this rank, with padding
    tensor x, h, q, k, v;  // [b n, dim]
    tensor f;              // [FFN_ROWS, ffn_dim]
    tensor mod;            // F32 [6, dim] of the block under way
    tensor rope;           // F32 [n, width / 2, 2]
    tensor map, lohi;      // F32 [maps, 3, n], [maps, 3, 2], of the first branches
    tensor pos, pos_table; // F32 [maps, n], [maps, n, width / 2, 2]
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

// Rows of branch i.
static tensor of_branch(const struct pass *p, tensor rows, int64_t i)
{
    return tensor_slice(rows, 0, i * p->n, (i + 1) * p->n);
}

static void embed_patches(struct pass *p)
{
    const struct dit *m = p->m;
    int64_t mark = dev_arena_mark(p->a), c = m->c.out_dim, own = span_length(p->sp.rows.own);
    tensor u = dev_tensor(p->a, m->dtype, SHAPE(p->t, p->gh, p->gw, m->c.in_dim, 2, 2));
    op_copy(p->d, tensor_slice(u, 3, 0, c), patches_of(p, p->in->x));
    op_copy(p->d, tensor_slice(u, 3, c, m->c.in_dim), patches_of(p, p->in->y));
    u = tensor_reshape(u, SHAPE(p->sp.rows.total, m->c.in_dim * 4));
    if (own > 0)
        op_linear(p->d, tensor_slice(p->x, 0, 0, own), tensor_slice(u, 0, p->sp.rows.own.from, p->sp.rows.own.to),
                  m->patch.w, m->patch.b, ACT_NONE);
    if (own < p->n) op_fill(p->d, tensor_slice(p->x, 0, own, p->n), 0); // padding: no NaN is born there
    for (int64_t i = 1; i < p->b; i++) op_copy(p->d, of_branch(p, p->x, i), of_branch(p, p->x, 0));
    dev_arena_reset(p->a, mark);
    tap_see(p->tap, p->x, "patch_embed");
}

// Rows [.., dim] as one batch of attention, and as a batch of branches.
static tensor one_batch(const struct pass *p, tensor rows)
{
    return tensor_split(heads_of(p->m, rows), 0, 1, rows.shape[0]);
}
static tensor by_branch(const struct pass *p, tensor rows) { return tensor_split(heads_of(p->m, rows), 0, p->b, p->n); }

// What only a listener wants to see: q and k between norm and rope.
static void tap_normed(struct pass *p, const struct dit_block *b, int i)
{
    if (!p->tap) return;
    int64_t mark = dev_arena_mark(p->a);
    tensor y = dev_tensor(p->a, p->m->dtype, SHAPE(p->b * p->n, p->m->c.dim));
    op_rms_norm(p->d, y, p->q, b->norm_q, p->m->c.eps);
    tap_see(p->tap, heads_of(p->m, y), "block%d.self_attn.q_norm", i);
    op_rms_norm(p->d, y, p->k, b->norm_k, p->m->c.eps);
    tap_see(p->tap, heads_of(p->m, y), "block%d.self_attn.k_norm", i);
    dev_arena_reset(p->a, mark);
}

// Attention over all rows of all ranks, into h; on the way, which speaker each token belongs to, as a position, from
// the rotated q and k. A listener sees the map with one speaker too.
static void attend(struct pass *p, int i)
{
    struct seqpar_map map = {.masks = p->in->masks, .published = p->m->c.published, .map = p->map, .lohi = p->lohi};
    bool seen = p->sp.f.maps > 0;
    seqpar_attention(&p->sp, by_branch(p, p->h), by_branch(p, p->q), by_branch(p, p->k), by_branch(p, p->v),
                     seen ? &map : NULL);
    for (int64_t k = 0; seen && k < p->sp.f.maps; k++) {
        tensor pos = tensor_at(p->pos, k);
        tap_see(p->tap, tensor_at(p->map, k), "block%d.x_ref_attn_map", i);
        if (p->in[k].voice->n_speakers != 2) continue;
        op_class_pos(p->d, pos, tensor_at(p->map, k), tensor_at(p->lohi, k), p->m->dtype == DT_BF16);
        op_rope_line(p->d, tensor_at(p->pos_table, k), pos);
        tap_see(p->tap, pos, "block%d.audio_pos_q", i);
    }
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
    for (int64_t k = 0; k < p->b; k++)
        op_qk_norm_rope(p->d, heads_of(m, of_branch(p, p->q, k)), heads_of(m, of_branch(p, p->k, k)), b->norm_q,
                        b->norm_k, m->c.eps, p->rope);
    tap_see(p->tap, heads_of(m, p->q), "block%d.self_attn.q_rope", i);
    tap_see(p->tap, heads_of(m, p->k), "block%d.self_attn.k_rope", i);
    attend(p, i);
    op_linear(p->d, p->k, p->h, b->o.w, b->o.b, ACT_NONE);
    tap_see(p->tap, p->k, "block%d.self_attn.out", i);
    op_add_norm(p->d, p->h, p->x, p->k, tensor_at(p->mod, 2),
                (struct norm){.gain = b->norm3_w, .bias = b->norm3_b, .eps = m->c.eps});
    tap_see(p->tap, p->x, "block%d.after_self_attn", i);
    tap_see(p->tap, p->h, "block%d.norm3.out", i);
}

static tensor layer_keys(const struct pass *p, tensor keys, int i) { return one_batch(p, tensor_at(keys, i)); }

// Leaves the audio attention's input in h.
static void cross_attention(struct pass *p, const struct dit_block *b, int i)
{
    const struct dit *m = p->m;
    const struct dit_picture *picture = p->in->picture;
    op_linear(p->d, p->q, p->h, b->cq.w, b->cq.b, ACT_NONE);
    op_rms_norm(p->d, p->q, p->q, b->cnorm_q, m->c.eps);
    op_attention(p->d, one_batch(p, p->k), one_batch(p, p->q), layer_keys(p, picture->k, i),
                 layer_keys(p, picture->v, i), (struct attn){.wide = p->in->wide});
    for (int64_t k = 0; k < p->b; k++) {
        const struct dit_words *words = p->in[k].words;
        op_attention(p->d, one_batch(p, of_branch(p, p->v, k)), one_batch(p, of_branch(p, p->q, k)),
                     layer_keys(p, words->k, i), layer_keys(p, words->v, i), (struct attn){.wide = p->in->wide});
    }
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
    op_linear(p->d, p->q, p->h, b->aq.w, b->aq.b, ACT_NONE);
    for (int64_t k = 0; k < p->b; k++) {
        const struct dit_voice *voice = p->in[k].voice;
        tensor q = heads_of(m, of_branch(p, p->q, k)), y = heads_of(m, of_branch(p, p->k, k));
        if (voice->n_speakers == 2) op_rope(p->d, q, tensor_at(p->pos_table, k));
        seqpar_grouped(&p->sp, y, q, heads_of(m, tensor_at(voice->k, i)), heads_of(m, tensor_at(voice->v, i)));
    }
    op_linear(p->d, p->v, p->k, b->ao.w, b->ao.b, ACT_NONE);
    tap_see(p->tap, p->v, "block%d.audio_cross_attn.out", i);
    op_add_norm(p->d, p->h, p->x, p->v, NO_TENSOR, modulated(p, 3));
    tap_see(p->tap, p->x, "block%d.after_audio_cross_attn", i);
}

// The next block is under way while this one is computed, where weights are shared.
static void let_weights_come(const struct pass *p)
{
    struct comm *c = dit_block_comm(p->m, DIT_STEP);
    if (c) comm_poll(c);
}

static void feed_forward(struct pass *p, const struct dit_block *b, int i)
{
    tap_see(p->tap, p->h, "block%d.ffn.in", i);
    for (int64_t r = 0, n = p->b * p->n; r < n; r += FFN_ROWS) {
        int64_t to = r + FFN_ROWS < n ? r + FFN_ROWS : n;
        tensor f = tensor_slice(p->f, 0, 0, to - r);
        op_linear(p->d, f, tensor_slice(p->h, 0, r, to), b->ffn0.w, b->ffn0.b, ACT_GELU_TANH);
        op_linear(p->d, tensor_slice(p->k, 0, r, to), f, b->ffn2.w, b->ffn2.b, ACT_NONE);
        let_weights_come(p);
    }
    tap_see(p->tap, p->k, "block%d.ffn.out", i);
    op_gate_add(p->d, p->x, p->k, tensor_at(p->mod, 5));
    tap_see(p->tap, p->x, "block%d.out", i);
}

// Velocity of branch i, whole.
static void head(struct pass *p, tensor out, int64_t i)
{
    const struct dit *m = p->m;
    int64_t mark = dev_arena_mark(p->a), w = 4 * m->c.out_dim;
    tensor mod = dev_tensor(p->a, DT_F32, SHAPE(2, m->c.dim));
    tensor h = dev_tensor(p->a, DT_F32, SHAPE(p->n, m->c.dim));
    tensor y = dev_tensor(p->a, DT_F32, SHAPE(p->n, w)), all = dev_tensor(p->a, DT_F32, SHAPE(p->sp.rows.total, w));
    for (int r = 0; r < 2; r++)
        op_axpby(p->d, tensor_at(mod, r), 1, tensor_at(m->head_modulation, r), 1, p->in->time.e);
    op_norm(p->d, h, of_branch(p, p->x, i),
            (struct norm){.shift = tensor_at(mod, 0), .scale = tensor_at(mod, 1), .eps = m->c.eps, .wide = true});
    op_linear(p->d, y, h, m->head.w, m->head.b, ACT_NONE);
    tap_see(p->tap, y, "head.out");
    seqpar_gather(&p->sp, p->a, all, y);
    all = tensor_reshape(all, SHAPE(p->t, p->gh, p->gw, 2, 2, m->c.out_dim));
    op_copy(p->d, patches_of(p, out), tensor_permute(all, (int[]){0, 1, 2, 5, 3, 4}));
    dev_arena_reset(p->a, mark);
}

static void pass_buffers(struct pass *p)
{
    const struct dit *m = p->m;
    int64_t all = p->b * p->n, rows = all < FFN_ROWS ? all : FFN_ROWS, half = m->c.dim / m->c.n_heads / 2;
    int64_t own = span_length(p->sp.rows.own), maps = p->sp.f.maps;
    tensor *buffers[] = {&p->h, &p->q, &p->k, &p->v};
    for (int i = 0; i < 4; i++) *buffers[i] = dev_tensor(p->a, m->dtype, SHAPE(all, m->c.dim));
    p->f = dev_tensor(p->a, m->dtype, SHAPE(rows, m->c.ffn_dim));
    p->mod = dev_tensor(p->a, DT_F32, SHAPE(6, m->c.dim));
    p->rope = dev_tensor(p->a, DT_F32, SHAPE(p->n, half, 2));
    if (own < p->n) op_fill(p->d, tensor_slice(p->rope, 0, own, p->n), 0);
    if (own > 0) op_rope_grid(p->d, tensor_slice(p->rope, 0, 0, own), p->sp.rows.own.from, p->t, p->gh, p->gw);
    if (maps == 0) return;
    p->map = dev_tensor(p->a, DT_F32, SHAPE(maps, CLASSES, p->n));
    p->lohi = dev_tensor(p->a, DT_F32, SHAPE(maps, CLASSES, 2));
    p->pos = dev_tensor(p->a, DT_F32, SHAPE(maps, p->n));
    p->pos_table = dev_tensor(p->a, DT_F32, SHAPE(maps, p->n, half, 2));
}

static void check_in(const struct dit *m, const struct dit_in *in)
{
    BUG_IF(in->x.n != 4 || in->x.shape[0] != m->c.out_dim || in->x.shape[2] % 2 || in->x.shape[3] % 2,
           "latents of %lld x %lld x %lld", (long long)in->x.shape[1], (long long)in->x.shape[2],
           (long long)in->x.shape[3]);
    BUG_IF(in->voice->n_speakers == 2 && tensor_is_none(in->masks), "two speakers without masks");
    BUG_IF(in->voice->k.shape[1] != in->x.shape[1], "voice of %lld latent frames for %lld",
           (long long)in->voice->k.shape[1], (long long)in->x.shape[1]);
}

// What self-attention needs to know of the ranks; its buffers only when blocks run.
static void pass_ranks(struct pass *p, const struct mesh *mesh)
{
    const struct dit *m = p->m;
    bool listens = p->tap && !tensor_is_none(p->in->masks);
    int maps = listens ? 1 : 0;
    for (int i = 0; i < p->b; i++)
        if (p->in[i].voice->n_speakers == 2) maps = i + 1;
    struct seqpar_for f = {.frames = p->t,
                           .frame_tokens = p->gh * p->gw,
                           .n_heads = m->c.n_heads,
                           .width = m->c.dim / m->c.n_heads,
                           .batch = (int)p->b,
                           .classes = maps ? CLASSES : 0,
                           .maps = maps,
                           .dtype = m->dtype,
                           .wide = p->in->wide};
    seqpar_init(&p->sp, mesh, p->a, &f);
    p->n = p->sp.rows.each;
}

// The blocks, from x to x. With a step cache, what they add is kept.
static void run_blocks(struct pass *p)
{
    int64_t mark = dev_arena_mark(p->a);
    for (int64_t k = 0; k < p->b; k++)
        if (!tensor_is_none(p->in[k].residual)) op_copy(p->d, p->in[k].residual, of_branch(p, p->x, k));
    pass_buffers(p);
    for (int i = 0; i < p->m->c.n_layers; i++) {
        const struct dit_block b = dit_block_take(p->m, i, DIT_STEP);
        op_axpby(p->d, p->mod, 1, b.modulation, 1, p->in->time.e0);
        self_attention(p, &b, i);
        let_weights_come(p);
        cross_attention(p, &b, i);
        let_weights_come(p);
        audio_attention(p, &b, i);
        let_weights_come(p);
        feed_forward(p, &b, i);
        dit_block_give(p->m, i, DIT_STEP);
    }
    for (int64_t k = 0; k < p->b; k++) {
        tensor kept = p->in[k].residual;
        if (!tensor_is_none(kept)) op_axpby(p->d, kept, 1, of_branch(p, p->x, k), -1, kept);
    }
    dev_arena_reset(p->a, mark);
}

void dit_forward_branches(const struct dit *m, const struct mesh *mesh, struct dev_arena *a, const tensor *out,
                          const struct dit_in *in, int n, const struct tap *tap)
{
    for (int i = 0; i < n; i++) check_in(m, &in[i]);
    struct pass p = {.m = m, .d = m->dev, .a = a, .in = in, .b = n, .tap = tap};
    p.t = in->x.shape[1];
    p.gh = in->x.shape[2] / 2;
    p.gw = in->x.shape[3] / 2;
    int64_t mark = dev_arena_mark(a);
    pass_ranks(&p, mesh);
    p.x = dev_tensor(a, m->dtype, SHAPE(p.b * p.n, m->c.dim));
    embed_patches(&p);
    if (!in->skip) run_blocks(&p);
    for (int64_t i = 0; i < n; i++) {
        tensor x = of_branch(&p, p.x, i);
        if (in->skip) op_axpby(p.d, x, 1, x, 1, in[i].residual);
        head(&p, out[i], i);
    }
    dev_arena_reset(a, mark);
}

void dit_forward(const struct dit *m, struct dev_arena *a, tensor out, const struct dit_in *in, const struct tap *tap)
{
    dit_forward_branches(m, NULL, a, &out, in, 1, tap);
}

int64_t dit_rows(const struct mesh *mesh, int64_t t, int64_t h, int64_t w)
{
    return split_rows(t * (h / 2) * (w / 2), mesh ? mesh->n.ring * mesh->n.heads : 1, 0).each;
}
