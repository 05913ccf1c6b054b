// t5_encoder*: prompts of several lengths, padded to one, with every intermediate value that the file holds; the table
// of distance buckets. Each prompt is also encoded without its padding, which must change nothing.
//
// The file holds a batch [prompts, n, ..], our encoder takes one prompt: rows of a batch are gathered from the taps.
#include "tests/goldenrun/golden.h"
#include "worker/models/umt5.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH_KEYS = 64 };

// Values of the batch, collected prompt by prompt.
struct batch {
    struct golden *g;
    struct dev_arena *work; // the encoder's; what is collected outlives it
    const char *prefix;     // of the keys
    int64_t i_prompt;
    bool unpadded; // this pass takes padding for words
    int n;
    struct {
        char key[64];
        tensor all; // F32 [n_prompts, ..], as in the file
    } value[BATCH_KEYS];
};

static int number(json_t *config, const char *key) { return (int)json_integer_value(json_object_get(config, key)); }

static struct umt5 *encoder_open(struct golden *g, struct weights **w, struct umt5_config *c)
{
    json_t *config = NULL;
    struct umt5 *m = NULL;
    struct err e = {0};
    *w = golden_weights(g, "t5", &config);
    if (!*w) return NULL;
    *c = (struct umt5_config){.n_heads = number(config, "num_heads"),
                              .n_buckets = number(config, "num_buckets"),
                              .max_distance = number(config, "max_distance"),
                              .eps = (float)json_number_value(json_object_get(config, "eps"))};
    if (umt5_new(&m, g->dev, *w, c, DT_F32, &e) < 0) golden_expect(g, "weights_t5", false, "%s", e.text);
    json_decref(config);
    return m;
}

static tensor *batch_value(struct batch *b, const char *name)
{
    for (int i = 0; i < b->n; i++)
        if (strcmp(b->value[i].key, name) == 0) return &b->value[i].all;
    tensor stored;
    if (b->n == BATCH_KEYS || weights_get(b->g->file, name, &stored, NULL) < 0) return NULL;
    snprintf(b->value[b->n].key, sizeof b->value[b->n].key, "%s", name);
    b->value[b->n].all = dev_tensor(b->g->arena, DT_F32, stored.n, stored.shape);
    return &b->value[b->n++].all;
}

// The distance bias is stored once for all prompts, over all keys: it is taken from a pass that pads nothing.
static void batch_see(void *ctx, const char *name, tensor t)
{
    struct batch *b = ctx;
    bool shared = strstr(name, "pos_bias") != NULL;
    char key[64];
    snprintf(key, sizeof key, "%s%s", b->prefix, name);
    if (!golden_has(b->g, key) || shared != b->unpadded) return;
    tensor *all = batch_value(b, key);
    int64_t at = shared ? 0 : b->i_prompt;
    if (all && at < all->shape[0] && tensor_same_shape(tensor_at(*all, at), t))
        op_copy(b->g->dev, tensor_at(*all, at), t);
    else
        golden_check(b->g, key, t, GOLDEN_MODULE); // says which shapes differ
}

static tensor ids_of(struct golden *g, tensor row)
{
    int64_t n = row.shape[0];
    tensor ids = dev_tensor(g->arena, DT_I32, SHAPE(n));
    int32_t *host = malloc((size_t)n * sizeof *host);
    BUG_IF(!host, "no memory for %lld ids", (long long)n);
    for (int64_t i = 0; i < n; i++) host[i] = (int32_t)((const float *)row.data)[i];
    dev_upload(g->dev, ids, host, DT_I32);
    free(host);
    return ids;
}

static int64_t count_real(tensor mask)
{
    double n = 0;
    for (int64_t i = 0; i < mask.shape[0]; i++) n += (double)((const float *)mask.data)[i];
    return (int64_t)n;
}

static void encode(struct golden *g, struct umt5 *m, struct dev_arena *work, tensor ids, int64_t n_real,
                   const char *key, const struct tap *tap)
{
    tensor out = dev_tensor(g->arena, DT_F32, SHAPE(n_real, umt5_dim(m)));
    umt5_encode(m, work, out, ids, n_real, tap);
    golden_check(g, key, out, GOLDEN_MODULE);
}

static void prompts(struct golden *g, struct umt5 *m, const char *prefix)
{
    char key[64];
    snprintf(key, sizeof key, "%sin.ids", prefix);
    tensor ids = golden_get(g, key);
    snprintf(key, sizeof key, "%sin.mask", prefix);
    tensor mask = golden_get(g, key);
    if (tensor_is_none(ids) || tensor_is_none(mask)) return;
    struct batch b = {.g = g, .work = dev_arena_new(g->dev, "t5", 0), .prefix = prefix, .unpadded = true};
    struct tap tap = {.see = batch_see, .ctx = &b};
    int64_t n_prompts = ids.shape[0], n = ids.shape[1];
    umt5_encode(m, b.work, dev_tensor(g->arena, DT_F32, SHAPE(n, umt5_dim(m))), ids_of(g, tensor_at(ids, 0)), n, &tap);
    for (b.unpadded = false; b.i_prompt < n_prompts; b.i_prompt++) {
        tensor row = ids_of(g, tensor_at(ids, b.i_prompt));
        int64_t n_real = count_real(tensor_at(mask, b.i_prompt));
        snprintf(key, sizeof key, "%scontext%lld", prefix, (long long)b.i_prompt);
        encode(g, m, b.work, row, n_real, key, &tap);
        if (n_real < n) encode(g, m, b.work, tensor_slice(row, 0, 0, n_real), n_real, key, NULL);
    }
    for (int i = 0; i < b.n; i++) golden_check(g, b.value[i].key, b.value[i].all, GOLDEN_MODULE);
    dev_arena_free(&b.work);
}

static void buckets(struct golden *g, const struct umt5_config *c)
{
    tensor at = golden_get(g, "bucket.relative_position"), index = golden_get(g, "bucket.index");
    if (tensor_is_none(at) || tensor_is_none(index)) return;
    tensor ours = dev_tensor(g->arena, DT_F32, at.n, at.shape);
    for (int64_t i = 0; i < tensor_count(at); i++)
        ((float *)ours.data)[i] =
            (float)umt5_bucket((int64_t)((const float *)at.data)[i], c->n_buckets, c->max_distance);
    golden_check(g, "bucket.index", ours, GOLDEN_EXACT);
}

void golden_t5(struct golden *g)
{
    struct weights *w = NULL;
    struct umt5_config c = {0};
    struct umt5 *m = encoder_open(g, &w, &c);
    if (m) {
        prompts(g, m, "");
        if (golden_has(g, "long.in.ids")) prompts(g, m, "long.");
        buckets(g, &c);
    }
    umt5_free(&m);
    weights_free(&w);
}
