// vae_encode, vae_decode: slices with every layer that the file holds, and other lengths.
#include "tests/goldenrun/vae.h"

struct vae *golden_vae_open(struct golden *g, struct weights **w)
{
    json_t *config = NULL;
    struct vae *v = NULL;
    struct err e = {0};
    *w = golden_weights(g, "vae", &config);
    if (!*w) return NULL;
    float stats[2][64] = {{0}};
    json_t *mean = json_object_get(config, "mean"), *std = json_object_get(config, "std");
    for (size_t i = 0; i < json_array_size(mean) && i < 64; i++) {
        stats[0][i] = (float)json_number_value(json_array_get(mean, i));
        stats[1][i] = (float)json_number_value(json_array_get(std, i));
    }
    if (vae_new(&v, g->dev, *w, mean ? stats[0] : NULL, std ? stats[1] : NULL, &e) < 0)
        golden_expect(g, "weights_vae", false, "%s", e.text);
    json_decref(config);
    return v;
}

// A video [3, t, h, w] as pixels [t, h, w, 3].
static tensor pixels_of(struct golden *g, tensor video)
{
    tensor last = tensor_permute(video, (int[]){1, 2, 3, 0});
    tensor p = dev_tensor(g->arena, DT_F32, last.n, last.shape);
    op_copy(g->dev, p, last);
    return p;
}

static void encode(struct golden *g, struct vae *v, tensor pixels, const char *key, const struct tap *tap)
{
    if (!golden_has(g, key)) return;
    int64_t mark = dev_arena_mark(g->arena), n = 1 + (pixels.shape[0] - 1) / 4;
    tensor z = dev_tensor(g->arena, DT_F32, SHAPE(vae_latent_channels(v), n, pixels.shape[1] / 8, pixels.shape[2] / 8));
    vae_encode(v, g->arena, z, pixels, tap);
    golden_check(g, key, z, GOLDEN_MODULE);
    dev_arena_reset(g->arena, mark);
}

void golden_vae_encode(struct golden *g)
{
    struct weights *w = NULL;
    struct vae *v = golden_vae_open(g, &w);
    if (v) {
        struct golden_tap listener = {.g = g, .prefix = "", .bound = GOLDEN_MODULE};
        struct tap tap = golden_tap_of(&listener);
        tensor pixels = pixels_of(g, golden_get(g, "in.video"));
        encode(g, v, pixels, "latent", &tap);
        for (int64_t n = 1; n <= pixels.shape[0]; n++) {
            char key[32];
            snprintf(key, sizeof key, "latent_from_%lld", (long long)n);
            encode(g, v, tensor_slice(pixels, 0, 0, n), key, NULL);
        }
        op_fill(g->dev, tensor_slice(pixels, 0, 1, pixels.shape[0]), 0);
        encode(g, v, pixels, "latent_padded", NULL);
        golden_check_all_used(g);
    }
    vae_free(&v);
    weights_free(&w);
}

void golden_vae_decode(struct golden *g)
{
    struct weights *w = NULL;
    struct vae *v = golden_vae_open(g, &w);
    if (v) {
        struct golden_tap listener = {.g = g, .prefix = "", .bound = GOLDEN_MODULE};
        struct tap tap = golden_tap_of(&listener);
        tensor z = golden_get(g, "in.latent");
        int64_t n = z.shape[1], h = z.shape[2] * 8, width = z.shape[3] * 8;
        tensor pixels = dev_tensor(g->arena, DT_F32, SHAPE(4 * n - 3, h, width, 3));
        struct vae_stream *s = vae_decode_open(v, g->arena, h, width, &tap);
        for (int64_t i = 0; i < n; i++)
            vae_decode_slice(s, tensor_slice(pixels, 0, i ? 4 * i - 3 : 0, 4 * i + 1), tensor_slice(z, 1, i, i + 1));
        vae_stream_close(&s);
        golden_check(g, "video_unclamped", tensor_permute(pixels, (int[]){3, 0, 1, 2}), GOLDEN_MODULE);
        golden_check_all_used(g);
    }
    vae_free(&v);
    weights_free(&w);
}
