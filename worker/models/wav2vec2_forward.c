// From features at the video's rate to the state behind every layer.
//
//   z [n, width] -- norm, projection --> X [n, dim];  X = norm(X + gelu(positional convolution of X))
//   layer: X = norm(X + out(attention(X)));  X = norm(X + down(gelu(up(X))))      norms come after the sums
//   out [n, layers, dim]: X behind every layer; the state before the first is not among them
//
// Easy to get wrong: encoder.layer_norm stands before the layers; the positional kernel is even, so frame t hears
// t - k / 2 .. t + k / 2 - 1; GELU is by the error function everywhere.
//
// Memory: six buffers of [n, dim]; the feed-forward part runs in pieces of rows.
#include "worker/models/wav2vec2_parts.h"

enum { FFN_ROWS = 2048 };

struct pass {
    struct wav2vec2 *m;
    struct dev *d;
    struct dev_arena *a;
    const struct tap *tap;
    int64_t n;
    tensor x, h, q, k, v, y; // [n, dim]
    tensor f;                // [FFN_ROWS, ffn_dim]
};

static struct norm norm_of(const struct pass *p, tensor gain, tensor bias)
{
    return (struct norm){.gain = gain, .bias = bias, .eps = p->m->c.eps};
}

static void linear(const struct pass *p, tensor y, tensor x, const struct wav2vec2_linear *w, enum act act)
{
    op_linear(p->d, y, x, w->w, w->b, act);
}

static tensor heads_of(const struct pass *p, tensor rows)
{
    return tensor_reshape(rows, SHAPE(1, p->n, p->m->c.n_heads, p->m->c.dim / p->m->c.n_heads));
}

// Leaves the state before the first layer in x.
static void embed(struct pass *p, tensor z)
{
    const struct wav2vec2 *m = p->m;
    int taps = m->c.pos_kernel;
    struct conv c = {.pad = {{0, 0}, {0, 0}, {taps / 2, taps - 1 - taps / 2}}, .groups = m->c.pos_groups};
    op_norm(p->d, z, z, norm_of(p, m->feature_w, m->feature_b));
    linear(p, p->h, z, &m->project, ACT_NONE);
    tap_see(p->tap, p->h, "projection");
    op_conv(p->d, tensor_reshape(p->y, SHAPE(1, 1, p->n, m->c.dim)), tensor_reshape(p->h, SHAPE(1, 1, p->n, m->c.dim)),
            m->pos.w, m->pos.b, c, ACT_GELU_ERF);
    tap_see(p->tap, p->y, "pos_conv");
    op_add_norm(p->d, p->x, p->h, p->y, NO_TENSOR, norm_of(p, m->norm_w, m->norm_b));
    tap_see(p->tap, p->x, "encoder_in");
    tap_see(p->tap, p->x, "hidden0");
}

static void run_layer(struct pass *p, int i)
{
    const struct wav2vec2_layer *l = &p->m->layer[i];
    linear(p, p->q, p->x, &l->q, ACT_NONE);
    linear(p, p->k, p->x, &l->k, ACT_NONE);
    linear(p, p->v, p->x, &l->v, ACT_NONE);
    op_attention(p->d, heads_of(p, p->y), heads_of(p, p->q), heads_of(p, p->k), heads_of(p, p->v), (struct attn){0});
    linear(p, p->q, p->y, &l->out, ACT_NONE);
    tap_see(p->tap, p->q, "layer%d.attention", i);
    op_add_norm(p->d, p->h, p->x, p->q, NO_TENSOR, norm_of(p, l->norm_w, l->norm_b));
    for (int64_t r = 0; r < p->n; r += FFN_ROWS) {
        int64_t to = r + FFN_ROWS < p->n ? r + FFN_ROWS : p->n;
        tensor f = tensor_slice(p->f, 0, 0, to - r);
        linear(p, f, tensor_slice(p->h, 0, r, to), &l->up, ACT_GELU_ERF);
        linear(p, tensor_slice(p->y, 0, r, to), f, &l->down, ACT_NONE);
    }
    tap_see(p->tap, p->y, "layer%d.feed_forward", i);
    op_add_norm(p->d, p->x, p->h, p->y, NO_TENSOR, norm_of(p, l->final_w, l->final_b));
    tap_see(p->tap, p->x, "hidden%d", i + 1);
}

static void tap_stats(struct pass *p, const struct wav2vec2_stats *s)
{
    if (!p->tap) return;
    tensor t = dev_tensor(p->a, DT_F32, SHAPE(2));
    dev_upload(p->d, t, (float[]){(float)s->mean, (float)s->var}, DT_F32);
    tap_see(p->tap, t, "stats");
}

void wav2vec2_encode(struct wav2vec2 *m, struct dev_arena *a, tensor out, const struct track *t,
                     const struct wav2vec2_stats *stats, int64_t n_frames, int64_t from, int64_t to,
                     const struct tap *tap)
{
    BUG_IF(from < 0 || from >= to || to > n_frames, "video frames %lld to %lld of %lld", (long long)from, (long long)to,
           (long long)n_frames);
    BUG_IF(out.n != 3 || out.shape[0] != to - from || out.shape[1] != m->c.n_layers || out.shape[2] != m->c.dim,
           "voice features of %lld x %lld x %lld", (long long)out.shape[0], (long long)out.shape[1],
           (long long)out.shape[2]);
    struct pass p = {.m = m, .d = m->dev, .a = a, .tap = tap, .n = to - from};
    int64_t mark = dev_arena_mark(a);
    tap_stats(&p, stats);
    tensor z = dev_tensor(a, DT_F32, SHAPE(p.n, m->c.width[m->c.n_convs - 1]));
    wav2vec2_features(m, a, z, t, stats, n_frames, from, tap);
    tap_see(tap, z, "interpolated");
    tensor *buffers[] = {&p.x, &p.h, &p.q, &p.k, &p.v, &p.y};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        *buffers[i] = dev_tensor(a, DT_F32, SHAPE(p.n, m->c.dim));
    p.f = dev_tensor(a, DT_F32, SHAPE(p.n < FFN_ROWS ? p.n : FFN_ROWS, m->c.ffn_dim));
    embed(&p, z);
    for (int i = 0; i < m->c.n_layers; i++) {
        run_layer(&p, i);
        op_copy(p.d, tensor_at(tensor_permute(out, (int[]){1, 0, 2}), i), p.x);
    }
    dev_arena_reset(a, mark);
}
