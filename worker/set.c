// A model set from a folder's declaration.
//
// Base and adapter are one set of names: the adapter's tensors lie over the base's, then LoRAs are merged in the order
// given. Models point into the maps where the stored bytes serve as they are, so the files stay open as long as they
// do.
//
// Voices are read by rank 0, so their encoder lives there; words and picture go to the ranks behind it.
#include "worker/set.h"

#include "worker/weights/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum set_file { FILE_DIT, FILE_TEXT, FILE_CLIP, FILE_VAE, N_FILES };

static void take_elsewhere(char part[MODEL_PATH_MAX], const char *path)
{
    if (path && path[0]) snprintf(part, MODEL_PATH_MAX, "%s", path);
}

int set_agree(const struct set *s, int rc, struct err *e)
{
    return s->mesh ? comm_agree(s->mesh->world, rc, NULL, e) : rc;
}

static bool lives_here(const struct set *s, int rank) { return !s->mesh || comm_rank(s->mesh->world) == rank; }

bool set_lives_elsewhere(const struct set *s, int rank) { return !lives_here(s, rank); }

int set_parts(struct model *m, const struct set_options *o, struct err *e)
{
    int rc = model_open(m, o->model, e);
    if (rc < 0) return rc;
    take_elsewhere(m->dit, o->dit);
    take_elsewhere(m->voice, o->voice);
    if (o->adapter && o->adapter[0]) {
        take_elsewhere(m->adapter, o->adapter);
        m->adapter2[0] = 0;
    }
    return model_missing(m, e);
}

const char *set_adapter(const struct model *m, const struct set_options *o)
{
    return o->n_speakers > 1 && m->adapter2[0] ? m->adapter2 : m->adapter;
}

static int merge_loras(struct set *s, const struct set_options *o, enum dtype t, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < o->n_lora && rc == 0; i++) {
        struct lora_report report;
        rc = lora_merge(s->files[FILE_DIT], &s->host, o->lora[i], o->lora_scale[i], t, o->published, &report, e);
    }
    return rc;
}

static int open_transformer(struct set *s, const struct set_options *o, struct err *e)
{
    const char *adapter = set_adapter(&s->model, o);
    int rc = weights_open(&s->files[FILE_DIT], s->model.dit, e);
    if (rc == 0 && strcmp(adapter, s->model.dit) != 0) rc = weights_add(s->files[FILE_DIT], adapter, e);
    return rc;
}

static int open_dit(struct set *s, const struct set_options *o, enum dtype t, struct err *e)
{
    const struct model *m = &s->model;
    int rc = open_transformer(s, o, e);
    if (rc == 0) rc = merge_loras(s, o, t, e);
    rc = set_agree(s, rc, e);
    if (rc < 0) return rc;
    struct dit_config c = {
        .n_heads = m->dit_heads, .eps = (float)m->dit_eps, .text_len = m->text_len, .published = o->published};
    if (o->stream_weights) {
        rc = comm_open(&s->alone, "self", e);
        if (rc < 0) return rc;
        comm_follow(s->alone, s->dev);
        return dit_new_streamed(&s->dit, s->dev, s->files[FILE_DIT], &c, t, s->alone, e);
    }
    return dit_new_shared(&s->dit, s->dev, s->files[FILE_DIT], &c, t, o->sharers, e);
}

// What all tensors of a file take in the set's dtype.
static int64_t weigh(const struct weights *w, const struct set_options *o)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < weights_count(w); i++) {
        tensor t = NO_TENSOR;
        if (weights_get(w, weights_name(w, i), &t, NULL) == 0)
            bytes += tensor_count(t) * dtype_size(o->dtype == DT_NONE ? DT_F32 : o->dtype);
    }
    return bytes;
}

int set_weigh(int64_t *bytes, const struct set_options *o, struct err *e)
{
    struct set *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for a model set");
    int rc = set_parts(&s->model, o, e);
    if (rc == 0) rc = open_transformer(s, o, e);
    if (rc == 0) rc = weights_open(&s->files[FILE_TEXT], s->model.text, e);
    *bytes = rc == 0 ? weigh(s->files[FILE_DIT], o) + weigh(s->files[FILE_TEXT], o) : 0;
    weights_free(&s->files[FILE_DIT]);
    weights_free(&s->files[FILE_TEXT]);
    free(s);
    return rc;
}

// Whether this rank and the one that reads words spread weights among them; that one says yes too.
static bool lends_to_words(const struct set *s, const struct set_options *o)
{
    int32_t among = lives_here(s, s->words_rank);
    if (!o->sharers || comm_size(o->sharers) == 1) return false;
    comm_all_reduce(comm_host(o->sharers), &among, 1, DT_I32, COMM_MAX);
    return among;
}

// The words' tensors where they are needed, and their table where words are read.
static int open_text(struct set *s, const struct set_options *o, enum dtype t, struct err *e)
{
    bool reads = lives_here(s, s->words_rank), spread = lends_to_words(s, o);
    char tokenizer[MODEL_PATH_MAX + 16];
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer.json", s->model.tokenizer);
    struct umt5_config c = {.n_heads = s->model.text_heads};
    int rc = reads ? unigram_open(&s->unigram, tokenizer, e) : 0;
    if (rc == 0 && (reads || spread)) rc = weights_open(&s->files[FILE_TEXT], s->model.text, e);
    if (spread) {
        rc = comm_agree(o->sharers, rc, NULL, e);
        return rc == 0 ? umt5_new_shared(&s->umt5, s->dev, s->files[FILE_TEXT], &c, t, o->sharers, !reads, e) : rc;
    }
    return rc == 0 && reads ? umt5_new(&s->umt5, s->dev, s->files[FILE_TEXT], &c, t, e) : rc;
}

static int open_pictures(struct set *s, struct err *e)
{
    struct clip_config c = {.n_heads = s->model.clip_heads, .image = s->model.clip_image};
    int rc = 0;
    if (lives_here(s, s->picture_rank)) {
        rc = weights_open(&s->files[FILE_CLIP], s->model.clip, e);
        if (rc == 0) rc = clip_new(&s->clip, s->dev, s->files[FILE_CLIP], &c, e);
    }
    if (rc == 0) rc = weights_open(&s->files[FILE_VAE], s->model.vae, e);
    return rc == 0 ? vae_new(&s->vae, s->dev, s->files[FILE_VAE], NULL, NULL, e) : rc;
}

static int open_voice(struct set *s, struct err *e)
{
    return lives_here(s, s->voice_rank) ? wav2vec2_open(&s->wav2vec2, s->dev, s->model.voice, e) : 0;
}

static int misfit(const struct set *s, const char *what, const char *path, int64_t has, int64_t wanted, struct err *e)
{
    if (has == wanted) return 0;
    return err_set(e, E_INPUT, "%s does not fit %s: the %s are %lld, the network takes %lld", path, s->model.dit, what,
                   (long long)has, (long long)wanted);
}

// Tensors that fit each other only if the parts belong together. A rank looks at the parts that it has.
static int check_fit(const struct set *s, struct err *e)
{
    const struct dit_config *c = dit_config_of(s->dit);
    const struct model *m = &s->model;
    int rc = misfit(s, "picture latents", m->vae, vae_latent_channels(s->vae), c->out_dim, e);
    if (rc == 0 && s->umt5) rc = misfit(s, "text encoder's rows", m->text, umt5_dim(s->umt5), c->text_dim, e);
    if (rc == 0 && s->clip)
        rc = misfit(s, "picture encoder's tokens", m->clip, clip_tokens(s->clip), c->clip_tokens, e);
    if (rc == 0 && s->clip) rc = misfit(s, "picture encoder's rows", m->clip, clip_dim(s->clip), c->clip_dim, e);
    if (rc == 0 && s->wav2vec2)
        rc = misfit(s, "voice features of a frame", m->voice,
                    (int64_t)wav2vec2_layers(s->wav2vec2) * wav2vec2_dim(s->wav2vec2), c->audio_width, e);
    if (rc < 0 || !s->unigram || unigram_size(s->unigram) <= umt5_vocab(s->umt5)) return rc;
    return err_set(e, E_INPUT, "%s does not fit %s: it gives %lld ids, the embedding has %lld rows", m->tokenizer,
                   m->text, (long long)unigram_size(s->unigram), (long long)umt5_vocab(s->umt5));
}

int set_open(struct set **out, struct dev *d, const struct set_options *o, struct err *e)
{
    struct set *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, E_FATAL, "no memory for a model set");
    enum dtype t = o->dtype == DT_NONE ? DT_F32 : o->dtype;
    s->dev = d;
    s->mesh = o->mesh;
    s->together = o->together;
    s->here = o->here > 1 ? o->here : 1;
    int n = s->mesh ? comm_size(s->mesh->world) : 1;
    s->words_rank = 1 % n;
    s->picture_rank = 2 % n;
    if (s->mesh) comm_follow(s->mesh->world, d);
    int rc = set_agree(s, set_parts(&s->model, o, e), e);
    if (rc == 0) rc = open_dit(s, o, t, e);
    rc = set_agree(s, rc, e);
    if (rc == 0) rc = open_text(s, o, t, e);
    if (rc == 0) rc = open_pictures(s, e);
    if (rc == 0) rc = open_voice(s, e);
    if (rc == 0) rc = check_fit(s, e);
    if (rc == 0) rc = dev_sync(d, e);
    rc = set_agree(s, rc, e);
    if (rc == 0 && s->mesh) vae_share(s->vae, s->mesh->world);
    if (rc < 0) {
        set_free(&s);
        return rc == E_INPUT ? err_way(e, WEIGHTS_WAY) : rc;
    }
    *out = s;
    return 0;
}

void set_free(struct set **ps)
{
    struct set *s = *ps;
    if (!s) return;
    if (s->mesh) comm_follow(s->mesh->world, NULL);
    wav2vec2_free(&s->wav2vec2);
    vae_free(&s->vae);
    clip_free(&s->clip);
    umt5_free(&s->umt5);
    unigram_free(&s->unigram);
    dit_free(&s->dit);
    comm_close(&s->alone);
    for (int i = 0; i < N_FILES; i++) weights_free(&s->files[i]);
    arena_free(&s->host);
    free(s);
    *ps = NULL;
}
