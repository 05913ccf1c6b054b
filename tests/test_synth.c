// Models of random weights: the same seed gives the same bytes, the folder is a whole model, every network loads and
// keeps its scale, and what is in the way is refused in words.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/json.h"
#include "proto/model.h"
#include "tests/folder.h"
#include "worker/models/clip.h"
#include "worker/models/dit.h"
#include "worker/models/umt5.h"
#include "worker/models/unigram.h"
#include "worker/models/vae.h"
#include "worker/models/wav2vec2.h"
#include "worker/synth/parts.h"
#include "worker/synth/synth.h"
#include "worker/weights_main.h"

#include <math.h>

enum { SEED = 20 };

static int begin(void **state)
{
    (void)state;
    printf("seed %d\n", SEED);
    return top_make("test_synth");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

static const char *at(char *buf, size_t n, const char *name)
{
    snprintf(buf, n, "%s/%s", top, name);
    return buf;
}

static void make(const char *name, struct synth_options o)
{
    char dir[256];
    struct synth_report r;
    o.dir = at(dir, sizeof dir, name);
    OK(synth_write(&o, &r, ep));
}

static int shell(const char *fmt, const char *a, const char *b)
{
    char command[512], x[128], y[128];
    snprintf(command, sizeof command, fmt, at(x, sizeof x, a), at(y, sizeof y, b));
    return system(command);
}

static void one_seed_is_one_model(void **state)
{
    (void)state;
    make("a", (struct synth_options){.seed = SEED});
    make("b", (struct synth_options){.seed = SEED});
    make("c", (struct synth_options){.seed = SEED + 1});
    assert_int_equal(shell("diff -r '%s' '%s'", "a", "b"), 0);
    assert_int_not_equal(shell("diff -rq '%s' '%s' >/dev/null", "a", "c"), 0);
    assert_int_not_equal(shell("cmp -s '%s' '%s'", "a/InfiniteTalk/single/infinitetalk.safetensors",
                               "a/InfiniteTalk/multi/infinitetalk.safetensors"),
                         0);
}

static void open_model(struct model *m, const char *name)
{
    char dir[256];
    OK(model_open(m, at(dir, sizeof dir, name), ep));
    OK(model_missing(m, ep));
}

static void the_folder_is_a_whole_model(void **state)
{
    (void)state;
    struct model m;
    open_model(&m, "a");
    assert_string_equal(m.size[0].name, "tiny");
    assert_int_equal(m.frame_num, 81);
    assert_int_equal(m.motion_frame, 9);
    assert_int_equal(m.steps, 2);
    assert_true(m.text_scale == 1 && m.audio_scale == 1);
    assert_true(m.adapter2[0]);
}

// Tensors and parameters of the published files (spec: weights 1.5, 2.1, 7.1).
static void published_sizes_are_those_of_the_published_files(void **state)
{
    (void)state;
    static const struct {
        void (*list)(struct synth_list *l, const struct synth_sizes *s);
        int64_t n, values;
    } part[] = {
        {list_dit, 1303, 16394878784}, {list_adapter, 330, 2487168000},
        {list_text, 242, 5680910336},  {list_clip, 393, 632076801}, // 392 of the visual half, log_scale
        {list_vae, 194, 126892531},    {list_voice, 218, 95044608},
    };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        struct synth_list l = {.label = "", .dtype = DT_F32};
        part[i].list(&l, &synth_published);
        assert_int_equal(l.n, part[i].n);
        assert_int_equal(list_values(&l), part[i].values);
        list_free(&l);
    }
}

// ---- values through the networks

static uint64_t dice = SEED;

static float normal(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(dice >> 40) / (float)(1 << 24);
    }
    return sum - 6;
}

static tensor noise(struct dev_arena *a, int n, const int64_t *shape)
{
    tensor t = dev_tensor(a, DT_F32, n, shape);
    for (int64_t i = 0; i < tensor_count(t); i++) ((float *)t.data)[i] = normal();
    return t;
}

struct spread {
    double mean, deviation, outside; // share beyond -1..1
};

static struct spread spread_of(tensor t)
{
    struct spread s = {0};
    int64_t n = tensor_count(t);
    const float *v = t.data;
    for (int64_t i = 0; i < n; i++) {
        assert_true(isfinite(v[i]));
        s.mean += (double)v[i] / (double)n;
        s.outside += (v[i] < -1 || v[i] > 1) / (double)n;
    }
    for (int64_t i = 0; i < n; i++) s.deviation += pow((double)v[i] - s.mean, 2) / (double)n;
    s.deviation = sqrt(s.deviation);
    return s;
}

static void expect_spread(const char *what, tensor t, double low, double high)
{
    struct spread s = spread_of(t);
    printf("%s: mean %.3f deviation %.3f, %.1f %% outside\n", what, s.mean, s.deviation, 100 * s.outside);
    if (s.deviation < low || s.deviation > high || fabs(s.mean) > high)
        fail_msg("%s: mean %g, deviation %g not in %g..%g", what, s.mean, s.deviation, low, high);
}

struct bench {
    struct dev *dev;
    struct dev_arena *arena;
    struct model model;
};

static void bench_open(struct bench *b)
{
    OK(dev_open(&b->dev, "ref", 0, ep));
    b->arena = dev_arena_new(b->dev, "test", 0);
    open_model(&b->model, "a");
}

static void bench_close(struct bench *b)
{
    OK(dev_sync(b->dev, ep));
    dev_arena_free(&b->arena);
    dev_close(&b->dev);
}

static void frames_move(void **state)
{
    (void)state;
    struct bench b;
    struct weights *w = NULL;
    struct vae *vae = NULL;
    bench_open(&b);
    OK(weights_open(&w, b.model.vae, ep));
    OK(vae_new(&vae, b.dev, w, NULL, NULL, ep));
    tensor z = noise(b.arena, SHAPE(16, 3, 8, 8)), film = dev_tensor(b.arena, DT_F32, SHAPE(9, 64, 64, 3));
    struct vae_stream *s = vae_decode_open(vae, b.arena, 64, 64, NULL);
    vae_decode_slice(s, tensor_slice(film, 0, 0, 1), tensor_slice(z, 1, 0, 1));
    vae_decode_slice(s, tensor_slice(film, 0, 1, 5), tensor_slice(z, 1, 1, 2));
    vae_decode_slice(s, tensor_slice(film, 0, 5, 9), tensor_slice(z, 1, 2, 3));
    vae_stream_close(&s);
    expect_spread("frames", film, 0.15, 0.6);
    assert_true(spread_of(film).outside < 0.1);
    for (int i = 1; i < 9; i++) {
        tensor change = dev_tensor(b.arena, DT_F32, SHAPE(64, 64, 3));
        const float *from = tensor_at(film, i - 1).data, *to = tensor_at(film, i).data;
        for (int64_t k = 0; k < tensor_count(change); k++) ((float *)change.data)[k] = to[k] - from[k];
        assert_true(spread_of(change).deviation > 0.02);
    }
    tensor again = dev_tensor(b.arena, DT_F32, SHAPE(16, 3, 8, 8));
    vae_encode(vae, b.arena, again, film, NULL);
    expect_spread("latents of frames", again, 0.3, 2);
    vae_free(&vae);
    weights_free(&w);
    bench_close(&b);
}

static void pictures_have_tokens(void **state)
{
    (void)state;
    struct bench b;
    struct weights *w = NULL;
    struct clip *clip = NULL;
    bench_open(&b);
    OK(weights_open(&w, b.model.clip, ep));
    OK(clip_new(&clip, b.dev, w, &(struct clip_config){.n_heads = b.model.clip_heads, .image = b.model.clip_image},
                ep));
    assert_int_equal(clip_tokens(clip), 257);
    tensor out = dev_tensor(b.arena, DT_F32, SHAPE(257, clip_dim(clip)));
    clip_encode(clip, b.arena, out, noise(b.arena, SHAPE(64, 48, 3)), NULL);
    expect_spread("picture tokens", out, 0.5, 5);
    clip_free(&clip);
    weights_free(&w);
    bench_close(&b);
}

static void prompts_become_context(void **state)
{
    (void)state;
    struct bench b;
    struct unigram *words = NULL;
    struct weights *w = NULL;
    struct umt5 *text = NULL;
    char path[MODEL_PATH_MAX + 32];
    int32_t ids[64];
    int n = 0, n_lost = 0, n_unknown = 0;
    bench_open(&b);
    snprintf(path, sizeof path, "%s/tokenizer.json", b.model.tokenizer);
    OK(unigram_open(&words, path, ep));
    OK(unigram_encode(words, "A woman is talking to the camera, quietly.", ids, 64, &n, &n_lost, ep));
    assert_int_equal(n_lost, 0);
    assert_int_equal(ids[n - 1], 1);
    for (int i = 0; i < n; i++) n_unknown += ids[i] == 3;
    assert_int_equal(n_unknown, 0);
    OK(weights_open(&w, b.model.text, ep));
    OK(umt5_new(&text, b.dev, w, &(struct umt5_config){.n_heads = b.model.text_heads}, DT_F32, ep));
    assert_true(unigram_size(words) <= umt5_vocab(text));
    tensor out = dev_tensor(b.arena, DT_F32, SHAPE(n, umt5_dim(text)));
    umt5_encode(text, b.arena, out, tensor_of(ids, DT_I32, SHAPE(n)), n, NULL);
    expect_spread("context of a prompt", out, 0.5, 2);
    umt5_free(&text);
    weights_free(&w);
    unigram_free(&words);
    bench_close(&b);
}

static void read_sound(void *ctx, float *dst, int64_t from, int64_t n)
{
    for (int64_t i = from; i < from + n; i++) dst[i - from] = i >= 0 && i < 16000 ? ((float *)ctx)[i] : 0;
}

static void speech_has_features(void **state)
{
    (void)state;
    struct bench b;
    struct wav2vec2 *voice = NULL;
    bench_open(&b);
    OK(wav2vec2_open(&voice, b.dev, b.model.voice, ep));
    tensor sound = noise(b.arena, SHAPE(16000));
    for (int i = 0; i < 16000; i++) ((float *)sound.data)[i] *= 0.1f;
    struct track track = {.read = read_sound, .ctx = sound.data, .n_samples = 16000};
    struct wav2vec2_stats *stats = wav2vec2_measure(voice, b.arena, &track);
    tensor out = dev_tensor(b.arena, DT_F32, SHAPE(25, wav2vec2_layers(voice), wav2vec2_dim(voice)));
    wav2vec2_encode(voice, b.arena, out, &track, stats, 25, 0, 25, NULL);
    expect_spread("speech features", out, 0.5, 2);
    wav2vec2_stats_free(&stats);
    wav2vec2_free(&voice);
    bench_close(&b);
}

static void velocity_follows_the_voice(void **state)
{
    (void)state;
    struct bench b;
    struct weights *w = NULL;
    struct dit *dit = NULL;
    bench_open(&b);
    OK(weights_open(&w, b.model.dit, ep));
    OK(weights_add(w, b.model.adapter, ep));
    OK(dit_new(&dit, b.dev, w, &(struct dit_config){.n_heads = b.model.dit_heads, .text_len = b.model.text_len}, DT_F32,
               ep));
    const struct dit_config *c = dit_config_of(dit);
    int layers = 2;
    struct dit_words words = dit_words_new(dit, b.arena, noise(b.arena, SHAPE(7, c->text_dim)), NULL);
    struct dit_picture picture = dit_picture_new(dit, b.arena, noise(b.arena, SHAPE(257, c->clip_dim)), NULL);
    struct dit_in in = {.x = noise(b.arena, SHAPE(16, 3, 8, 8)),
                        .y = noise(b.arena, SHAPE(20, 3, 8, 8)),
                        .time = dit_time_new(dit, b.arena, 800, NULL),
                        .words = &words,
                        .picture = &picture};
    tensor out[2];
    for (int i = 0; i < 2; i++) {
        tensor windows = noise(b.arena, SHAPE(1, 9, 5, layers, c->audio_width / layers));
        struct dit_voice voice = dit_voice_new(dit, b.arena, windows, NULL);
        in.voice = &voice;
        out[i] = dev_tensor(b.arena, DT_F32, SHAPE(16, 3, 8, 8));
        dit_forward(dit, b.arena, out[i], &in, NULL);
        expect_spread("velocity", out[i], 0.5, 2);
    }
    for (int64_t k = 0; k < tensor_count(out[1]); k++) ((float *)out[1].data)[k] -= ((float *)out[0].data)[k];
    expect_spread("change by another voice", out[1], 0.05, 2);
    dit_free(&dit);
    weights_free(&w);
    bench_close(&b);
}

// ---- options and refusals

static void sizes_and_dtypes_are_as_asked(void **state)
{
    (void)state;
    char path[256];
    make("deep", (struct synth_options){.seed = SEED, .layers = 5, .dtype = DT_BF16});
    struct weights *w = NULL;
    tensor t = NO_TENSOR;
    OK(weights_open(&w, at(path, sizeof path, "deep"), ep));
    OK(weights_get(w, "blocks.4.ffn.2.weight", &t, ep));
    assert_int_equal(t.dtype, DT_BF16);
    assert_false(weights_has(w, "blocks.5.ffn.2.weight"));
    weights_free(&w);
}

static void refuses(const char *name, const char *words)
{
    char dir[256];
    struct err e = {0};
    struct synth_report r;
    struct synth_options o = {.seed = SEED, .dir = at(dir, sizeof dir, name)};
    assert_int_equal(synth_write(&o, &r, &e), E_INPUT);
    if (!strstr(e.text, words)) fail_msg("'%s' lacks '%s'", e.text, words);
}

static void what_is_in_the_way_is_refused(void **state)
{
    (void)state;
    char path[256];
    refuses("a", "is not empty; name another folder");
    refuses("no/such/place", "cannot make the folder");
    refuses("a/config.json", "is a file");
    mkdir(at(path, sizeof path, "mine.partial"), 0700);
    refuses("mine", "is in the way");
    assert_int_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(at(path, sizeof path, "mine"), F_OK), 0);
}

static void a_killed_run_is_taken_up(void **state)
{
    (void)state;
    char path[256];
    mkdir(at(path, sizeof path, "again.partial"), 0700);
    FILE *f = fopen(at(path, sizeof path, "again.partial/.longtake-partial"), "w");
    assert_non_null(f);
    fclose(f);
    f = fopen(at(path, sizeof path, "again.partial/half.pth"), "w");
    assert_non_null(f);
    fclose(f);
    mkdir(at(path, sizeof path, "again"), 0700); // an empty folder is welcome
    make("again", (struct synth_options){.seed = SEED});
    assert_int_equal(shell("diff -r '%s' '%s'", "a", "again"), 0);
    assert_int_not_equal(access(at(path, sizeof path, "again.partial"), F_OK), 0);
}

static void a_signal_leaves_nothing(void **state)
{
    (void)state;
    char path[256], dir[256];
    struct err e = {0};
    struct synth_report r;
    struct synth_options o = {.seed = SEED, .dir = at(dir, sizeof dir, "stopped")};
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    raise(SIGTERM);
    assert_int_equal(synth_write(&o, &r, &e), E_INPUT);
    sigprocmask(SIG_SETMASK, &before, NULL); // the signal was taken: this test goes on
    assert_true(r.interrupted);
    assert_int_not_equal(access(dir, F_OK), 0);
    assert_int_not_equal(access(at(path, sizeof path, "stopped.partial"), F_OK), 0);
}

static int verb(char *a, char *b, char *c, char *d, char *e)
{
    char *argv[] = {"weights", a, b, c, d, e, NULL};
    int argc = 1;
    while (argv[argc]) argc++;
    return weights_main(argc, argv);
}

static void the_verb_answers(void **state)
{
    (void)state;
    char path[256];
    at(path, sizeof path, "by_verb");
    assert_int_equal(verb(NULL, NULL, NULL, NULL, NULL), 2);
    assert_int_equal(verb("--help", NULL, NULL, NULL, NULL), 0);
    assert_int_equal(verb("-h", NULL, NULL, NULL, NULL), 0);
    assert_int_equal(verb("synht", NULL, NULL, NULL, NULL), 2);
    assert_int_equal(verb("synth", NULL, NULL, NULL, NULL), 2);
    assert_int_equal(verb("synth", "-o", path, "--sed=4", NULL), 2);
    assert_int_equal(verb("synth", "-o", path, "--like", "13b"), 2);
    assert_int_equal(verb("synth", "-o", path, "--layers=0", NULL), 2);
    assert_int_equal(verb("synth", "-o", path, "--seed", "20"), 0);
    assert_int_equal(shell("diff -r '%s' '%s'", "a", "by_verb"), 0);
    assert_int_equal(verb("synth", "-o", path, "--seed", "20"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_seed_is_one_model),
        cmocka_unit_test(the_folder_is_a_whole_model),
        cmocka_unit_test(published_sizes_are_those_of_the_published_files),
        cmocka_unit_test(frames_move),
        cmocka_unit_test(pictures_have_tokens),
        cmocka_unit_test(prompts_become_context),
        cmocka_unit_test(speech_has_features),
        cmocka_unit_test(velocity_follows_the_voice),
        cmocka_unit_test(sizes_and_dtypes_are_as_asked),
        cmocka_unit_test(what_is_in_the_way_is_refused),
        cmocka_unit_test(a_killed_run_is_taken_up),
        cmocka_unit_test(a_signal_leaves_nothing),
        cmocka_unit_test(the_verb_answers),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
