// clip_visual and wav2vec2: the picture's tokens and the voice's features, with what lies on the way.
#include "tests/goldenrun/clip.h"

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
    clip_free(&m);
    weights_free(&w);
}
