// Inspection: a whole model is called whole, what lacks is named, parts must fit each other, and hostile files are a
// sentence.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/folder.h"
#include "worker/inspect/inspect.h"
#include "worker/synth/parts.h"
#include "worker/synth/synth.h"
#include "worker/weights/write_safetensors.h"
#include "worker/weights_main.h"

static const char *at(char *buf, size_t n, const char *name)
{
    snprintf(buf, n, "%s/%s", top, name);
    return buf;
}

static int begin(void **state)
{
    (void)state;
    char dir[256];
    struct synth_report r;
    if (top_make("test_inspect") < 0) return -1;
    return synth_write(&(struct synth_options){.seed = 3, .dir = at(dir, sizeof dir, "tiny")}, &r, NULL);
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

// ---- asking

static json_t *tree_of(const char *name)
{
    char path[256];
    json_t *tree = inspect_path(at(path, sizeof path, name), true);
    char *text = json_dumps(tree, 0); // whatever the file says, the answer is JSON
    assert_non_null(text);
    free(text);
    return tree;
}

static void whole(const char *name, const char *holds)
{
    json_t *tree = tree_of(name);
    const json_t *problem = json_array_get(json_object_get(tree, "problems"), 0);
    if (!json_is_true(json_object_get(tree, "whole"))) fail_msg("%s: %s", name, json_string_value(problem));
    assert_null(problem);
    const json_t *part = json_array_get(json_object_get(tree, "parts"), 0);
    if (holds) assert_string_equal(json_string_value(json_array_get(json_object_get(part, "holds"), 0)), holds);
    json_decref(tree);
}

// Some problem must have `words`.
static void not_whole(const char *name, const char *words)
{
    json_t *tree = tree_of(name), *problem;
    size_t i;
    bool found = false;
    assert_true(json_is_false(json_object_get(tree, "whole")));
    json_array_foreach(json_object_get(tree, "problems"), i, problem) found |=
        strstr(json_string_value(problem), words) != NULL;
    if (!found)
        fail_msg("%s: '%s' is not among the problems, which begin with '%s'", name, words,
                 json_string_value(json_array_get(json_object_get(tree, "problems"), 0)));
    json_decref(tree);
}

// ---- models

static void a_whole_model_is_called_so(void **state)
{
    (void)state;
    json_t *tree = tree_of("tiny");
    assert_string_equal(json_string_value(json_object_get(tree, "kind")), "model");
    assert_int_equal(json_array_size(json_object_get(tree, "parts")), 8);
    json_decref(tree);
    whole("tiny", "dit");
    whole("tiny/InfiniteTalk/multi/infinitetalk.safetensors", "adapter");
    whole("tiny/models_t5_umt5-xxl-enc-bf16.pth", "text");
    whole("tiny/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", "clip");
    whole("tiny/Wan2.1_VAE.pth", "vae");
    whole("tiny/chinese-wav2vec2-base", "voice");
    whole("tiny/google/umt5-xxl", "tokenizer");
    whole("tiny/diffusion_pytorch_model.safetensors.index.json", "dit");
}

static void move(const char *from, const char *to)
{
    char a[256], b[256];
    assert_int_equal(rename(at(a, sizeof a, from), at(b, sizeof b, to)), 0);
}

static void what_lacks_is_named(void **state)
{
    (void)state;
    move("tiny/Wan2.1_VAE.pth", "vae");
    not_whole("tiny", "lacks vae (Wan2.1_VAE.pth)");
    move("vae", "tiny/Wan2.1_VAE.pth");
    move("tiny/chinese-wav2vec2-base/pytorch_model.bin", "bin");
    not_whole("tiny", "holds neither model.safetensors nor pytorch_model.bin");
    move("bin", "tiny/chinese-wav2vec2-base/pytorch_model.bin");
    move("tiny/google/umt5-xxl/tokenizer.json", "json");
    not_whole("tiny", "tokenizer.json");
    move("json", "tiny/google/umt5-xxl/tokenizer.json");
    not_whole("nothing", "No such file");
    whole("tiny", "dit");
}

static void parts_must_fit_each_other(void **state)
{
    (void)state;
    char dir[256];
    struct synth_report r;
    struct synth_options deep = {.seed = 3, .layers = 3, .dir = at(dir, sizeof dir, "deep")};
    OK(synth_write(&deep, &r, ep));
    whole("deep", "dit");
    move("tiny/InfiniteTalk/single/infinitetalk.safetensors", "adapter");
    move("deep/InfiniteTalk/single/infinitetalk.safetensors", "tiny/InfiniteTalk/single/infinitetalk.safetensors");
    not_whole("tiny", "dit has layers 2, adapter has layers 3");
    move("adapter", "tiny/InfiniteTalk/single/infinitetalk.safetensors");
}

// ---- files

// A file of zeros with the tensors of `l`.
static void save(const struct synth_list *l, const char *name)
{
    char path[256];
    struct safetensors_out *s = NULL;
    uint8_t *zeros = calloc(1, (size_t)list_bytes(l) + 1);
    assert_non_null(zeros);
    OK(safetensors_create(&s, at(path, sizeof path, name), l->head, l->n, NULL, ep));
    OK(safetensors_put(s, zeros, (size_t)list_bytes(l), ep));
    OK(safetensors_close(&s, ep));
    free(zeros);
}

static void drop(struct synth_list *l, const char *name)
{
    int64_t n = 0;
    for (int64_t i = 0; i < l->n; i++)
        if (!strstr(l->head[i].name, name)) l->head[n++] = l->head[i];
    assert_true(n < l->n);
    l->n = n;
}

static void one_lacking_tensor_is_named(void **state)
{
    (void)state;
    struct synth_list l = {.label = "", .dtype = DT_F32};
    list_adapter(&l, &synth_tiny);
    drop(&l, "blocks.1.audio_cross_attn.proj.bias");
    save(&l, "adapter.safetensors");
    not_whole("adapter.safetensors", "adapter lacks 1 of 26 tensors: blocks.1.audio_cross_attn.proj.bias");
    list_free(&l);
    list_dit(&l, &synth_tiny);
    l.head[10].shape[0]++;
    save(&l, "bent.safetensors");
    not_whole("bent.safetensors", "does not fit the other shapes");
    l.head[10].shape[0]--;
    drop(&l, "_img");
    drop(&l, "img_emb");
    save(&l, "t2v.safetensors");
    not_whole("t2v.safetensors", "text-to-video");
    list_free(&l);
    list_voice(&l, &synth_tiny); // without prefix and heads, as single files circulate
    drop(&l, "project_");
    drop(&l, "quantizer");
    for (int64_t i = 0; i < l.n; i++) memmove(l.head[i].name, l.head[i].name + 9, strlen(l.head[i].name + 9) + 1);
    save(&l, "voice.safetensors");
    whole("voice.safetensors", "voice");
    list_free(&l);
}

static void loras_are_summed_up(void **state)
{
    (void)state;
    struct synth_list l = {.label = "", .dtype = DT_F32};
    struct draw d = {0};
    for (int i = 0; i < 12; i++) {
        list_add(&l, d, SHAPE(i < 6 ? 4 : 8, 16), "diffusion_model.blocks.%d.self_attn.q.lora_down.weight", i);
        list_add(&l, d, SHAPE(16, i < 6 ? 4 : 8), "diffusion_model.blocks.%d.self_attn.q.lora_up.weight", i);
        list_add(&l, d, SHAPE(16), "diffusion_model.blocks.%d.norm3.diff", i);
    }
    save(&l, "lora.safetensors");
    whole("lora.safetensors", "lora");
    json_t *tree = tree_of("lora.safetensors"),
           *lora = json_object_get(json_array_get(json_object_get(tree, "parts"), 0), "lora");
    assert_int_equal(json_integer_value(json_object_get(lora, "pairs")), 12);
    assert_int_equal(json_integer_value(json_object_get(lora, "changes")), 12);
    assert_int_equal(json_array_size(json_object_get(lora, "ranks")), 2);
    const json_t *targets = json_object_get(lora, "targets");
    assert_int_equal(json_integer_value(json_object_get(targets, "blocks.N.self_attn.q")), 12);
    json_decref(tree);
    list_add(&l, d, SHAPE(1), "diffusion_model.blocks.0.self_attn.q.dora_scale");
    save(&l, "dora.safetensors");
    not_whole("dora.safetensors", "DoRA");
    list_free(&l);
}

static void hostile_files_are_a_sentence(void **state)
{
    (void)state;
    char path[256];
    static const struct {
        const char *bytes, *words;
    } file[] = {
        {"", "is empty"},
        {"<html>404</html>", "web page"},
        {"version https://git-lfs.github.com/spec/v1", "LFS"},
        {"GGUF\3\0\0\0", "GGUF"},
        {"no weights at all, just words", "no weights file"},
        {"PK\5\6\0\0\0\0\0\0", "empty zip"},
    };
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        FILE *f = fopen(at(path, sizeof path, "hostile"), "wb");
        assert_non_null(f);
        fputs(file[i].bytes, f);
        fclose(f);
        not_whole("hostile", file[i].words);
    }
}

// A terminal obeys no name of a stranger's tensor.
static void names_are_printed_tamely(void **state)
{
    (void)state;
    struct synth_list l = {.label = "", .dtype = DT_F32};
    char *text = NULL;
    size_t n = 0;
    list_add(&l, (struct draw){0}, SHAPE(2), "evil \033[2J\r\n name \xc3\xa9");
    save(&l, "unknown.safetensors");
    list_free(&l);
    not_whole("unknown.safetensors", "no part of a model");
    json_t *tree = tree_of("unknown.safetensors");
    FILE *to = open_memstream(&text, &n);
    inspect_print(tree, to);
    fclose(to);
    assert_non_null(strstr(text, "evil ?[2J?? name \xc3\xa9 [2] F32"));
    assert_null(strchr(text, 033));
    free(text);
    json_decref(tree);
}

// Whatever prefix of a real file is left, it is refused in words.
static void cut_files_are_a_sentence(void **state)
{
    (void)state;
    char path[256], copy[256];
    at(path, sizeof path, "tiny/models_t5_umt5-xxl-enc-bf16.pth");
    at(copy, sizeof copy, "cut.pth");
    for (long n = 1; n < 200000; n = n * 3 + 1) {
        char command[640];
        snprintf(command, sizeof command, "head -c %ld '%s' > '%s'", n, path, copy);
        assert_int_equal(system(command), 0);
        not_whole("cut.pth", "cut.pth");
    }
}

static void exit_statuses_are_as_promised(void **state)
{
    (void)state;
    char path[256], none[256];
    at(path, sizeof path, "tiny");
    at(none, sizeof none, "none");
    assert_int_equal(weights_main(3, (char *[]){"weights", "inspect", path, NULL}), 0);
    assert_int_equal(weights_main(4, (char *[]){"weights", "inspect", path, "--json", NULL}), 0);
    assert_int_equal(weights_main(3, (char *[]){"weights", "inspect", none, NULL}), 3);
    assert_int_equal(weights_main(2, (char *[]){"weights", "inspect", NULL}), 2);
    assert_int_equal(weights_main(4, (char *[]){"weights", "inspect", path, "--jsn", NULL}), 2);
    assert_int_equal(weights_main(4, (char *[]){"weights", "inspect", path, none, NULL}), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_model_is_called_so),    cmocka_unit_test(what_lacks_is_named),
        cmocka_unit_test(parts_must_fit_each_other),     cmocka_unit_test(one_lacking_tensor_is_named),
        cmocka_unit_test(loras_are_summed_up),           cmocka_unit_test(hostile_files_are_a_sentence),
        cmocka_unit_test(names_are_printed_tamely),      cmocka_unit_test(cut_files_are_a_sentence),
        cmocka_unit_test(exit_statuses_are_as_promised),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
