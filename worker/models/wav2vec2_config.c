// The declaration of a wav2vec2 folder: config.json as the published library writes it.
//
// Numbers have the defaults of that library, which are the published base model. A field that chooses another
// architecture (layer norm after every convolution, norms before the layers, adapters) is refused by name, because the
// tensors of such a model may well have names and shapes that fit. Fields about training mean nothing here.
#include "proto/json.h"
#include "worker/models/wav2vec2_parts.h"

#include <string.h>

enum { SIZE_MAX_DECLARED = 65536, STEP_MAX = 1 << 20 };

static const int published_kernel[] = {10, 3, 3, 3, 3, 2, 2}, published_stride[] = {5, 2, 2, 2, 2, 2, 2};
enum { PUBLISHED_CONVS = 7, PUBLISHED_WIDTH = 512 };

static int read_size(json_t *j, const char *key, int published, int *out, struct err *e)
{
    json_t *v = json_object_get(j, key);
    *out = published;
    if (!v) return 0;
    if (!json_is_integer(v)) return err_set(e, E_INPUT, "wav2vec2's config.json: %s is not a whole number", key);
    long long n = json_integer_value(v);
    if (n < 1 || n > SIZE_MAX_DECLARED)
        return err_set(e, E_INPUT, "wav2vec2's config.json: %s is %lld; it must be from 1 to %d", key, n,
                       SIZE_MAX_DECLARED);
    *out = (int)n;
    return 0;
}

// A list of n sizes; n is learned from the first list (0) and demanded of the others.
static int read_sizes(json_t *j, const char *key, int *n, int out[WAV2VEC2_CONVS_MAX], struct err *e)
{
    json_t *list = json_object_get(j, key), *v;
    size_t i, count = json_array_size(list);
    if (!json_is_array(list)) return err_set(e, E_INPUT, "wav2vec2's config.json: %s is not a list of sizes", key);
    if (count < 1 || count > WAV2VEC2_CONVS_MAX)
        return err_set(e, E_INPUT, "wav2vec2's config.json: %s has %zu entries; 1 to %d convolutions are possible", key,
                       count, WAV2VEC2_CONVS_MAX);
    if (*n && (int)count != *n)
        return err_set(e, E_INPUT,
                       "wav2vec2's config.json: %s has %zu entries where conv_dim has %d; conv_dim, conv_kernel and "
                       "conv_stride describe the same convolutions",
                       key, count, *n);
    *n = (int)count;
    json_array_foreach(list, i, v)
    {
        long long k = json_integer_value(v);
        if (!json_is_integer(v) || k < 1 || k > SIZE_MAX_DECLARED)
            return err_set(e, E_INPUT, "wav2vec2's config.json: entry %zu of %s is not a whole number from 1 to %d", i,
                           key, SIZE_MAX_DECLARED);
        out[i] = (int)k;
    }
    return 0;
}

// The three lists; all are absent together or each is given.
static int read_convs(struct wav2vec2_config *c, json_t *j, struct err *e)
{
    if (!json_object_get(j, "conv_dim") && !json_object_get(j, "conv_kernel") && !json_object_get(j, "conv_stride")) {
        c->n_convs = PUBLISHED_CONVS;
        for (int i = 0; i < c->n_convs; i++) {
            c->width[i] = PUBLISHED_WIDTH;
            c->kernel[i] = published_kernel[i];
            c->stride[i] = published_stride[i];
        }
        return 0;
    }
    int rc = read_sizes(j, "conv_dim", &c->n_convs, c->width, e);
    if (rc == 0) rc = read_sizes(j, "conv_kernel", &c->n_convs, c->kernel, e);
    if (rc == 0) rc = read_sizes(j, "conv_stride", &c->n_convs, c->stride, e);
    int64_t hop = 1, field = 1;
    for (int i = 0; i < c->n_convs && rc == 0; i++) {
        field += (c->kernel[i] - 1) * hop;
        hop *= c->stride[i];
        if (hop > STEP_MAX || field > STEP_MAX)
            rc = err_set(e, E_INPUT,
                         "wav2vec2's config.json: conv_kernel and conv_stride make one feature of more than %d samples",
                         STEP_MAX);
    }
    return rc;
}

static int need_word(json_t *j, const char *key, const char *wanted, struct err *e)
{
    json_t *v = json_object_get(j, key);
    if (!v || (json_is_string(v) && strcmp(json_string_value(v), wanted) == 0)) return 0;
    return err_set(e, E_INPUT, "wav2vec2's config.json: %s is %s; only models with \"%s\" are built here", key,
                   json_is_string(v) ? json_string_value(v) : "not a string", wanted);
}

static int need_false(json_t *j, const char *key, struct err *e)
{
    json_t *v = json_object_get(j, key);
    if (!v || json_is_false(v)) return 0;
    return err_set(e, E_INPUT, "wav2vec2's config.json: %s must be false; other models are not built here", key);
}

static int need_architecture(json_t *j, struct err *e)
{
    static const struct {
        const char *key, *word; // without a word: must be false
    } needs[] = {{"hidden_act", "gelu"},
                 {"feat_extract_activation", "gelu"},
                 {"feat_extract_norm", "group"},
                 {"do_stable_layer_norm", NULL},
                 {"conv_bias", NULL},
                 {"add_adapter", NULL}};
    int rc = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs && rc == 0; i++)
        rc = needs[i].word ? need_word(j, needs[i].key, needs[i].word, e) : need_false(j, needs[i].key, e);
    return rc;
}

static int read_config(struct wav2vec2_config *c, json_t *j, struct err *e)
{
    const struct {
        const char *key;
        int published, *at;
    } sizes[] = {{"hidden_size", 768, &c->dim},
                 {"num_hidden_layers", 12, &c->n_layers},
                 {"num_attention_heads", 12, &c->n_heads},
                 {"intermediate_size", 3072, &c->ffn_dim},
                 {"num_conv_pos_embeddings", 128, &c->pos_kernel},
                 {"num_conv_pos_embedding_groups", 16, &c->pos_groups}};
    if (!json_is_object(j)) return err_set(e, E_INPUT, "wav2vec2's config.json is not an object");
    int rc = need_architecture(j, e);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && rc == 0; i++)
        rc = read_size(j, sizes[i].key, sizes[i].published, sizes[i].at, e);
    if (rc == 0) rc = read_convs(c, j, e);
    if (rc < 0) return rc;
    json_t *eps = json_object_get(j, "layer_norm_eps");
    c->eps = eps ? (float)json_number_value(eps) : 1e-5f;
    if (!(c->eps > 0 && c->eps < 1))
        return err_set(e, E_INPUT, "wav2vec2's config.json: layer_norm_eps must be a number between 0 and 1");
    if (c->dim % c->n_heads)
        return err_set(e, E_INPUT, "wav2vec2's config.json: hidden_size %d does not split into %d num_attention_heads",
                       c->dim, c->n_heads);
    if (c->dim % c->pos_groups)
        return err_set(e, E_INPUT,
                       "wav2vec2's config.json: hidden_size %d does not split into %d num_conv_pos_embedding_groups",
                       c->dim, c->pos_groups);
    return 0;
}

int wav2vec2_config_parse(struct wav2vec2_config *c, const char *text, struct err *e)
{
    json_t *j = NULL;
    *c = (struct wav2vec2_config){0};
    int rc = json_parse(&j, "wav2vec2's config.json", text, strlen(text), e);
    if (rc == 0) rc = read_config(c, j, e);
    json_decref(j);
    return rc;
}
