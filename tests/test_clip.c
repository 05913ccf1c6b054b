// The picture encoder beyond golden: what it declares, that only the picture decides, and what is refused in words.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/folder.h"
#include "worker/models/clip.h"
#include "worker/synth/parts.h"
#include "worker/weights/write_safetensors.h"

#include <math.h>

enum { SEED = 57 };

static struct dev *dev;
static struct dev_arena *arena;

static int begin(void **state)
{
    (void)state;
    printf("seed %d\n", SEED);
    if (top_make("test_clip") < 0 || dev_open(&dev, "ref", 0, NULL) < 0) return -1;
    arena = dev_arena_new(dev, "test", (int64_t)1 << 30);
    return 0;
}

static int end(void **state)
{
    (void)state;
    dev_arena_free(&arena);
    dev_close(&dev);
    return top_remove();
}

// An encoder of 42 pixels: nine patches and the class token.
static const struct synth_sizes sizes = {.clip_dim = 24,
                                         .clip_tokens = 10,
                                         .clip_ffn = 40,
                                         .clip_out = 8,
                                         .clip_image = 42,
                                         .clip_layers = 3,
                                         .clip_heads = 2};

static struct weights *weights_of(struct synth_sizes s)
{
    char path[128];
    struct synth_list l = {.label = "clip", .seed = SEED, .dtype = DT_F32};
    struct safetensors_out *o = NULL;
    struct weights *w = NULL;
    snprintf(path, sizeof path, "%s/clip.safetensors", top);
    list_clip(&l, &s);
    OK(safetensors_create(&o, path, l.head, l.n, NULL, ep));
    for (int64_t i = 0; i < l.n; i++) {
        int64_t bytes = head_bytes(&l.head[i]);
        void *values = malloc((size_t)bytes);
        list_fill(&l, i, 0, bytes / 4, values);
        OK(safetensors_put(o, values, (size_t)bytes, ep));
        free(values);
    }
    OK(safetensors_close(&o, ep));
    list_free(&l);
    OK(weights_open(&w, path, ep));
    return w;
}

// A picture [h, w, 3] of a slope in both directions, in -1..1.
static tensor slope(int64_t h, int64_t w)
{
    tensor t = dev_tensor(arena, DT_F32, SHAPE(h, w, 3));
    for (int64_t i = 0; i < h * w; i++)
        for (int c = 0; c < 3; c++) {
            double y = ((double)(i / w) + 0.5) / (double)h, x = ((double)(i % w) + 0.5) / (double)w;
            ((float *)t.data)[3 * i + c] = (float)((x - 0.5) * (c + 1) * 0.4 + (y - 0.5) * 0.5);
        }
    return t;
}

// The same picture taken at two sizes and shapes, both larger than the encoder's, gives nearly the same tokens; another
// picture does not; and the arena comes back.
static void only_the_picture_decides(void **state)
{
    (void)state;
    struct weights *w = weights_of(sizes);
    struct clip *m = NULL;
    OK(clip_new(&m, dev, w, &(struct clip_config){.n_heads = 2, .image = 42}, ep));
    assert_int_equal(clip_tokens(m), 10);
    assert_int_equal(clip_dim(m), 24);
    tensor out[3], picture[3] = {slope(84, 84), slope(126, 84), slope(84, 84)};
    for (int64_t i = 0; i < tensor_count(picture[2]); i++) ((float *)picture[2].data)[i] *= -1;
    double top_value = 0, gap = 0, other = 0;
    for (int i = 0; i < 3; i++) {
        out[i] = dev_tensor(arena, DT_F32, SHAPE(10, 24));
        int64_t mark = dev_arena_mark(arena);
        clip_encode(m, arena, out[i], picture[i], NULL);
        assert_int_equal(dev_arena_mark(arena), mark);
    }
    OK(dev_sync(dev, ep));
    for (int64_t i = 0; i < tensor_count(out[0]); i++) {
        double a = ((float *)out[0].data)[i], b = ((float *)out[1].data)[i], c = ((float *)out[2].data)[i];
        top_value = fmax(top_value, fabs(a));
        gap = fmax(gap, fabs(a - b));
        other = fmax(other, fabs(a - c));
    }
    assert_true(gap < 0.05 * top_value);
    assert_true(other > 0.2 * top_value);
    clip_free(&m);
    weights_free(&w);
    dev_arena_reset(arena, 0);
}

// The last block is in the file but not in the result: other values there change nothing.
static void the_last_block_does_not_run(void **state)
{
    (void)state;
    struct weights *w = weights_of(sizes);
    tensor out[2], picture = slope(50, 60), junk = dev_tensor(arena, DT_F32, SHAPE(24));
    op_fill(dev, junk, 1e9f);
    for (int i = 0; i < 2; i++) {
        struct clip *m = NULL;
        OK(clip_new(&m, dev, w, &(struct clip_config){.n_heads = 2, .image = 42}, ep));
        out[i] = dev_tensor(arena, DT_F32, SHAPE(10, 24));
        clip_encode(m, arena, out[i], picture, NULL);
        clip_free(&m);
        weights_put(w, "visual.transformer.2.norm1.weight", junk);
        weights_put(w, "visual.post_norm.weight", junk);
    }
    assert_memory_equal(out[0].data, out[1].data, (size_t)tensor_bytes(out[0]));
    weights_free(&w);
    dev_arena_reset(arena, 0);
}

static void refuse(struct synth_sizes s, struct clip_config c, const char *word)
{
    struct weights *w = weights_of(s);
    struct clip *m = NULL;
    struct err e = {0};
    assert_int_equal(clip_new(&m, dev, w, &c, &e), E_INPUT);
    assert_null(m);
    if (!strstr(e.text, word)) fail_msg("said \"%s\" where \"%s\" belongs", e.text, word);
    weights_free(&w);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct synth_sizes s = sizes;
    refuse(s, (struct clip_config){.n_heads = 7, .image = 42}, "does not split into 7 heads");
    refuse(s, (struct clip_config){.image = 42}, "does not split into 16 heads"); // the published number
    refuse(s, (struct clip_config){.n_heads = 2, .image = 45}, "patches of 14");
    refuse(s, (struct clip_config){.n_heads = 2}, "a picture of 224 pixels"); // the published size
    s.clip_layers = 1;
    refuse(s, (struct clip_config){.n_heads = 2, .image = 42}, "holds 1 layers");
    s.clip_layers = 0;
    refuse(s, (struct clip_config){.n_heads = 2, .image = 42}, "visual.transformer.0.mlp.0.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_picture_decides),
        cmocka_unit_test(the_last_block_does_not_run),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
