// Running the VAE, a slice at a time.
//
//   encode: frames (1, then 4) -> conv1 -> [res res down]* res res -> res attn res -> norm silu conv -> linear -> z
//   decode: z -> linear -> conv1 -> res attn res -> [res res res up]* res res res -> norm silu conv -> frames (1, then
//   4)
//
// Every causal convolution sees the two frames before its slice: a slot keeps the last frames of its *input* (after
// norm and silu), zeros at first, which is the causal zero padding. So slices give what the whole clip would give.
//
// Easy to get wrong: frame 0 skips both temporal resamplers, and going up it never becomes history; down pads right and
// bottom only, space before time; up is time before space, its first channel half the earlier frame; attention is per
// frame with one head.
//
// Ranks: a rank works on a band of latent lines, and of 8 times as many pixel lines. Before each convolution of 3x3 the
// neighbours' lines of its input are traded (parallel/halo), so every value is what it would be alone. Histories keep
// their traded edges; only new frames travel. Above the upsampler what is traded is the small picture's line. Attention
// gathers keys and values of the whole frame. A rank without lines only takes part in gathers.
//
// Memory: residual blocks work in place, so a slice holds one tensor per resolution, plus three of the largest.
#include "worker/models/vae_parts.h"

#include "parallel/halo.h"

#include <stdio.h>
#include <stdlib.h>

struct vae_stream {
    const struct vae *v;
    const struct vae_half *half;
    struct dev *d;
    struct dev_arena *a;
    const struct tap *tap;
    int64_t h, w; // pixels, of the whole picture
    struct halo halo;
    int64_t edge; // lines that are traded on each side: 1, or 0 alone
    int chunk;
    tensor conv1, head;             // history of the first and the last convolution
    tensor slot[VAE_LAYERS_MAX][2]; // history of the layers' convolutions
};

// ---- bands

// [t, h, w, c] with `before` and `after` lines more on the split axis.
static tensor edged_new(struct vae_stream *s, int64_t t, int64_t h, int64_t w, int64_t c, int64_t before, int64_t after)
{
    int64_t shape[4] = {t, h, w, c};
    shape[s->halo.axis] += before + after;
    return dev_tensor(s->a, DT_F32, 4, shape);
}

// Without its edges.
static tensor inner(const struct vae_stream *s, tensor x, int64_t before, int64_t after)
{
    return tensor_slice(x, s->halo.axis, before, x.shape[s->halo.axis] - after);
}

static void trade(struct vae_stream *s, tensor x, int64_t before, int64_t after)
{
    if (s->edge > 0) halo_trade(&s->halo, s->a, x, before, after);
}

// What a trade leaves where there are no neighbours.
static void zero_edges(const struct vae_stream *s, tensor x)
{
    int axis = s->halo.axis;
    int64_t n = x.shape[axis];
    op_fill(s->d, tensor_slice(x, axis, 0, 1), 0);
    op_fill(s->d, tensor_slice(x, axis, n - 1, n), 0);
}

// This rank's lines of a whole picture [t, h, w, c].
static tensor band_of(const struct vae_stream *s, tensor x)
{
    if (s->edge == 0) return x;
    struct span own = halo_span(&s->halo, comm_rank(s->halo.comm), x.shape[s->halo.axis]);
    return tensor_slice(x, s->halo.axis, own.from, own.to);
}

// Padding that the traded edges do not stand for.
static struct conv padded(const struct vae_stream *s, struct conv c)
{
    if (s->edge > 0) c.pad[s->halo.axis][0] = c.pad[s->halo.axis][1] = 0;
    return c;
}

static struct conv same3(const struct vae_stream *s) // a line on each side; time comes padded by history
{
    return padded(s, (struct conv){.pad = {{0, 0}, {1, 1}, {1, 1}}});
}

// ---- history

static tensor history_new(struct vae_stream *s, int64_t frames, int64_t h, int64_t w, int64_t c, int64_t edge)
{
    tensor t = edged_new(s, frames, h, w, c, edge, edge);
    op_fill(s->d, t, 0);
    return t;
}

// A buffer for the history and t new frames; the caller fills the frames behind the history.
static tensor history_buffer(struct vae_stream *s, tensor history, int64_t t)
{
    int64_t m = history.shape[0];
    tensor b = dev_tensor(s->a, DT_F32, SHAPE(m + t, history.shape[1], history.shape[2], history.shape[3]));
    op_copy(s->d, tensor_slice(b, 0, 0, m), history);
    return b;
}

static tensor new_frames(tensor buffer, tensor history)
{
    return tensor_slice(buffer, 0, history.shape[0], buffer.shape[0]);
}

// The same without edges: what this rank computes.
static tensor new_lines(const struct vae_stream *s, tensor buffer, tensor history)
{
    return inner(s, new_frames(buffer, history), s->edge, s->edge);
}

static void history_keep(struct vae_stream *s, tensor history, tensor buffer)
{
    op_copy(s->d, history, tensor_slice(buffer, 0, buffer.shape[0] - history.shape[0], buffer.shape[0]));
}

// The edges of the new frames, then y = conv of history and frames, then history = the last frames.
static void conv_frames(struct vae_stream *s, tensor y, tensor buffer, tensor history, const struct vae_conv *c)
{
    trade(s, new_frames(buffer, history), s->edge, s->edge);
    op_conv(s->d, y, buffer, c->w, c->b, same3(s), ACT_NONE);
    history_keep(s, history, buffer);
}

static void tap_layer(struct vae_stream *s, tensor x, const char *name)
{
    tap_see(s->tap, tensor_permute(x, (int[]){3, 0, 1, 2}), "chunk%d.%s", s->chunk, name);
}

// ---- layers; each takes x [t, h, w, c] and returns its output, x itself when it works in place

static tensor run_res(struct vae_stream *s, const struct vae_layer *y, tensor slot[2], tensor x)
{
    int64_t t = x.shape[0], h = x.shape[1], w = x.shape[2];
    bool same = y->ci == y->co;
    tensor out = same ? x : dev_tensor(s->a, DT_F32, SHAPE(t, h, w, y->co));
    int64_t mark = dev_arena_mark(s->a);
    tensor c = dev_tensor(s->a, DT_F32, SHAPE(t, h, w, y->co));
    int64_t before = dev_arena_mark(s->a);
    tensor b = history_buffer(s, slot[0], t);
    op_l2_norm(s->d, new_lines(s, b, slot[0]), x, y->gamma0, ACT_SILU);
    conv_frames(s, c, b, slot[0], &y->conv2);
    dev_arena_reset(s->a, before);
    b = history_buffer(s, slot[1], t);
    op_l2_norm(s->d, new_lines(s, b, slot[1]), c, y->gamma3, ACT_SILU);
    conv_frames(s, c, b, slot[1], &y->conv6);
    if (!same) op_linear(s->d, out, x, y->short_w, y->short_b, ACT_NONE);
    op_gate_add(s->d, out, c, NO_TENSOR);
    dev_arena_reset(s->a, mark);
    return out;
}

// Keys and values [t, positions, 2c] of whole frames, from those of the band [t, h, w, 2c].
static tensor whole_frames(struct vae_stream *s, tensor kv)
{
    int64_t shape[4] = {kv.shape[0], kv.shape[1], kv.shape[2], kv.shape[3]};
    shape[s->halo.axis] = s->halo.lines;
    tensor all = dev_tensor(s->a, DT_F32, 4, shape);
    halo_gather(&s->halo, s->a, all, kv);
    return tensor_reshape(all, SHAPE(shape[0], shape[1] * shape[2], shape[3]));
}

static tensor run_attention(struct vae_stream *s, const struct vae_layer *y, tensor x)
{
    int64_t t = x.shape[0], n = x.shape[1] * x.shape[2], c = y->ci, mark = dev_arena_mark(s->a);
    tensor rows = tensor_reshape(x, SHAPE(t, n, c)), xn = dev_tensor(s->a, DT_F32, SHAPE(t, n, c));
    tensor qkv = dev_tensor(s->a, DT_F32, SHAPE(t, n, 3 * c)), o = dev_tensor(s->a, DT_F32, SHAPE(t, n, c));
    op_l2_norm(s->d, xn, rows, y->gamma0, ACT_NONE);
    op_linear(s->d, qkv, xn, y->qkv_w, y->qkv_b, ACT_NONE);
    tensor kv = tensor_slice(qkv, 2, c, 3 * c);
    if (s->edge > 0) {
        tensor own = dev_tensor(s->a, DT_F32, SHAPE(t, x.shape[1], x.shape[2], 2 * c));
        op_copy(s->d, tensor_reshape(own, SHAPE(t, n, 2 * c)), kv);
        kv = whole_frames(s, own);
    }
    kv = tensor_split(kv, 2, 2, c); // [t, positions, 2, c]
    op_attention(s->d, tensor_split(o, 2, 1, c), tensor_split(tensor_slice(qkv, 2, 0, c), 2, 1, c),
                 tensor_slice(kv, 2, 0, 1), tensor_slice(kv, 2, 1, 2), (struct attn){0});
    op_linear(s->d, xn, o, y->proj_w, y->proj_b, ACT_NONE);
    op_gate_add(s->d, rows, xn, NO_TENSOR);
    dev_arena_reset(s->a, mark);
    return x;
}

// Half the lines: reads two and the one after them, so the band needs one more line, at its end.
static void down_in_space(struct vae_stream *s, tensor y, tensor x, const struct vae_conv *c)
{
    static const struct conv space = {.stride = {1, 2, 2}, .pad = {{0, 0}, {0, 1}, {0, 1}}};
    int64_t mark = dev_arena_mark(s->a);
    if (s->edge > 0) {
        tensor e = edged_new(s, x.shape[0], x.shape[1], x.shape[2], x.shape[3], 0, 1);
        op_copy(s->d, inner(s, e, 0, 1), x);
        trade(s, e, 0, 1);
        x = e;
    }
    op_conv(s->d, y, x, c->w, c->b, padded(s, space), ACT_NONE);
    dev_arena_reset(s->a, mark);
}

static tensor run_down(struct vae_stream *s, const struct vae_layer *y, tensor slot, tensor x)
{
    int64_t t = x.shape[0], h = x.shape[1] / 2, w = x.shape[2] / 2;
    if (y->kind == VAE_DOWN2) {
        tensor out = dev_tensor(s->a, DT_F32, SHAPE(t, h, w, y->co));
        down_in_space(s, out, x, &y->space);
        return out;
    }
    bool first = s->chunk == 0;
    tensor out = dev_tensor(s->a, DT_F32, SHAPE(first ? t : t / 2, h, w, y->co));
    int64_t mark = dev_arena_mark(s->a);
    tensor b = history_buffer(s, slot, t), frames = new_frames(b, slot);
    down_in_space(s, frames, x, &y->space);
    if (first)
        op_copy(s->d, out, frames);
    else
        op_conv(s->d, out, b, y->time.w, y->time.b, (struct conv){.stride = {2, 1, 1}}, ACT_NONE);
    history_keep(s, slot, b);
    dev_arena_reset(s->a, mark);
    return out;
}

// Two frames of each: z [t, h, w, 2c] to [2t, h, w, c].
static void interleave(struct vae_stream *s, tensor y, tensor z, int64_t c)
{
    tensor halves = tensor_permute(tensor_split(z, 3, 2, c), (int[]){0, 3, 1, 2, 4});
    op_copy(s->d, tensor_split(y, 0, z.shape[0], 2), halves);
}

// Twice the lines and columns of x, convolved: a parity of lines and columns at a time, by its kernel of 2x2 over the
// small picture. An even line starts a line before, hence one line of padding (or of the neighbour) on each side and a
// line too many, from which each parity takes its own. On the axis that can be split the padding is always lines of
// zeros: told to pad, the library sums otherwise, and a band would have other bits than the whole.
static void up_in_space(struct vae_stream *s, tensor out, tensor x, const struct vae_layer *y)
{
    int64_t n = x.shape[0], h = x.shape[1], w = x.shape[2];
    tensor edged = edged_new(s, n, h, w, x.shape[3], 1, 1);
    struct conv edge = {.pad = {{0, 0}, {1, 1}, {1, 1}}};
    edge.pad[s->halo.axis][0] = edge.pad[s->halo.axis][1] = 0;
    op_copy(s->d, inner(s, edged, 1, 1), x);
    if (s->edge > 0)
        trade(s, edged, 1, 1);
    else
        zero_edges(s, edged);
    tensor z = dev_tensor(s->a, DT_F32, SHAPE(n, h + 1, w + 1, y->co));
    tensor pairs = tensor_split(tensor_split(out, 2, w, 2), 1, h, 2); // [n, h, 2, w, 2, co]
    for (int a = 0; a < 2; a++)
        for (int b = 0; b < 2; b++) {
            op_conv(s->d, z, edged, y->phase[a][b], y->space.b, edge, ACT_NONE);
            tensor own = tensor_slice(tensor_slice(z, 1, a, a + h), 2, b, b + w);
            op_copy(s->d, tensor_slice(tensor_slice(pairs, 4, b, b + 1), 2, a, a + 1),
                    tensor_split(tensor_split(own, 2, w, 1), 1, h, 1));
        }
}

static tensor run_up(struct vae_stream *s, const struct vae_layer *y, tensor slot, tensor x)
{
    bool in_time = y->kind == VAE_UP3 && s->chunk > 0;
    int64_t t = x.shape[0], h = x.shape[1], w = x.shape[2], n = in_time ? 2 * t : t;
    tensor out = dev_tensor(s->a, DT_F32, SHAPE(n, 2 * h, 2 * w, y->co));
    int64_t mark = dev_arena_mark(s->a);
    if (in_time) {
        tensor frames = dev_tensor(s->a, DT_F32, SHAPE(n, h, w, y->ci));
        tensor z = dev_tensor(s->a, DT_F32, SHAPE(t, h, w, 2 * y->ci)), b = history_buffer(s, slot, t);
        op_copy(s->d, new_frames(b, slot), x);
        op_conv(s->d, z, b, y->time.w, y->time.b, (struct conv){0}, ACT_NONE);
        history_keep(s, slot, b);
        interleave(s, frames, z, y->ci);
        x = frames;
    }
    up_in_space(s, out, x, y);
    dev_arena_reset(s->a, mark);
    return out;
}

static tensor run_layer(struct vae_stream *s, int i, tensor x)
{
    const struct vae_layer *y = &s->half->layer[i];
    switch (y->kind) {
    case VAE_RES:
        x = run_res(s, y, s->slot[i], x);
        break;
    case VAE_ATTN:
        x = run_attention(s, y, x);
        break;
    case VAE_DOWN2:
    case VAE_DOWN3:
        x = run_down(s, y, s->slot[i][0], x);
        break;
    case VAE_UP2:
    case VAE_UP3:
        x = run_up(s, y, s->slot[i][0], x);
        break;
    }
    tap_layer(s, x, y->name);
    return x;
}

// From the input of conv1 to the output of the head, written to `out`; both of this rank's band.
static void run_half(struct vae_stream *s, tensor out, tensor in)
{
    const struct vae_half *f = s->half;
    tensor x = dev_tensor(s->a, DT_F32, SHAPE(in.shape[0], in.shape[1], in.shape[2], f->c1));
    int64_t mark = dev_arena_mark(s->a);
    tensor b = history_buffer(s, s->conv1, in.shape[0]);
    op_copy(s->d, new_lines(s, b, s->conv1), in);
    conv_frames(s, x, b, s->conv1, &f->conv1);
    dev_arena_reset(s->a, mark);
    tap_layer(s, x, "conv1");
    for (int i = 0; i < f->n_layers; i++) x = run_layer(s, i, x);
    b = history_buffer(s, s->head, x.shape[0]);
    op_l2_norm(s->d, new_lines(s, b, s->head), x, f->head_gamma, ACT_SILU);
    conv_frames(s, out, b, s->head, &f->head);
    tap_layer(s, out, "head.2");
}

// The part of a rank without lines in that.
static void attend_gathers(struct vae_stream *s)
{
    for (int i = 0; i < s->half->n_layers; i++) {
        const struct vae_layer *y = &s->half->layer[i];
        int64_t mark = dev_arena_mark(s->a), shape[4] = {1, s->h / 8, s->w / 8, 2 * y->ci};
        if (y->kind != VAE_ATTN) continue;
        shape[s->halo.axis] = 0;
        whole_frames(s, dev_tensor(s->a, DT_F32, 4, shape));
        dev_arena_reset(s->a, mark);
    }
}

static bool has_lines(const struct vae_stream *s) { return s->edge == 0 || span_length(s->halo.own) > 0; }

enum { EVERYWHERE = -1 };

// The whole picture from bands, for one rank or EVERYWHERE.
static void collect(struct vae_stream *s, int rank, tensor whole, tensor band)
{
    if (s->edge > 0 && rank == EVERYWHERE)
        halo_gather(&s->halo, s->a, whole, band);
    else if (s->edge > 0)
        halo_gather_to(&s->halo, rank, s->a, whole, band);
}

// ---- streams

// The histories of a band of h x w at the entrance of the half.
static void histories_new(struct vae_stream *s, int64_t h, int64_t w)
{
    const struct vae_half *f = s->half;
    int64_t e = s->edge;
    s->conv1 = history_new(s, 2, h, w, f->c_in, e);
    for (int i = 0; i < f->n_layers; i++) {
        const struct vae_layer *y = &f->layer[i];
        if (y->kind == VAE_DOWN2 || y->kind == VAE_DOWN3) h /= 2, w /= 2;
        if (y->kind == VAE_RES) {
            s->slot[i][0] = history_new(s, 2, h, w, y->ci, e);
            s->slot[i][1] = history_new(s, 2, h, w, y->co, e);
        }
        if (y->kind == VAE_DOWN3) s->slot[i][0] = history_new(s, 1, h, w, y->co, 0);
        if (y->kind == VAE_UP3) s->slot[i][0] = history_new(s, 2, h, w, y->ci, 0);
        if (y->kind == VAE_UP2 || y->kind == VAE_UP3) h *= 2, w *= 2;
    }
    s->head = history_new(s, 2, h, w, f->c_head, e);
}

static struct vae_stream *stream_open(const struct vae *v, const struct vae_half *f, struct dev_arena *a, int64_t h,
                                      int64_t w, const struct tap *tap)
{
    BUG_IF(h % 8 || w % 8 || h < 8 || w < 8, "a picture of %lld x %lld", (long long)w, (long long)h);
    struct vae_stream *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for a VAE stream");
    *s = (struct vae_stream){.v = v, .half = f, .d = v->dev, .a = a, .tap = tap, .h = h, .w = w};
    bool wide = w > h;
    s->halo.axis = wide ? 2 : 1;
    int64_t band[2] = {h, w}; // in pixels
    if (v->comm && comm_size(v->comm) > 1) {
        s->halo = halo_make(v->dev, v->comm, wide, (wide ? w : h) / 8);
        s->edge = 1;
        band[wide] = 8 * span_length(s->halo.own);
    }
    if (!has_lines(s)) return s;
    bool decodes = f == &v->decoder;
    histories_new(s, decodes ? band[0] / 8 : band[0], decodes ? band[1] / 8 : band[1]);
    return s;
}

struct vae_stream *vae_encode_open(const struct vae *v, struct dev_arena *a, int64_t h, int64_t w,
                                   const struct tap *tap)
{
    return stream_open(v, &v->encoder, a, h, w, tap);
}

struct vae_stream *vae_decode_open(const struct vae *v, struct dev_arena *a, int64_t h, int64_t w,
                                   const struct tap *tap)
{
    return stream_open(v, &v->decoder, a, h, w, tap);
}

void vae_stream_close(struct vae_stream **s)
{
    free(*s);
    *s = NULL;
}

// A latent frame [z, 1, h, w] of any strides as channels-last [1, h, w, z].
static tensor channels_last(tensor z) { return tensor_permute(z, (int[]){1, 2, 3, 0}); }

static void check_slice(const struct vae_stream *s, tensor pixels)
{
    BUG_IF(pixels.n != 4 || pixels.shape[0] != (s->chunk ? 4 : 1) || pixels.shape[1] != s->h || pixels.shape[2] != s->w,
           "slice %d of %lld frames", s->chunk, (long long)pixels.shape[0]);
}

void vae_encode_slice(struct vae_stream *s, tensor z, tensor pixels)
{
    check_slice(s, pixels);
    int64_t mark = dev_arena_mark(s->a), c = s->v->z_dim;
    tensor whole = dev_tensor(s->a, DT_F32, SHAPE(1, s->h / 8, s->w / 8, c)), y = band_of(s, whole);
    if (s->edge > 0) y = dev_tensor(s->a, DT_F32, y.n, y.shape);
    if (has_lines(s)) {
        tensor m = dev_tensor(s->a, DT_F32, SHAPE(1, y.shape[1], y.shape[2], 2 * c));
        run_half(s, m, band_of(s, pixels));
        tap_layer(s, m, "encoder_out");
        op_linear(s->d, y, m, s->v->to_z_w, s->v->to_z_b, ACT_NONE);
    } else
        attend_gathers(s);
    collect(s, EVERYWHERE, whole, y);
    op_copy(s->d, channels_last(z), whole);
    dev_arena_reset(s->a, mark);
    s->chunk++;
}

void vae_decode_slice(struct vae_stream *s, tensor pixels, tensor z) { vae_decode_slice_for(s, EVERYWHERE, pixels, z); }

void vae_decode_slice_for(struct vae_stream *s, int rank, tensor pixels, tensor z)
{
    check_slice(s, pixels);
    int64_t mark = dev_arena_mark(s->a), c = s->v->z_dim;
    tensor own = band_of(s, channels_last(z)), out = band_of(s, pixels);
    if (s->edge > 0) out = dev_tensor(s->a, DT_F32, out.n, out.shape);
    if (has_lines(s)) {
        tensor x = dev_tensor(s->a, DT_F32, SHAPE(1, own.shape[1], own.shape[2], c));
        tensor y = dev_tensor(s->a, DT_F32, x.n, x.shape);
        op_copy(s->d, x, own);
        op_linear(s->d, y, x, s->v->from_z_w, s->v->from_z_b, ACT_NONE);
        run_half(s, out, y);
    } else
        attend_gathers(s);
    collect(s, rank, pixels, out);
    dev_arena_reset(s->a, mark);
    s->chunk++;
}

void vae_encode(const struct vae *v, struct dev_arena *a, tensor z, tensor pixels, const struct tap *tap)
{
    int64_t mark = dev_arena_mark(a), n = 1 + (pixels.shape[0] - 1) / 4;
    BUG_IF(z.n != 4 || z.shape[1] != n, "%lld latent frames for %lld", (long long)z.shape[1], (long long)n);
    struct vae_stream *s = vae_encode_open(v, a, pixels.shape[1], pixels.shape[2], tap);
    for (int64_t i = 0; i < n; i++)
        vae_encode_slice(s, tensor_slice(z, 1, i, i + 1), tensor_slice(pixels, 0, i ? 4 * i - 3 : 0, 4 * i + 1));
    vae_stream_close(&s);
    dev_arena_reset(a, mark);
}
