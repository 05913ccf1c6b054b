// dit_*: one forward pass of the diffusion model with every intermediate value that the file holds; audio_proj*: the
// audio projection alone.
#include "tests/goldenrun/dit.h"
#include "worker/models/audio_proj.h"

#include <dirent.h>
#include <string.h>

static int number(json_t *config, const char *key) { return (int)json_integer_value(json_object_get(config, key)); }

struct dit_config golden_dit_config(json_t *c)
{
    return (struct dit_config){.dim = number(c, "dim"),
                               .n_heads = number(c, "num_heads"),
                               .n_layers = number(c, "num_layers"),
                               .ffn_dim = number(c, "ffn_dim"),
                               .freq_dim = number(c, "freq_dim"),
                               .text_dim = number(c, "text_dim"),
                               .text_len = number(c, "text_len"),
                               .in_dim = number(c, "in_dim"),
                               .out_dim = number(c, "out_dim"),
                               .audio_window = number(c, "audio_window"),
                               .vae_scale = number(c, "vae_scale"),
                               .audio_dim = number(c, "output_dim"),
                               .audio_tokens = number(c, "context_tokens"),
                               .clip_dim = number(c, "clip_dim"),
                               .clip_tokens = number(c, "clip_tokens"),
                               .eps = (float)json_number_value(json_object_get(c, "eps")),
                               .published = true};
}

struct dit *golden_dit_open(struct golden *g, const char *name, struct weights **w)
{
    json_t *config = NULL;
    struct dit *m = NULL;
    *w = golden_weights(g, name, &config);
    if (!*w) return NULL;
    struct dit_config want = golden_dit_config(config);
    struct err e = {0};
    if (dit_new(&m, g->dev, *w, &want, DT_F32, &e) < 0) golden_expect(g, name, false, "%s", e.text);
    json_decref(config);
    return m;
}

// The weights file (weights_<name>) whose configuration is that of this golden file.
static const char *weights_of(struct golden *g, char *name, size_t n)
{
    json_t *wanted = golden_meta(g, "config");
    DIR *dir = opendir(g->dir);
    snprintf(name, n, "dit");
    for (struct dirent *d; dir && (d = readdir(dir));) {
        char found[64];
        json_t *config = NULL;
        if (sscanf(d->d_name, "weights_%60[^.].safetensors", found) != 1 || strncmp(found, "dit", 3) != 0) continue;
        struct weights *w = golden_weights(g, found, &config);
        if (w && json_equal(config, wanted)) snprintf(name, n, "%s", found);
        json_decref(config);
        weights_free(&w);
    }
    if (dir) closedir(dir);
    json_decref(wanted);
    return name;
}

static tensor squeezed(tensor t, int n) // drops leading axes of 1 down to n axes
{
    while (t.n > n) t = tensor_at(t, 0);
    return t;
}

// One pass with the given voice and masks; compares with key `out`, and with intermediates when `tap` listens.
static void pass(struct golden *g, struct dit *m, tensor windows, tensor masks, const char *key, const struct tap *tap)
{
    int64_t mark = dev_arena_mark(g->arena);
    tensor x = golden_get(g, "in.x"), y = squeezed(golden_get(g, "in.y"), 4), t = golden_get(g, "in.t");
    struct dit_words words = dit_words_new(m, g->arena, golden_get(g, "in.context"), tap);
    struct dit_picture picture = dit_picture_new(m, g->arena, squeezed(golden_get(g, "in.clip_fea"), 2), tap);
    struct dit_voice voice =
        tensor_is_none(windows) ? dit_voice_null(m, g->arena, x.shape[1]) : dit_voice_new(m, g->arena, windows, tap);
    struct dit_in in = {.x = x,
                        .y = y,
                        .masks = dit_masks_new(m, g->arena, masks, x.shape[2] / 2, x.shape[3] / 2),
                        .time = dit_time_new(m, g->arena, *(float *)t.data, tap),
                        .words = &words,
                        .picture = &picture,
                        .voice = &voice};
    tensor out = dev_tensor(g->arena, DT_F32, x.n, x.shape);
    dit_forward(m, g->arena, out, &in, tap);
    golden_check(g, key, out, GOLDEN_MODULE);
    dev_arena_reset(g->arena, mark);
}

void golden_dit(struct golden *g)
{
    char name[64];
    struct weights *w = NULL;
    struct dit *m = golden_dit_open(g, weights_of(g, name, sizeof name), &w);
    if (m) {
        struct golden_tap listener = {.g = g, .prefix = "", .bound = GOLDEN_MODULE};
        struct tap tap = golden_tap_of(&listener);
        tensor windows = golden_get(g, "in.audio"), masks = golden_get(g, "in.ref_target_masks");
        pass(g, m, windows, masks, "out", &tap);
        if (golden_has(g, "no_background.out"))
            pass(g, m, windows, golden_get(g, "no_background.ref_target_masks"), "no_background.out", NULL);
        if (golden_has(g, "null_audio.out")) pass(g, m, NO_TENSOR, masks, "null_audio.out", NULL);
        if (golden_has(g, "single.out")) {
            tensor ones = dev_tensor(g->arena, DT_F32, masks.n, masks.shape);
            op_fill(g->dev, ones, 1);
            pass(g, m, tensor_slice(windows, 0, 0, 1), ones, "single.out", NULL);
        }
        golden_check_all_used(g);
    }
    dit_free(&m);
    weights_free(&w);
}

// Windows of an embedding [frames, layers, channels] from `start`: frame start + f + o - window / 2, clamped.
static tensor windows_at(struct golden *g, tensor embedding, int64_t start, int64_t fa, int window)
{
    int64_t n = embedding.shape[0], layers = embedding.shape[1], c = embedding.shape[2];
    tensor w = dev_tensor(g->arena, DT_F32, SHAPE(1, fa, window, layers, c));
    for (int64_t f = 0; f < fa; f++)
        for (int o = 0; o < window; o++) {
            int64_t at = start + f + o - window / 2;
            at = at < 0 ? 0 : at >= n ? n - 1 : at;
            op_copy(g->dev, tensor_at(tensor_at(tensor_at(w, 0), f), o), tensor_at(embedding, at));
        }
    return w;
}

void golden_audio_proj(struct golden *g)
{
    json_t *config = golden_meta(g, "config");
    int seq = number(config, "seq_len"), seq_vf = number(config, "seq_len_vf"), scale = seq_vf - seq + 1;
    struct weights *w = NULL;
    struct audio_proj m;
    struct err e = {0};
    char name[64];
    snprintf(name, sizeof name, "%s", strcmp(g->stem, "audio_proj") == 0 ? "dit" : g->stem);
    w = golden_weights(g, name, NULL);
    struct dev_arena *a = dev_arena_new(g->dev, "audio_proj", 0);
    if (w && audio_proj_load(&m, g->dev, a, w, seq, scale, DT_F32, &e) < 0)
        golden_expect(g, name, false, "%s", e.text);
    else if (w) {
        tensor embedding = golden_get(g, "in.embedding");
        for (int64_t i = 0; i < weights_count(g->file); i++) {
            long long start;
            char prefix[32], key[48];
            if (sscanf(weights_name(g->file, i), "start%lld.out", &start) != 1) continue;
            snprintf(prefix, sizeof prefix, "start%lld.", start);
            snprintf(key, sizeof key, "%sout", prefix);
            if (strcmp(weights_name(g->file, i), key) != 0) continue;
            tensor out = golden_get(g, key); // [1, t, tokens, dim]
            int64_t fa = 1 + scale * (out.shape[1] - 1);
            tensor windows = windows_at(g, embedding, start, fa, seq);
            struct golden_tap listener = {.g = g, .prefix = "", .bound = GOLDEN_EXACT};
            struct tap tap = golden_tap_of(&listener);
            snprintf(prefix, sizeof prefix, "start%lld.", start);
            char wkey[48];
            snprintf(wkey, sizeof wkey, "%swindows", prefix);
            if (golden_has(g, wkey)) golden_check(g, wkey, windows, GOLDEN_EXACT);
            tensor tokens = audio_proj_run(&m, g->dev, g->arena, windows, &tap, prefix);
            golden_check(g, key, tensor_permute(tokens, (int[]){1, 0, 2, 3}), GOLDEN_MODULE);
        }
        golden_check_all_used(g);
    }
    dev_arena_free(&a);
    weights_free(&w);
    json_decref(config);
}
