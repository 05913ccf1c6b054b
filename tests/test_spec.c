// A job's keys: defaults from the model, refusals by name with the way out, the published program's JSON and flags.
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

static char dir[] = "/tmp/test_spec_XXXXXX", file[64];

static struct model sample_model(void)
{
    struct model m = {.n_sizes = 2,
                      .frame_num = 81,
                      .motion_frame = 9,
                      .steps = 40,
                      .fps = 25,
                      .text_scale = 5,
                      .audio_scale = 4,
                      .color_strength = 1};
    strcpy(m.size[0].name, "infinitetalk-480");
    strcpy(m.size[1].name, "infinitetalk-720");
    m.size[0].shift = 7;
    m.size[1].shift = 11;
    return m;
}

struct pair {
    const char *key, *text;
};

static int build(struct spec *s, const struct pair *pairs, struct err *e)
{
    spec_init(s);
    struct model m = sample_model();
    for (; pairs->key; pairs++) {
        char from[64];
        snprintf(from, sizeof from, "--%s", pairs->key);
        if (spec_set(s, "flag", from, pairs->key, strcmp(pairs->text, "@") == 0 ? file : pairs->text, e) < 0)
            return E_INPUT;
    }
    return spec_resolve(s, &m, e);
}

#define GOOD                                                                                                           \
    {"image", "@"}, {"audio", "@"}, { "output", "/tmp/out.mp4" }

static void defaults_come_from_the_model(void **state)
{
    (void)state;
    struct spec s;
    struct err e = {0};
    assert_int_equal(build(&s, (struct pair[]){GOOD, {"size", "infinitetalk-720"}, {0}}, &e), 0);
    assert_int_equal(s.r.frame_num, 81);
    assert_int_equal(s.r.motion_frame, 9);
    assert_int_equal(s.r.steps, 40);
    assert_true(s.r.shift == 11 && s.r.text_scale == 5 && s.r.audio_scale == 4);
    assert_int_equal(s.r.n_speakers, 1);
    assert_int_equal(s.r.seed, 42);
    assert_int_equal(s.r.tail, SPEC_TAIL_SILENCE);
    assert_int_equal(s.max_frame_num, 0);
    assert_int_equal(s.crf, 18);
    spec_free(&s);
    assert_int_equal(
        build(&s, (struct pair[]){GOOD, {"parity", "published"}, {"base_seed", "7"}, {"lora_dir", "@"}, {0}}, &e), 0);
    assert_int_equal(s.r.tail, SPEC_TAIL_MIRROR);
    assert_int_equal(s.max_frame_num, 1000);
    assert_int_equal(s.r.seed, 7);
    assert_int_equal(s.n_lora, 1);
    assert_true(s.lora_scale[0] == 1.2); // what the published program takes
    spec_free(&s);
    assert_int_equal(build(&s, (struct pair[]){GOOD, {"lora_dir", "@"}, {0}}, &e), 0);
    assert_true(s.lora_scale[0] == 1.0);
    spec_free(&s);
}

// A published command line names one of two sizes; a model that knows neither takes it all the same.
static void a_published_size_fits_every_model(void **state)
{
    (void)state;
    struct model m = sample_model();
    struct spec s;
    struct err e = {0};
    strcpy(m.size[0].name, "tiny");
    m.n_sizes = 1;
    const char *const asked[] = {"infinitetalk-480", "infinitetalk-720", "infinitetalk-480p", "large"};
    for (size_t i = 0; i < 4; i++) {
        const struct pair pairs[] = {GOOD, {"size", asked[i]}};
        spec_init(&s);
        for (size_t k = 0; k < 4; k++) {
            const char *text = strcmp(pairs[k].text, "@") == 0 ? file : pairs[k].text;
            assert_int_equal(spec_set(&s, "flag", pairs[k].key, pairs[k].key, text, &e), 0);
        }
        assert_int_equal(spec_resolve(&s, &m, &e), i < 2 ? 0 : E_INPUT);
        if (i < 2) {
            assert_string_equal(s.r.size, "tiny");
            assert_true(s.r.shift == 7);
            assert_non_null(strstr(s.notices, asked[i]));
        }
        spec_free(&s);
    }
    m = sample_model();
    m.n_sizes = 1; // a model that knows one of the two does not take the other for it
    spec_init(&s);
    const struct pair pairs[] = {GOOD, {"size", "infinitetalk-720"}};
    for (size_t k = 0; k < 4; k++)
        spec_set(&s, "flag", pairs[k].key, pairs[k].key, strcmp(pairs[k].text, "@") == 0 ? file : pairs[k].text, &e);
    assert_int_equal(spec_resolve(&s, &m, &e), E_INPUT);
    spec_free(&s);
}

static void an_output_never_replaces_an_input(void **state)
{
    (void)state;
    char film[80], link_name[80], says[160];
    struct spec s;
    struct err e = {0};
    snprintf(film, sizeof film, "%s.mp4", file);
    snprintf(link_name, sizeof link_name, "%s.link.mp4", file);
    FILE *f = fopen(film, "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(symlink(film, link_name), 0);
    const char *const keys[] = {"video", "audio", "audio2", "mask1"};
    for (size_t i = 0; i < 4; i++) {
        const struct pair pairs[] = {
            {"video", file}, {"audio", file},       {"audio2", file},     {"audio-type", "para"}, {"mask1", file},
            {"mask2", file}, {"output", link_name}, {"overwrite", "yes"}, {keys[i], film},        {0}};
        assert_int_equal(build(&s, pairs, &e), E_INPUT);
        snprintf(says, sizeof says, "-o %s is the file that --%s reads; choose another name", link_name, keys[i]);
        assert_string_equal(e.text, says);
        spec_free(&s);
    }
    unlink(film);
    unlink(link_name);
}

struct refusal {
    struct pair pairs[8];
    const char *says;
};

static void refusals_name_the_thing_and_the_way_out(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {{{"audio", "@"}, {"output", "/tmp/o.mp4"}}, "no picture; give --image FILE"},
        {{{"image", "@"}, {"output", "/tmp/o.mp4"}}, "no voice; give --audio FILE"},
        {{{"image", "@"}, {"video", "@"}, {"audio", "@"}, {"output", "/tmp/o.mp4"}}, "both --image and --video"},
        {{{"image", "/no/such.png"}, {"audio", "@"}, {"output", "/tmp/o.mp4"}},
         "--image: there is no file /no/such.png"},
        {{{"image", "/tmp"}, {"audio", "@"}, {"output", "/tmp/o.mp4"}}, "--image: /tmp is a folder; give a file"},
        {{{"image", "@"}, {"audio", "@"}}, "no output; give -o FILE.mp4"},
        {{{"image", "@"}, {"audio", "@"}, {"output", "/no/folder/o.mp4"}}, "there is no folder /no/folder"},
        {{{"image", "@"}, {"audio", "@"}, {"output", "/tmp"}}, "must end in .mp4"},
        {{GOOD, {"frame-num", "82"}}, "--frame-num: 82 is not of the form 4n+1; the nearest values are 81 and 85"},
        {{GOOD, {"frame-num", "4"}}, "--frame-num: 4 is not between 5 and 161"},
        {{GOOD, {"motion-frame", "6"}}, "--motion-frame: 6 is not of the form 4n+1; the nearest values are 5 and 9"},
        {{GOOD, {"frame-num", "9"}, {"motion-frame", "9"}}, "--motion-frame: 9"},
        {{GOOD, {"motion-frame", "0"}}, "--motion-frame: 0 is not between 1 and 157"},
        {{GOOD, {"sample-steps", "0"}}, "--sample-steps: 0 is not between 1 and 1000"},
        {{GOOD, {"size", "480p"}}, "480p"},
        {{GOOD, {"promt", "x"}}, "unknown flag --promt; did you mean --prompt?"},
        {{GOOD, {"audio2", "@"}}, "two voices need --audio-type: para"},
        {{GOOD, {"audio2", "@"}, {"audio-type", "both"}}, "'both' is none of: none, para, add"},
        {{GOOD, {"audio2", "@"}, {"audio-type", "add"}, {"box1", "1,2,30,40"}}, "a region is given for speaker 1 only"},
        {{GOOD, {"box1", "1,2,3"}}, "'1,2,3' is not four numbers"},
        {{GOOD, {"color-correction-strength", "2"}}, "2 is not between 0 and 1"},
        {{GOOD, {"preset", "quick"}}, "--preset: 'quick'"},
        {{GOOD, {"lora-dir", "@"}, {"lora-scale", "1"}, {"lora-scale", "2"}}, "1 LoRA files but 2 scales"},
        {{GOOD, {"quant", "int4"}}, "'int4' is neither int8 nor fp8"},
        {{GOOD, {"cuts", "1.5,soon"}}, "'soon' is no time; give seconds (12.5)"},
        {{GOOD, {"cuts", "-3"}}, "'-3' is no time"},
        {{GOOD, {"cuts", "auto"}, {"parity", "published"}}, "leave out --parity published, or the cuts"},
        {{GOOD, {"audio-mode", "tts"}}, "'tts' is not supported"},
        {{GOOD, {"task", "t2v-14B"}}, "infinitetalk-14B"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct spec s;
        struct err e = {0};
        assert_int_equal(build(&s, cases[i].pairs, &e), E_INPUT);
        if (!strstr(e.text, cases[i].says)) fail_msg("'%s' lacks '%s'", e.text, cases[i].says);
        assert_null(strchr(e.text, '\n'));
        spec_free(&s);
    }
}

static int from_json(struct spec *s, const char *text, struct err *e)
{
    json_t *tree = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(tree);
    spec_init(s);
    int rc = spec_read_tree(s, "job.json", tree, e);
    json_decref(tree);
    return rc;
}

static void the_published_json_is_read(void **state)
{
    (void)state;
    struct spec s;
    struct err e = {0};
    assert_int_equal(from_json(&s,
                               "{\"prompt\":\"two people\",\"cond_video\":\"a.png\",\"audio_type\":\"para\","
                               "\"cond_audio\":{\"person1\":\"1.wav\",\"person2\":\"None\"},"
                               "\"bbox\":{\"person1\":[160,120,1280,1080],\"person2\":[160,1320,1280,2280]},"
                               "\"video_audio\":\"sum.wav\",\"sample_steps\":8}",
                               &e),
                     0);
    assert_string_equal(s.prompt, "two people");
    assert_string_equal(s.image, "a.png");
    assert_string_equal(s.audio[0], "1.wav");
    assert_null(s.audio[1]);
    assert_int_equal(s.n_speakers, 2);
    assert_int_equal(s.audio_type, SPEC_PARA);
    assert_true(s.region[1].row0 == 160 && s.region[1].col0 == 1320 && s.region[1].row1 == 1280 &&
                s.region[1].col1 == 2280);
    assert_int_equal(s.r.steps, 8);
    spec_free(&s);
    assert_int_equal(from_json(&s, "{\"bbox_xyxy\":{\"person1\":[1,2,3,4],\"person2\":[5,6,7,8]}}", &e), 0);
    assert_true(s.region[0].col0 == 1 && s.region[0].row0 == 2 && s.region[0].col1 == 3 && s.region[0].row1 == 4);
    spec_free(&s);
}

static void wrong_json_is_refused(void **state)
{
    (void)state;
    static const struct pair cases[] = {
        {"[1]", "not a list of keys"},
        {"{\"promt\":\"x\"}", "unknown key promt; did you mean prompt?"},
        {"{\"cond_vidoe\":\"x\"}", "job.json: unknown key cond_vidoe; did you mean cond_video?"},
        {"{\"cond_audo\":{\"person1\":\"a\"}}", "job.json: unknown key cond_audo; did you mean cond_audio?"},
        {"{\"bbx\":{\"person1\":[1,2,3,4]}}", "did you mean bbox?"},
        {"{\"boxx\":\"1,2,3,4\"}", "did you mean box1?"},
        {"{\"cond_audio\":{}}", "cond_audio wants person1"},
        {"{\"cond_audio\":{\"person2\":\"a\"}}", "lacks person1"},
        {"{\"cond_audio\":{\"person1\":null}}", "wants a path"},
        {"{\"cond_audio\":{\"human\":\"a\"}}", "it knows person1 and person2"},
        {"{\"bbox\":{\"person1\":[1,2,3]}}", "not four numbers"},
        {"{\"cond_video\":\"a\",\"cond_image\":\"b\"}", "both given"},
        {"{\"tts_audio\":{}}", "tts_audio is not supported"},
        {"{\"prompt\":{}}", "prompt wants one value, not a list"},
        {"{\"prompt\":true}", "job.json: prompt: true is no text; put it in quotes"},
        {"{\"prompt\":12}", "prompt: 12 is no text; put it in quotes"},
        {"{\"negative-prompt\":1.5}", "negative-prompt: 1.5 is no text; put it in quotes"},
        {"{\"cond_video\":7}", "cond_video: 7 is no text; put it in quotes"},
        {"{\"audio\":false}", "audio: false is no text; put it in quotes"},
        {"{\"lora\":[1]}", "lora: 1 is no text; put it in quotes"},
        {"{\"prompt\":null}", "prompt has no value; give it one, or leave it out"},
        {"{\"seed\":null}", "seed has no value; give it one, or leave it out"},
        {"{\"image\":\"\"}", "job.json: image is an empty name; name a file, or leave it out"},
        {"{\"cond_audio\":{\"person1\":\"\"}}", "cond_audio.person1 is an empty name; name a file"},
        {"{\"mask_files\":{\"person1\":\"\"}}", "mask_files.person1 is an empty name; name a file"},
        {"{\"seed\":1.5}", "not a whole number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct spec s;
        struct err e = {0};
        assert_int_equal(from_json(&s, cases[i].key, &e), E_INPUT);
        if (!strstr(e.text, cases[i].text)) fail_msg("'%s' lacks '%s'", e.text, cases[i].text);
        spec_free(&s);
    }
}

static void same_tree(const struct spec *s)
{
    struct spec again;
    struct err e = {0};
    json_t *tree = spec_write(s);
    spec_init(&again);
    if (spec_read_tree(&again, "written", tree, &e) < 0) fail_msg("%s", e.text);
    json_t *second = spec_write(&again);
    char *one = json_dumps(tree, JSON_SORT_KEYS), *two = json_dumps(second, JSON_SORT_KEYS);
    assert_string_equal(one, two);
    free(one);
    free(two);
    json_decref(tree);
    json_decref(second);
    spec_free(&again);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static const char *const jobs[] = {
        "{}", "{\"image\":\"a \\\"b.png\",\"audio\":\"v.wav\",\"seed\":-1,\"use-apg\":true,\"shift\":7.1}",
        "{\"cond_video\":\"a.mp4\",\"cond_audio\":{\"person1\":\"None\",\"person2\":\"b\"},\"audio_type\":\"add\"}",
        ("{\"box1\":\"1.25,2,3,4e3\",\"mask2\":\"m.png\",\"lora\":[\"a\",\"b\"],\"lora_scale\":[0.1,3],"
         "\"negative-prompt\":\"\",\"audio-tail\":\"mirror\",\"parity\":\"published\",\"on-video-end\":\"loop\"}")};
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        struct spec s;
        struct err e = {0};
        if (from_json(&s, jobs[i], &e) < 0) fail_msg("%s", e.text);
        same_tree(&s);
        spec_free(&s);
    }
    struct spec s;
    struct err e = {0};
    assert_int_equal(from_json(&s, jobs[3], &e), 0);
    json_t *tree = spec_write(&s);
    assert_string_equal(json_string_value(json_object_get(tree, "box1")), "1.25,2,3,4000");
    assert_int_equal(json_array_size(json_object_get(tree, "lora-dir")), 2);
    assert_null(json_object_get(tree, "crf")); // nobody set it
    json_decref(tree);
    spec_free(&s);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) return -1;
    snprintf(file, sizeof file, "%s/file", dir);
    FILE *f = fopen(file, "w");
    return f ? fclose(f) : -1;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_come_from_the_model),      cmocka_unit_test(refusals_name_the_thing_and_the_way_out),
        cmocka_unit_test(the_published_json_is_read),        cmocka_unit_test(wrong_json_is_refused),
        cmocka_unit_test(what_is_written_is_read_back),      cmocka_unit_test(a_published_size_fits_every_model),
        cmocka_unit_test(an_output_never_replaces_an_input),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
