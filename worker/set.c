// A model set from a folder's declaration.
//
// Base and adapter are one set of names: the adapter's tensors lie over the base's, then LoRAs are merged in the order
// given. Models point into the maps where the stored bytes serve as they are, so the files stay open as long as they
// do.
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

static int find_parts(struct set *s, const struct set_options *o, struct err *e)
{
    struct model *m = &s->model;
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

static int merge_loras(struct set *s, const struct set_options *o, enum dtype t, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < o->n_lora && rc == 0; i++) {
        struct lora_report report;
        rc = lora_merge(s->files[FILE_DIT], &s->host, o->lora[i], o->lora_scale[i], t, o->published, &report, e);
    }
    return rc;
}

static int open_dit(struct set *s, const struct set_options *o, enum dtype t, struct err *e)
{
    const struct model *m = &s->model;
    const char *adapter = o->n_speakers > 1 && m->adapter2[0] ? m->adapter2 : m->adapter;
    int rc = weights_open(&s->files[FILE_DIT], m->dit, e);
    if (rc == 0 && strcmp(adapter, m->dit) != 0) rc = weights_add(s->files[FILE_DIT], adapter, e);
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
    struct comm *group = s->mesh && o->share_weights ? s->mesh->heads : NULL;
    return dit_new_shared(&s->dit, s->dev, s->files[FILE_DIT], &c, t, group, e);
}

static int open_text(struct set *s, enum dtype t, struct err *e)
{
    char tokenizer[MODEL_PATH_MAX + 16];
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer.json", s->model.tokenizer);
    struct umt5_config c = {.n_heads = s->model.text_heads};
    int rc = unigram_open(&s->unigram, tokenizer, e);
    if (rc == 0) rc = weights_open(&s->files[FILE_TEXT], s->model.text, e);
    return rc == 0 ? umt5_new(&s->umt5, s->dev, s->files[FILE_TEXT], &c, t, e) : rc;
}

static int open_pictures(struct set *s, struct err *e)
{
    struct clip_config c = {.n_heads = s->model.clip_heads, .image = s->model.clip_image};
    int rc = weights_open(&s->files[FILE_CLIP], s->model.clip, e);
    if (rc == 0) rc = clip_new(&s->clip, s->dev, s->files[FILE_CLIP], &c, e);
    if (rc == 0) rc = weights_open(&s->files[FILE_VAE], s->model.vae, e);
    return rc == 0 ? vae_new(&s->vae, s->dev, s->files[FILE_VAE], NULL, NULL, e) : rc;
}

// Tensors that fit each other only if the parts belong together.
static int check_fit(const struct set *s, struct err *e)
{
    const struct dit_config *c = dit_config_of(s->dit);
    const struct {
        const char *what, *path;
        int64_t has, wanted;
    } width[] = {
        {"text encoder's rows", s->model.text, umt5_dim(s->umt5), c->text_dim},
        {"picture encoder's tokens", s->model.clip, clip_tokens(s->clip), c->clip_tokens},
        {"picture encoder's rows", s->model.clip, clip_dim(s->clip), c->clip_dim},
        {"picture latents", s->model.vae, vae_latent_channels(s->vae), c->out_dim},
        {"voice features of a frame", s->model.voice, (int64_t)wav2vec2_layers(s->wav2vec2) * wav2vec2_dim(s->wav2vec2),
         c->audio_width},
    };
    for (size_t i = 0; i < sizeof width / sizeof *width; i++)
        if (width[i].has != width[i].wanted)
            return err_set(e, E_INPUT, "%s does not fit %s: the %s are %lld, the network takes %lld", width[i].path,
                           s->model.dit, width[i].what, (long long)width[i].has, (long long)width[i].wanted);
    if (unigram_size(s->unigram) > umt5_vocab(s->umt5))
        return err_set(e, E_INPUT, "%s does not fit %s: it gives %lld ids, the embedding has %lld rows",
                       s->model.tokenizer, s->model.text, (long long)unigram_size(s->unigram),
                       (long long)umt5_vocab(s->umt5));
    return 0;
}

int set_open(struct set **out, struct dev *d, const struct set_options *o, struct err *e)
{
    struct set *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, E_FATAL, "no memory for a model set");
    enum dtype t = o->dtype == DT_NONE ? DT_F32 : o->dtype;
    s->dev = d;
    s->mesh = o->mesh;
    s->together = o->together;
    if (s->mesh) comm_follow(s->mesh->world, d);
    int rc = set_agree(s, find_parts(s, o, e), e);
    if (rc == 0) rc = open_dit(s, o, t, e);
    if (rc == 0) rc = open_text(s, t, e);
    if (rc == 0) rc = open_pictures(s, e);
    if (rc == 0) rc = wav2vec2_open(&s->wav2vec2, d, s->model.voice, e);
    if (rc == 0) rc = check_fit(s, e);
    if (rc == 0) rc = dev_sync(d, e);
    rc = set_agree(s, rc, e);
    if (rc == 0 && s->mesh) vae_share(s->vae, s->mesh->world);
    if (rc < 0)
        set_free(&s);
    else
        *out = s;
    return rc;
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
