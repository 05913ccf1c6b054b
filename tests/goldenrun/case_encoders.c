// clip_visual and wav2vec2: the picture's tokens and the voice's features, with what lies on the way.
#include "tests/goldenrun/clip.h"
#include "worker/models/wav2vec2.h"

#include <stdlib.h>
#include <string.h>

// ---- clip_visual

// Where `key` stands for a corner of the prepared picture: the metadata says "<key> ... [y0:y1, x0:x1]".
static bool corner_of(struct golden *g, const char *key, int64_t at[4])
{
    json_t *note = golden_meta(g, "pixels");
    const char *text = json_string_value(note), *p = text;
    long long v[4];
    bool found = false;
    while (p && !found && (p = strstr(p, key))) {
        const char *bracket = strchr(p, '[');
        bool whole = p == text || p[-1] == ' ';
        found = whole && bracket && sscanf(bracket, "[%lld:%lld, %lld:%lld]", &v[0], &v[1], &v[2], &v[3]) == 4;
        p += strlen(key);
    }
    for (int i = 0; found && i < 4; i++) at[i] = v[i];
    json_decref(note);
    return found;
}

static void clip_see(void *ctx, const char *name, tensor t)
{
    const struct golden_tap *tap = ctx;
    char key[128];
    int64_t at[4];
    snprintf(key, sizeof key, "%s%s", tap->prefix, name);
    if (!golden_has(tap->g, key)) return;
    if (strcmp(name, "pixels") == 0) {
        if (!corner_of(tap->g, key, at)) {
            golden_expect(tap->g, key, false, "the metadata does not say which corner it is");
            return;
        }
        t = tensor_slice(tensor_slice(t, 1, at[0], at[1]), 2, at[2], at[3]);
    }
    golden_check(tap->g, key, t, tap->bound);
}

// The picture <prefix>in.image [1, 3, 1, h, w] against <prefix>clip_fea.
static void clip_picture(struct golden *g, struct clip *m, const char *prefix)
{
    char key[64];
    int64_t mark = dev_arena_mark(g->arena);
    snprintf(key, sizeof key, "%sin.image", prefix);
    tensor image = tensor_at(tensor_permute(tensor_at(golden_get(g, key), 0), (int[]){1, 2, 3, 0}), 0);
    tensor picture = dev_tensor(g->arena, DT_F32, image.n, image.shape);
    op_copy(g->dev, picture, image);
    struct golden_tap listener = {.g = g, .prefix = prefix, .bound = GOLDEN_MODULE};
    struct tap tap = {.see = clip_see, .ctx = &listener};
    tensor out = dev_tensor(g->arena, DT_F32, SHAPE(clip_tokens(m), clip_dim(m)));
    clip_encode(m, g->arena, out, picture, &tap);
    snprintf(key, sizeof key, "%sclip_fea", prefix);
    golden_check(g, key, out, GOLDEN_MODULE);
    dev_arena_reset(g->arena, mark);
}

struct clip *golden_clip_open(struct golden *g, struct weights **w)
{
    json_t *config = NULL;
    struct clip *m = NULL;
    struct err e = {0};
    *w = golden_weights(g, "clip", &config);
    if (!*w) return NULL;
    struct clip_config c = {.n_heads = (int)json_integer_value(json_object_get(config, "vision_heads")),
                            .image = (int)json_integer_value(json_object_get(config, "image_size")),
                            .eps = (float)json_number_value(json_object_get(config, "norm_eps"))};
    if (clip_new(&m, g->dev, *w, &c, &e) < 0) golden_expect(g, "weights_clip", false, "%s", e.text);
    json_decref(config);
    return m;
}

void golden_clip(struct golden *g)
{
    struct weights *w = NULL;
    struct clip *m = golden_clip_open(g, &w);
    for (int64_t i = 0; m && i < weights_count(g->file); i++) {
        char prefix[64];
        const char *key = weights_name(g->file, i), *in = strstr(key, "in.image");
        if (!in || strcmp(in, "in.image") != 0 || in - key >= (int)sizeof prefix) continue;
        snprintf(prefix, sizeof prefix, "%.*s", (int)(in - key), key);
        clip_picture(g, m, prefix);
    }
    if (m) golden_check_all_used(g);
    clip_free(&m);
    weights_free(&w);
}

// ---- wav2vec2

struct speech {
    const float *x;
    int64_t n;
};

static void speech_read(void *ctx, float *dst, int64_t from, int64_t n)
{
    const struct speech *s = ctx;
    for (int64_t i = 0; i < n; i++) dst[i] = from + i >= 0 && from + i < s->n ? s->x[from + i] : 0;
}

// "conv0" is kept as "conv0.head": its first columns.
static void voice_see(void *ctx, const char *name, tensor t)
{
    const struct golden_tap *tap = ctx;
    char head[128];
    snprintf(head, sizeof head, "%s.head", name);
    if (golden_has(tap->g, name)) golden_check(tap->g, name, t, tap->bound);
    if (!golden_has(tap->g, head)) return;
    int64_t mark = dev_arena_mark(tap->g->arena);
    tensor ref = golden_get(tap->g, head);
    int64_t n = ref.shape[ref.n - 1];
    golden_check(tap->g, head, t.shape[1] > n ? tensor_slice(t, 1, 0, n) : t, tap->bound);
    dev_arena_reset(tap->g->arena, mark);
}

// The whole track as n video frames.
static void voice_whole(struct golden *g, struct wav2vec2 *m, const struct track *t, const struct wav2vec2_stats *stats,
                        int64_t n, const char *key, const struct tap *tap)
{
    int64_t mark = dev_arena_mark(g->arena);
    tensor out = dev_tensor(g->arena, DT_F32, SHAPE(n, wav2vec2_layers(m), wav2vec2_dim(m)));
    wav2vec2_encode(m, g->arena, out, t, stats, n, 0, n, tap);
    golden_check(g, key, out, GOLDEN_MODULE);
    dev_arena_reset(g->arena, mark);
}

static void voice_run(struct golden *g, struct wav2vec2 *m)
{
    tensor x = golden_get(g, "in.speech");
    struct speech speech = {.x = x.data, .n = tensor_count(x)};
    struct track track = {.read = speech_read, .ctx = &speech, .n_samples = speech.n};
    struct wav2vec2_stats *stats = wav2vec2_measure(m, g->arena, &track);
    struct golden_tap listener = {.g = g, .prefix = "", .bound = GOLDEN_MODULE};
    struct tap tap = {.see = voice_see, .ctx = &listener};
    for (int64_t i = 0; i < weights_count(g->file); i++) {
        const char *key = weights_name(g->file, i);
        if (strncmp(key, "embedding", 9) != 0) continue;
        int64_t mark = dev_arena_mark(g->arena), n = golden_get(g, key).shape[0];
        dev_arena_reset(g->arena, mark);
        voice_whole(g, m, &track, stats, n, key, NULL);
        if (strcmp(key, "embedding") == 0) voice_whole(g, m, &track, stats, n, key, &tap);
    }
    wav2vec2_stats_free(&stats);
    golden_check_all_used(g);
}

// The set says in words that its samples are normalised, and keeps their statistics; a declaration would come first.
static bool voice_normalized(struct golden *g, json_t *config)
{
    json_t *say = json_object_get(config, "do_normalize");
    return say ? json_is_true(say) : golden_has(g, "stats");
}

void golden_wav2vec2(struct golden *g)
{
    json_t *config = NULL;
    struct wav2vec2 *m = NULL;
    struct err e = {0};
    struct weights *w = golden_weights(g, "wav2vec2", &config);
    if (!w) return;
    char *text = json_dumps(config, JSON_ENCODE_ANY);
    if (!text)
        golden_expect(g, "weights_wav2vec2", false, "its metadata holds no config");
    else if (wav2vec2_new(&m, g->dev, w, text, voice_normalized(g, config), &e) < 0)
        golden_expect(g, "weights_wav2vec2", false, "%s", e.text);
    else
        voice_run(g, m);
    wav2vec2_free(&m);
    weights_free(&w);
    free(text);
    json_decref(config);
}
