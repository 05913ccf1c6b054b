// Documents of a model folder, with the keys of the published ones.
//
// The tokenizer is a small unigram of its own: special tokens at their published ids (0 padding, 1 end, 2 start, 3
// unknown), the 256 byte pieces, every printable ASCII character, the word mark, and some frequent pieces, so that any
// English prompt is cut into several kinds of pieces. Its ids stay below the rows of any vocabulary that goes with it.
#include "worker/synth/docs.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int put_text(const char *path, const char *text, struct err *e)
{
    struct outfile *f = NULL;
    int rc = outfile_create(&f, path, e);
    if (rc == 0) rc = outfile_put(f, text, strlen(text), e);
    if (rc == 0) rc = outfile_close(&f, e);
    outfile_free(&f);
    return rc;
}

static int put_json(const char *path, json_t *j, struct err *e)
{
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    BUG_IF(!text, "no memory for %s", path);
    int rc = put_text(path, text, e);
    free(text);
    json_decref(j);
    return rc;
}

int docs_config(const char *path, const struct synth_sizes *s, struct err *e)
{
    json_int_t z = s->vae_z;
    return put_json(path,
                    json_pack("{ss ss sI sf sI sI sI ss si si sI sI}", "_class_name", "WanModel", "_diffusers_version",
                              "0.30.0", "dim", (json_int_t)s->dim, "eps", 1e-6, "ffn_dim", (json_int_t)s->ffn,
                              "freq_dim", (json_int_t)s->freq, "in_dim", 2 * z + 4, "model_type", "i2v", "num_heads",
                              s->heads, "num_layers", s->layers, "out_dim", z, "text_len", (json_int_t)s->text_len),
                    e);
}

int docs_voice(const char *path, const struct synth_sizes *s, struct err *e)
{
    static const int kernel[] = {10, 3, 3, 3, 3, 2, 2}, stride[] = {5, 2, 2, 2, 2, 2, 2};
    json_t *dims = json_array(), *kernels = json_array(), *strides = json_array();
    for (int i = 0; i < 7; i++) {
        json_array_append_new(dims, json_integer(s->voice_conv));
        json_array_append_new(kernels, json_integer(kernel[i]));
        json_array_append_new(strides, json_integer(stride[i]));
    }
    return put_json(path,
                    json_pack("{s[s] ss sb sb so so so ss ss ss sb sI sf sI si si sI sI si}", "architectures",
                              "Wav2Vec2ForPreTraining", "model_type", "wav2vec2", "add_adapter", 0, "conv_bias", 0,
                              "conv_dim", dims, "conv_kernel", kernels, "conv_stride", strides,
                              "feat_extract_activation", "gelu", "feat_extract_norm", "group", "hidden_act", "gelu",
                              "do_stable_layer_norm", 0, "hidden_size", (json_int_t)s->voice_dim, "layer_norm_eps",
                              1e-5, "intermediate_size", (json_int_t)s->voice_ffn, "num_attention_heads",
                              s->voice_heads, "num_hidden_layers", s->voice_layers, "num_conv_pos_embeddings",
                              (json_int_t)s->voice_kernel, "num_conv_pos_embedding_groups", (json_int_t)s->voice_groups,
                              "num_feat_extract_layers", 7),
                    e);
}

int docs_extractor(const char *path, const struct synth_sizes *s, struct err *e)
{
    (void)s;
    return put_json(path,
                    json_pack("{sb si ss sf sb si}", "do_normalize", 0, "feature_size", 1, "padding_side", "right",
                              "padding_value", 0.0, "return_attention_mask", 0, "sampling_rate", 16000),
                    e);
}

// ---- words

#define MARK "\xe2\x96\x81" // U+2581, a word's beginning

static const char *const special[] = {"<pad>", "</s>", "<s>", "<unk>"};
static const char *const frequent[] = {
    MARK,         MARK "a",     MARK "the",   MARK "is", MARK "and", MARK "of", MARK "in", MARK "to",     MARK "with",
    MARK "woman", MARK "man",   MARK "talk",  MARK "A",  MARK "The", MARK "on", MARK "at", MARK "camera", MARK "voice",
    MARK "face",  MARK "video", MARK "speak", "ing",     "er",       "ed",      "ly",      "s",           "es",
    "th",         "on",         "an",         "en",      "in",       "re",      "ou",      "st",          "ight",
};
enum { N_SPECIAL = sizeof special / sizeof *special, N_FREQUENT = sizeof frequent / sizeof *frequent };

static bool is_frequent(const char *piece)
{
    for (int i = 0; i < N_FREQUENT; i++)
        if (strcmp(frequent[i], piece) == 0) return true;
    return false;
}

// [piece, score]; a later piece is a rarer one.
static void add_piece(json_t *vocabulary, const char *piece, bool scored)
{
    double rank = (double)json_array_size(vocabulary) - N_SPECIAL - 256 + 2;
    json_array_append_new(vocabulary, json_pack("[sf]", piece, scored ? -log(rank) : 0.0));
}

static json_t *vocabulary_of(void)
{
    json_t *v = json_array();
    for (int i = 0; i < N_SPECIAL; i++) add_piece(v, special[i], false);
    for (int i = 0; i < 256; i++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", (unsigned)i);
        add_piece(v, piece, false);
    }
    for (int i = 0; i < N_FREQUENT; i++) add_piece(v, frequent[i], true);
    for (int c = '!'; c <= '~'; c++) {
        char piece[2] = {(char)c, 0};
        if (!is_frequent(piece)) add_piece(v, piece, true);
    }
    return v;
}

int docs_tokenizer(const char *path, const struct synth_sizes *s, struct err *e)
{
    json_t *v = vocabulary_of(), *added = json_array();
    BUG_IF((int64_t)json_array_size(v) > s->vocabulary, "%zu pieces for %lld rows", json_array_size(v),
           (long long)s->vocabulary);
    for (int i = 0; i < N_SPECIAL; i++)
        json_array_append_new(added, json_pack("{si ss sb sb sb sb sb}", "id", i, "content", special[i], "single_word",
                                               0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
    json_t *normalizer = json_pack("{ss s[{ss s{ss} ss}]}", "type", "Sequence", "normalizers", "type", "Replace",
                                   "pattern", "Regex", " {2,}", "content", " ");
    json_t *words =
        json_pack("{ss ss ss sb}", "type", "Metaspace", "replacement", MARK, "prepend_scheme", "always", "split", 1);
    json_t *finish = json_pack("{ss s[{s{ss si}} {s{ss si}}] s[] s{s{ss s[i] s[s]}}}", "type", "TemplateProcessing",
                               "single", "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", "</s>", "type_id",
                               0, "pair", "special_tokens", "</s>", "id", "</s>", "ids", 1, "tokens", "</s>");
    json_t *model = json_pack("{ss si so sb}", "type", "Unigram", "unk_id", 3, "vocab", v, "byte_fallback", 0);
    return put_json(path,
                    json_pack("{ss sn sn so so so so sO so}", "version", "1.0", "truncation", "padding", "added_tokens",
                              added, "normalizer", normalizer, "pre_tokenizer", words, "post_processor", finish,
                              "decoder", words, "model", model),
                    e);
}

// ---- model.yaml

int docs_model(const char *path, const struct synth_sizes *s, struct err *e)
{
    char text[2048];
    if (s->dim == synth_published.dim)
        return put_text(path,
                        "# Random weights of the published sizes: for installations and plans, not for pictures.\n"
                        "name: synth-14b\n",
                        e);
    snprintf(text, sizeof text,
             "# Random weights of a tiny twin: for installations and tests, not for pictures.\n"
             "name: synth-tiny\n"
             "sizes:\n"
             "  - name: tiny\n"
             "    shift: 7\n"
             "    buckets: [[0.75, 48, 64], [1.00, 64, 64], [1.33, 64, 48]]\n"
             "frame-num: 81\n"
             "motion-frame: 9\n"
             "steps: 2\n"
             "text-scale: 1\n"
             "audio-scale: 1\n"
             "dit-heads: %d\n"
             "text-heads: %d\n"
             "text-len: %lld\n"
             "clip-heads: %d\n"
             "clip-image: %lld\n",
             s->heads, s->text_heads, (long long)s->text_len, s->clip_heads, (long long)s->clip_image);
    return put_text(path, text, e);
}
