// Sizes of a network for the planner.
//
// What a block weighs is worked out from its widths; what is outside of the blocks is what all tensors hold, less the
// blocks. The transformer and the text encoder are kept in the dtype asked for, but for vectors, the others in F32.
//
// Two figures of the VAE are not worked out but measured, once, on the published structure: its operations (275 T to
// decode and 19 T to encode 81 and 9 frames of 480x832, with the square of its width) and the work space of a decode,
// which a dry run shows to be a line in the width and to grow with the picture alone.
#include "worker/plan/sizes.h"

#include "worker/guide.h"
#include "worker/weights/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { F32_BYTES = 4, VAE_WIDTH = 96 };

static void vae_figures(struct plan_model *m, int64_t width)
{
    double part = (double)(width * width) / (VAE_WIDTH * VAE_WIDTH);
    m->decode_ops = 8.5e6 * part;
    m->encode_ops = 5.3e6 * part;
    m->decode_bytes = 4 + 165.75 * (double)width;
}

// A block's weights, vectors kept in F32.
static void block_bytes(struct plan_model *m, int64_t audio_dim)
{
    int64_t d = m->dim, f = m->ffn;
    m->step_bytes = (8 * d * d + 2 * d * f) * m->size + (22 * d + f) * F32_BYTES;
    m->context_bytes = (4 * d * d + 2 * d * audio_dim) * m->size + 8 * d * F32_BYTES;
}

// Parameters of a block, however they are kept.
static int64_t block_values(const struct plan_model *m, int64_t audio_dim)
{
    int64_t d = m->dim;
    return 12 * d * d + 2 * d * m->ffn + 2 * d * audio_dim + 30 * d + m->ffn;
}

// One tensor of the text encoder, as it is kept.
static void add_words(struct plan_model *m, const char *name, int axes, int64_t values)
{
    int64_t bytes = values * (axes == 1 ? F32_BYTES : m->size);
    m->encoder_bytes[0] += bytes;
    if (strncmp(name, "blocks.", 7) == 0) m->words_blocks += bytes;
    if (strncmp(name, "blocks.0.", 9) == 0) m->words_block += bytes;
}

static void add_words_of_list(struct plan_model *m, const struct synth_sizes *s)
{
    struct synth_list l = {.label = "", .dtype = DT_F32};
    list_text(&l, s);
    for (int64_t i = 0; i < l.n; i++) {
        int64_t values = 1;
        for (int k = 0; k < l.head[i].n; k++) values *= l.head[i].shape[k];
        add_words(m, l.head[i].name, l.head[i].n, values);
    }
    list_free(&l);
}

void sizes_of_list(struct plan_model *out, const struct synth_sizes *s, int size)
{
    void (*const lists[])(struct synth_list *, const struct synth_sizes *) = {list_dit, list_adapter, list_clip,
                                                                              list_voice, list_vae};
    int64_t values[5];
    for (int i = 0; i < 5; i++) {
        struct synth_list l = {.label = "", .dtype = DT_F32};
        lists[i](&l, s);
        values[i] = list_values(&l);
        list_free(&l);
    }
    *out = (struct plan_model){.dim = s->dim,
                               .ffn = s->ffn,
                               .heads = s->heads,
                               .layers = s->layers,
                               .out_dim = s->vae_z,
                               .words = s->text_len,
                               .picture = s->clip_tokens,
                               .voice = s->audio_tokens,
                               .size = size};
    block_bytes(out, s->audio_dim);
    vae_figures(out, s->vae_dim);
    int64_t blocks = s->layers * block_values(out, s->audio_dim);
    out->rest_bytes = (values[0] + values[1] - blocks) * size + values[4] * F32_BYTES;
    add_words_of_list(out, s);
    out->encoder_bytes[1] = values[2] * F32_BYTES;
    out->encoder_bytes[2] = values[3] * F32_BYTES;
}

// ---- a folder

struct look {
    struct err *e;
    int rc;
};

static struct weights *look_open(struct look *l, const char *path)
{
    struct weights *w = NULL;
    if (l->rc == 0) l->rc = weights_open(&w, path, l->e);
    return w;
}

static int64_t axis(struct look *l, const struct weights *w, const char *name, int i)
{
    tensor t = NO_TENSOR;
    if (l->rc == 0) l->rc = weights_get(w, name, &t, l->e);
    if (l->rc == 0 && t.n <= i)
        l->rc =
            err_set(l->e, E_INPUT, "%s: %s has %d axes where it should have more", weights_file(w, name), name, t.n);
    return l->rc == 0 ? t.shape[i] : 1;
}

static int64_t values_of(const struct weights *w)
{
    struct err e;
    int64_t n = 0;
    for (int64_t i = 0; w && i < weights_count(w); i++) {
        tensor t;
        if (weights_get(w, weights_name(w, i), &t, &e) == 0) n += tensor_count(t);
    }
    return n;
}

static int64_t values_at(struct look *l, const char *path)
{
    struct weights *w = look_open(l, path);
    int64_t n = values_of(w);
    weights_free(&w);
    return n;
}

static int64_t count_blocks(const struct weights *w)
{
    char name[64];
    for (int64_t n = 0;; n++) {
        snprintf(name, sizeof name, "blocks.%lld.modulation", (long long)n);
        if (!weights_has(w, name)) return n;
    }
}

static void look_at_transformer(struct look *l, struct plan_model *m, const struct model *f, const char *adapter)
{
    struct weights *w = look_open(l, f->dit);
    if (l->rc == 0 && strcmp(adapter, f->dit) != 0) l->rc = weights_add(w, adapter, l->e);
    if (l->rc == 0) {
        int64_t inner = axis(l, w, "audio_proj.norm.weight", 0);
        m->dim = axis(l, w, "patch_embedding.weight", 0);
        m->out_dim = axis(l, w, "head.head.weight", 0) / 4;
        m->ffn = axis(l, w, "blocks.0.ffn.0.weight", 0);
        m->voice = axis(l, w, "audio_proj.proj3.weight", 0) / (inner > 0 ? inner : 1);
        m->layers = count_blocks(w);
        block_bytes(m, inner);
        int64_t rest = values_of(w) - m->layers * block_values(m, inner);
        m->rest_bytes = (rest > 0 ? rest : 0) * m->size;
    }
    weights_free(&w);
}

static void look_at_vae(struct look *l, struct plan_model *m, const char *path)
{
    struct weights *w = look_open(l, path);
    if (l->rc == 0) vae_figures(m, axis(l, w, "encoder.conv1.weight", 0));
    m->rest_bytes += values_of(w) * F32_BYTES;
    weights_free(&w);
}

static void look_at_words(struct look *l, struct plan_model *m, const char *path)
{
    struct weights *w = look_open(l, path);
    struct err e;
    for (int64_t i = 0; w && i < weights_count(w); i++) {
        tensor t;
        const char *name = weights_name(w, i);
        if (weights_get(w, name, &t, &e) == 0) add_words(m, name, t.n, tensor_count(t));
    }
    weights_free(&w);
}

// The voice encoder's folder holds one of two files.
static int64_t look_at_voice(struct look *l, const char *folder)
{
    char path[MODEL_PATH_MAX + 32];
    struct err ignored;
    struct weights *w = NULL;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (weights_open(&w, path, &ignored) < 0) snprintf(path, sizeof path, "%s/pytorch_model.bin", folder);
    weights_free(&w);
    return values_at(l, path);
}

int sizes_of_folder(struct plan_model *out, const struct model *f, int speakers, int size, struct err *e)
{
    struct look l = {.e = e, .rc = model_missing(f, e)};
    *out = (struct plan_model){.size = size, .heads = f->dit_heads, .words = f->text_len};
    out->picture = 1 + (int64_t)(f->clip_image / 14) * (f->clip_image / 14);
    if (l.rc == 0) look_at_transformer(&l, out, f, speakers > 1 && f->adapter2[0] ? f->adapter2 : f->adapter);
    if (l.rc == 0) look_at_vae(&l, out, f->vae);
    if (l.rc == 0) look_at_words(&l, out, f->text);
    if (l.rc == 0) out->encoder_bytes[1] = values_at(&l, f->clip) * F32_BYTES;
    if (l.rc == 0) out->encoder_bytes[2] = look_at_voice(&l, f->voice) * F32_BYTES;
    return l.rc;
}

int sizes_of_job(struct plan_job *out, const struct model *m, int speakers, struct err *e)
{
    const struct bucket_table *t = NULL;
    int rc = model_size(m, m->size[0].name, &t, e);
    if (rc < 0) return rc;
    struct spec_render *s = calloc(1, sizeof *s); // large
    BUG_IF(!s, "no memory for a job");
    const struct bucket *b = model_bucket(t, 9, 16);
    struct guide g;
    s->text_scale = m->text_scale;
    s->audio_scale = m->audio_scale;
    guide_plan(&g, s);
    *out = (struct plan_job){.frames = 1 + (m->frame_num - 1) / 4,
                             .gh = b->h / 16,
                             .gw = b->w / 16,
                             .pictures = m->frame_num,
                             .motion = m->motion_frame,
                             .branches = g.n,
                             .texts = guide_wants_negative(&g) ? 2 : 1,
                             .speakers = speakers,
                             .steps = m->steps,
                             .silence = guide_wants_silence(&g)};
    free(s);
    return 0;
}
