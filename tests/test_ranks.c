// A segment's denoising by many ranks equals one rank's: heads, ring and guide axes and their products, head counts
// that divide and token counts that do not, one to three branches, one and two speakers, branches one by one and
// together, with the step cache, with weights whole or shared; and on the wire is what the formulas say.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/comm_thread.h"
#include "proto/base/log.h"
#include "worker/denoise.h"
#include "worker/synth/parts.h"
#include "worker/weights/write_safetensors.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

enum { SEED = 23, WINDOW = 5, MOTION = 1 };

struct scene {
    struct synth_sizes size;
    struct weights *weights;
    enum dtype dtype;
    int64_t t, h, w; // latents
    int n_speakers, n_steps;
    struct spec_render spec; // guidance and step cache
    bool together;
    bool shared;              // blocks' weights over the heads axis, and a dry run before the real one
    int stop_rank, stop_step; // this rank ends the loop there; step 0: nobody does
    struct mesh_shape shape;
    float *want; // latents of one rank alone
};

static float draw(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (float)((int32_t)(*s >> 33) - (1 << 30)) / (float)(1 << 30);
}

static tensor random_tensor(struct dev_arena *a, uint64_t *seed, int n, const int64_t *shape)
{
    tensor x = dev_tensor(a, DT_F32, n, shape);
    for (int64_t i = 0; i < tensor_count(x); i++) ((float *)x.data)[i] = 1.5f * draw(seed);
    return x;
}

// ---- weights: a random model of any sizes in a file that is gone before the test ends

static void write_list(const char *path, const struct synth_list *l)
{
    struct err e = {0};
    struct safetensors_out *f = NULL;
    if (safetensors_create(&f, path, l->head, l->n, NULL, &e) < 0) fail_msg("%s", e.text);
    for (int64_t i = 0; i < l->n; i++) {
        int64_t bytes = head_bytes(&l->head[i]);
        void *values = malloc((size_t)bytes);
        list_fill(l, i, 0, bytes / dtype_size(l->dtype), values);
        assert_int_equal(safetensors_put(f, values, (size_t)bytes, &e), 0);
        free(values);
    }
    assert_int_equal(safetensors_close(&f, &e), 0);
}

static void make_model(struct scene *s, int heads, int width)
{
    char dir[] = "/tmp/test_ranks_XXXXXX", path[64];
    struct err e = {0};
    assert_non_null(mkdtemp(dir));
    s->size = (struct synth_sizes){.dim = heads * width,
                                   .ffn = 64,
                                   .freq = 16,
                                   .text_len = 7,
                                   .text_dim = 10,
                                   .clip_dim = 8,
                                   .clip_tokens = 5,
                                   .heads = heads,
                                   .layers = 3,
                                   .audio_inner = 16,
                                   .audio_dim = 12,
                                   .audio_tokens = 4,
                                   .vae_z = 4,
                                   .voice_dim = 6,
                                   .voice_layers = 2};
    struct synth_list l = {.label = "test", .seed = SEED, .dtype = DT_F32};
    list_dit(&l, &s->size);
    list_adapter(&l, &s->size);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    write_list(path, &l);
    list_free(&l);
    if (weights_open(&s->weights, path, &e) < 0) fail_msg("%s", e.text);
    unlink(path);
    rmdir(dir);
}

// ---- one rank

struct stage { // what a rank works with
    struct dev *d;
    struct dev_arena *a;
    struct dit *dit;
    int rank;
    const struct scene *s;
};

static int stage_open(struct stage *st, const struct scene *s, int rank, struct comm *group, struct err *e)
{
    struct dit_config c = {.n_heads = s->size.heads,
                           .text_len = (int)s->size.text_len,
                           .clip_tokens = (int)s->size.clip_tokens,
                           .audio_window = WINDOW};
    *st = (struct stage){.rank = rank, .s = s};
    if (dev_open(&st->d, "ref", 1, e) < 0) return e->code;
    st->a = dev_arena_new(st->d, "rank", 1 << 27);
    return dit_new_shared(&st->dit, st->d, s->weights, &c, s->dtype, group, e);
}

static void stage_close(struct stage *st)
{
    dit_free(&st->dit);
    dev_arena_free(&st->a);
    dev_close(&st->d);
}

static int stop(void *ctx, int i, int n)
{
    const struct stage *st = ctx;
    (void)n;
    return st->rank == st->s->stop_rank && i == st->s->stop_step ? E_BUSY : 0;
}

// The same conditions on every rank; x on return the latents.
static int run_denoise(struct stage *st, const struct mesh *mesh, tensor *x, struct err *e)
{
    const struct scene *s = st->s;
    const struct synth_sizes *z = &s->size;
    struct dev_arena *a = st->a;
    uint64_t seed = SEED;
    float *t = malloc((size_t)(s->n_steps + 1) * sizeof *t);
    BUG_IF(!t, "no memory");
    for (int i = 0; i <= s->n_steps; i++) t[i] = 1000 * (float)(s->n_steps - i) / (float)s->n_steps;
    *x = random_tensor(a, &seed, SHAPE(z->vae_z, s->t, s->h, s->w));
    tensor masks = dev_tensor(a, DT_F32, SHAPE(3, s->h / 2 * (s->w / 2)));
    for (int64_t i = 0; i < tensor_count(masks); i++) ((float *)masks.data)[i] = i % 3 == i / (tensor_count(masks) / 3);
    tensor y = random_tensor(a, &seed, SHAPE(z->vae_z + 4, s->t, s->h, s->w));
    tensor motion = random_tensor(a, &seed, SHAPE(z->vae_z, MOTION, s->h, s->w));
    struct dit_picture picture =
        dit_picture_new(st->dit, a, random_tensor(a, &seed, SHAPE(z->clip_tokens, z->clip_dim)), NULL);
    struct dit_words words = dit_words_new(st->dit, a, random_tensor(a, &seed, SHAPE(6, z->text_dim)), NULL);
    struct dit_words negative = dit_words_new(st->dit, a, random_tensor(a, &seed, SHAPE(3, z->text_dim)), NULL);
    int64_t frames = 1 + 4 * (s->t - 1);
    struct dit_voice voice = dit_voice_new(
        st->dit, a, random_tensor(a, &seed, SHAPE(s->n_speakers, frames, WINDOW, z->voice_layers, z->voice_dim)), NULL);
    struct dit_voice silence = dit_voice_null(st->dit, a, s->t);
    struct guide guide;
    struct cache cache;
    guide_init(&guide, a, &s->spec, *x);
    if (s->spec.teacache)
        cache_init(&cache, a, &s->spec, CACHE_SLOTS, dit_rows(mesh, s->t, s->h, s->w), z->dim, s->dtype);
    struct denoise n = {.dit = st->dit,
                        .n_steps = s->n_steps,
                        .t = t,
                        .y = y,
                        .masks = masks,
                        .motion = motion,
                        .picture = &picture,
                        .words = &words,
                        .negative = &negative,
                        .voice = &voice,
                        .silence = &silence,
                        .guide = &guide,
                        .cache = s->spec.teacache ? &cache : NULL,
                        .mesh = mesh,
                        .together = s->together,
                        .step = stop,
                        .ctx = st};
    int rc = denoise_run(&n, a, *x, e);
    free(t);
    return rc;
}

// What a step must put on the wire, per rank and branch that it evaluates; branches are shared by guide ranks in turn.
static int bytes_as_written(const struct scene *s, const struct mesh *m, int n_branches, struct err *e)
{
    int64_t u = s->shape.heads, r = s->shape.ring, g = s->shape.guide, mine = 0, sent = 0;
    for (int k = m->i_guide; k < n_branches; k += s->shape.guide) mine++;
    int64_t n = dit_rows(m, s->t, s->h, s->w), runs = mine * s->n_steps * s->size.layers;
    int64_t x = n * s->size.dim * dtype_size(s->dtype), whole = s->size.vae_z * s->t * s->h * s->w * 4;
    CHECK(comm_counted(m->heads, COMM_ALL_TO_ALL).sent_bytes == runs * 4 * x * (u - 1) / u);
    CHECK(comm_counted(m->ring, COMM_TRADE).sent_bytes == runs * 2 * x * (r - 1));
    CHECK(comm_counted_all(m->sequence).sent_bytes == (u * r - 1) * n * 4 * s->size.vae_z * 4 * mine * s->n_steps);
    sent = mine * (g - 1) * whole * s->n_steps;
    CHECK(comm_counted_all(m->guide).sent_bytes == sent);
    if (s->n_speakers == 1) {
        CHECK(comm_counted_all(m->heads).sent_bytes == comm_counted(m->heads, COMM_ALL_TO_ALL).sent_bytes);
        CHECK(comm_counted_all(m->ring).sent_bytes == comm_counted(m->ring, COMM_TRADE).sent_bytes);
    }
    struct comm_count world = comm_counted_all(m->world);
    CHECK(world.sent_bytes == comm_counted(m->world, COMM_AGREE).sent_bytes && world.sent_bytes <= 1024 * 8);
    return 0;
}

// Gathers of weights: every block once a pass, and the first of the next pass; padding aside.
static int weights_as_written(const struct stage *st, const struct mesh *m, int n_branches, struct err *e)
{
    const struct scene *s = st->s;
    int64_t p = s->shape.heads, d = s->size.dim, f = s->size.ffn, mine = 0;
    for (int k = m->i_guide; k < n_branches; k += s->shape.guide) mine++;
    if (s->together && mine > 0) mine = 1;
    int64_t gathers = mine * s->n_steps * s->size.layers + (mine > 0);
    int64_t block = (8 * d * d + 2 * d * f) * dtype_size(s->dtype) + (6 + 7 + 9) * d * 4 + f * 4;
    int64_t got = comm_counted_all(dit_block_comm(st->dit, DIT_STEP)).received_bytes;
    int64_t want = gathers * block * (p - 1) / p, padding = gathers * (26 * 256 + p * 256);
    CHECK(got >= want && got <= want + padding);
    return 0;
}

static int compare(const struct scene *s, tensor x, int rank, struct err *e)
{
    // Heads alone change no sum; else f32 to 1e-5.
    double most = 0, exact = s->shape.ring == 1 && s->n_speakers == 1;
    for (int64_t i = 0; i < tensor_count(x); i++) {
        double off = fabs((double)((float *)x.data)[i] - (double)s->want[i]);
        if (!(off <= most)) most = off;
    }
    double bound = exact ? 0 : s->dtype == DT_F32 ? 1e-5 : 0.1;
    return most <= bound ? 0 : err_set(e, E_FATAL, "rank %d is off by %g", rank, most);
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    const struct scene *s = ctx;
    struct mesh m = {0};
    struct stage st;
    tensor x;
    struct guide g;
    int rc = 0;
    guide_plan(&g, &s->spec);
    if (mesh_open(&m, world, s->shape, e) < 0) return e->code;
    if (stage_open(&st, s, comm_rank(world), s->shared ? m.heads : NULL, e) < 0) return e->code;
    comm_follow(world, st.d);
    if (s->shared) {
        dev_set_dry(st.d, true);
        rc = run_denoise(&st, &m, &x, e);
        dev_set_dry(st.d, false);
        dev_arena_reset(st.a, 0);
        struct comm *all[] = {m.heads, m.ring, m.guide, m.sequence, dit_block_comm(st.dit, DIT_STEP)};
        for (int i = 0; i < 5; i++) comm_count_reset(all[i]);
    }
    comm_count_reset(world);
    if (rc == 0) rc = run_denoise(&st, &m, &x, e);
    if (rc == 0) rc = compare(s, x, comm_rank(world), e);
    if (rc == 0 && !s->spec.teacache) rc = bytes_as_written(s, &m, g.n, e);
    if (rc == 0 && s->shared) rc = weights_as_written(&st, &m, g.n, e);
    comm_follow(world, NULL);
    stage_close(&st);
    mesh_close(&m);
    return rc;
}

static const struct mesh_shape shapes[] = {{1, 1, 1}, {1, 1, 2}, {1, 1, 3}, {1, 1, 4}, {1, 1, 8}, {1, 2, 1},
                                           {1, 3, 1}, {1, 5, 1}, {1, 2, 2}, {1, 4, 2}, {2, 1, 1}, {3, 1, 1},
                                           {2, 1, 4}, {2, 2, 2}, {3, 1, 2}, {2, 3, 1}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static int ranks_of(struct mesh_shape m) { return m.guide * m.ring * m.heads; }

// What one rank alone makes of the scene.
static void run_alone(struct scene *s)
{
    struct err e = {0};
    struct stage st;
    tensor x;
    assert_int_equal(stage_open(&st, s, 0, NULL, &e), 0);
    if (run_denoise(&st, NULL, &x, &e) < 0) fail_msg("alone: %s", e.text);
    s->want = malloc((size_t)tensor_bytes(x));
    memcpy(s->want, x.data, (size_t)tensor_bytes(x));
    stage_close(&st);
}

static void expect_equal(struct scene *s)
{
    struct err e = {0};
    run_alone(s);
    for (int i = 0; i < N_SHAPES; i++) {
        s->shape = shapes[i];
        if (s->size.heads % s->shape.heads) continue;
        if (comm_thread_run(ranks_of(s->shape), rank_main, s, &e) < 0)
            fail_msg("guide %d x ring %d x heads %d: %s", s->shape.guide, s->shape.ring, s->shape.heads, e.text);
    }
    free(s->want);
}

static struct scene scene_of(int heads, int speakers, double text_scale, double audio_scale)
{
    struct scene s = {.dtype = DT_F32, .t = 3, .h = 6, .w = 10, .n_speakers = speakers, .n_steps = 2};
    s.spec.text_scale = text_scale;
    s.spec.audio_scale = audio_scale;
    s.spec.steps = s.n_steps;
    make_model(&s, heads, 6);
    return s;
}

static void three_branches(void **state)
{
    (void)state;
    struct scene s = scene_of(8, 1, 5, 4); // 45 tokens: no 2, 4 or 8 divides them
    expect_equal(&s);
    s.together = true;
    expect_equal(&s);
    s.spec.apg = true;
    s.spec.apg_momentum = -0.75;
    s.spec.apg_norm_threshold = 55;
    expect_equal(&s);
    weights_free(&s.weights);
}

static void two_speakers(void **state)
{
    (void)state;
    struct scene s = scene_of(6, 2, 5, 4);
    expect_equal(&s);
    s.together = true;
    expect_equal(&s);
    weights_free(&s.weights);
}

static void fewer_branches(void **state)
{
    (void)state;
    struct scene s = scene_of(6, 1, 1, 1); // one: guide ranks beyond it idle
    expect_equal(&s);
    s.spec.audio_scale = 3; // two, one speaker and none
    s.together = true;
    s.n_speakers = 2;
    expect_equal(&s);
    weights_free(&s.weights);
}

static void shared_weights(void **state)
{
    (void)state;
    struct scene s = scene_of(8, 1, 5, 4);
    s.shared = true;
    expect_equal(&s);
    s.together = true;
    expect_equal(&s);
    s.dtype = DT_BF16;
    s.n_speakers = 2;
    expect_equal(&s);
    weights_free(&s.weights);
}

static void step_cache(void **state)
{
    (void)state;
    struct scene s = scene_of(4, 1, 5, 4);
    s.n_steps = s.spec.steps = 8;
    s.spec.teacache = true;
    s.spec.teacache_thresh = 1e9; // all steps after the warm ones skip
    memcpy(s.spec.teacache_poly, model_teacache("infinitetalk-480", 0), sizeof s.spec.teacache_poly);
    expect_equal(&s);
    s.together = true;
    expect_equal(&s);
    s.spec.parity = SPEC_PARITY_PUBLISHED; // one counter for all branches
    expect_equal(&s);
    weights_free(&s.weights);
}

static void bf16(void **state)
{
    (void)state;
    struct scene s = scene_of(4, 2, 5, 4);
    s.dtype = DT_BF16;
    expect_equal(&s);
    weights_free(&s.weights);
}

static void an_end_on_one_rank_ends_all(void **state)
{
    (void)state;
    struct scene s = scene_of(4, 1, 1, 1);
    struct err e = {0};
    s.n_steps = s.spec.steps = 3;
    s.shape = (struct mesh_shape){1, 2, 2};
    s.stop_step = 2;
    s.stop_rank = 3;
    assert_int_equal(comm_thread_run(4, rank_main, &s, &e), E_BUSY);
    assert_string_equal(e.text, "rank 3: segment 1 ended at step 2");
    weights_free(&s.weights);
}

// As one rank of mpirun: all layouts of that many ranks, weights shared, branches together.
static int as_mpi(void)
{
    struct err e = {0};
    struct comm *world = NULL;
    struct scene s = scene_of(4, 2, 5, 4);
    int n = 0;
    s.shared = s.together = true;
    run_alone(&s);
    if (comm_open(&world, "mpi", &e) < 0) {
        printf("skip: %s\n", e.text);
        return 0;
    }
    for (int i = 0; i < N_SHAPES; i++) {
        s.shape = shapes[i];
        if (ranks_of(s.shape) != comm_size(world) || s.size.heads % s.shape.heads) continue;
        int rc = rank_main(world, &s, &e);
        if (comm_agree(world, rc, NULL, &e) < 0) {
            printf("guide %d x ring %d x heads %d: %s\n", s.shape.guide, s.shape.ring, s.shape.heads, e.text);
            comm_abort(world);
            return 1;
        }
        n++;
    }
    if (comm_rank(world) == 0) printf("%d layouts on %d ranks of mpi\n", n, comm_size(world));
    free(s.want);
    weights_free(&s.weights);
    comm_close(&world);
    return 0;
}

int main(int argc, char **argv)
{
    log_init(LOG_WARN, "test_ranks", 0);
    print_message("seed %d\n", SEED);
    if (argc > 1 && strcmp(argv[1], "mpi") == 0) return as_mpi();
    const struct CMUnitTest tests[] = {cmocka_unit_test(three_branches),
                                       cmocka_unit_test(two_speakers),
                                       cmocka_unit_test(fewer_branches),
                                       cmocka_unit_test(shared_weights),
                                       cmocka_unit_test(step_cache),
                                       cmocka_unit_test(bf16),
                                       cmocka_unit_test(an_end_on_one_rank_ends_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
