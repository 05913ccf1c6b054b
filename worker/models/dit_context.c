// What the diffusion transformer computes once: keys and values of words, picture and voice, speaker masks, step time.
//
//   text [lt, text_dim] -> zero rows to text_len -> linear, gelu(tanh), linear      -> per block k (RMS), v
//   clip [257, clip_dim] -> norm, linear, gelu(erf), linear, norm                    -> per block k_img (RMS), v_img
//   windows -> audio tokens [t, p tokens, audio_dim]                                 -> per block k, v
//   t -> cos, sin -> linear, silu, linear = e; silu, linear = e0 [6, dim]
//
// Easy to get wrong: text is padded before its projection and the padding is attended; the picture uses the exact GELU,
// the text the tanh form; the picture's norms have eps 1e-5; cosines stand before sines; with two speakers the keys
// are turned to positions 2 and 22, with one they are not turned at all.
#include "worker/models/dit_parts.h"

#include <math.h>
#include <stdlib.h>

static tensor of_layer(tensor t, int i) { return tensor_at(t, i); }

struct dit_words dit_words_new(const struct dit *m, struct dev_arena *a, tensor text, const struct tap *tap)
{
    struct dev *d = m->dev;
    int64_t n = m->c.text_len, w = m->c.dim, lt = text.shape[0];
    BUG_IF(text.n != 2 || lt > n || text.shape[1] != m->c.text_dim, "a text of %lld rows of %lld", (long long)lt,
           (long long)text.shape[1]);
    struct dit_words out = {.k = dev_tensor(a, m->dtype, SHAPE(m->c.n_layers, n, w)),
                            .v = dev_tensor(a, m->dtype, SHAPE(m->c.n_layers, n, w))};
    int64_t mark = dev_arena_mark(a);
    tensor padded = dev_tensor(a, m->dtype, SHAPE(n, m->c.text_dim));
    tensor h = dev_tensor(a, m->dtype, SHAPE(n, w)), c = dev_tensor(a, m->dtype, SHAPE(n, w));
    op_fill(d, padded, 0);
    op_copy(d, tensor_slice(padded, 0, 0, lt), text);
    op_linear(d, h, padded, m->text0.w, m->text0.b, ACT_GELU_TANH);
    op_linear(d, c, h, m->text2.w, m->text2.b, ACT_NONE);
    tap_see(tap, c, "text_embed");
    for (int i = 0; i < m->c.n_layers; i++) {
        const struct dit_block b = dit_block_take(m, i, DIT_CONTEXT);
        tensor k = of_layer(out.k, i);
        op_linear(d, k, c, b.ck.w, b.ck.b, ACT_NONE);
        op_rms_norm(d, k, k, b.cnorm_k, m->c.eps);
        op_linear(d, of_layer(out.v, i), c, b.cv.w, b.cv.b, ACT_NONE);
        dit_block_give(m, i, DIT_CONTEXT);
    }
    dev_arena_reset(a, mark);
    return out;
}

struct dit_picture dit_picture_new(const struct dit *m, struct dev_arena *a, tensor clip, const struct tap *tap)
{
    struct dev *d = m->dev;
    int64_t n = m->c.clip_tokens, w = m->c.dim, cw = m->c.clip_dim;
    BUG_IF(clip.n != 2 || clip.shape[0] != n || clip.shape[1] != cw, "picture features of %lld x %lld",
           (long long)clip.shape[0], (long long)clip.shape[1]);
    struct dit_picture out = {.k = dev_tensor(a, m->dtype, SHAPE(m->c.n_layers, n, w)),
                              .v = dev_tensor(a, m->dtype, SHAPE(m->c.n_layers, n, w))};
    int64_t mark = dev_arena_mark(a);
    tensor g = dev_tensor(a, m->dtype, SHAPE(n, cw)), g2 = dev_tensor(a, m->dtype, SHAPE(n, cw));
    tensor c = dev_tensor(a, m->dtype, SHAPE(n, w));
    op_copy(d, g, clip);
    op_norm(d, g, g, (struct norm){.gain = m->img0_w, .bias = m->img0_b, .eps = 1e-5f});
    op_linear(d, g2, g, m->img1.w, m->img1.b, ACT_GELU_ERF);
    op_linear(d, c, g2, m->img3.w, m->img3.b, ACT_NONE);
    op_norm(d, c, c, (struct norm){.gain = m->img4_w, .bias = m->img4_b, .eps = 1e-5f});
    tap_see(tap, c, "img_embed");
    for (int i = 0; i < m->c.n_layers; i++) {
        const struct dit_block b = dit_block_take(m, i, DIT_CONTEXT);
        tensor k = of_layer(out.k, i);
        op_linear(d, k, c, b.ck_img.w, b.ck_img.b, ACT_NONE);
        op_rms_norm(d, k, k, b.cnorm_k_img, m->c.eps);
        op_linear(d, of_layer(out.v, i), c, b.cv_img.w, b.cv_img.b, ACT_NONE);
        dit_block_give(m, i, DIT_CONTEXT);
    }
    dev_arena_reset(a, mark);
    return out;
}

// The rotation of audio keys with two speakers: the first half of a frame's tokens at 2, the second at 22.
static tensor speaker_table(const struct dit *m, struct dev_arena *a, int64_t t, int64_t n, const struct tap *tap)
{
    tensor pos = dev_tensor(a, DT_F32, SHAPE(t * n));
    tensor grid = tensor_reshape(pos, SHAPE(t, n));
    tensor table = dev_tensor(a, DT_F32, SHAPE(t * n, m->c.dim / m->c.n_heads / 2, 2));
    op_fill(m->dev, tensor_slice(grid, 1, 0, n / 2), 2);
    op_fill(m->dev, tensor_slice(grid, 1, n / 2, n), 22);
    op_rope_line(m->dev, table, pos);
    for (int i = 0; i < m->c.n_layers; i++) tap_see(tap, pos, "block%d.audio_pos_k", i);
    return table;
}

struct dit_voice dit_voice_new(const struct dit *m, struct dev_arena *a, tensor windows, const struct tap *tap)
{
    struct dev *d = m->dev;
    int64_t p = windows.shape[0], t = 1 + (windows.shape[1] - 1) / m->c.vae_scale, n = p * m->c.audio_tokens;
    int64_t w = m->c.dim;
    BUG_IF(p < 1 || p > 2, "%lld speakers", (long long)p);
    struct dit_voice out = {.k = dev_tensor(a, m->dtype, SHAPE(m->c.n_layers, t, n, w)),
                            .v = dev_tensor(a, m->dtype, SHAPE(m->c.n_layers, t, n, w)),
                            .n_speakers = (int)p};
    int64_t mark = dev_arena_mark(a);
    tensor tokens = audio_proj_run(&m->audio, d, a, windows, tap, "audio_");
    tap_see(tap, tensor_permute(tokens, (int[]){1, 0, 2, 3}), "audio_proj");
    tokens = tensor_reshape(tokens, SHAPE(t * n, m->c.audio_dim));
    tensor kv = dev_tensor(a, m->dtype, SHAPE(t * n, 2 * w));
    tensor table = p == 2 ? speaker_table(m, a, t, n, tap) : NO_TENSOR;
    for (int i = 0; i < m->c.n_layers; i++) {
        tensor k = tensor_reshape(of_layer(out.k, i), SHAPE(t * n, w));
        const struct dit_block b = dit_block_take(m, i, DIT_CONTEXT);
        op_linear(d, kv, tokens, b.akv.w, b.akv.b, ACT_NONE);
        dit_block_give(m, i, DIT_CONTEXT);
        op_copy(d, k, tensor_slice(kv, 1, 0, w));
        op_copy(d, tensor_reshape(of_layer(out.v, i), SHAPE(t * n, w)), tensor_slice(kv, 1, w, 2 * w));
        if (p == 2) op_rope(d, heads_of(m, k), table);
    }
    dev_arena_reset(a, mark);
    return out;
}

struct dit_voice dit_voice_null(const struct dit *m, struct dev_arena *a, int64_t t)
{
    // The windows are given back only with the arena: they stand before the result. Zeros are small beside it.
    tensor zeros =
        dev_tensor(a, DT_F32, SHAPE(1, 1 + m->c.vae_scale * (t - 1), m->c.audio_window, 1, m->c.audio_width));
    op_fill(m->dev, zeros, 0);
    return dit_voice_new(m, a, zeros, NULL);
}

tensor dit_masks_new(const struct dit *m, struct dev_arena *a, tensor masks, int64_t gh, int64_t gw)
{
    BUG_IF(masks.n != 3, "masks of %d axes", masks.n);
    int64_t n = masks.shape[0], mh = masks.shape[1], mw = masks.shape[2];
    tensor out = dev_tensor(a, DT_F32, SHAPE(n, gh * gw));
    float *from = calloc((size_t)(n * mh * mw), sizeof *from), *to = calloc((size_t)(n * gh * gw), sizeof *to);
    BUG_IF(!from || !to, "no memory for masks");
    dev_download(m->dev, from, DT_F32, masks);
    float sy = (float)mh / (float)gh, sx = (float)mw / (float)gw;
    for (int64_t i = 0; i < n * gh * gw; i++) {
        int64_t y = (int64_t)((float)(i / gw % gh) * sy), x = (int64_t)((float)(i % gw) * sx);
        y = y < mh ? y : mh - 1;
        x = x < mw ? x : mw - 1;
        to[i] = from[(i / (gh * gw) * mh + y) * mw + x] > 0;
    }
    dev_upload(m->dev, out, to, DT_F32);
    free(from);
    free(to);
    return out;
}

void dit_given(struct dev *d, tensor mask)
{
    op_fill(d, mask, 0);
    op_fill(d, tensor_slice(mask, 1, 0, 1), 1);
}

void dit_waves(float *wave, int64_t n, float t)
{
    int64_t half = n / 2;
    for (int64_t i = 0; i < half; i++) {
        double angle = (double)t * pow(10000, -(double)i / (double)half);
        wave[i] = (float)cos(angle);
        wave[half + i] = (float)sin(angle);
    }
}

struct dit_time dit_time_new(const struct dit *m, struct dev_arena *a, float t, const struct tap *tap)
{
    struct dev *d = m->dev;
    int64_t w = m->c.dim, half = m->c.freq_dim / 2;
    tensor e = dev_tensor(a, DT_F32, SHAPE(1, w)), e0 = dev_tensor(a, DT_F32, SHAPE(1, 6 * w));
    int64_t mark = dev_arena_mark(a);
    tensor s = dev_tensor(a, DT_F32, SHAPE(1, 2 * half)), h = dev_tensor(a, DT_F32, SHAPE(1, w));
    float *wave = malloc((size_t)(2 * half) * sizeof *wave);
    BUG_IF(!wave, "no memory for a step time");
    dit_waves(wave, 2 * half, t);
    dev_upload(d, s, wave, DT_F32);
    free(wave);
    op_linear(d, h, s, m->time0.w, m->time0.b, ACT_SILU);
    op_linear(d, e, h, m->time2.w, m->time2.b, ACT_NONE);
    op_act(d, h, e, ACT_SILU);
    op_linear(d, e0, h, m->time_proj.w, m->time_proj.b, ACT_NONE);
    dev_arena_reset(a, mark);
    struct dit_time out = {.e = tensor_reshape(e, SHAPE(w)), .e0 = tensor_reshape(e0, SHAPE(6, w))};
    tap_see(tap, out.e, "time_e");
    tap_see(tap, out.e0, "time_e0");
    return out;
}
