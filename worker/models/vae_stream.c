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
// Memory: residual blocks work in place, so a slice holds one tensor per resolution, plus three of the largest.
#include "worker/models/vae_parts.h"

#include <stdio.h>
#include <stdlib.h>

struct vae_stream {
    const struct vae *v;
    const struct vae_half *half;
    struct dev *d;
    struct dev_arena *a;
    const struct tap *tap;
    int64_t h, w; // pixels
    int chunk;
    tensor conv1, head;             // history of the first and the last convolution
    tensor slot[VAE_LAYERS_MAX][2]; // history of the layers' convolutions
};

// ---- history

static tensor history_new(struct vae_stream *s, int64_t frames, int64_t h, int64_t w, int64_t c)
{
    tensor t = dev_tensor(s->a, DT_F32, SHAPE(frames, h, w, c));
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

static void history_keep(struct vae_stream *s, tensor history, tensor buffer)
{
    op_copy(s->d, history, tensor_slice(buffer, 0, buffer.shape[0] - history.shape[0], buffer.shape[0]));
}

static const struct conv same3 = {.pad = {{0, 0}, {1, 1}, {1, 1}}}; // time comes padded by history

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
    int64_t inner = dev_arena_mark(s->a);
    tensor b = history_buffer(s, slot[0], t);
    op_l2_norm(s->d, new_frames(b, slot[0]), x, y->gamma0, ACT_SILU);
    op_conv(s->d, c, b, y->conv2.w, y->conv2.b, same3, ACT_NONE);
    history_keep(s, slot[0], b);
    dev_arena_reset(s->a, inner);
    b = history_buffer(s, slot[1], t);
    op_l2_norm(s->d, new_frames(b, slot[1]), c, y->gamma3, ACT_SILU);
    op_conv(s->d, c, b, y->conv6.w, y->conv6.b, same3, ACT_NONE);
    history_keep(s, slot[1], b);
    if (!same) op_linear(s->d, out, x, y->short_w, y->short_b, ACT_NONE);
    op_gate_add(s->d, out, c, NO_TENSOR);
    dev_arena_reset(s->a, mark);
    return out;
}

static tensor run_attention(struct vae_stream *s, const struct vae_layer *y, tensor x)
{
    int64_t t = x.shape[0], n = x.shape[1] * x.shape[2], c = y->ci, mark = dev_arena_mark(s->a);
    tensor rows = tensor_reshape(x, SHAPE(t, n, c)), xn = dev_tensor(s->a, DT_F32, SHAPE(t, n, c));
    tensor qkv = dev_tensor(s->a, DT_F32, SHAPE(t, n, 3 * c)), o = dev_tensor(s->a, DT_F32, SHAPE(t, n, c));
    op_l2_norm(s->d, xn, rows, y->gamma0, ACT_NONE);
    op_linear(s->d, qkv, xn, y->qkv_w, y->qkv_b, ACT_NONE);
    tensor one = tensor_split(qkv, 2, 3, c); // [t, n, 3, c]
    op_attention(s->d, tensor_split(o, 2, 1, c), tensor_slice(one, 2, 0, 1), tensor_slice(one, 2, 1, 2),
                 tensor_slice(one, 2, 2, 3), (struct attn){0});
    op_linear(s->d, xn, o, y->proj_w, y->proj_b, ACT_NONE);
    op_gate_add(s->d, rows, xn, NO_TENSOR);
    dev_arena_reset(s->a, mark);
    return x;
}

static tensor run_down(struct vae_stream *s, const struct vae_layer *y, tensor slot, tensor x)
{
    static const struct conv space = {.stride = {1, 2, 2}, .pad = {{0, 0}, {0, 1}, {0, 1}}};
    int64_t t = x.shape[0], h = x.shape[1] / 2, w = x.shape[2] / 2;
    if (y->kind == VAE_DOWN2) {
        tensor out = dev_tensor(s->a, DT_F32, SHAPE(t, h, w, y->co));
        op_conv(s->d, out, x, y->space.w, y->space.b, space, ACT_NONE);
        return out;
    }
    bool first = s->chunk == 0;
    tensor out = dev_tensor(s->a, DT_F32, SHAPE(first ? t : t / 2, h, w, y->co));
    int64_t mark = dev_arena_mark(s->a);
    tensor b = history_buffer(s, slot, t), frames = new_frames(b, slot);
    op_conv(s->d, frames, x, y->space.w, y->space.b, space, ACT_NONE);
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
    tensor big = dev_tensor(s->a, DT_F32, SHAPE(n, 2 * h, 2 * w, y->ci));
    op_upsample2(s->d, big, x);
    op_conv(s->d, out, big, y->space.w, y->space.b, same3, ACT_NONE);
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

// From the input of conv1 to the output of the head, written to `out`.
static void run_half(struct vae_stream *s, tensor out, tensor in)
{
    const struct vae_half *f = s->half;
    tensor x = dev_tensor(s->a, DT_F32, SHAPE(in.shape[0], in.shape[1], in.shape[2], f->c1));
    int64_t mark = dev_arena_mark(s->a);
    tensor b = history_buffer(s, s->conv1, in.shape[0]);
    op_copy(s->d, new_frames(b, s->conv1), in);
    op_conv(s->d, x, b, f->conv1.w, f->conv1.b, same3, ACT_NONE);
    history_keep(s, s->conv1, b);
    dev_arena_reset(s->a, mark);
    tap_layer(s, x, "conv1");
    for (int i = 0; i < f->n_layers; i++) x = run_layer(s, i, x);
    b = history_buffer(s, s->head, x.shape[0]);
    op_l2_norm(s->d, new_frames(b, s->head), x, f->head_gamma, ACT_SILU);
    op_conv(s->d, out, b, f->head.w, f->head.b, same3, ACT_NONE);
    history_keep(s, s->head, b);
    tap_layer(s, out, "head.2");
}

// ---- streams

static struct vae_stream *stream_open(const struct vae *v, const struct vae_half *f, struct dev_arena *a, int64_t h,
                                      int64_t w, const struct tap *tap)
{
    BUG_IF(h % 8 || w % 8 || h < 8 || w < 8, "a picture of %lld x %lld", (long long)w, (long long)h);
    struct vae_stream *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for a VAE stream");
    *s = (struct vae_stream){.v = v, .half = f, .d = v->dev, .a = a, .tap = tap, .h = h, .w = w};
    if (f == &v->decoder) h /= 8, w /= 8;
    s->conv1 = history_new(s, 2, h, w, f->c_in);
    for (int i = 0; i < f->n_layers; i++) {
        const struct vae_layer *y = &f->layer[i];
        if (y->kind == VAE_DOWN2 || y->kind == VAE_DOWN3) h /= 2, w /= 2;
        if (y->kind == VAE_RES) {
            s->slot[i][0] = history_new(s, 2, h, w, y->ci);
            s->slot[i][1] = history_new(s, 2, h, w, y->co);
        }
        if (y->kind == VAE_DOWN3) s->slot[i][0] = history_new(s, 1, h, w, y->co);
        if (y->kind == VAE_UP3) s->slot[i][0] = history_new(s, 2, h, w, y->ci);
        if (y->kind == VAE_UP2 || y->kind == VAE_UP3) h *= 2, w *= 2;
    }
    s->head = history_new(s, 2, h, w, f->c_head);
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

void vae_encode_slice(struct vae_stream *s, tensor z, tensor pixels)
{
    BUG_IF(pixels.n != 4 || pixels.shape[0] != (s->chunk ? 4 : 1) || pixels.shape[1] != s->h || pixels.shape[2] != s->w,
           "slice %d of %lld frames", s->chunk, (long long)pixels.shape[0]);
    int64_t mark = dev_arena_mark(s->a), h = s->h / 8, w = s->w / 8, c = s->v->z_dim;
    tensor m = dev_tensor(s->a, DT_F32, SHAPE(1, h, w, 2 * c)), y = dev_tensor(s->a, DT_F32, SHAPE(1, h, w, c));
    run_half(s, m, pixels);
    tap_layer(s, m, "encoder_out");
    op_linear(s->d, y, m, s->v->to_z_w, s->v->to_z_b, ACT_NONE);
    op_copy(s->d, channels_last(z), y);
    dev_arena_reset(s->a, mark);
    s->chunk++;
}

void vae_decode_slice(struct vae_stream *s, tensor pixels, tensor z)
{
    BUG_IF(pixels.n != 4 || pixels.shape[0] != (s->chunk ? 4 : 1) || pixels.shape[1] != s->h || pixels.shape[2] != s->w,
           "slice %d of %lld frames", s->chunk, (long long)pixels.shape[0]);
    int64_t mark = dev_arena_mark(s->a), h = s->h / 8, w = s->w / 8, c = s->v->z_dim;
    tensor x = dev_tensor(s->a, DT_F32, SHAPE(1, h, w, c)), y = dev_tensor(s->a, DT_F32, SHAPE(1, h, w, c));
    op_copy(s->d, x, channels_last(z));
    op_linear(s->d, y, x, s->v->from_z_w, s->v->from_z_b, ACT_NONE);
    run_half(s, pixels, y);
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
