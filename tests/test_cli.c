// The built `longtake` against a worker without a model: what is refused and how, and what a job becomes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli.h"

#include <math.h>

enum { F = 17, M = 5 };

// ---- refusals

static void wrong_usage_is_refused_before_anything_is_made(void **state)
{
    (void)state;
    static const struct {
        const char *const args[24];
        int status;
        const char *says;
    } cases[] = {
        {{RENDER, "--audio", VOICE, "-o", "@o.mp4"}, 2, "no picture; give --image FILE"},
        {{RENDER, "--image", PORTRAIT, "-o", "@o.mp4"}, 2, "no voice; give --audio FILE"},
        {{RENDER, "--image", "@absent.png", "--audio", VOICE, "-o", "@o.mp4"}, 2, "absent.png"},
        {{RENDER, "--image", PORTRAIT, "--audio", "@absent.wav", "-o", "@o.mp4"}, 2, "absent.wav"},
        {{RENDER, "--image", "@", "--audio", VOICE, "-o", "@o.mp4"}, 2, "is a folder"},
        {{RENDER, "--image", PORTRAIT, "--audio", "@", "-o", "@o.mp4"}, 2, "is a folder"},
        {{RENDER, "--image", PORTRAIT, "--video", PORTRAIT, "--audio", VOICE, "-o", "@o.mp4"}, 2, "leave one out"},
        {{RENDER, "--image", "@text.png", "--audio", VOICE, "-o", "@o.mp4"}, 2, "neither a picture"},
        {{RENDER, "--image", VOICE, "--audio", VOICE, "-o", "@o.mp4"}, 2, "neither a picture"},
        {{RENDER, "--image", "@empty", "--audio", VOICE, "-o", "@o.mp4"}, 2, "is empty (0 bytes)"},
        {{RENDER, "--image", PORTRAIT, "--audio", "@empty", "-o", "@o.mp4"}, 2, "is empty (0 bytes)"},
        {{RENDER, "--image", PORTRAIT, "--audio", PORTRAIT, "-o", "@o.mp4"}, 2, "sound"},
        {{RENDER, "--image", PORTRAIT, "--audio", "@silent.mp4", "-o", "@o.mp4"}, 2, "no sound track"},
        {{GOOD, "-o", "@o.mp4", "--promt", "x"}, 2, "unknown flag --promt; did you mean --prompt?"},
        {{GOOD, "-o", "@o.mp4", "--jsno"}, 2, "did you mean --json?"},
        {{GOOD, "-o", "@o.mp4", "-x"}, 2, "unknown flag"},
        {{GOOD, "-o", "@o.mp4", "loose"}, 2, "'loose' stands alone"},
        {{GOOD, "-o", "@o.mp4", "--crf"}, 2, "--crf wants a value"},
        {{GOOD, "-o", "@o.mp4", "--crf", "--json"}, 2, "--crf wants a value"},
        {{GOOD, "-o", "@o.mp4", "--crf", "99"}, 2, "--crf: 99 is not between 0 and 51"},
        {{GOOD, "-o", "@o.mp4", "--motion-frame", "6"}, 2, "nearest values are 5 and 9"},
        {{GOOD, "-o", "@o.mp4", "--frame-num", "82"}, 2, "nearest values are 81 and 85"},
        {{GOOD, "-o", "@o.mp4", "--frame-num", "5"}, 2, "--frame-num: 5 leaves nothing new beside the 5 frames"},
        {{GOOD, "-o", "@o.mp4", "--ulysses_size", "0"}, 2, "--ulysses_size: '0' is not a number of processes"},
        {{GOOD, "-o", "@o.mp4", "--quant", "int4"}, 2, "--quant: 'int4' is neither int8 nor fp8"},
        {{GOOD, "-o", "@o.mp4", "--size", "480p"}, 2, "no size '480p'; it has tiny"},
        {{GOOD, "-o", "@o.mp4", "-n", "0"}, 2, "0 is not between 1 and 4096"},
        {{GOOD, "-o", "@o.mp4", "--audio2", VOICE2}, 2, "two voices need --audio-type"},
        {{GOOD, "-o", "@o.mp4", "--audio2", VOICE2, "--audio-type", "para", "--box1", "5000,5000,6000,6000", "--box2",
          "0,0,200,500"},
         2,
         "lies outside the 512x512 picture"},
        {{GOOD, "-o", "@no/such/o.mp4"}, 2, "there is no folder"},
        {{GOOD, "-o", "@o.avi"}, 2, "must end in .mp4 or .mov"},
        {{GOOD, "-o", "@there.mp4"}, 2, "there.mp4 exists; choose another name, or give --overwrite"},
        {{GOOD, "-o", "/proc/o.mp4"}, 2, "cannot write there"},
        {{RENDER, "--input-json", "@bad.json", "-o", "@o.mp4"}, 2, "unknown key promt; did you mean prompt?"},
        {{RENDER, "--input-json", "@broken.json", "-o", "@o.mp4"}, 2, "line 2"},
        {{RENDER, "@bad.yaml", "-o", "@o.mp4"}, 2, "unknown key sead; did you mean seed?"},
        {{RENDER, "@absent.yaml", "-o", "@o.mp4"}, 2, "absent.yaml"},
        {{"render", "--model", "@nomodel", "--image", PORTRAIT, "--audio", VOICE, "-o", "@o.mp4"},
         3,
         "there is no model folder"},
        {{"render", "--model", "@half", "--image", PORTRAIT, "--audio", VOICE, "-o", "@o.mp4"}, 3, "half lacks dit"},
        {{"rendr"}, 2, "there is no verb 'rendr'; did you mean render?"},
        {{"serv"}, 2, "there is no verb 'serv'; did you mean serve?"},
        {{"help", "rendr"}, 2, "there is no verb 'rendr'; did you mean render?"},
        {{"--help", "foo"}, 2, "there is no verb 'foo'; longtake help lists them"},
        {{"help", "render", "foo"}, 2, "help takes one verb, and not also 'foo'"},
        {{"version", "--hlep"}, 2, "unknown flag --hlep; did you mean --help?"},
        {{"version", "foo"}, 2, "version takes no 'foo'"},
        {{"--version", "--foo"}, 2, "unknown flag --foo"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct ran *r = run_with(NULL, cases[i].args);
        if (r->status != cases[i].status || !strstr(r->err, cases[i].says))
            fail_msg("case %zu (%s): status %d, '%s'", i, cases[i].says, r->status, r->err);
        const char *sentence = strstr(r->err, "longtake: ");
        assert_non_null(sentence); // one, and nothing after it
        assert_ptr_equal(strchr(sentence, '\n') + 1, r->err + strlen(r->err));
        assert_string_equal(r->out, "");
        if (exists(in_folder("o.mp4")) || exists(in_folder("o.mp4.longtake")))
            fail_msg("case %zu (%s) leaves something", i, cases[i].says);
    }
    char text[16];
    assert_string_equal(file_text(in_folder("there.mp4"), text, sizeof text), "mine");
}

static void a_refusal_is_json_where_asked(void **state)
{
    (void)state;
    const struct ran *r = RUN(RENDER, "--image", "@text.png", "--audio", VOICE, "-o", "@o.mp4", "--json");
    assert_int_equal(r->status, 2);
    json_t *o = result(r);
    assert_string_equal(json_string_value(json_object_get(o, "status")), "refused");
    const char *text = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
    assert_non_null(strstr(text, "neither a picture"));
    json_decref(o);
}

static void help_and_version_are_there(void **state)
{
    (void)state;
    const struct ran *r = RUN("help");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "render"));
    assert_non_null(strstr(r->out, "submit"));
    r = RUN("render", "--help");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "--sample-steps"));
    assert_non_null(strstr(r->out, "--input-json"));
    assert_null(strstr(r->out, "--worker"));
    r = RUN("version");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "longtake " LONGTAKE_VERSION));
    assert_int_equal(run_with(NULL, (const char *const[]){NULL})->status, 2);
}

// ---- jobs

// 7.1 s of voice: 178 frames (0.5 up), 15 segments of 17 with 5 in common.
static void a_picture_and_a_voice_become_a_film(void **state)
{
    (void)state;
    const char *out = in_folder("first.mp4");
    const struct ran *r = RUN(GOOD, "-o", "@first.mp4", "--json", "--prompt", "a man speaks");
    succeeded(r);
    json_t *o = result(r);
    assert_string_equal(json_string_value(json_object_get(o, "status")), "completed");
    assert_string_equal(json_string_value(json_object_get(o, "output")), out);
    assert_int_equal(number(o, "frames"), 178);
    assert_int_equal(number(o, "segments"), 15);
    assert_int_equal(number(o, "width"), 64);
    assert_int_equal(number(o, "seed"), 42);
    json_decref(o);
    assert_int_equal(film_frames(out), 178);
    assert_true(fabs(probe(out, "-select_streams a -show_entries stream=duration") - 7.1) < 0.001);
    assert_false(exists(in_folder("first.mp4.longtake")));
    // each line of stderr is an object, and percent never goes back
    double before = 0;
    for (char *at = (char *)r->err, *end; *at; at = end + 1) {
        end = strchr(at, '\n');
        assert_non_null(end);
        *end = 0;
        struct err e = {0};
        json_t *line = NULL;
        if (json_parse(&line, "stderr", at, strlen(at), &e) < 0) fail_msg("%s", at);
        const json_t *percent = json_object_get(line, "percent");
        if (percent) {
            assert_true(json_number_value(percent) >= before && json_number_value(percent) <= 100);
            before = json_number_value(percent);
        }
        json_decref(line);
    }
    assert_true(before > 90);
}

static void the_log_of_runs_is_what_the_plan_says(void **state)
{
    (void)state;
    char log[300], text[TEXT];
    snprintf(log, sizeof log, "log:%s", in_folder("runs.log"));
    unlink(in_folder("runs.log"));
    const struct ran *r = RUN_WITH(log, GOOD, "-o", "@plan.mov", "--seed", "-1", "--lora_dir", PORTRAIT, VOICE,
                                   "--lora_scale", "0.5", "2", "--dtype", "bf16", "--threads", "3");
    succeeded(r);
    file_text(in_folder("runs.log"), text, sizeof text);
    assert_non_null(strstr(text, "--lora " PORTRAIT " --lora-scale 0.5 --lora " VOICE " --lora-scale 2 "));
    assert_non_null(strstr(text, "--dtype bf16 --threads 3 "));
    for (int k = 0; k < 15; k++) {
        char want[128];
        int start = k * (F - M), to = 178 - start < F ? 178 - start : F;
        snprintf(want, sizeof want, "run %d start %d keep %d %d last %d ", k, start, k ? M : 0, to, k == 14);
        if (!strstr(text, want)) fail_msg("no '%s' in %s", want, text);
    }
    assert_null(strstr(text, "run 15 "));
    assert_int_equal(film_frames(in_folder("plan.mov")), 178);
}

static void short_voices_and_limits_set_the_length(void **state)
{
    (void)state;
    static const struct {
        const char *samples; // of a voice at 16 kHz
        const char *flag, *value;
        int frames;
    } cases[] = {{"640", "--seed", "1", 1},
                 {"6400", "--seed", "1", 10},
                 {"10879", "--seed", "1", 17},
                 {"11520", "--seed", "1", 18},
                 {"32000", "--mode", "clip", F},
                 {"6400", "--mode", "clip", 10},
                 {"32000", "--max-frame-num", "20", 20},
                 {"32000", "--max-frame-num", "3", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[512];
        snprintf(line, sizeof line,
                 "ffmpeg -v error -y -f lavfi -i sine=frequency=300:sample_rate=16000 -af atrim=end_sample=%s %s",
                 cases[i].samples, in_folder("length.wav"));
        assert_int_equal(system(line), 0);
        const struct ran *r = RUN(RENDER, "--image", PORTRAIT, "--audio", "@length.wav", "-o", "@length.mp4",
                                  "--overwrite", cases[i].flag, cases[i].value);
        succeeded(r);
        if (film_frames(in_folder("length.mp4")) != cases[i].frames)
            fail_msg("case %zu: %lld frames", i, (long long)film_frames(in_folder("length.mp4")));
    }
}

// The mean of segment k's picture, as the worker saw it.
static double picture_of(const char *text, int k)
{
    char want[32];
    snprintf(want, sizeof want, "run %d ", k);
    const char *at = strstr(text, want);
    assert_non_null(at);
    return atof(strstr(at, "picture ") + 8);
}

static void a_video_is_looked_at_where_the_segment_begins(void **state)
{
    (void)state;
    char line[1024], log[300], text[TEXT];
    // 4 s at 30 frames a second; its brightness is its time: 20 a second and 1 a tenth more
    snprintf(line, sizeof line,
             "ffmpeg -v error -y -f lavfi -i color=black:s=96x96:r=30 -vf \"format=gray,geq=lum=20+floor(N*2)\" "
             "-frames:v 110 -c:v ffv1 %s",
             in_folder("clip.mkv"));
    assert_int_equal(system(line), 0);
    snprintf(log, sizeof log, "log:%s", in_folder("video.log"));
    static const char *const ends[] = {"hold", "loop", "pingpong"};
    for (int end = 0; end < 3; end++) {
        unlink(in_folder("video.log"));
        const struct ran *r = RUN_WITH(log, RENDER, "--video", "@clip.mkv", "--audio", VOICE, "-o", "@video.mp4",
                                       "--overwrite", "--on-video-end", ends[end]);
        succeeded(r);
        assert_non_null(strstr(r->err, "the video ends at 3.68 s, before the voice"));
        file_text(in_folder("video.log"), text, sizeof text);
        for (int k = 0; k < 15; k++) {
            double t = k * (F - M) / 25.0, length = 110 / 30.0;
            if (t >= length) t = end == 0 ? length - 0.001 : end == 1 ? t - length : 2 * length - t;
            double want = 20 + 2 * floor(t * 30 + 0.03);
            if (fabs(picture_of(text, k) - want) > 2.01) // a turn may show either neighbour
                fail_msg("%s, segment %d shows %.1f, not %.1f", ends[end], k, picture_of(text, k), want);
        }
    }
    unlink(in_folder("video.log"));
    const struct ran *r = RUN_WITH(log, RENDER, "--video", "@clip.mkv", "--audio", VOICE, "-o", "@video.mp4",
                                   "--overwrite", "--on-video-end", "stop");
    succeeded(r);
    assert_int_equal(film_frames(in_folder("video.mp4")), 92); // those that begin before 3.667 s
}

static void job_files_are_read_and_flags_outweigh_them(void **state)
{
    (void)state;
    char text[2048];
    snprintf(
        text, sizeof text,
        "{\"prompt\": \"two people\", \"cond_video\": \"%s\", \"cond_audio\": {\"person1\": \"%s\", \"person2\": "
        "\"%s\"}, \"audio_type\": \"add\", \"bbox\": {\"person1\": [10, 10, 500, 250], \"person2\": [10, 260, 500, "
        "500]}}",
        PORTRAIT, VOICE, VOICE2);
    file_write(in_folder("two.json"), text);
    const struct ran *r = RUN(RENDER, "--input_json", "@two.json", "--save_file", "@two", "--base_seed", "7",
                              "--sample_steps=2", "--use_apg", "--t5_cpu", "--offload_model", "False", "--json");
    // a stem is completed
    succeeded(r);
    json_t *o = result(r);
    double seconds = probe(VOICE, "-show_entries format=duration") + probe(VOICE2, "-show_entries format=duration");
    assert_int_equal(number(o, "frames"), (int)floor(seconds * 25 + 0.5));
    assert_int_equal(number(o, "seed"), 7);
    assert_int_equal(number(o, "steps"), 2);
    json_decref(o);
    assert_int_equal(film_frames(in_folder("two.mp4")), (int)floor(seconds * 25 + 0.5));
    snprintf(text, sizeof text, "image: %s\naudio: %s\nseed: 5\nsample-steps: 4\noutput: %s\n", PORTRAIT, VOICE2,
             in_folder("yaml.mp4"));
    file_write(in_folder("job.yaml"), text);
    setenv("LONGTAKE_SEED", "6", 1);
    setenv("LONGTAKE_SAMPLE_STEPS", "3", 1);
    r = RUN(RENDER, "@job.yaml", "--seed", "8", "--audio", VOICE, "--json");
    unsetenv("LONGTAKE_SEED");
    unsetenv("LONGTAKE_SAMPLE_STEPS");
    succeeded(r);
    o = result(r);
    assert_int_equal(number(o, "seed"), 8);  // flag over environment over file
    assert_int_equal(number(o, "steps"), 3); // environment over file
    assert_int_equal(number(o, "frames"), 178);
    json_decref(o);
    assert_true(exists(in_folder("yaml.mp4")));
}

// Flags of the published program that steer what this engine does by itself: one line each says so, and the job runs.
static void published_flags_of_many_processes_are_taken(void **state)
{
    (void)state;
    const struct ran *r =
        RUN(GOOD, "-o", "@many.mp4", "--task", "infinitetalk-14B", "--ulysses_size", "1", "--ring_size=1", "--t5_fsdp",
            "--dit_fsdp", "--quant", "fp8", "--quant_dir", "w.safetensors", "--scene_seg", "--offload_model", "False",
            "--num_persistent_param_in_dit", "0", "--audio_save_dir", "save", "--max-frame-num", "3");
    succeeded(r);
    static const char *const noted[] = {"--t5_fsdp: ",       "--quant: ",          "--scene_seg: ",
                                        "--offload_model: ", "--audio_save_dir: ", "--num_persistent_param_in_dit: "};
    for (size_t i = 0; i < sizeof noted / sizeof *noted; i++) {
        char line[64];
        snprintf(line, sizeof line, "note: %s", noted[i]);
        if (!strstr(r->err, line)) fail_msg("no '%s' in %s", line, r->err);
    }
    assert_null(strstr(r->err, "_size"));
    assert_int_equal(film_frames(in_folder("many.mp4")), 3);
    // its two ways to split are a layout of ranks; no worker is needed to say so
    r = RUN(GOOD, "-o", "@split.mp4", "--ulysses_size", "2", "--ring_size", "3", "--dit_fsdp", "--worker", "@absent",
            "--attempts", "1");
    assert_true(r->status == 1 || r->status == 75);
    if (!strstr(r->err, "_size: taken as -n 6 --layout 1x3x2 --shard all\n")) fail_msg("%s", r->err);
    // so is its way to spread the text encoder's weights, which are spread where the transformer's are
    static const struct {
        const char *flags[4], *said;
    } spread[] = {
        {{"--ulysses_size=2", "--t5_fsdp", "--seed", "1"}, "_size: taken as -n 2 --layout 1x1x2 --shard all\n"},
        {{"-n", "2", "--t5_fsdp", "--seed=1"}, "--t5_fsdp: taken as --shard all: "},
        {{"-n", "2", "--t5_fsdp", "--dit_fsdp"}, "--dit_fsdp, --t5_fsdp: taken as --shard all\n"},
        {{"-n", "2", "--dit_fsdp", "--t5_fsdp=no"}, "--dit_fsdp: taken as --shard all\n"}};
    for (size_t i = 0; i < sizeof spread / sizeof *spread; i++) {
        const char *const *w = spread[i].flags;
        r = RUN(GOOD, "-o", "@spread.mp4", w[0], w[1], w[2], w[3], "--worker", "@absent", "--attempts", "1");
        if (!strstr(r->err, spread[i].said)) fail_msg("no '%s' in %s", spread[i].said, r->err);
    }
    r = RUN(GOOD, "-o", "@spread.mp4", "-n", "2", "--t5_fsdp", "--shard", "node", "--worker", "@absent", "--attempts",
            "1");
    assert_null(strstr(r->err, "taken as"));
    r = RUN(GOOD, "-o", "@split.mp4", "--ulysses_size", "2", "--layout", "1x1x1", "--max-frame-num", "3");
    succeeded(r);
    assert_null(strstr(r->err, "taken as"));
}

// What the worker has to say of a job is told once, and is in the report.
static void a_notice_of_the_worker_is_shown(void **state)
{
    (void)state;
    const struct ran *r = RUN_WITH("notice", GOOD, "-o", "@notice.mp4", "--max-frame-num", "20");
    succeeded(r);
    const char *line = strstr(r->err, "note: the prompt is cut\n");
    assert_non_null(line);
    assert_null(strstr(line + 7, "the prompt is"));
    r = RUN_WITH("notice", GOOD, "-o", "@notice2.mp4", "--max-frame-num", "20", "--json");
    succeeded(r);
    json_t *o = result(r);
    const json_t *all = json_object_get(o, "notices");
    assert_int_equal(json_array_size(all), 2); // the limit, and this
    assert_string_equal(json_string_value(json_array_get(all, 1)), "the prompt is cut");
    json_decref(o);
}

static void a_verb_tells_of_itself(void **state)
{
    (void)state;
    static const struct {
        const char *const args[3];
        const char *says;
    } cases[] = {{{"help"}, "Verbs:"},
                 {{"help", "render"}, "--audio-type"},
                 {{"help", "submit"}, "--priority"},
                 {{"help", "status"}, "how a job stands"},
                 {{"status", "--help"}, "how a job stands"},
                 {{"version", "-h"}, "print the version"},
                 {{"version"}, "longtake "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct ran *r = run_with(NULL, cases[i].args);
        succeeded(r);
        if (!strstr(r->out, cases[i].says)) fail_msg("no '%s' in %s", cases[i].says, r->out);
    }
}

static void names_with_odd_letters_are_names(void **state)
{
    (void)state;
    const struct ran *r = RUN(GOOD, "-o", "@a b:c%d'é.mp4");
    succeeded(r);
    assert_true(exists(in_folder("a b:c%d'é.mp4")));
}

static int set_up(void **state)
{
    (void)state;
    if (cli_set_up("test_cli") < 0 || mkdir(in_folder("half"), 0700) < 0) return -1;
    file_write(in_folder("half/model.yaml"), "name: half\n");
    file_write(in_folder("text.png"), "no picture at all, only words, and some more of them\n");
    file_write(in_folder("empty"), "");
    file_write(in_folder("there.mp4"), "mine");
    file_write(in_folder("bad.json"), "{\"promt\": \"x\"}");
    file_write(in_folder("broken.json"), "{\"prompt\":\n \"x\",,}");
    file_write(in_folder("bad.yaml"), "sead: 3\n");
    char line[512];
    snprintf(line, sizeof line, "ffmpeg -v error -y -f lavfi -i testsrc=s=128x96:r=25 -frames:v 30 %s",
             in_folder("silent.mp4"));
    return system(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_usage_is_refused_before_anything_is_made),
        cmocka_unit_test(a_refusal_is_json_where_asked),
        cmocka_unit_test(help_and_version_are_there),
        cmocka_unit_test(a_picture_and_a_voice_become_a_film),
        cmocka_unit_test(the_log_of_runs_is_what_the_plan_says),
        cmocka_unit_test(short_voices_and_limits_set_the_length),
        cmocka_unit_test(a_video_is_looked_at_where_the_segment_begins),
        cmocka_unit_test(job_files_are_read_and_flags_outweigh_them),
        cmocka_unit_test(names_with_odd_letters_are_names),
        cmocka_unit_test(published_flags_of_many_processes_are_taken),
        cmocka_unit_test(a_notice_of_the_worker_is_shown),
        cmocka_unit_test(a_verb_tells_of_itself),
        cmocka_unit_test(nothing_is_left_in_tmp),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
