// What the planner is fed: sizes of the published model against its known parameters, a folder's shapes against the
// list it was made of, memory against what the networks take, rates that ranks measure together; and the verb itself.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/comm_thread.h"
#include "proto/base/log.h"
#include "tests/folder.h"
#include "worker/models/dit.h"
#include "worker/models/vae.h"
#include "worker/plan/rates.h"
#include "worker/plan/sizes.h"
#include "worker/synth/parts.h"
#include "worker/synth/synth.h"
#include "worker/weights/write_safetensors.h"

#include <math.h>
#include <string.h>
#include <sys/wait.h>

static char model[300];

static void near_to(double got, double want, double part)
{
    if (!(fabs(got - want) <= part * fabs(want))) fail_msg("%g is not within %g %% of %g", got, 100 * part, want);
}

static void published(void **state)
{
    (void)state;
    struct plan_model m;
    sizes_of_list(&m, &synth_published, 2);
    near_to((double)m.step_bytes, 703e6, 0.002);
    near_to((double)m.context_bytes, 226e6, 0.005);
    near_to(40.0 * (double)(m.step_bytes + m.context_bytes), 37.1e9, 0.003);
    near_to((double)m.rest_bytes, 0.63e9 + 0.51e9, 0.02); // and the VAE in F32
    near_to((double)m.encoder_bytes[0], 11.4e9, 0.01);
    near_to((double)m.words_block, 386e6, 0.002);
    assert_int_equal(m.words_blocks, 24 * m.words_block);
    near_to((double)m.encoder_bytes[1], 2 * 1.26e9, 0.02);
    assert_int_equal(m.heads, 40);
    assert_int_equal(m.words + m.picture, 769);
    assert_int_equal(m.voice, 32);
    near_to(m.decode_ops * 480 * 832 * 81, 275e12, 0.01);
    near_to(m.encode_ops * 480 * 832 * 9, 19e12, 0.01);
}

static void folder_and_list(void **state)
{
    (void)state;
    struct plan_model want, got;
    struct model *m = malloc(sizeof *m);
    struct err e = {0};
    assert_int_equal(model_open(m, model, &e), 0);
    for (int size = 2; size <= 4; size += 2) {
        sizes_of_list(&want, &synth_tiny, size);
        if (sizes_of_folder(&got, m, 1, size, &e) < 0) fail_msg("%s", e.text);
        assert_memory_equal(&got, &want, sizeof got);
    }
    m->vae[0] = 0;
    assert_int_equal(sizes_of_folder(&got, m, 1, 4, &e), E_INPUT);
    assert_non_null(strstr(e.text, "VAE"));
    free(m);
}

// ---- memory

struct scene {
    struct mesh_shape shape;
    int batch;
    int64_t t, h, w;
    struct plan_model net;
};

static int measure_forward(const struct scene *s, const struct mesh *m, struct dit *dit, struct dev *d, int64_t *peak)
{
    struct dev_arena *keep = dev_arena_new(d, "keep", 1 << 28), *a = dev_arena_new(d, "work", 1 << 28);
    const struct dit_config *c = dit_config_of(dit);
    struct dit_words words = dit_words_new(dit, keep, dev_tensor(keep, DT_F32, SHAPE(3, c->text_dim)), NULL);
    struct dit_picture picture =
        dit_picture_new(dit, keep, dev_tensor(keep, DT_F32, SHAPE(c->clip_tokens, c->clip_dim)), NULL);
    struct dit_voice voice = dit_voice_null(dit, keep, s->t);
    struct dit_in in[3];
    tensor out[3];
    for (int i = 0; i < s->batch; i++) {
        in[i] = (struct dit_in){.x = dev_tensor(keep, DT_F32, SHAPE(c->out_dim, s->t, s->h, s->w)),
                                .y = dev_tensor(keep, DT_F32, SHAPE(c->in_dim - c->out_dim, s->t, s->h, s->w)),
                                .time = dit_time_new(dit, keep, 500, NULL),
                                .words = &words,
                                .picture = &picture,
                                .voice = &voice};
        out[i] = dev_tensor(keep, DT_F32, SHAPE(c->out_dim, s->t, s->h, s->w));
    }
    dit_forward_branches(dit, m, a, out, in, s->batch, NULL);
    *peak = dev_arena_peak(a);
    dev_arena_free(&a);
    dev_arena_free(&keep);
    return 0;
}

static int forward_rank(struct comm *world, void *ctx, struct err *e)
{
    const struct scene *s = ctx;
    char path[400];
    struct mesh m = {0};
    struct dev *d = NULL;
    struct weights *w = NULL;
    struct dit *dit = NULL;
    struct dit_config c = {.n_heads = synth_tiny.heads, .text_len = (int)synth_tiny.text_len};
    int64_t peak = 0;
    int rc = mesh_open(&m, world, s->shape, e);
    if (rc == 0) rc = dev_open(&d, "ref", 1, e);
    if (rc == 0) rc = weights_open(&w, model, e);
    snprintf(path, sizeof path, "%s/InfiniteTalk/single/infinitetalk.safetensors", model);
    if (rc == 0) rc = weights_add(w, path, e);
    if (rc == 0) rc = dit_new(&dit, d, w, &c, DT_F32, e);
    if (rc == 0) {
        comm_follow(world, d);
        dev_set_dry(d, true);
        measure_forward(s, &m, dit, d, &peak);
        dev_set_dry(d, false);
        comm_follow(world, NULL);
        struct plan_job j = {.frames = s->t, .gh = s->h / 2, .gw = s->w / 2, .branches = s->batch, .speakers = 1};
        struct plan_rates r = {.linear = 1, .attention = 1, .conv = 1, .copy = 1, .near = 1, .far = 1};
        struct plan_row y = plan_predict(&s->net, &j, &r, s->shape, s->batch > 1 ? PLAN_ALL : PLAN_WHOLE);
        if (fabs((double)(y.work - peak)) > 0.01 * (double)peak)
            rc = err_set(e, E_FATAL, "%lld bytes of work were foretold and %lld taken", (long long)y.work,
                         (long long)peak);
    }
    dit_free(&dit);
    weights_free(&w);
    dev_close(&d);
    mesh_close(&m);
    return rc;
}

static void work_space(void **state)
{
    (void)state;
    static const struct mesh_shape shapes[] = {{1, 1, 1}, {1, 1, 2}, {1, 1, 4}, {1, 2, 1}, {1, 3, 1}, {1, 2, 2}};
    struct err e = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int batch = 1; batch <= 3; batch += 2) {
            struct scene s = {.shape = shapes[i], .batch = batch, .t = 5, .h = 50, .w = 62};
            if (batch > 1 && shapes[i].ring * shapes[i].heads == 1) continue; // alone nothing goes together
            sizes_of_list(&s.net, &synth_tiny, 4);
            s.net.decode_bytes = 0;
            s.net.out_dim = 0; // latents are not the forward's own
            int n = shapes[i].ring * shapes[i].heads;
            if (comm_thread_run(n, forward_rank, &s, &e) < 0)
                fail_msg("ring %d x heads %d, %d branches: %s", shapes[i].ring, shapes[i].heads, batch, e.text);
        }
}

// A segment's decode by bands: what a rank takes in a dry run, and what was foretold.
struct decode_scene {
    const char *vae; // file
    struct plan_model net;
    int64_t h, w;
};

static int decode_rank(struct comm *world, void *ctx, struct err *e)
{
    const struct decode_scene *s = ctx;
    struct dev *d = NULL;
    struct weights *w = NULL;
    struct vae *v = NULL;
    static const float zeros[64] = {0};
    float ones[64];
    for (int i = 0; i < 64; i++) ones[i] = 1;
    int rc = dev_open(&d, "ref", 1, e);
    if (rc == 0) rc = weights_open(&w, s->vae, e);
    if (rc == 0) rc = vae_new(&v, d, w, zeros, ones, e);
    if (rc == 0) {
        struct dev_arena *a = dev_arena_new(d, "work", 1LL << 32), *x = dev_arena_new(d, "latents", 1 << 24);
        vae_share(v, world);
        comm_follow(world, d);
        dev_set_dry(d, true);
        tensor z = dev_tensor(x, DT_F32, SHAPE(vae_latent_channels(v), 3, s->h / 8, s->w / 8));
        struct vae_stream *t = vae_decode_open(v, a, s->h, s->w, NULL);
        tensor pixels = dev_tensor(a, DT_F32, SHAPE(4, s->h, s->w, 3));
        for (int i = 0; i < 3; i++)
            vae_decode_slice(t, i ? pixels : tensor_slice(pixels, 0, 0, 1), tensor_slice(z, 1, i, i + 1));
        vae_stream_close(&t);
        dev_set_dry(d, false);
        comm_follow(world, NULL);
        struct plan_job j = {.frames = 3, .gh = s->h / 16, .gw = s->w / 16, .branches = 1, .speakers = 1};
        struct plan_rates r = {.linear = 1, .attention = 1, .conv = 1, .copy = 1, .near = 1, .far = 1};
        struct plan_row y = plan_predict(&s->net, &j, &r, (struct mesh_shape){1, 1, comm_size(world)}, PLAN_WHOLE);
        double peak = (double)dev_arena_peak(a);
        if (fabs((double)y.work - peak) > 0.05 * peak && comm_rank(world) == 0)
            rc = err_set(e, E_FATAL, "%lld bytes of work were foretold and %.0f taken", (long long)y.work, peak);
        dev_arena_free(&x);
        dev_arena_free(&a);
    }
    vae_free(&v);
    weights_free(&w);
    dev_close(&d);
    return comm_agree(world, rc, NULL, e);
}

static void write_vae(const char *path, const struct synth_sizes *size)
{
    struct synth_list l = {.label = "test", .seed = 1, .dtype = DT_F32};
    struct safetensors_out *f = NULL;
    struct err e = {0};
    list_vae(&l, size);
    if (safetensors_create(&f, path, l.head, l.n, NULL, &e) < 0) fail_msg("%s", e.text);
    for (int64_t i = 0; i < l.n; i++) {
        int64_t bytes = head_bytes(&l.head[i]);
        void *values = calloc(1, (size_t)bytes);
        assert_int_equal(safetensors_put(f, values, (size_t)bytes, &e), 0);
        free(values);
    }
    assert_int_equal(safetensors_close(&f, &e), 0);
    list_free(&l);
}

static void decode_space(void **state)
{
    (void)state;
    static const struct {
        int64_t width, h, w;
        int ranks;
    } cases[] = {{4, 64, 96, 1},    {4, 256, 192, 2},  {8, 128, 256, 4},  {16, 160, 256, 1},
                 {16, 160, 256, 2}, {24, 128, 208, 3}, {16, 480, 832, 8}, {12, 480, 832, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct synth_sizes size = synth_tiny;
        char path[400];
        struct err e = {0};
        size.vae_dim = cases[i].width;
        struct decode_scene s = {.vae = path, .h = cases[i].h, .w = cases[i].w};
        snprintf(path, sizeof path, "%s/vae.safetensors", top);
        write_vae(path, &size);
        sizes_of_list(&s.net, &size, 4);
        s.net.dim = s.net.ffn = 4; // steps take less than a decode
        if (comm_thread_run(cases[i].ranks, decode_rank, &s, &e) < 0)
            fail_msg("width %lld, %lldx%lld, %d ranks: %s", (long long)cases[i].width, (long long)cases[i].w,
                     (long long)cases[i].h, cases[i].ranks, e.text);
        assert_int_equal(remove(path), 0);
    }
}

// ---- rates

static struct plan_rates seen[3];

static int probe_rank(struct comm *world, void *ctx, struct err *e)
{
    const struct plan_model *m = ctx;
    struct dev *d = NULL;
    int rc = dev_open(&d, "cpu", 1, e);
    if (rc == 0) rc = rates_probe(&seen[comm_rank(world)], d, world, m, 84, e);
    dev_close(&d);
    return rc;
}

static void probed(void **state)
{
    (void)state;
    struct plan_model m;
    struct err e = {0};
    for (int size = 2; size <= 4; size += 2) {
        sizes_of_list(&m, &synth_tiny, size);
        if (comm_thread_run(3, probe_rank, &m, &e) < 0) fail_msg("%s", e.text);
        for (int i = 0; i < 3; i++) {
            const struct plan_rates *r = &seen[i];
            assert_true(r->linear == seen[0].linear && r->latency == seen[0].latency && r->memory == seen[0].memory);
            assert_true(r->linear > 1e6 && r->attention > 1e6 && r->conv > 1e6 && r->copy > 1e6);
            assert_true(r->near > 1e5 && r->latency > 0 && r->memory > 0);
            assert_int_equal(r->node, 3);
            assert_true(r->shared && !r->hides);
        }
    }
}

static void stated(void **state)
{
    (void)state;
    const struct rates_device *d = NULL;
    struct err e = {0};
    assert_int_equal(rates_stated(&d, "h100", &e), 0);
    assert_true(d->rates.linear > 1e14 && d->rates.memory > 70000000000);
    assert_int_equal(rates_stated(&d, "cray", &e), E_INPUT);
    assert_non_null(strstr(e.text, "'cray'; they are of h100"));
}

// ---- the verb

// What `longtake plan` prints, and its exit code.
static int say(char *text, size_t n, const char *flags)
{
    char command[700];
    snprintf(command, sizeof command, "%s/longtake plan %s 2>&1", BIN_DIR, flags);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t got = fread(text, 1, n - 1, f);
    text[got] = 0;
    return WEXITSTATUS(pclose(f));
}

static void expect(const char *flags, int code, const char *sentence)
{
    char text[16384];
    int got = say(text, sizeof text, flags);
    if (got != code || !strstr(text, sentence))
        fail_msg("plan %s: %d, not %d \"%s\": %s", flags, got, code, sentence, text);
}

static void the_verb(void **state)
{
    (void)state;
    char flags[400];
    snprintf(flags, sizeof flags, "--model %s --sample-text-guide-scale 5", model);
    expect(flags, 0, "fastest: 1x1x1");
    expect("--like 14b --device h100 --gpus 8", 0, "fastest: 1x1x8,");
    expect("--like 14b --device h100 --gpus 16", 0, "fastest: 1x2x8,");
    expect("--like 14b --device h100 --gpus 8", 0, "--layout auto takes the same");
    expect("--like 14b --device h100 --gpus 2 --wire 20", 0, "--layout auto takes the same");
    expect("--like 14b --device h100 --gpus 2 --wire 0.5", 0, "--layout auto takes 1x1x2, ");
    expect("--like 14b --device h100 --gpus 2 --wire 0.5 --size 960x1920", 0, "say --layout 1x2x1 to have the fastest");
    expect("--like 14b --device h100 --gpus 2 --wire 0.5", 0, "fewer would be faster: 1 as 1x1x1");
    expect("--like 14b --device 4090 --gpus 2", 3, "GB are there");
    expect("--like 14b --device h100 --gpus 7 --layout 1x1x7", 3, "7 ranks cannot share");
    expect("--like 14b --device h100 --gpus 8 --layout 1x2x4 --json", 0, "\"ring\": 2,");
    expect("--like 14b --frame-num 80 --device h100", 3, "4n+1");
    expect("--like 14b --devise h100", 2, "did you mean --device");
    expect("--model /nowhere", 3, "/nowhere");
    expect("-n none", 2, "not a number of ranks");
}

static int set_up(void **state)
{
    (void)state;
    struct err e = {0};
    struct synth_report r;
    struct synth_options o = {.dir = model, .seed = 3};
    log_init(LOG_ERROR, "test", 0);
    if (top_make("test_plan_sizes") < 0) return -1;
    snprintf(model, sizeof model, "%s/model", top);
    return synth_write(&o, &r, &e);
}

static int tear_down(void **state)
{
    (void)state;
    return top_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published),    cmocka_unit_test(folder_and_list), cmocka_unit_test(work_space),
        cmocka_unit_test(decode_space), cmocka_unit_test(probed),          cmocka_unit_test(stated),
        cmocka_unit_test(the_verb),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
