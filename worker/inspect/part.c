// What a set of weights is, by its names.
//
// Each network has a tensor that gives it away; its sizes are read off shapes; from the sizes follows the full list of
// its tensors (the very list that random models are made from), and what of that list is absent or of another shape is
// named. So a file is whole if and only if it has what a model of its own sizes has. Tensors that the loaders do not
// read (heads, the unused half of CLIP) may lack.
#include "worker/inspect/part.h"

#include "worker/synth/parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAMED_MAX = 20 };

json_t *text_json(const char *text)
{
    char plain[2048];
    json_t *j = json_string(text);
    if (j) return j;
    snprintf(plain, sizeof plain, "%s", text);
    for (char *c = plain; *c; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    return json_string(plain);
}

void problem_add(json_t *problems, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    json_array_append_new(problems, text_json(text));
}

// ---- reading sizes off shapes

// The length of an axis, or 0. Cut where no model is, so that sizes made of it do not overflow.
static int64_t axis(const struct weights *w, const char *name, int i)
{
    const int64_t most = 1 << 24;
    tensor t = NO_TENSOR;
    if (weights_get(w, name, &t, NULL) < 0 || i >= t.n) return 0;
    return t.shape[i] < most ? t.shape[i] : most;
}

// How many of fmt(0), fmt(1), ... there are.
static int count(const struct weights *w, const char *before, const char *after)
{
    for (int i = 0;; i++) {
        char name[160];
        snprintf(name, sizeof name, "%s%d%s", before, i, after);
        if (!weights_has(w, name)) return i;
    }
}

static void sizes_dit(struct synth_sizes *s, const struct weights *w)
{
    s->dim = axis(w, "patch_embedding.weight", 0);
    s->vae_z = axis(w, "head.head.weight", 0) / 4;
    s->ffn = axis(w, "blocks.0.ffn.0.weight", 0);
    s->freq = axis(w, "time_embedding.0.weight", 1);
    s->text_dim = axis(w, "text_embedding.0.weight", 1);
    s->clip_dim = axis(w, "img_emb.proj.1.weight", 0);
    s->layers = count(w, "blocks.", ".modulation");
}

static void sizes_adapter(struct synth_sizes *s, const struct weights *w)
{
    s->dim = axis(w, "blocks.0.norm_x.weight", 0);
    s->audio_inner = axis(w, "audio_proj.proj1.weight", 0);
    s->audio_dim = axis(w, "audio_proj.norm.weight", 0);
    s->audio_tokens = s->audio_dim > 0 ? axis(w, "audio_proj.proj3.weight", 0) / s->audio_dim : 0;
    s->voice_dim = axis(w, "audio_proj.proj1.weight", 1) / 5;
    s->voice_layers = 1;
    s->layers = count(w, "blocks.", ".norm_x.weight");
}

static void sizes_text(struct synth_sizes *s, const struct weights *w)
{
    s->vocabulary = axis(w, "token_embedding.weight", 0);
    s->text_dim = axis(w, "token_embedding.weight", 1);
    s->text_ffn = axis(w, "blocks.0.ffn.fc1.weight", 0);
    s->text_buckets = axis(w, "blocks.0.pos_embedding.embedding.weight", 0);
    s->text_heads = (int)axis(w, "blocks.0.pos_embedding.embedding.weight", 1);
    s->text_inner = axis(w, "blocks.0.attn.q.weight", 0);
    s->text_layers = count(w, "blocks.", ".norm1.weight");
}

static void sizes_clip(struct synth_sizes *s, const struct weights *w)
{
    s->clip_dim = axis(w, "visual.patch_embedding.weight", 0);
    s->clip_tokens = axis(w, "visual.pos_embedding", 1);
    s->clip_ffn = axis(w, "visual.transformer.0.mlp.0.weight", 0);
    s->clip_out = axis(w, "visual.head", 1);
    s->clip_layers = count(w, "visual.transformer.", ".norm1.weight");
}

static void sizes_vae(struct synth_sizes *s, const struct weights *w)
{
    s->vae_dim = axis(w, "encoder.conv1.weight", 0);
    s->vae_z = axis(w, "conv2.weight", 0);
}

static void sizes_voice(struct synth_sizes *s, const struct weights *w)
{
    bool prefixed = weights_has(w, "wav2vec2.encoder.layer_norm.weight");
    const char *p = prefixed ? "wav2vec2." : "";
    char name[160];
#define VOICE(tail) (snprintf(name, sizeof name, "%s%s", p, tail), name)
    s->voice_conv = axis(w, VOICE("feature_extractor.conv_layers.0.conv.weight"), 0);
    s->voice_dim = axis(w, VOICE("encoder.layer_norm.weight"), 0);
    s->voice_ffn = axis(w, VOICE("encoder.layers.0.feed_forward.intermediate_dense.weight"), 0);
    s->voice_layers = count(w, VOICE("encoder.layers."), ".layer_norm.weight");
    const char *v = VOICE("encoder.pos_conv_embed.conv.weight_v");
    if (!weights_has(w, v)) v = VOICE("encoder.pos_conv_embed.conv.parametrizations.weight.original1");
    if (!weights_has(w, v)) v = VOICE("encoder.pos_conv_embed.conv.weight");
    int64_t group = axis(w, v, 1);
    s->voice_kernel = axis(w, v, 2);
    s->voice_groups = group > 0 && group <= s->voice_dim ? s->voice_dim / group : 1;
#undef VOICE
}

// ---- networks

struct network {
    const char *name, *mark[2]; // one of these tensors gives it away
    void (*sizes)(struct synth_sizes *s, const struct weights *w);
    void (*list)(struct synth_list *l, const struct synth_sizes *s);
    const char *optional[6]; // beginnings of names that may lack
};
static const struct network networks[] = {
    {"dit", {"patch_embedding.weight", "blocks.0.self_attn.q.weight"}, sizes_dit, list_dit, {NULL}},
    {"adapter",
     {"audio_proj.proj1.weight", "blocks.0.audio_cross_attn.q_linear.weight"},
     sizes_adapter,
     list_adapter,
     {NULL}},
    {"text", {"token_embedding.weight", "blocks.0.attn.q.weight"}, sizes_text, list_text, {NULL}},
    {"clip",
     {"visual.patch_embedding.weight", "visual.pos_embedding"},
     sizes_clip,
     list_clip,
     {"log_scale", "visual.head", "visual.post_norm."}},
    {"vae", {"encoder.conv1.weight", "decoder.conv1.weight"}, sizes_vae, list_vae, {NULL}},
    {"voice",
     {"wav2vec2.feature_extractor.conv_layers.0.conv.weight", "feature_extractor.conv_layers.0.conv.weight"},
     sizes_voice,
     list_voice,
     {"wav2vec2.masked_spec_embed", "quantizer.", "project_q.", "project_hid."}},
};

static bool is_optional(const struct network *n, const char *name)
{
    for (int i = 0; n->optional[i]; i++)
        if (strncmp(name, n->optional[i], strlen(n->optional[i])) == 0) return true;
    return false;
}

// Another spelling of an expected tensor's name that the loaders take too, or NULL.
static const char *other_spelling(const char *name, int i, char *buf, size_t n)
{
    static const char *const norm[][2] = {{"conv.weight_g", "conv.parametrizations.weight.original0"},
                                          {"conv.weight_v", "conv.parametrizations.weight.original1"}};
    const char *bare = strncmp(name, "wav2vec2.", 9) == 0 ? name + 9 : NULL, *at = NULL;
    if (!bare || i > 2) return NULL;
    if (i == 0) return bare;
    const char *from = i == 1 ? name : bare;
    for (int k = 0; k < 2; k++)
        if ((at = strstr(from, norm[k][0])) != NULL) {
            snprintf(buf, n, "%.*s%s", (int)(at - from), from, norm[k][1]);
            return buf;
        }
    return NULL;
}

static bool find_tensor(const struct weights *w, const char *name, tensor *t)
{
    char buf[256];
    if (weights_has(w, name)) return weights_get(w, name, t, NULL) == 0;
    for (int i = 0; i < 3; i++) {
        const char *other = other_spelling(name, i, buf, sizeof buf);
        if (other && weights_has(w, other)) return weights_get(w, other, t, NULL) == 0;
    }
    return false;
}

// Axes of 1 are nobody's business.
static bool same_shape(tensor t, const struct tensor_head *h)
{
    int i = 0, k = 0;
    for (;;) {
        while (i < t.n && t.shape[i] == 1) i++;
        while (k < h->n && h->shape[k] == 1) k++;
        if (i == t.n || k == h->n) return i == t.n && k == h->n;
        if (t.shape[i++] != h->shape[k++]) return false;
    }
}

static void check_list(json_t *problems, const struct network *n, const struct synth_list *l, const struct weights *w)
{
    char names[1500] = "";
    int n_missing = 0, n_wrong = 0;
    for (int64_t i = 0; i < l->n; i++) {
        const struct tensor_head *h = &l->head[i];
        tensor t = NO_TENSOR;
        if (is_optional(n, h->name)) continue;
        if (!find_tensor(w, h->name, &t)) {
            size_t at = strlen(names);
            if (n_missing++ < NAMED_MAX) snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", h->name);
        } else if (!same_shape(t, h) && n_wrong++ == 0) {
            char have[96];
            problem_add(problems, "%s: %s is %s, which does not fit the other shapes", n->name, h->name,
                        tensor_text(t, have, sizeof have));
        }
    }
    if (n_wrong > 1) problem_add(problems, "%s: %d more tensors do not fit", n->name, n_wrong - 1);
    if (n_missing > 0)
        problem_add(problems, "%s lacks %d of %lld tensors: %s%s", n->name, n_missing, (long long)l->n, names,
                    n_missing > NAMED_MAX ? ", ..." : "");
}

static void put_size(json_t *sizes, const char *name, int64_t v)
{
    if (v > 0) json_object_set_new(sizes, name, json_integer(v));
}

static void put_sizes(json_t *part, const char *network, const struct synth_sizes *s)
{
    const struct {
        const char *network, *name;
        int64_t value;
    } row[] = {
        {"dit", "dim", s->dim},
        {"dit", "layers", s->layers},
        {"dit", "ffn", s->ffn},
        {"dit", "text-dim", s->text_dim},
        {"dit", "clip-dim", s->clip_dim},
        {"dit", "channels", s->vae_z},
        {"adapter", "dim", s->dim},
        {"adapter", "layers", s->layers},
        {"adapter", "voice-width", s->voice_layers * s->voice_dim},
        {"adapter", "tokens", s->audio_tokens},
        {"text", "text-dim", s->text_dim},
        {"text", "layers", s->text_layers},
        {"text", "heads", s->text_heads},
        {"text", "vocabulary", s->vocabulary},
        {"clip", "clip-dim", s->clip_dim},
        {"clip", "layers", s->clip_layers},
        {"clip", "tokens", s->clip_tokens},
        {"vae", "dim", s->vae_dim},
        {"vae", "channels", s->vae_z},
        {"voice", "dim", s->voice_dim},
        {"voice", "layers", s->voice_layers},
        {"voice", "voice-width", s->voice_layers * s->voice_dim},
    };
    json_t *all = json_object_get(part, "sizes"), *sizes = json_object();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (strcmp(row[i].network, network) == 0) put_size(sizes, row[i].name, row[i].value);
    json_object_set_new(all, network, sizes);
}

static void examine_network(json_t *part, json_t *problems, const struct network *n, const struct weights *w)
{
    struct synth_sizes s = {0};
    struct synth_list l = {.label = "", .dtype = DT_F32};
    n->sizes(&s, w);
    json_array_append_new(json_object_get(part, "holds"), json_string(n->name));
    put_sizes(part, n->name, &s);
    if (strcmp(n->name, "dit") == 0 && !weights_has(w, "blocks.0.cross_attn.k_img.weight"))
        problem_add(problems, "dit is a text-to-video model (no cross_attn.k_img); an image-to-video model is needed");
    else {
        n->list(&l, &s);
        check_list(problems, n, &l, w);
    }
    list_free(&l);
}

// ---- counts

static void count_tensors(json_t *part, json_t *problems, const struct weights *w)
{
    json_t *dtypes = json_object();
    json_int_t n_values = 0, n_bytes = 0, n_unread = 0;
    struct err e = {0};
    for (int64_t i = 0; i < weights_count(w); i++) {
        tensor t = NO_TENSOR;
        if (weights_get(w, weights_name(w, i), &t, &e) < 0) {
            n_unread++;
            continue;
        }
        const char *dtype = dtype_table[t.dtype].name;
        json_object_set_new(dtypes, dtype, json_integer(json_integer_value(json_object_get(dtypes, dtype)) + 1));
        n_values += tensor_count(t);
        n_bytes += tensor_bytes(t);
    }
    if (n_unread) problem_add(problems, "%s, and %lld tensors in all", e.text, (long long)n_unread);
    json_object_set_new(part, "tensors", json_integer(weights_count(w)));
    json_object_set_new(part, "parameters", json_integer(n_values));
    json_object_set_new(part, "bytes", json_integer(n_bytes));
    json_object_set_new(part, "dtypes", dtypes);
}

// Names are hostile text; jansson escapes them, and the printer too.
void part_list(json_t *part, const struct weights *w)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < weights_count(w); i++) {
        tensor t = NO_TENSOR;
        bool known = weights_get(w, weights_name(w, i), &t, NULL) == 0;
        json_t *shape = json_array();
        for (int k = 0; known && k < t.n; k++) json_array_append_new(shape, json_integer(t.shape[k]));
        json_array_append_new(list, json_pack("{so ss so}", "name", text_json(weights_name(w, i)), "dtype",
                                              known ? dtype_table[t.dtype].name : "unread", "shape", shape));
    }
    json_object_set_new(part, "list", list);
}

void part_examine(json_t *part, json_t *problems, const struct weights *w)
{
    json_object_set_new(part, "holds", json_array());
    json_object_set_new(part, "sizes", json_object());
    count_tensors(part, problems, w);
    if (part_lora(part, problems, w)) {
        json_array_append_new(json_object_get(part, "holds"), json_string("lora"));
        return;
    }
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        const struct network *n = &networks[i];
        if (weights_has(w, n->mark[0]) || weights_has(w, n->mark[1])) examine_network(part, problems, n, w);
    }
    if (json_array_size(json_object_get(part, "holds")) > 0) return;
    if (weights_has(w, "blocks.0.self_attn.q.weight._data"))
        problem_add(problems, "these are weights quantised by quanto, which this build does not read");
    else
        problem_add(problems, "by its names this is no part of a model that is known here");
}
