// Models saved under the names of others come back under ours, every tensor with its values: diffusers, Hugging Face,
// prefixes, split attention; and a name in two spellings is refused.
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
#include "worker/weights/names.h"
#include "worker/weights/write_safetensors.h"

enum { SEED = 5, HEADS_MAX = 600 };

static int begin(void **state)
{
    (void)state;
    return top_make("test_spelling");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

// ---- the names of others, from ours

typedef void spell_fn(char *out, size_t n, const char *ours);

static void diffusers(char *out, size_t n, const char *ours)
{
    char module[256], other[256];
    const char *tail = strstr(ours, ".weight");
    if (!tail) tail = strstr(ours, ".bias");
    snprintf(module, sizeof module, "%.*s", tail ? (int)(tail - ours) : (int)strlen(ours), ours);
    bool spelt = names_to_diffusers(other, sizeof other, module);
    snprintf(out, n, "%s%s", spelt ? other : module, tail ? tail : "");
}

static void comfy(char *out, size_t n, const char *ours) { snprintf(out, n, "model.diffusion_model.%s", ours); }

static void renamed_adapter(char *out, size_t n, const char *ours)
{
    bool projection = strncmp(ours, "audio_proj.", 11) == 0;
    snprintf(out, n, "%s%s", projection ? "multitalk_" : "", ours);
}

// What follows "<head><number>." in a name, or NULL.
static const char *after(const char *name, const char *head, int *i)
{
    char *rest = NULL;
    size_t n = strlen(head);
    if (strncmp(name, head, n) != 0) return NULL;
    *i = (int)strtol(name + n, &rest, 10);
    return rest > name + n && *rest == '.' ? rest + 1 : NULL;
}

// The rows of a table {ours, theirs} whose first fits the tail of a name.
static const char *row(const char *const table[][2], const char *tail)
{
    for (; (*table)[0]; table++)
        if (strcmp((*table)[0], tail) == 0) return (*table)[1];
    return tail;
}

static void hugging_face_text(char *out, size_t n, const char *ours)
{
    static const char *const table[][2] = {
        {"norm1.weight", "layer.0.layer_norm.weight"},
        {"norm2.weight", "layer.1.layer_norm.weight"},
        {"attn.q.weight", "layer.0.SelfAttention.q.weight"},
        {"attn.k.weight", "layer.0.SelfAttention.k.weight"},
        {"attn.v.weight", "layer.0.SelfAttention.v.weight"},
        {"attn.o.weight", "layer.0.SelfAttention.o.weight"},
        {"ffn.gate.0.weight", "layer.1.DenseReluDense.wi_0.weight"},
        {"ffn.fc1.weight", "layer.1.DenseReluDense.wi_1.weight"},
        {"ffn.fc2.weight", "layer.1.DenseReluDense.wo.weight"},
        {"pos_embedding.embedding.weight", "layer.0.SelfAttention.relative_attention_bias.weight"},
        {NULL, NULL}};
    int i;
    const char *tail = after(ours, "blocks.", &i);
    if (tail)
        snprintf(out, n, "text_encoders.umt5xxl.transformer.encoder.block.%d.%s", i, row(table, tail));
    else
        snprintf(out, n, "text_encoders.umt5xxl.transformer.%s",
                 strcmp(ours, "norm.weight") == 0 ? "encoder.final_layer_norm.weight" : "shared.weight");
}

static void hugging_face_clip(char *out, size_t n, const char *ours)
{
    static const char *const whole[][2] = {
        {"visual.cls_embedding", "vision_model.embeddings.class_embedding"},
        {"visual.patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight"},
        {"visual.pos_embedding", "vision_model.embeddings.position_embedding.weight"},
        {"visual.pre_norm.weight", "vision_model.pre_layrnorm.weight"},
        {"visual.pre_norm.bias", "vision_model.pre_layrnorm.bias"},
        {"visual.post_norm.weight", "vision_model.post_layernorm.weight"},
        {"visual.post_norm.bias", "vision_model.post_layernorm.bias"},
        {NULL, NULL}};
    static const char *const inner[][2] = {{"norm1.weight", "layer_norm1.weight"},
                                           {"norm1.bias", "layer_norm1.bias"},
                                           {"norm2.weight", "layer_norm2.weight"},
                                           {"norm2.bias", "layer_norm2.bias"},
                                           {"attn.proj.weight", "self_attn.out_proj.weight"},
                                           {"attn.proj.bias", "self_attn.out_proj.bias"},
                                           {"mlp.0.weight", "mlp.fc1.weight"},
                                           {"mlp.0.bias", "mlp.fc1.bias"},
                                           {"mlp.2.weight", "mlp.fc2.weight"},
                                           {"mlp.2.bias", "mlp.fc2.bias"},
                                           {NULL, NULL}};
    int i;
    const char *tail = after(ours, "visual.transformer.", &i);
    if (tail)
        snprintf(out, n, "vision_model.encoder.layers.%d.%s", i, row(inner, tail));
    else
        snprintf(out, n, "%s", row(whole, ours));
}

static void diffusers_vae(char *out, size_t n, const char *ours)
{
    static const char *const inner[][2] = {{"residual.0.gamma", "norm1.gamma"},
                                           {"residual.2.weight", "conv1.weight"},
                                           {"residual.2.bias", "conv1.bias"},
                                           {"residual.3.gamma", "norm2.gamma"},
                                           {"residual.6.weight", "conv2.weight"},
                                           {"residual.6.bias", "conv2.bias"},
                                           {"shortcut.weight", "conv_shortcut.weight"},
                                           {"shortcut.bias", "conv_shortcut.bias"},
                                           {NULL, NULL}};
    int i;
    const char *half = strncmp(ours, "encoder.", 8) == 0 ? "encoder" : "decoder", *at, *in_half = ours + 8;
    if ((at = after(ours, "encoder.downsamples.", &i)))
        snprintf(out, n, "encoder.down_blocks.%d.%s", i, row(inner, at));
    else if ((at = after(ours, "decoder.upsamples.", &i)))
        snprintf(out, n, "decoder.up_blocks.%d.%s.%d.%s", i / 4, i % 4 == 3 ? "upsamplers" : "resnets",
                 i % 4 == 3 ? 0 : i % 4, row(inner, at));
    else if (strncmp(ours, "conv", 4) == 0)
        snprintf(out, n, "%s%s", ours[4] == '1' ? "quant_conv" : "post_quant_conv", ours + 5);
    else if ((at = after(in_half, "middle.", &i)))
        snprintf(out, n, "%s.mid_block.%s.%d.%s", half, i == 1 ? "attentions" : "resnets", i / 2, row(inner, at));
    else if ((at = after(in_half, "head.", &i)))
        snprintf(out, n, "%s.%s.%s", half, i == 0 ? "norm_out" : "conv_out", at);
    else
        snprintf(out, n, "%s.conv_in.%s", half, in_half + strlen("conv1."));
}

// ---- there and back

// The heads of `l` under others' names. CLIP's attention is split in three, which are the same bytes.
static int64_t spell(struct tensor_head *head, const struct synth_list *l, spell_fn *fn)
{
    int64_t n = 0;
    for (int64_t i = 0; i < l->n; i++) {
        const struct tensor_head *h = &l->head[i];
        const char *qkv = strstr(h->name, ".attn.to_qkv.");
        int layer = 0;
        if (qkv) assert_non_null(after(h->name, "visual.transformer.", &layer));
        for (int k = 0; qkv && k < 3; k++) {
            head[n] = *h;
            head[n].shape[0] /= 3;
            snprintf(head[n++].name, TENSOR_NAME_MAX, "vision_model.encoder.layers.%d.self_attn.%c_proj.%s", layer,
                     "qkv"[k], qkv + 13);
        }
        if (qkv) continue;
        head[n] = *h;
        fn(head[n++].name, TENSOR_NAME_MAX, h->name);
    }
    assert_true(n < HEADS_MAX);
    return n;
}

static void save(const struct synth_list *l, const struct tensor_head *head, int64_t n, char *path, size_t size)
{
    struct safetensors_out *s = NULL;
    snprintf(path, size, "%s/model.safetensors", top);
    OK(safetensors_create(&s, path, head, n, NULL, ep));
    for (int64_t i = 0; i < l->n; i++) {
        size_t bytes = (size_t)head_bytes(&l->head[i]);
        void *v = malloc(bytes);
        assert_non_null(v);
        list_fill(l, i, 0, (int64_t)bytes / dtype_size(l->dtype), v);
        OK(safetensors_put(s, v, bytes, ep));
        free(v);
    }
    OK(safetensors_close(&s, ep));
}

static void comes_back(void (*list)(struct synth_list *l, const struct synth_sizes *s), spell_fn *fn)
{
    static struct tensor_head head[HEADS_MAX];
    struct synth_list l = {.label = "", .seed = SEED, .dtype = DT_F16};
    struct weights *w = NULL;
    char path[128];
    list(&l, &synth_tiny);
    save(&l, head, spell(head, &l, fn), path, sizeof path);
    OK(weights_open(&w, path, ep));
    for (int64_t i = 0; i < l.n; i++) {
        tensor t = NO_TENSOR;
        OK(weights_get(w, l.head[i].name, &t, ep));
        void *v = malloc((size_t)head_bytes(&l.head[i]));
        assert_non_null(v);
        list_fill(&l, i, 0, tensor_count(t), v);
        assert_int_equal(tensor_bytes(t), head_bytes(&l.head[i]));
        assert_memory_equal(t.data, v, (size_t)head_bytes(&l.head[i]));
        free(v);
    }
    weights_free(&w);
    list_free(&l);
}

static void the_transformer_comes_back(void **state)
{
    (void)state;
    comes_back(list_dit, diffusers);
    comes_back(list_dit, comfy);
    comes_back(list_adapter, renamed_adapter);
    comes_back(list_adapter, comfy);
}

static void encoders_come_back(void **state)
{
    (void)state;
    comes_back(list_text, hugging_face_text);
    comes_back(list_vae, diffusers_vae);
}

// What the other spelling does not have, or has transposed.
static void list_clip_bare(struct synth_list *l, const struct synth_sizes *s)
{
    int64_t n = 0;
    list_clip(l, s);
    for (int64_t i = 0; i < l->n; i++) {
        if (strcmp(l->head[i].name, "visual.head") == 0 || strcmp(l->head[i].name, "log_scale") == 0) continue;
        l->head[n] = l->head[i];
        l->draw[n++] = l->draw[i];
    }
    l->n = n;
}

static void the_picture_encoder_comes_back(void **state)
{
    (void)state;
    comes_back(list_clip_bare, hugging_face_clip);
}

// ---- what may go wrong

static void two_spellings_of_one_are_refused(void **state)
{
    (void)state;
    struct synth_list l = {.label = "", .dtype = DT_F32};
    struct weights *w = NULL;
    struct err e = {0};
    char path[128];
    struct draw d = {0};
    list_add(&l, d, SHAPE(2), "condition_embedder.time_proj.weight");
    list_add(&l, d, SHAPE(2), "time_projection.1.weight");
    save(&l, l.head, l.n, path, sizeof path);
    assert_int_equal(weights_open(&w, path, &e), E_INPUT);
    assert_non_null(strstr(e.text, "time_projection.1.weight' in two spellings"));
    list_free(&l);
}

static void an_adapter_lies_over_its_base(void **state)
{
    (void)state;
    struct synth_list base = {.label = "base", .dtype = DT_F32}, over = {.label = "over", .dtype = DT_F32};
    struct weights *w = NULL;
    char path[128], second[192];
    tensor t = NO_TENSOR;
    float v;
    list_dit(&base, &synth_tiny);
    save(&base, base.head, base.n, path, sizeof path);
    snprintf(second, sizeof second, "%s.second", path);
    OK(weights_open(&w, path, ep));
    int64_t n = weights_count(w);
    assert_int_equal(rename(path, second), 0);
    list_add(&over, (struct draw){1, 0}, SHAPE(128), "model.diffusion_model.patch_embedding.bias");
    list_add(&over, (struct draw){1, 0}, SHAPE(3), "model.diffusion_model.multitalk_audio_proj.proj1.weight");
    save(&over, over.head, over.n, path, sizeof path);
    OK(weights_add(w, path, ep));
    assert_int_equal(weights_count(w), n + 1);
    OK(weights_get(w, "patch_embedding.bias", &t, ep));
    memcpy(&v, t.data, sizeof v);
    assert_true(v == 1);
    OK(weights_get(w, "audio_proj.proj1.weight", &t, ep));
    weights_free(&w);
    list_free(&base);
    list_free(&over);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_transformer_comes_back),     cmocka_unit_test(encoders_come_back),
        cmocka_unit_test(the_picture_encoder_comes_back), cmocka_unit_test(two_spellings_of_one_are_refused),
        cmocka_unit_test(an_adapter_lies_over_its_base),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
