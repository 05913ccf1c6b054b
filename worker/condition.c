// Conditions.
//
// Words: text -> ids -> umT5 rows [n, 4096] -> keys and values of every block. Only the real rows are handed on; the
// network pads with zeros itself.
//
// Picture: bytes -> pixels (v/255 - 0.5) 2 [h, w, 3]
//            -> CLIP tokens [257, 1280] -> keys and values
//            -> y [4 + 16, t, h/8, w/8]: 1 in latent frame 0 of the four mask channels and 0 elsewhere, then the VAE's
//               latent of the picture followed by frames of zeros (grey)
// The zero frames are really encoded: their latents are not zero and the encoder's memory outlasts a segment. They go
// through the encoder four at a time, so memory does not grow with the segment. The VAE is causal: latent frame 0 is
// that of the picture alone, which saves the second encoding for the first motion frame.
//
// Masks follow the picture's own grid: crop to the output picture happens before (8-bit), cell (i, j) of the latent
// grid takes pixel (8i, 8j), and the network takes every second cell, so a token is inside when pixel (16i, 16j) is.
#include "worker/condition.h"

#include <stdlib.h>
#include <string.h>

enum { LATENT_STRIDE = 8, TIME_STRIDE = 4, MASK_CHANNELS = 4, UPLOAD_CHUNK = 4096 };

const char condition_negative[] =
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards";

// ---- words

// A text on the rank that reads it.
struct reading {
    int32_t *ids; // [n]; NULL when it was read before
    int n, n_lost;
    const struct text_rows *known;
};

static int look_up(struct reading *t, const struct condition_reader *r, int text_len, const char *text, struct err *e)
{
    t->known = r->texts ? texts_find(r->texts, text) : NULL;
    if (t->known) {
        t->n = t->known->n;
        t->n_lost = t->known->n_lost;
        return 0;
    }
    t->ids = malloc((size_t)text_len * sizeof *t->ids);
    if (!t->ids) return err_set(e, E_FATAL, "no memory for %d text ids", text_len);
    return unigram_encode(r->unigram, text, t->ids, text_len, &t->n, &t->n_lost, e);
}

// The encoder's rows of a text that it has not read, or not lately.
static void encode_rows(tensor own, const struct condition_reader *r, struct dev_arena *work, const char *text,
                        const struct reading *t)
{
    struct dev *d = dev_arena_dev(work);
    int64_t mark = dev_arena_mark(work);
    tensor id = dev_tensor(work, DT_I32, SHAPE(t->n));
    dev_upload(d, id, t->ids, DT_I32);
    umt5_encode(r->umt5, work, own, id, t->n, NULL);
    dev_arena_reset(work, mark);
    if (!r->texts) return;
    int dim = umt5_dim(r->umt5);
    struct text_rows kept = {
        .n = t->n, .n_lost = t->n_lost, .rows = malloc((size_t)t->n * (size_t)dim * sizeof(float))};
    BUG_IF(!kept.rows, "no memory for a text");
    dev_download(d, kept.rows, DT_F32, own);
    texts_keep(r->texts, text, &kept, dim);
    free(kept.rows);
}

// Rows F32 [text_len, dim] of a text, zeros behind the last: what the network would pad them with.
static void fill_rows(tensor rows, const struct condition_reader *r, struct dev_arena *work, const char *text,
                      const struct reading *t)
{
    struct dev *d = dev_arena_dev(work);
    tensor own = tensor_slice(rows, 0, 0, t->n);
    if (t->known)
        dev_upload(d, own, t->known->rows, DT_F32);
    else
        encode_rows(own, r, work, text, t);
    if (t->n < rows.shape[0]) op_fill(d, tensor_slice(rows, 0, t->n, rows.shape[0]), 0);
}

// Who lends must know whether the text is read at all, so the ranks agree before it is.
int condition_words(struct dit_words *out, const struct condition_reader *r, struct dev_arena *keep,
                    struct dev_arena *work, const char *text, int *n, int *n_lost, struct err *e)
{
    const struct dit_config *c = dit_config_of(r->dit);
    int64_t mark = dev_arena_mark(work);
    tensor rows = dev_tensor(work, DT_F32, SHAPE(c->text_len, c->text_dim));
    struct reading t = {0};
    int rc = r->unigram ? look_up(&t, r, c->text_len, text, e) : 0;
    if (rc < 0) err_wrap(e, "%s", r->what);
    if (r->world) rc = comm_agree(r->world, rc, NULL, e);
    int told[3] = {t.n, t.n_lost, !t.known};
    if (rc == 0 && r->world) comm_bcast(comm_host(r->world), r->rank, told, sizeof told);
    if (rc == 0 && r->unigram)
        fill_rows(rows, r, work, text, &t);
    else if (rc == 0 && r->umt5 && told[2])
        umt5_lend(r->umt5);
    if (rc == 0) {
        if (r->world) comm_bcast(r->world, r->rank, rows.data, tensor_bytes(rows));
        *n = told[0];
        *n_lost = told[1];
        *out = dit_words_new(r->dit, keep, rows, NULL);
    }
    free(t.ids);
    dev_arena_reset(work, mark);
    return rc;
}

// ---- masks

static bool mask_covers_token(const uint8_t *mask, int h, int w)
{
    for (int i = 0; i < h; i += 2 * LATENT_STRIDE)
        for (int j = 0; j < w; j += 2 * LATENT_STRIDE)
            if (mask[(int64_t)i * w + j] > 127) return true;
    return false;
}

static void masks_fill(float *cells, const uint8_t *masks, int n_speakers, int h, int w)
{
    int64_t lh = h / LATENT_STRIDE, lw = w / LATENT_STRIDE, plane = lh * lw;
    for (int64_t i = 0; i < lh; i++)
        for (int64_t j = 0; j < lw; j++) {
            int64_t pixel = i * LATENT_STRIDE * w + j * LATENT_STRIDE, cell = i * lw + j;
            bool taken = false;
            for (int p = 0; p < n_speakers; p++) {
                bool in = masks[(int64_t)p * h * w + pixel] > 127;
                cells[p * plane + cell] = in;
                taken |= in;
            }
            cells[n_speakers * plane + cell] = !taken;
        }
}

int condition_masks(tensor *out, struct dev_arena *keep, const uint8_t *masks, int n_speakers, int h, int w,
                    bool published, struct err *e)
{
    BUG_IF(n_speakers > 1 && !masks, "two speakers without masks");
    *out = dev_tensor(keep, DT_F32, SHAPE(3, h / LATENT_STRIDE, w / LATENT_STRIDE));
    struct dev *d = dev_arena_dev(keep);
    if (n_speakers == 1) {
        op_fill(d, *out, 1);
        return 0;
    }
    for (int p = 0; p < n_speakers && !published; p++)
        if (!mask_covers_token(masks + (int64_t)p * h * w, h, w))
            return err_set(e, E_INPUT,
                           "the region of speaker %d covers none of the %dx%d cells that the %dx%d picture is divided "
                           "into; make it larger",
                           p + 1, w / (2 * LATENT_STRIDE), h / (2 * LATENT_STRIDE), w, h);
    float *cells = malloc((size_t)tensor_bytes(*out));
    if (!cells) return err_set(e, E_FATAL, "no memory for the masks");
    masks_fill(cells, masks, n_speakers, h, w);
    dev_upload(d, *out, cells, DT_F32);
    free(cells);
    return 0;
}

// ---- picture

tensor condition_pixels(struct dev_arena *a, const uint8_t *rgb, int h, int w)
{
    tensor pixels = dev_tensor(a, DT_F32, SHAPE(h, w, 3));
    tensor flat = tensor_reshape(pixels, SHAPE(-1));
    int64_t n = tensor_count(flat);
    float chunk[UPLOAD_CHUNK];
    for (int64_t from = 0; from < n; from += UPLOAD_CHUNK) {
        int64_t to = from + UPLOAD_CHUNK < n ? from + UPLOAD_CHUNK : n;
        for (int64_t i = from; i < to; i++) chunk[i - from] = ((float)rgb[i] / 255.0f - 0.5f) * 2.0f;
        dev_upload(dev_arena_dev(a), tensor_slice(flat, 0, from, to), chunk, DT_F32);
    }
    return pixels;
}

void condition_picture_open(struct condition_picture *p, struct dev_arena *arena, int h, int w, int n_frames)
{
    *p = (struct condition_picture){.arena = arena, .h = h, .w = w, .n_frames = n_frames};
    p->rgb = malloc((size_t)h * (size_t)w * 3);
    BUG_IF(!p->rgb, "no memory for a picture of %dx%d", w, h);
}

void condition_picture_close(struct condition_picture *p)
{
    free(p->rgb);
    *p = (struct condition_picture){0};
}

void condition_picture_forget(struct condition_picture *p) { p->filled = false; }

// y [channels, t, h/8, w/8] with the mask channels set; the latent is encoded into the rest.
static void picture_encode(struct condition_picture *p, const struct vae *vae, struct dev_arena *work, int n_channels)
{
    struct dev *d = dev_arena_dev(work);
    int64_t t = 1 + (p->n_frames - 1) / TIME_STRIDE;
    BUG_IF(n_channels != MASK_CHANNELS + vae_latent_channels(vae), "a network with %d condition channels", n_channels);
    p->y = dev_tensor(p->arena, DT_F32, SHAPE(n_channels, t, p->h / LATENT_STRIDE, p->w / LATENT_STRIDE));
    tensor z = tensor_slice(p->y, 0, MASK_CHANNELS, n_channels);
    dit_given(d, tensor_slice(p->y, 0, 0, MASK_CHANNELS));
    p->latent = tensor_slice(z, 1, 0, 1);

    int64_t mark = dev_arena_mark(work);
    struct vae_stream *s = vae_encode_open(vae, work, p->h, p->w, NULL);
    vae_encode_slice(s, p->latent, tensor_reshape(p->pixels, SHAPE(1, p->h, p->w, 3)));
    tensor grey = dev_tensor(work, DT_F32, SHAPE(TIME_STRIDE, p->h, p->w, 3));
    op_fill(d, grey, 0);
    for (int64_t i = 1; i < t; i++) vae_encode_slice(s, tensor_slice(z, 1, i, i + 1), grey);
    vae_stream_close(&s);
    dev_arena_reset(work, mark);
}

void condition_picture_set(struct condition_picture *p, const struct condition_eye *eye, struct dev_arena *work,
                           const uint8_t *rgb)
{
    size_t n_bytes = (size_t)p->h * (size_t)p->w * 3;
    if (p->filled && memcmp(p->rgb, rgb, n_bytes) == 0) return;
    memcpy(p->rgb, rgb, n_bytes);
    p->filled = true;
    dev_arena_reset(p->arena, 0);
    const struct dit_config *c = dit_config_of(eye->dit);
    p->pixels = condition_pixels(p->arena, rgb, p->h, p->w);
    p->clip = dev_tensor(p->arena, DT_F32, SHAPE(c->clip_tokens, c->clip_dim));
    int64_t mark = dev_arena_mark(work);
    if (eye->clip) clip_encode(eye->clip, work, p->clip, p->pixels, NULL);
    dev_arena_reset(work, mark);
    picture_encode(p, eye->vae, work, c->in_dim - c->out_dim);
    if (eye->world) comm_bcast(eye->world, eye->rank, p->clip.data, tensor_bytes(p->clip));
    p->keys = dit_picture_new(eye->dit, p->arena, p->clip, NULL);
}
