// LoRA: every spelling of the same change gives the same merge, the arithmetic is that of the spec's examples, and what
// does not fit is refused by name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/folder.h"
#include "worker/synth/parts.h"
#include "worker/weights/lora.h"
#include "worker/weights/lora_key.h"
#include "worker/weights/names.h"
#include "worker/weights/write_safetensors.h"

#include <math.h>

static int begin(void **state)
{
    (void)state;
    return top_make("test_lora");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

// ---- files

enum { PARTS_MAX = 24 };
struct file {
    struct tensor_head head[PARTS_MAX];
    float values[4096];
    int n, n_values;
};

static void put(struct file *f, const char *name, int n, const int64_t *shape, const float *v)
{
    struct tensor_head *h = &f->head[f->n++];
    *h = (struct tensor_head){.dtype = DT_F32, .n = n};
    snprintf(h->name, sizeof h->name, "%s", name);
    for (int i = 0; i < n; i++) h->shape[i] = shape[i];
    int64_t count = head_bytes(h) / 4;
    for (int64_t i = 0; i < count; i++) f->values[f->n_values++] = v ? v[i] : (float)(i % 7) * 0.25f - 0.5f;
}

static const char *save(const struct file *f, const char *name, const char *const *meta, char *path, size_t n)
{
    struct safetensors_out *s = NULL;
    snprintf(path, n, "%s/%s", top, name);
    OK(safetensors_create(&s, path, f->head, f->n, meta, ep));
    OK(safetensors_put(s, f->values, (size_t)f->n_values * 4, ep));
    OK(safetensors_close(&s, ep));
    return path;
}

// A model of two blocks as far as the tests change it.
static struct weights *model(void)
{
    static struct file f;
    char path[128], name[128];
    static const char *const linears[] = {"self_attn.q", "self_attn.o", "cross_attn.k_img", "ffn.0", "ffn.2"};
    f.n = f.n_values = 0;
    put(&f, "patch_embedding.weight", SHAPE(2, 36, 1, 2, 2), NULL);
    put(&f, "patch_embedding.bias", SHAPE(2), NULL);
    put(&f, "time_projection.1.weight", SHAPE(2, 3), NULL);
    put(&f, "time_projection.1.bias", SHAPE(2), NULL);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "blocks.3.%s.weight", linears[i]);
        put(&f, name, SHAPE(2, 3), NULL);
        snprintf(name, sizeof name, "blocks.3.%s.bias", linears[i]);
        put(&f, name, SHAPE(2), NULL);
    }
    put(&f, "blocks.3.norm3.weight", SHAPE(3), NULL);
    put(&f, "blocks.3.norm3.bias", SHAPE(3), NULL);
    put(&f, "blocks.3.modulation", SHAPE(1, 6, 3), NULL);
    struct weights *w = NULL;
    OK(weights_open(&w, save(&f, "model.safetensors", NULL, path, sizeof path), ep));
    return w;
}

static const float down[] = {1, 2, 3}, up[] = {2, -1}, one = 0.5f,
                   ones[18] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// Merges `f` into a new model, and gives values [0, n) of `target` less what they were.
static struct lora_report merged(const struct file *f, const char *const *meta, double scale, bool published,
                                 const char *target, float *change, int n)
{
    struct weights *before = model(), *after = model();
    struct arena a = {0};
    struct lora_report r;
    char path[128];
    OK(lora_merge(after, &a, save(f, "lora.safetensors", meta, path, sizeof path), scale, DT_F32, published, &r, ep));
    tensor x = NO_TENSOR, y = NO_TENSOR;
    OK(weights_get(before, target, &x, ep));
    OK(weights_get(after, target, &y, ep));
    assert_true(tensor_same_shape(x, y));
    for (int i = 0; i < n; i++) change[i] = ((float *)y.data)[i] - ((float *)x.data)[i];
    weights_free(&before);
    weights_free(&after);
    arena_free(&a);
    return r;
}

static void expect(const char *what, const float *have, int n, const float *want)
{
    for (int i = 0; i < n; i++)
        if (fabsf(have[i] - want[i]) > 1e-6f) fail_msg("%s: value %d is %g, not %g", what, i, have[i], want[i]);
}

// ---- arithmetic: the spec's example, alpha 0.5, rank 1, strength 2

static void pair(struct file *f, const char *down_key, const char *up_key, const char *alpha_key)
{
    *f = (struct file){.n = 0};
    put(f, down_key, SHAPE(1, 3), down);
    put(f, up_key, SHAPE(2, 1), up);
    if (alpha_key) put(f, alpha_key, 0, NULL, &one);
}

static void alpha_and_strength_count(void **state)
{
    (void)state;
    static struct file f;
    float c[6];
    static const float with[] = {2, 4, 6, -1, -2, -3}, without[] = {4, 8, 12, -2, -4, -6},
                       told[] = {6, 12, 18, -3, -6, -9};
#define Q "diffusion_model.blocks.3.self_attn.q"
    pair(&f, Q ".lora_down.weight", Q ".lora_up.weight", Q ".alpha");
    assert_int_equal(merged(&f, NULL, 2, false, "blocks.3.self_attn.q.weight", c, 6).n_applied, 1);
    expect("with alpha", c, 6, with);
    merged(&f, NULL, 2, true, "blocks.3.self_attn.q.weight", c, 6);
    expect("as published, alpha is not read", c, 6, without);
    pair(&f, Q ".lora_down.weight", Q ".lora_up.weight", NULL);
    merged(&f, NULL, 2, false, "blocks.3.self_attn.q.weight", c, 6);
    expect("without alpha", c, 6, without);
    const char *const meta[] = {"ss_network_alpha", "3", "ss_network_dim", "2", NULL};
    merged(&f, meta, 2, false, "blocks.3.self_attn.q.weight", c, 6);
    expect("alpha in the metadata", c, 6, told);
}

static void whole_changes_are_added(void **state)
{
    (void)state;
    static struct file f;
    float c[18];
    static const float both[] = {4, 6, 8, 1, 0, -1};
    pair(&f, Q ".lora_down.weight", Q ".lora_up.weight", Q ".alpha");
    put(&f, Q ".diff", SHAPE(2, 3), ones);
    put(&f, Q ".diff_b", SHAPE(2), ones);
    assert_int_equal(merged(&f, NULL, 2, false, "blocks.3.self_attn.q.weight", c, 6).n_applied, 2);
    expect("a pair and a change", c, 6, both);
    merged(&f, NULL, 0.5, false, "blocks.3.self_attn.q.bias", c, 2);
    assert_true(c[0] == 0.5f && c[1] == 0.5f);
    static const char *const tables[] = {"diffusion_model.blocks.3.diff_m", "blocks.3.modulation.diff",
                                         "transformer.blocks.3.scale_shift_table.diff"};
    for (int i = 0; i < 3; i++) {
        f = (struct file){.n = 0};
        put(&f, tables[i], SHAPE(6, 3), ones);
        merged(&f, NULL, 2, false, "blocks.3.modulation", c, 18);
        for (int k = 0; k < 18; k++) assert_true(c[k] == 2);
    }
}

// One rounding in the right way, one a step in the published one.
static void roundings_are_as_promised(void **state)
{
    (void)state;
    static struct file f;
    char path[128];
    const float a[] = {1.01f, 0.37f, -0.83f}, b[] = {0.77f, -1.33f};
    f = (struct file){.n = 0};
    put(&f, Q ".lora_down.weight", SHAPE(1, 3), a);
    put(&f, Q ".lora_up.weight", SHAPE(2, 1), b);
    save(&f, "lora.safetensors", NULL, path, sizeof path);
#define R(v) bf16_to_f32(f32_to_bf16(v))
    for (int published = 0; published < 2; published++) {
        struct weights *before = model(), *after = model();
        struct arena host = {0};
        struct lora_report r;
        OK(lora_merge(after, &host, path, 1.2, DT_BF16, published, &r, ep));
        tensor x = NO_TENSOR, y = NO_TENSOR;
        OK(weights_get(before, "blocks.3.self_attn.q.weight", &x, ep));
        OK(weights_get(after, "blocks.3.self_attn.q.weight", &y, ep));
        assert_int_equal(y.dtype, DT_BF16);
        for (int i = 0; i < 6; i++) {
            float w = ((float *)x.data)[i], u = b[i / 3], d = a[i % 3];
            float want = published ? R(R(w) + R(1.2f * R(R(u) * R(d)))) : R(w + 1.2f * (u * d));
            assert_true(bf16_to_f32(((uint16_t *)y.data)[i]) == want);
        }
        weights_free(&before);
        weights_free(&after);
        arena_free(&host);
    }
}

// ---- spellings

static void every_spelling_is_one_change(void **state)
{
    (void)state;
    static const struct {
        const char *down, *up, *alpha, *target;
    } spelt[] = {
#define HALVES(p, d, u, t) {p d, p u, p ".alpha", t}
#define NEW(p, t)          HALVES(p, ".lora_A.weight", ".lora_B.weight", t)
#define OLD(p, t)          HALVES(p, ".lora_down.weight", ".lora_up.weight", t)
        OLD("diffusion_model.blocks.3.self_attn.q", "blocks.3.self_attn.q"),
        NEW("diffusion_model.blocks.3.self_attn.q", "blocks.3.self_attn.q"),
        NEW("model.diffusion_model.blocks.3.ffn.0", "blocks.3.ffn.0"),
        NEW("blocks.3.ffn.2", "blocks.3.ffn.2"),
        NEW("pipe.dit.blocks.3.self_attn.o", "blocks.3.self_attn.o"),
        NEW("unet.blocks.3.self_attn.o", "blocks.3.self_attn.o"),
        NEW("base_model.model.blocks.3.self_attn.q", "blocks.3.self_attn.q"),
        NEW("base_model.model.transformer.blocks.3.attn1.to_q", "blocks.3.self_attn.q"),
        NEW("transformer.blocks.3.attn1.to_q", "blocks.3.self_attn.q"),
        NEW("transformer.blocks.3.attn1.to_out.0", "blocks.3.self_attn.o"),
        NEW("transformer.blocks.3.attn2.add_k_proj", "blocks.3.cross_attn.k_img"),
        NEW("transformer.blocks.3.ffn.net.0.proj", "blocks.3.ffn.0"),
        NEW("transformer.blocks.3.ffn.net.2", "blocks.3.ffn.2"),
        NEW("transformer.condition_embedder.time_proj", "time_projection.1"),
        OLD("lora_unet_blocks_3_cross_attn_k_img", "blocks.3.cross_attn.k_img"),
        OLD("lora_unet__blocks_3_ffn_0", "blocks.3.ffn.0"),
        OLD("lora_unet_blocks_3.self_attn.q", "blocks.3.self_attn.q"),
        OLD("lora_unet_time_projection_1", "time_projection.1"),
        OLD("lycoris_blocks_3_self_attn_o", "blocks.3.self_attn.o"),
        HALVES("transformer.blocks.3.attn1.to_q", ".lora.down.weight", ".lora.up.weight", "blocks.3.self_attn.q"),
        HALVES("blocks.3.self_attn.q", "_lora.down.weight", "_lora.up.weight", "blocks.3.self_attn.q"),
        HALVES("blocks.3.self_attn.q", ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight",
               "blocks.3.self_attn.q"),
        HALVES("blocks.3.self_attn.q", ".lora_A", ".lora_B", "blocks.3.self_attn.q"),
        HALVES("diffusion_model.blocks.3.self_attn.q", ".lora_A.default.weight", ".lora_B.default.weight",
               "blocks.3.self_attn.q"),
    };
    static const float want[] = {2, 4, 6, -1, -2, -3};
    for (size_t i = 0; i < sizeof spelt / sizeof *spelt; i++) {
        static struct file f;
        float c[6];
        char target[128];
        pair(&f, spelt[i].down, spelt[i].up, spelt[i].alpha);
        snprintf(target, sizeof target, "%s.weight", spelt[i].target);
        assert_int_equal(merged(&f, NULL, 2, false, target, c, 6).n_applied, 1);
        expect(spelt[i].down, c, 6, want);
    }
}

static void norms_are_told_apart(void **state)
{
    (void)state;
    static const char *const keys[][2] = {
        {"diffusion_model.blocks.3.norm3.diff", "diffusion_model.blocks.3.norm3.diff_b"},
        {"transformer.blocks.3.norm2.diff", "transformer.blocks.3.norm2.diff_b"},
        {"blocks.3.norm3.w_norm", "blocks.3.norm3.b_norm"},
    };
    for (int i = 0; i < 3; i++) {
        static struct file f;
        float c[3];
        f = (struct file){.n = 0};
        put(&f, keys[i][0], SHAPE(3), ones);
        put(&f, keys[i][1], SHAPE(3), ones);
        assert_int_equal(merged(&f, NULL, 1, false, "blocks.3.norm3.weight", c, 3).n_applied, 2);
        expect(keys[i][0], c, 3, ones);
    }
}

static void the_published_model_has_no_two_modules_of_one_spelling(void **state)
{
    (void)state;
    struct synth_list l = {.label = "", .dtype = DT_F32};
    static struct file empty;
    struct weights *w = NULL;
    char path[128], there[256], back[256];
    empty = (struct file){.n = 0};
    put(&empty, "patch_embedding.weight", SHAPE(1), ones);
    list_dit(&l, &synth_published);
    list_adapter(&l, &synth_published);
    assert_int_equal(l.n, 1633);
    OK(weights_open(&w, save(&empty, "names.safetensors", NULL, path, sizeof path), ep));
    int n_renamed = 0;
    for (int64_t i = 0; i < l.n; i++) {
        weights_put(w, l.head[i].name, tensor_of(NULL, DT_F32, l.head[i].n, l.head[i].shape));
        snprintf(there, sizeof there, "%s", l.head[i].name);
        char *tail = strstr(there, ".weight") ? strstr(there, ".weight") : strstr(there, ".bias");
        if (tail) *tail = 0;
        if (!names_to_diffusers(back, sizeof back, there)) continue;
        size_t end_at = strlen(back);
        snprintf(back + end_at, sizeof back - end_at, "%s", tail ? l.head[i].name + (tail - there) : "");
        assert_true(names_from_diffusers(there, sizeof there, back));
        assert_string_equal(there, l.head[i].name);
        n_renamed++;
    }
    assert_int_equal(n_renamed, 1303 - 2); // all of the base but the patch embedding
    struct names *names = names_new(w);
    assert_int_equal(names_collisions(names), 0);
    names_free(&names);
    weights_free(&w);
    list_free(&l);
}

// ---- refusals

static void refused(const struct file *f, bool published, const char *words)
{
    struct weights *w = model();
    struct arena a = {0};
    struct lora_report r;
    struct err e = {0};
    char path[128];
    save(f, "lora.safetensors", NULL, path, sizeof path);
    assert_int_equal(lora_merge(w, &a, path, 1, DT_F32, published, &r, &e), E_INPUT);
    if (!strstr(e.text, words)) fail_msg("'%s' lacks '%s'", e.text, words);
    weights_free(&w);
    arena_free(&a);
}

static void what_does_not_fit_is_refused_by_name(void **state)
{
    (void)state;
    static struct file f;
    pair(&f, "blocks.9.self_attn.q.lora_A.weight", "blocks.9.self_attn.q.lora_B.weight", NULL);
    refused(&f, false, "blocks.9.self_attn.q");
    pair(&f, "blocks.3.self_attn.q.lora_A.weight", "blocks.3.self_attn.o.lora_B.weight", NULL);
    refused(&f, false, "has no other half");
    pair(&f, "blocks.3.self_attn.q.lora_A.weight", "transformer.blocks.3.attn1.to_q.lora_B.weight", NULL);
    put(&f, "diffusion_model.blocks.3.self_attn.q.lora_down.weight", SHAPE(1, 3), down);
    refused(&f, false, "say the same thing twice");
    pair(&f, "blocks.3.norm3.lora_A.weight", "blocks.3.norm3.lora_B.weight", NULL);
    refused(&f, false, "does not fit 'blocks.3.norm3.weight'");
    static const char *const foreign[][2] = {
        {Q ".dora_scale", "DoRA"}, {Q ".lokr_w1", "LoKr"}, {Q ".hada_w1_a", "LoHa"}, {Q ".lora_mid.weight", "middle"}};
    for (int i = 0; i < 4; i++) {
        pair(&f, Q ".lora_down.weight", Q ".lora_up.weight", NULL);
        put(&f, foreign[i][0], SHAPE(2), ones);
        refused(&f, false, foreign[i][1]);
    }
    f = (struct file){.n = 0};
    put(&f, Q ".lora_down.weight", SHAPE(2, 3), ones);
    put(&f, Q ".lora_up.weight", SHAPE(2, 1), up);
    refused(&f, false, "different ranks");
    const float nan_value[] = {1, NAN, 3};
    f = (struct file){.n = 0};
    put(&f, Q ".lora_down.weight", SHAPE(1, 3), nan_value);
    put(&f, Q ".lora_up.weight", SHAPE(2, 1), up);
    refused(&f, false, "is no number");
    f = (struct file){.n = 0};
    put(&f, "something.else", SHAPE(3), ones);
    refused(&f, false, "changes nothing");
    put(&f, "blocks.0.self_attn.q.weight", SHAPE(3), ones);
    refused(&f, false, "is a whole model");
}

static void the_published_way_passes_others_over(void **state)
{
    (void)state;
    static struct file f;
    float c[6];
    pair(&f, "diffusion_model.blocks.3.self_attn.o.lora_A.weight", "diffusion_model.blocks.3.self_attn.o.lora_B.weight",
         NULL);
    refused(&f, true, "changes nothing");
    put(&f, Q ".lora_down.weight", SHAPE(1, 3), down);
    put(&f, Q ".lora_up.weight", SHAPE(2, 1), up);
    put(&f, "diffusion_model.blocks.3.diff_m", SHAPE(6, 3), ones);
    struct lora_report r = merged(&f, NULL, 1, true, "blocks.3.self_attn.o.weight", c, 6);
    assert_int_equal(r.n_applied, 1);
    assert_int_equal(r.n_ignored, 3);
    for (int i = 0; i < 6; i++) assert_true(c[i] == 0);
    put(&f, "diffusion_model.blocks.3.modulation.diff", SHAPE(6, 3), ones);
    refused(&f, true, "blocks.3.modulation.weight");
}

// A LoRA for text-to-video has 16 channels in its patch embedding: passed over, its bias not.
static void other_patch_embeddings_are_passed_over(void **state)
{
    (void)state;
    static struct file f;
    float c[2];
    f = (struct file){.n = 0};
    put(&f, "diffusion_model.patch_embedding.diff", SHAPE(2, 16, 1, 2, 2), NULL);
    put(&f, "diffusion_model.patch_embedding.diff_b", SHAPE(2), ones);
    assert_int_equal(merged(&f, NULL, 1, false, "patch_embedding.bias", c, 2).n_applied, 1);
    expect("bias", c, 2, ones);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alpha_and_strength_count),
        cmocka_unit_test(whole_changes_are_added),
        cmocka_unit_test(roundings_are_as_promised),
        cmocka_unit_test(every_spelling_is_one_change),
        cmocka_unit_test(norms_are_told_apart),
        cmocka_unit_test(the_published_model_has_no_two_modules_of_one_spelling),
        cmocka_unit_test(what_does_not_fit_is_refused_by_name),
        cmocka_unit_test(the_published_way_passes_others_over),
        cmocka_unit_test(other_patch_embeddings_are_passed_over),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
