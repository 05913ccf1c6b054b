// Loading wav2vec2. wav2vec2_conv.c and wav2vec2_forward.c run it.
//
//   samples --convolutions--> features, about 50 a second --interpolation--> one per video frame
//     -- norm, projection, + positional convolution, norm, layers --> every layer's state
//
// Easy to get wrong: files saved by the pretraining class prefix every name with "wav2vec2."; the positional
// convolution is stored as a direction v and a length g per tap (not per output channel), under an old and a new name,
// or already multiplied:
//   w[o, i, k] = v[o, i, k] g[k] / sqrt(sum over o, i of v[o, i, k]^2)
// Heads of pretraining and the mask vector are in the file and mean nothing here.
#include "proto/file.h"
#include "proto/json.h"
#include "worker/models/load.h"
#include "worker/models/wav2vec2_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DOCUMENT_MAX = 1 << 20, PIECE_ROWS = 8192, TILE_FRAMES = 128 };

// ---- tensors

static const char *prefix_of(const struct weights *w)
{
    return weights_has(w, "wav2vec2.encoder.layer_norm.weight") ? "wav2vec2." : "";
}

static void load_layer(struct load *l, struct wav2vec2 *m, int i, const char *prefix)
{
    struct wav2vec2_layer *y = &m->layer[i];
    struct {
        struct wav2vec2_linear *to;
        int64_t n_out, n_in;
        const char *name;
    } part[] = {{&y->q, m->c.dim, m->c.dim, "attention.q_proj"},
                {&y->k, m->c.dim, m->c.dim, "attention.k_proj"},
                {&y->v, m->c.dim, m->c.dim, "attention.v_proj"},
                {&y->out, m->c.dim, m->c.dim, "attention.out_proj"},
                {&y->up, m->c.ffn_dim, m->c.dim, "feed_forward.intermediate_dense"},
                {&y->down, m->c.dim, m->c.ffn_dim, "feed_forward.output_dense"}};
    for (size_t k = 0; k < sizeof part / sizeof *part; k++)
        load_linear(l, &part[k].to->w, &part[k].to->b, part[k].n_out, part[k].n_in, "%sencoder.layers.%d.%s", prefix, i,
                    part[k].name);
    y->norm_w = load_vector(l, m->c.dim, "%sencoder.layers.%d.layer_norm.weight", prefix, i);
    y->norm_b = load_vector(l, m->c.dim, "%sencoder.layers.%d.layer_norm.bias", prefix, i);
    y->final_w = load_vector(l, m->c.dim, "%sencoder.layers.%d.final_layer_norm.weight", prefix, i);
    y->final_b = load_vector(l, m->c.dim, "%sencoder.layers.%d.final_layer_norm.bias", prefix, i);
}

// Gives every tap of v [n, taps] the length g[tap]. A tap of zeros stays zero.
static void scale_taps(float *v, const float *g, int64_t n, int64_t taps)
{
    for (int64_t k = 0; k < taps; k++) {
        double sq = 0;
        for (int64_t i = 0; i < n; i++) sq += (double)v[i * taps + k] * (double)v[i * taps + k];
        double f = sq > 0 ? (double)g[k] / sqrt(sq) : 0;
        for (int64_t i = 0; i < n; i++) v[i * taps + k] = (float)((double)v[i * taps + k] * f);
    }
}

// The names of length and direction, old spelling first; none when the file holds the product.
static bool pos_names(const struct weights *w, const char *prefix, char g[128], char v[128])
{
    static const char *const spelling[][2] = {
        {"weight_g", "weight_v"}, {"parametrizations.weight.original0", "parametrizations.weight.original1"}};
    for (int i = 0; i < 2; i++) {
        snprintf(g, 128, "%sencoder.pos_conv_embed.conv.%s", prefix, spelling[i][0]);
        snprintf(v, 128, "%sencoder.pos_conv_embed.conv.%s", prefix, spelling[i][1]);
        if (weights_has(w, g) || weights_has(w, v)) return true;
    }
    return false;
}

static void load_pos(struct load *l, struct wav2vec2 *m, const char *prefix)
{
    int64_t dim = m->c.dim, per_group = dim / m->c.pos_groups, taps = m->c.pos_kernel,
            shape[5] = {dim, per_group, 1, 1, taps};
    char g_name[128], v_name[128];
    if (!pos_names(l->w, prefix, g_name, v_name)) {
        load_conv(l, &m->pos.w, &m->pos.b, shape, "%sencoder.pos_conv_embed.conv", prefix);
        return;
    }
    tensor w = dev_tensor(l->arena, DT_F32, 5, shape), v = NO_TENSOR;
    int64_t mark = dev_arena_mark(l->arena);
    tensor g = load_vector(l, taps, "%s", g_name);
    if (l->rc == 0) l->rc = weights_load(l->w, l->arena, &v, DT_F32, v_name, SHAPE(dim, per_group, taps), l->e);
    if (l->rc == 0) {
        float *length = malloc((size_t)taps * sizeof *length), *values = malloc((size_t)tensor_bytes(w));
        BUG_IF(!length || !values, "no memory for the positional convolution");
        dev_download(l->dev, length, DT_F32, g);
        dev_download(l->dev, values, DT_F32, v);
        scale_taps(values, length, dim * per_group, taps);
        dev_upload(l->dev, w, values, DT_F32);
        free(length);
        free(values);
    }
    dev_arena_reset(l->arena, mark);
    if (l->rc == 0) m->pos.w = op_pack(l->dev, l->arena, w, PACK_CONV);
    m->pos.b = load_vector(l, dim, "%sencoder.pos_conv_embed.conv.bias", prefix);
}

static void load_convs(struct load *l, struct wav2vec2 *m, const char *prefix)
{
    const struct wav2vec2_config *c = &m->c;
    m->hop = m->field = 1;
    for (int i = 0; i < c->n_convs; i++) {
        load_conv(l, &m->conv[i], NULL, (int64_t[]){c->width[i], i ? c->width[i - 1] : 1, 1, 1, c->kernel[i]},
                  "%sfeature_extractor.conv_layers.%d.conv", prefix, i);
        m->field += (c->kernel[i] - 1) * m->hop;
        m->hop *= c->stride[i];
    }
    m->first_w = load_vector(l, c->width[0], "%sfeature_extractor.conv_layers.0.layer_norm.weight", prefix);
    m->first_b = load_vector(l, c->width[0], "%sfeature_extractor.conv_layers.0.layer_norm.bias", prefix);
}

static void load_all(struct load *l, struct wav2vec2 *m)
{
    const char *prefix = prefix_of(l->w);
    int64_t width = m->c.width[m->c.n_convs - 1];
    load_convs(l, m, prefix);
    m->feature_w = load_vector(l, width, "%sfeature_projection.layer_norm.weight", prefix);
    m->feature_b = load_vector(l, width, "%sfeature_projection.layer_norm.bias", prefix);
    load_linear(l, &m->project.w, &m->project.b, m->c.dim, width, "%sfeature_projection.projection", prefix);
    load_pos(l, m, prefix);
    m->norm_w = load_vector(l, m->c.dim, "%sencoder.layer_norm.weight", prefix);
    m->norm_b = load_vector(l, m->c.dim, "%sencoder.layer_norm.bias", prefix);
    for (int i = 0; i < m->c.n_layers && l->rc == 0; i++) load_layer(l, m, i, prefix);
}

// ---- life

int wav2vec2_new(struct wav2vec2 **out, struct dev *d, const struct weights *w, const char *config_json, bool normalize,
                 struct err *e)
{
    struct wav2vec2_config c;
    int rc = wav2vec2_config_parse(&c, config_json, e);
    if (rc < 0) return rc;
    struct wav2vec2 *m = calloc(1, sizeof *m);
    struct wav2vec2_layer *layer = calloc((size_t)c.n_layers, sizeof *layer);
    if (!m || !layer) {
        free(m);
        free(layer);
        return err_set(e, E_FATAL, "no memory for the voice encoder");
    }
    *m = (struct wav2vec2){.dev = d,
                           .arena = dev_arena_new(d, "wav2vec2", load_capacity(w)),
                           .c = c,
                           .normalize = normalize,
                           .piece_rows = PIECE_ROWS,
                           .tile_frames = TILE_FRAMES,
                           .layer = layer};
    struct load l = {.w = w, .dev = d, .arena = m->arena, .dtype = DT_F32, .e = e};
    load_all(&l, m);
    if (l.rc == 0) l.rc = dev_sync(d, e);
    if (l.rc < 0)
        wav2vec2_free(&m);
    else
        *out = m;
    return l.rc;
}

void wav2vec2_free(struct wav2vec2 **pm)
{
    struct wav2vec2 *m = *pm;
    if (!m) return;
    dev_arena_free(&m->arena);
    weights_free(&m->own);
    free(m->layer);
    free(m);
    *pm = NULL;
}

int wav2vec2_layers(const struct wav2vec2 *m) { return m->c.n_layers; }
int wav2vec2_dim(const struct wav2vec2 *m) { return m->c.dim; }

// ---- a folder

// What preprocessor_config.json says: whether samples are normalised (absent means yes), and the rate, which is ours.
static int read_preprocessor(const char *dir, bool *normalize, struct err *e)
{
    char path[4096];
    json_t *j = NULL;
    snprintf(path, sizeof path, "%s/preprocessor_config.json", dir);
    int rc = json_read(&j, path, e);
    if (rc < 0) return rc;
    json_t *say = json_object_get(j, "do_normalize"), *rate = json_object_get(j, "sampling_rate");
    if (!json_is_object(j) || (say && !json_is_boolean(say)))
        rc = err_set(e, E_INPUT, "%s: do_normalize is neither true nor false", path);
    else if (rate && json_number_value(rate) != 16000)
        rc = err_set(e, E_INPUT, "%s: sampling_rate is not 16000; voices are read at 16000 samples a second", path);
    *normalize = !say || json_is_true(say);
    json_decref(j);
    return rc;
}

int wav2vec2_weights(struct weights **w, const char *dir, struct err *e)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (stat(path, &st) == 0) return weights_open(w, path, e);
    }
    return err_set(e, E_INPUT, "the voice encoder's folder %s holds neither model.safetensors nor pytorch_model.bin",
                   dir);
}

int wav2vec2_open(struct wav2vec2 **out, struct dev *d, const char *dir, struct err *e)
{
    char path[4096], *config = NULL;
    size_t n;
    bool normalize = false;
    struct weights *w = NULL;
    snprintf(path, sizeof path, "%s/config.json", dir);
    int rc = file_text(&config, &n, path, DOCUMENT_MAX, e);
    if (rc == 0) rc = read_preprocessor(dir, &normalize, e);
    if (rc == 0) rc = wav2vec2_weights(&w, dir, e);
    if (rc == 0) rc = wav2vec2_new(out, d, w, config, normalize, e);
    free(config);
    if (rc < 0) {
        weights_free(&w);
        return e && !strstr(e->text, dir) ? err_wrap(e, "%s", dir) : rc;
    }
    (*out)->own = w;
    return 0;
}
