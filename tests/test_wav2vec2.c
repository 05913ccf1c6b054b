// The voice encoder beyond golden: tiles and windows do not matter, statistics do not depend on pieces, memory does not
// grow with the track, every spelling of the weights gives the same features, and what is wrong is refused in words.
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
#include "worker/models/wav2vec2_parts.h"
#include "worker/synth/docs.h"
#include "worker/weights/write_safetensors.h"
#include "worker/weights/write_torchpt.h"

#include <math.h>

enum { SEED = 31, PATH_BYTES = 256, NAME_BYTES = 192 };

static struct dev *dev;
static struct dev_arena *arena;

static const struct synth_sizes sizes = {.voice_conv = 8,
                                         .voice_dim = 16,
                                         .voice_ffn = 24,
                                         .voice_kernel = 32,
                                         .voice_groups = 4,
                                         .voice_code = 4,
                                         .voice_codes = 6,
                                         .voice_layers = 2,
                                         .voice_heads = 2};

// ---- folders

static const char *at(char *buf, const char *folder, const char *name)
{
    snprintf(buf, PATH_BYTES, "%s/%s%s%s", top, folder, *name ? "/" : "", name);
    return buf;
}

static void put_text(const char *folder, const char *name, const char *text)
{
    char path[PATH_BYTES];
    FILE *f = fopen(at(path, folder, name), "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

// A folder with the two documents.
static void folder_new(const char *folder)
{
    char path[PATH_BYTES], command[PATH_BYTES + 16];
    snprintf(command, sizeof command, "mkdir -p '%s'", at(path, folder, ""));
    assert_int_equal(system(command), 0);
    OK(docs_voice(at(path, folder, "config.json"), &sizes, ep));
    OK(docs_extractor(at(path, folder, "preprocessor_config.json"), &sizes, ep));
}

// The model as published: a PyTorch file of the pretraining class.
static void write_published(const char *folder)
{
    char path[PATH_BYTES];
    struct synth_list l = {.label = "voice", .seed = SEED, .dtype = DT_F32};
    struct torchpt_out *t = NULL;
    folder_new(folder);
    list_voice(&l, &sizes);
    OK(torchpt_create(&t, at(path, folder, "pytorch_model.bin"), "pytorch_model", true, l.head, l.n, ep));
    for (int64_t i = 0; i < l.n; i++) {
        int64_t bytes = head_bytes(&l.head[i]);
        void *values = malloc((size_t)bytes);
        list_fill(&l, i, 0, bytes / 4, values);
        OK(torchpt_put(t, values, (size_t)bytes, ep));
        free(values);
    }
    OK(torchpt_close(&t, ep));
    list_free(&l);
}

enum spelling { PARAMETRIZED, MULTIPLIED };

// What a tensor is called in a spelling; false: it is left out.
static bool respell(char out[NAME_BYTES], const char *name, enum spelling s)
{
    static const char *const words[][2] = {{"parametrizations.weight.original0", NULL},
                                           {"parametrizations.weight.original1", "weight"}};
    const char *bare = strncmp(name, "wav2vec2.", 9) == 0 ? name + 9 : name, *norm = strstr(bare, "conv.weight_");
    if (!norm) return snprintf(out, NAME_BYTES, "%s", bare) > 0;
    const char *word = words[norm[12] == 'v'][s];
    if (word) snprintf(out, NAME_BYTES, "%.*s%s", (int)(norm + 5 - bare), bare, word);
    return word != NULL;
}

// v [n, taps] to the product with g.
static void multiply(float *v, const float *g, int64_t n, int64_t taps)
{
    for (int64_t k = 0; k < taps; k++) {
        double sq = 0;
        for (int64_t i = 0; i < n; i++) sq += pow((double)v[i * taps + k], 2);
        for (int64_t i = 0; i < n; i++) v[i * taps + k] = (float)((double)v[i * taps + k] * (double)g[k] / sqrt(sq));
    }
}

// The same model as safetensors with bare names and another spelling of the positional convolution.
static void write_respelled(const char *folder, enum spelling s)
{
    char path[PATH_BYTES], name[NAME_BYTES];
    struct weights *w = NULL;
    struct tensor_head head[256];
    tensor value[256], g;
    int64_t n = 0;
    struct safetensors_out *o = NULL;
    OK(weights_open(&w, at(path, "published", "pytorch_model.bin"), ep));
    OK(weights_get(w, "wav2vec2.encoder.pos_conv_embed.conv.weight_g", &g, ep));
    for (int64_t i = 0; i < weights_count(w); i++) {
        if (!respell(name, weights_name(w, i), s)) continue;
        assert_true(n < 256 && strlen(name) < TENSOR_NAME_MAX);
        OK(weights_get(w, weights_name(w, i), &value[n], ep));
        head[n] = (struct tensor_head){.dtype = value[n].dtype, .n = value[n].n};
        strcpy(head[n].name, name);
        memcpy(head[n].shape, value[n].shape, sizeof head[n].shape);
        n++;
    }
    folder_new(folder);
    OK(safetensors_create(&o, at(path, folder, "model.safetensors"), head, n, NULL, ep));
    for (int64_t i = 0; i < n; i++) {
        size_t bytes = (size_t)tensor_bytes(value[i]);
        float *copy = malloc(bytes);
        memcpy(copy, value[i].data, bytes);
        if (strcmp(head[i].name, "encoder.pos_conv_embed.conv.weight") == 0)
            multiply(copy, g.data, value[i].shape[0] * value[i].shape[1], value[i].shape[2]);
        OK(safetensors_put(o, copy, bytes, ep));
        free(copy);
    }
    OK(safetensors_close(&o, ep));
    weights_free(&w);
}

static int begin(void **state)
{
    (void)state;
    printf("seed %d\n", SEED);
    if (top_make("test_wav2vec2") < 0 || dev_open(&dev, "ref", 0, NULL) < 0) return -1;
    arena = dev_arena_new(dev, "test", (int64_t)4 << 30);
    write_published("published");
    return 0;
}

static int end(void **state)
{
    (void)state;
    dev_arena_free(&arena);
    dev_close(&dev);
    return top_remove();
}

static struct wav2vec2 *open_model(const char *folder)
{
    char path[PATH_BYTES];
    struct wav2vec2 *m = NULL;
    OK(wav2vec2_open(&m, dev, at(path, folder, ""), ep));
    return m;
}

// ---- voices

// Noise of swelling loudness as a function of the sample's number, so that no length of it takes memory.
struct voice {
    int64_t n;
    double scale, offset;
};

static double noise_at(int64_t i)
{
    uint64_t h = ((uint64_t)i + SEED) * 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u;
    return ((double)(h >> 40) / (double)(1 << 24) - 0.5) * (1 + 0.5 * sin((double)i / 5000)) + 0.3 * sin((double)i / 9);
}

static void voice_read(void *ctx, float *dst, int64_t from, int64_t n)
{
    const struct voice *v = ctx;
    assert_true(from >= 0 && n > 0);
    for (int64_t i = from; i < from + n; i++)
        dst[i - from] = i < v->n ? (float)(noise_at(i) * v->scale + v->offset) : 0;
}

static struct track track_of(struct voice *v, int64_t n)
{
    return (struct track){.read = voice_read, .ctx = v, .n_samples = n};
}

// The features of [from, to) on the host, the caller frees them.
static float *features(struct wav2vec2 *m, const struct track *t, const struct wav2vec2_stats *s, int64_t n_frames,
                       int64_t from, int64_t to)
{
    int64_t mark = dev_arena_mark(arena);
    tensor z = dev_tensor(arena, DT_F32, SHAPE(to - from, sizes.voice_conv));
    wav2vec2_features(m, arena, z, t, s, n_frames, from, NULL);
    float *host = malloc((size_t)tensor_bytes(z));
    dev_download(dev, host, DT_F32, z);
    dev_arena_reset(arena, mark);
    return host;
}

static float *encode(struct wav2vec2 *m, const struct track *t, const struct wav2vec2_stats *s, int64_t n)
{
    int64_t mark = dev_arena_mark(arena);
    tensor out = dev_tensor(arena, DT_F32, SHAPE(n, wav2vec2_layers(m), wav2vec2_dim(m)));
    wav2vec2_encode(m, arena, out, t, s, n, 0, n, NULL);
    float *host = malloc((size_t)tensor_bytes(out));
    dev_download(dev, host, DT_F32, out);
    dev_arena_reset(arena, mark);
    return host;
}

static void assert_near(const float *a, const float *b, int64_t n, double bound)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= bound))
            fail_msg("value %lld is %.9g and %.9g", (long long)i, (double)a[i], (double)b[i]);
}

// ---- what must not matter

static void tiles_and_windows_do_not_matter(void **state)
{
    (void)state;
    struct wav2vec2 *m = open_model("published");
    struct voice v = {.n = 640 * 90 + 333, .scale = 0.4};
    static const int64_t lengths[] = {640 * 90, 640 * 90 + 79, 640 * 90 + 333};
    for (int i = 0; i < 3; i++)
        for (int64_t n = 71; n <= 90; n += 19) { // frames that do not fit the samples too
            struct track t = track_of(&v, lengths[i]);
            struct wav2vec2_stats *s = wav2vec2_measure(m, arena, &t);
            m->tile_frames = 1000;
            float *whole = features(m, &t, s, n, 0, n);
            bool exact = lengths[i] == 640 * 90 && n == 90; // every second feature; else positions round
            for (int64_t tile = 1; tile < 100; tile = 3 * tile + 1)
                for (int64_t from = 0; from < n; from += 29) {
                    int64_t to = from + 40 < n ? from + 40 : n;
                    m->tile_frames = tile;
                    float *part = features(m, &t, s, n, from, to);
                    assert_near(part, whole + from * sizes.voice_conv, (to - from) * sizes.voice_conv,
                                exact ? 0 : 1e-6);
                    free(part);
                }
            free(whole);
            wav2vec2_stats_free(&s);
        }
    wav2vec2_free(&m);
}

static void statistics_do_not_depend_on_pieces(void **state)
{
    (void)state;
    struct wav2vec2 *m = open_model("published");
    struct voice v = {.n = 20003, .scale = 0.4, .offset = 0.1};
    struct track t = track_of(&v, v.n);
    double sum = 0, sq = 0;
    for (int64_t i = 0; i < v.n; i++) sum += (double)(float)(noise_at(i) * v.scale + v.offset);
    for (int64_t i = 0; i < v.n; i++)
        sq += pow((double)(float)(noise_at(i) * v.scale + v.offset) - sum / (double)v.n, 2);
    struct wav2vec2_stats *whole = wav2vec2_measure(m, arena, &t);
    for (int64_t piece = 1; piece < 9000; piece = piece * 5 + 2) {
        m->piece_rows = piece;
        struct wav2vec2_stats *s = wav2vec2_measure(m, arena, &t);
        assert_true(fabs(s->mean - sum / (double)v.n) < 1e-12);
        assert_true(fabs(s->var - sq / (double)v.n) < 1e-12);
        for (int k = 0; k < 2; k++) assert_near(s->channel[k], whole->channel[k], sizes.voice_conv, 1e-6);
        wav2vec2_stats_free(&s);
    }
    wav2vec2_stats_free(&whole);
    wav2vec2_free(&m);
}

// A network that normalises its samples hears a quiet voice off centre as the plain network hears the normalised voice.
static void normalising_is_done_by_the_statistics(void **state)
{
    (void)state;
    struct wav2vec2 *m = open_model("published");
    struct voice quiet = {.n = 640 * 30, .scale = 0.02, .offset = 0.05};
    struct track t = track_of(&quiet, quiet.n);
    m->normalize = true;
    struct wav2vec2_stats *s = wav2vec2_measure(m, arena, &t);
    double deviation = sqrt(s->var + 1e-7);
    struct voice even = {
        .n = quiet.n, .scale = quiet.scale / deviation, .offset = (quiet.offset - s->mean) / deviation};
    float *a = encode(m, &t, s, 30);
    wav2vec2_stats_free(&s);
    m->normalize = false;
    t = track_of(&even, even.n);
    s = wav2vec2_measure(m, arena, &t);
    float *b = encode(m, &t, s, 30);
    assert_near(a, b, 30 * sizes.voice_layers * sizes.voice_dim, 2e-5);
    free(a);
    free(b);
    wav2vec2_stats_free(&s);
    wav2vec2_free(&m);
}

static void silence_behind_changes_no_feature_before(void **state)
{
    (void)state;
    struct wav2vec2 *m = open_model("published");
    struct voice v = {.n = 640 * 40, .scale = 0.4};
    struct track t = track_of(&v, v.n), longer = track_of(&v, v.n + 640 * 25);
    struct wav2vec2_stats *s = wav2vec2_measure(m, arena, &t);
    float *a = features(m, &t, s, 40, 0, 40), *b = features(m, &longer, s, 65, 0, 65);
    assert_near(a, b, 40 * sizes.voice_conv, 0);
    free(a);
    free(b);
    wav2vec2_stats_free(&s);
    wav2vec2_free(&m);
}

static void short_and_silent_tracks_have_features(void **state)
{
    (void)state;
    struct wav2vec2 *m = open_model("published");
    static const int64_t lengths[] = {0, 1, 9, 10, 399, 400, 640, 1279};
    for (int loud = 0; loud < 2; loud++)
        for (int normalize = 0; normalize < 2; normalize++)
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                struct voice v = {.n = lengths[i], .scale = loud};
                struct track t = track_of(&v, v.n);
                m->normalize = normalize;
                struct wav2vec2_stats *s = wav2vec2_measure(m, arena, &t);
                int64_t n = 1 + (int64_t)i % 3;
                float *out = encode(m, &t, s, n);
                for (int64_t k = 0; k < n * sizes.voice_layers * sizes.voice_dim; k++) assert_true(isfinite(out[k]));
                free(out);
                wav2vec2_stats_free(&s);
            }
    wav2vec2_free(&m);
}

static void every_spelling_gives_the_same(void **state)
{
    (void)state;
    write_respelled("parametrized", PARAMETRIZED);
    write_respelled("multiplied", MULTIPLIED);
    struct voice v = {.n = 640 * 25, .scale = 0.4};
    struct track t = track_of(&v, v.n);
    static const char *const folders[] = {"published", "parametrized", "multiplied"};
    float *out[3];
    for (int i = 0; i < 3; i++) {
        struct wav2vec2 *m = open_model(folders[i]);
        struct wav2vec2_stats *s = wav2vec2_measure(m, arena, &t);
        out[i] = encode(m, &t, s, 25);
        wav2vec2_stats_free(&s);
        wav2vec2_free(&m);
    }
    int64_t n = 25 * sizes.voice_layers * sizes.voice_dim;
    assert_near(out[0], out[1], n, 0);
    assert_near(out[0], out[2], n, 1e-6);
    for (int i = 0; i < 3; i++) free(out[i]);
}

// ---- length

// What may become resident between one minute and ten; ten minutes of samples alone are 38 MB. Sanitizers keep freed
// memory aside, so there only the arena tells.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { GROWTH_MAX = 1 << 30 };
#else
enum { GROWTH_MAX = 4 << 20 };
#endif

static int64_t resident_bytes(void)
{
    long long total, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lld %lld", &total, &resident), 2);
    fclose(f);
    return resident * sysconf(_SC_PAGESIZE);
}

// Statistics of all of the track, then windows with context: five of them, the last at the end.
static void work_through(struct wav2vec2 *m, struct dev_arena *a, int64_t minutes)
{
    int64_t n = minutes * 60 * 25, window = 500, context = 50;
    struct voice v = {.n = n * 640, .scale = 0.4};
    struct track t = track_of(&v, v.n);
    struct wav2vec2_stats *s = wav2vec2_measure(m, a, &t);
    for (int i = 0; i < 5; i++) {
        int64_t to = window + (n - window) * i / 4, from = to > window + context ? to - window - context : 0;
        tensor out = dev_tensor(a, DT_F32, SHAPE(to - from, wav2vec2_layers(m), wav2vec2_dim(m)));
        wav2vec2_encode(m, a, out, &t, s, n, from, to, NULL);
        dev_arena_reset(a, 0);
    }
    wav2vec2_stats_free(&s);
}

static void memory_does_not_grow_with_the_track(void **state)
{
    (void)state;
    struct wav2vec2 *m = open_model("published");
    struct dev_arena *a = dev_arena_new(dev, "long", (int64_t)4 << 30);
    work_through(m, a, 1);
    int64_t peak = dev_arena_peak(a), resident = resident_bytes();
    work_through(m, a, 10);
    int64_t grown = resident_bytes() - resident;
    printf("1 minute: arena %lld bytes; 10 minutes: arena %lld bytes, %lld bytes more resident\n", (long long)peak,
           (long long)dev_arena_peak(a), (long long)grown);
    assert_int_equal(dev_arena_peak(a), peak);
    assert_true(grown < GROWTH_MAX);
    OK(dev_sync(dev, ep));
    dev_arena_free(&a);
    wav2vec2_free(&m);
}

// ---- what is refused

static void declarations_are_refused_in_words(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"{", "line 1"},
        {"[]", "not an object"},
        {"{\"hidden_size\": \"768\"}", "hidden_size is not a whole number"},
        {"{\"hidden_size\": 0}", "hidden_size is 0"},
        {"{\"num_hidden_layers\": 70000}", "num_hidden_layers is 70000"},
        {"{\"hidden_size\": 770}", "12 num_attention_heads"},
        {"{\"num_conv_pos_embedding_groups\": 7}", "7 num_conv_pos_embedding_groups"},
        {"{\"layer_norm_eps\": -1}", "layer_norm_eps"},
        {"{\"hidden_act\": \"relu\"}", "hidden_act is relu"},
        {"{\"feat_extract_activation\": 3}", "feat_extract_activation is not a string"},
        {"{\"feat_extract_norm\": \"layer\"}", "feat_extract_norm is layer"},
        {"{\"do_stable_layer_norm\": true}", "do_stable_layer_norm must be false"},
        {"{\"conv_bias\": true}", "conv_bias must be false"},
        {"{\"add_adapter\": true}", "add_adapter must be false"},
        {"{\"conv_dim\": [512, 512]}", "conv_kernel is not a list"},
        {"{\"conv_dim\": [8, 8], \"conv_kernel\": [10], \"conv_stride\": [5, 2]}", "conv_kernel has 1 entries"},
        {"{\"conv_dim\": [], \"conv_kernel\": [], \"conv_stride\": []}", "conv_dim has 0 entries"},
        {"{\"conv_dim\": [8], \"conv_kernel\": [10], \"conv_stride\": [0]}", "entry 0 of conv_stride"},
        {"{\"conv_dim\": [8, 8, 8], \"conv_kernel\": [9, 9, 9], \"conv_stride\": [5000, 5000, 5000]}", "samples"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct wav2vec2_config c;
        struct err e = {0};
        assert_int_equal(wav2vec2_config_parse(&c, bad[i].text, &e), E_INPUT);
        if (!strstr(e.text, bad[i].word)) fail_msg("%s: said \"%s\"", bad[i].text, e.text);
    }
    struct wav2vec2_config c;
    OK(wav2vec2_config_parse(&c, "{\"mask_time_prob\": 0.05}", ep));
    assert_int_equal(c.dim, 768);
    assert_int_equal(c.n_convs, 7);
}

static void refuse(const char *folder, const char *word)
{
    char path[PATH_BYTES];
    struct wav2vec2 *m = NULL;
    struct err e = {0};
    assert_int_equal(wav2vec2_open(&m, dev, at(path, folder, ""), &e), E_INPUT);
    assert_null(m);
    if (!strstr(e.text, word)) fail_msg("%s: said \"%s\"", folder, e.text);
}

static void folders_are_refused_in_words(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    refuse("nowhere", "config.json");
    folder_new("bare");
    refuse("bare", "neither model.safetensors nor pytorch_model.bin");
    put_text("bare", "preprocessor_config.json", "{\"do_normalize\": \"yes\"}");
    refuse("bare", "do_normalize");
    put_text("bare", "preprocessor_config.json", "{\"sampling_rate\": 8000}");
    refuse("bare", "sampling_rate");
    assert_int_equal(unlink(at(path, "bare", "preprocessor_config.json")), 0);
    refuse("bare", "preprocessor_config.json");
    write_published("other");
    struct synth_sizes wide = sizes;
    wide.voice_dim = 32;
    OK(docs_voice(at(path, "other", "config.json"), &wide, ep));
    refuse("other", "feature_projection.projection.weight");
    wide = sizes;
    wide.voice_layers = 3;
    OK(docs_voice(at(path, "other", "config.json"), &wide, ep));
    refuse("other", "encoder.layers.2.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_and_windows_do_not_matter),
        cmocka_unit_test(statistics_do_not_depend_on_pieces),
        cmocka_unit_test(normalising_is_done_by_the_statistics),
        cmocka_unit_test(silence_behind_changes_no_feature_before),
        cmocka_unit_test(short_and_silent_tracks_have_features),
        cmocka_unit_test(every_spelling_gives_the_same),
        cmocka_unit_test(memory_does_not_grow_with_the_track),
        cmocka_unit_test(declarations_are_refused_in_words),
        cmocka_unit_test(folders_are_refused_in_words),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
