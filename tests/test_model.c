// A model folder: published values, config.json, model.yaml, the parts' places; and how frames are counted.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/spec.h"
#include "tests/folder.h"

// Writes a file below the test's folder, making the folders on its way.
static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", top, name);
    for (char *c = path + strlen(top) + 1; (c = strchr(c, '/')); c++) {
        *c = 0;
        mkdir(path, 0700);
        *c = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int begin(void **state)
{
    (void)state;
    return top_make("test_model");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

static void opened(struct model *m, const char *folder)
{
    char path[512];
    struct err e = {0};
    snprintf(path, sizeof path, "%s%s%s", top, *folder ? "/" : "", folder);
    if (model_open(m, path, &e) < 0) fail_msg("%s", e.text);
}

static void an_empty_folder_is_the_published_model(void **state)
{
    (void)state;
    struct model m;
    opened(&m, "");
    assert_int_equal(m.n_sizes, 2);
    assert_string_equal(m.size[0].name, "infinitetalk-480");
    assert_int_equal(m.size[0].n, 15);
    assert_int_equal(m.size[1].n, 21);
    assert_true(m.size[0].shift == 7 && m.size[1].shift == 11);
    assert_int_equal(m.frame_num, 81);
    assert_int_equal(m.motion_frame, 9);
    assert_int_equal(m.dit_heads, 40);
    struct err e = {0};
    assert_int_equal(model_missing(&m, &e), E_INPUT);
    for (const char **p = (const char *[]){"dit (", "adapter (", "text (", "tokenizer (", "clip (", "vae (", "voice (",
                                           "Wan2.1_VAE.pth", NULL};
         *p; p++)
        if (!strstr(e.text, *p)) fail_msg("\"%s\" lacks \"%s\"", e.text, *p);
}

// Every published size is a multiple of 64 of nearly the area that its name tells, and its key rounds its ratio.
static void published_tables_are_sound(void **state)
{
    (void)state;
    struct model m;
    opened(&m, "");
    for (int i = 0; i < m.n_sizes; i++) {
        double area = i == 0 ? 640.0 * 640 : 960.0 * 960;
        for (int k = 0; k < m.size[i].n; k++) {
            struct bucket b = m.size[i].bucket[k];
            double ratio = (double)b.h / b.w, used = b.h * (double)b.w / area;
            if (b.h % 64 || b.w % 64 || used < 0.88 || used > 1.08 || ratio / b.key < 0.97 || ratio / b.key > 1.03)
                fail_msg("%s: %g %d %d", m.size[i].name, b.key, b.h, b.w);
            if (k > 0) assert_true(b.key > m.size[i].bucket[k - 1].key);
        }
    }
}

// The step cache's polynomial goes by the published size's name, else by the area of the pictures, unless it is
// declared.
static void the_step_cache_is_chosen_by_size(void **state)
{
    (void)state;
    const double *small = model_teacache("infinitetalk-480", 0), *large = model_teacache("infinitetalk-720", 0);
    assert_true(small[0] == 2.57151496e+05 && large[0] == 8.10705460e+03 && large[4] == -4.17769401e-02);
    assert_ptr_equal(model_teacache("tiny-720", 64.0 * 64), small);
    assert_ptr_equal(model_teacache("mine", 1280.0 * 720), large);
    assert_ptr_equal(model_teacache("mine", 832.0 * 480), small);
    struct model m;
    put("model.yaml", "sizes:\n  - {name: x-720, buckets: [[1.0, 64, 64]]}\n"
                      "  - {name: y, buckets: [[1.0, 960, 960]]}\n"
                      "  - {name: z, buckets: [[1.0, 64, 64]], teacache: [0, 0, 1, 0, 0.5]}\n");
    opened(&m, "");
    assert_memory_equal(m.size[0].teacache, small, sizeof m.size[0].teacache);
    assert_memory_equal(m.size[1].teacache, large, sizeof m.size[1].teacache);
    assert_true(m.size[2].teacache[2] == 1 && m.size[2].teacache[4] == 0.5);
}

static void buckets_are_chosen_by_printed_key(void **state)
{
    (void)state;
    static const struct {
        int size, src_h, src_w, h, w;
    } rows[] = {
        {0, 1080, 1920, 448, 896},  {0, 720, 1280, 448, 896},   {0, 1318, 2366, 448, 896},  {0, 1024, 1024, 640, 640},
        {0, 1920, 1080, 832, 448},  {1, 1080, 1920, 704, 1280}, {1, 1920, 1080, 1280, 704}, {1, 1024, 1024, 960, 960},
        {0, 1, 100, 320, 1216},     {0, 100, 1, 1280, 320},     {0, 586, 1000, 512, 768},   {0, 584, 1000, 448, 896},
        {0, 8000, 3000, 1088, 384}, // 2.667 is nearer to 2.83 as printed, by a little
    };
    struct model m;
    opened(&m, "");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct bucket *b = model_bucket(&m.size[rows[i].size], rows[i].src_h, rows[i].src_w);
        if (b->h != rows[i].h || b->w != rows[i].w)
            fail_msg("%d x %d gives %d x %d", rows[i].src_h, rows[i].src_w, b->h, b->w);
    }
    struct bucket_table tie = {.n = 2, .bucket = {{1.5, 16, 16}, {0.5, 32, 32}}};
    assert_int_equal(model_bucket(&tie, 100, 100)->h, 16); // the first wins
}

static void published_layouts_are_found(void **state)
{
    (void)state;
    static const char *const files[] = {
        "weights/Wan2.1-I2V-14B-480P/diffusion_pytorch_model-00001-of-00007.safetensors",
        "weights/Wan2.1-I2V-14B-480P/models_t5_umt5-xxl-enc-bf16.pth",
        "weights/Wan2.1-I2V-14B-480P/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "weights/Wan2.1-I2V-14B-480P/Wan2.1_VAE.pth",
        "weights/Wan2.1-I2V-14B-480P/google/umt5-xxl/tokenizer.json",
        "weights/InfiniteTalk/single/infinitetalk.safetensors",
        "weights/InfiniteTalk/multi/infinitetalk.safetensors",
        "weights/chinese-wav2vec2-base/pytorch_model.bin",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) put(files[i], "");
    put("weights/Wan2.1-I2V-14B-480P/config.json",
        "{\"model_type\":\"i2v\",\"num_heads\":12,\"eps\":1e-5,\"text_len\":77,\"_class_name\":\"WanModel\"}");
    static const char *const folders[] = {"weights", "weights/Wan2.1-I2V-14B-480P"};
    for (int i = 0; i < 2; i++) {
        struct model m;
        struct err e = {0};
        opened(&m, folders[i]);
        if (model_missing(&m, &e) < 0) fail_msg("%s: %s", folders[i], e.text);
        assert_non_null(strstr(m.dit, "Wan2.1-I2V-14B-480P"));
        assert_non_null(strstr(m.adapter, "single/"));
        assert_non_null(strstr(m.adapter2, "multi/"));
        assert_int_equal(m.dit_heads, 12);
        assert_int_equal(m.text_len, 77);
        assert_true(m.dit_eps == 1e-5);
    }
}

static void a_small_model_declares_itself(void **state)
{
    (void)state;
    put("tiny/config.json", "{\"num_heads\": 4}");
    put("tiny/dit.safetensors", "");
    put("tiny/model.yaml", "name: tiny\n"
                           "sizes:\n"
                           "  - {name: tiny, shift: 5, buckets: [[0.67, 32, 48], [1.00, 48, 48]]}\n"
                           "frame_num: 17\nmotion-frame: 5\nsteps: 2\ntext-scale: 1\naudio_scale: 2.5\n"
                           "dit-heads: 8\nclip-image: 32\n"
                           "dit: dit.safetensors\nadapter: ../a.safetensors\nvoice: /absolute/voice\n");
    struct model m;
    opened(&m, "tiny");
    assert_string_equal(m.name, "tiny");
    assert_int_equal(m.n_sizes, 1);
    assert_int_equal(m.size[0].bucket[0].w, 48);
    assert_true(m.size[0].shift == 5 && m.audio_scale == 2.5 && m.text_scale == 1);
    assert_int_equal(m.frame_num, 17);
    assert_int_equal(m.dit_heads, 8); // over config.json
    assert_int_equal(m.clip_image, 32);
    assert_int_equal(m.text_heads, 64);
    char path[512];
    snprintf(path, sizeof path, "%s/tiny/../a.safetensors", top);
    assert_string_equal(m.adapter, path);
    assert_string_equal(m.adapter2, "");
    assert_string_equal(m.voice, "/absolute/voice");
    struct err e = {0};
    assert_int_equal(model_missing(&m, &e), E_INPUT);
    assert_non_null(strstr(e.text, "voice (/absolute/voice)"));
    assert_null(strstr(e.text, "dit ("));
    const struct bucket_table *t = NULL;
    assert_int_equal(model_size(&m, "tiny", &t, &e), 0);
    assert_int_equal(model_size(&m, "infinitetalk-480", &t, &e), E_INPUT);
    assert_string_equal(e.text, "the model has no size 'infinitetalk-480'; it has tiny");
}

static void relative_folders_become_absolute(void **state)
{
    (void)state;
    char here[512];
    struct model m;
    assert_non_null(getcwd(here, sizeof here));
    put("rel/dit.safetensors", "");
    put("rel/model.yaml", "dit: dit.safetensors\n");
    assert_int_equal(chdir(top), 0);
    int rc = model_open(&m, "rel", NULL);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(rc, 0);
    assert_true(m.dit[0] == '/' && access(m.dit, F_OK) == 0);
}

static void wrong_declarations_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text, *says;
    } rows[] = {
        {"model.yaml", "audio-scael: 3\n", "unknown key audio-scael; did you mean audio-scale?"},
        {"model.yaml", "frame-num: 80\n", "multiple of 4 and 1"},
        {"model.yaml", "frame-num: 9\nmotion-frame: 9\n", "leaves nothing new"},
        {"model.yaml", "range: photos\n", "people"},
        {"model.yaml", "steps: 0\n", "not between 1 and 1000"},
        {"model.yaml", "steps: two\n", "not a whole number"},
        {"model.yaml", "steps: [1]\n", "wants one value"},
        {"model.yaml", "sizes: big\n", "wants a list"},
        {"model.yaml", "sizes: []\n", "1 to 4 sizes"},
        {"model.yaml", "sizes: [{name: a, buckets: []}]\n", "1 to 64 buckets"},
        {"model.yaml", "sizes: [{buckets: [[1, 32, 32]]}]\n", "wants a name"},
        {"model.yaml", "sizes: [{name: a, buckets: [[1, 32, 33]]}]\n", "multiples of 16"},
        {"model.yaml", "sizes: [{name: a, buckets: [[1, 32]]}]\n", "not [key, height, width]"},
        {"model.yaml", "sizes: [{name: a, buckets: [[0, 32, 32]]}]\n", "not a ratio"},
        {"model.yaml", "sizes: [{name: a, buckets: [[1, 32, 32]], shfit: 3}]\n", "knows name, shift, buckets"},
        {"model.yaml", "sizes: [{name: a, buckets: [[1, 32, 32]], teacache: [1, 2]}]\n", "wants 5 numbers"},
        {"model.yaml", "sizes: [{name: a, buckets: [[1, 32, 32]]}, {name: a, buckets: [[1, 32, 32]]}]\n", "twice"},
        {"model.yaml", "vae: ''\n", "wants a path"},
        {"model.yaml", "- 1\n", "not a list of keys"},
        {"config.json", "{\"model_type\": \"t2v\"}", "image-to-video"},
        {"config.json", "{\"num_heads\": \"40\"}", "num_heads"},
        {"config.json", "{\"eps\": 0}", "eps"},
        {"config.json", "[]", "not an object"},
        {"config.json", "{", "not valid JSON"},
    };
    char path[512];
    snprintf(path, sizeof path, "%s/wrong", top);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model m;
        struct err e = {0};
        put("wrong/model.yaml", "");
        put("wrong/config.json", "{}");
        assert_int_equal(model_open(&m, path, NULL), 0);
        char name[64];
        snprintf(name, sizeof name, "wrong/%s", rows[i].file);
        put(name, rows[i].text);
        if (model_open(&m, path, &e) != E_INPUT) fail_msg("taken: %s", rows[i].text);
        if (!strstr(e.text, rows[i].says) || !strstr(e.text, rows[i].file))
            fail_msg("%s: \"%s\" lacks \"%s\"", rows[i].text, e.text, rows[i].says);
    }
    struct model m;
    struct err e = {0};
    assert_int_equal(model_open(&m, "/nowhere/at/all", &e), E_INPUT);
    assert_non_null(strstr(e.text, "/nowhere/at/all"));
}

static void frames_and_segments(void **state)
{
    (void)state;
    assert_int_equal(spec_frames(0, 16000), 1);
    assert_int_equal(spec_frames(52480, 16000), 82);
    assert_int_equal(spec_frames(320, 16000), 1); // half a frame
    assert_int_equal(spec_frames(959, 16000), 1);
    assert_int_equal(spec_frames(960, 16000), 2); // 1.5 rounds up
    assert_int_equal(spec_frames(INT64_MAX / 32, 44100), INT64_MAX / 32 / 1764 + (INT64_MAX / 32 % 1764 >= 882));
    static const int64_t rows[][2] = {{1, 1}, {81, 1}, {82, 2}, {153, 2}, {154, 3}, {1000, 14}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(spec_segments(rows[i][0], 81, 9, SPEC_STREAMING), rows[i][1]);
    assert_int_equal(spec_segments(1000, 81, 9, SPEC_CLIP), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_folder_is_the_published_model, begin, end),
        cmocka_unit_test_setup_teardown(published_tables_are_sound, begin, end),
        cmocka_unit_test_setup_teardown(the_step_cache_is_chosen_by_size, begin, end),
        cmocka_unit_test_setup_teardown(buckets_are_chosen_by_printed_key, begin, end),
        cmocka_unit_test_setup_teardown(published_layouts_are_found, begin, end),
        cmocka_unit_test_setup_teardown(a_small_model_declares_itself, begin, end),
        cmocka_unit_test_setup_teardown(relative_folders_become_absolute, begin, end),
        cmocka_unit_test_setup_teardown(wrong_declarations_are_refused, begin, end),
        cmocka_unit_test(frames_and_segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
