// A segment's denoising by many ranks equals one rank's: heads, ring and guide axes and their products, head counts
// that divide and token counts that do not, one to three branches, one and two speakers, branches one by one and
// together, with the step cache, with weights whole or shared (then to the bit); on the wire is what the formulas say
// and nothing else; and what happens to one rank within the loop ends it on all, within a step.
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

enum { SEED = 23, WINDOW = 5, MOTION = 1, CLASSES = 3 };

// What happens to one rank while a step ends.
enum trouble { NOTHING, STOPS, NO_MEMORY, NOT_FINITE, N_TROUBLES };

struct scene {
    struct synth_sizes size;
    struct weights *weights;
    enum dtype dtype;
    int64_t t, h, w; // latents
    int n_speakers, n_steps;
    struct spec_render spec; // guidance and step cache
    bool together;
    bool shared;     // blocks' weights over ranks, and a dry run before the real one
    bool all;        // over those of a sequence, not of the heads axis alone
    bool to_the_bit; // what weights shared give must be what they give when each rank has all
    enum trouble trouble;
    int bad_rank, bad_step;
    struct mesh_shape shape;
    int64_t rest_bytes;  // of weights outside of blocks
    float *want, *whole; // latents of one rank alone, and of the same ranks with whole weights
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
    int rank, steps; // that it has made
    tensor x;        // the latents under way
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

static int on_step(void *ctx, int i, int n)
{
    struct stage *st = ctx;
    (void)n;
    st->steps = i;
    if (dev_is_dry(st->d) || st->s->trouble == NOTHING || st->rank != st->s->bad_rank || i != st->s->bad_step) return 0;
    if (st->s->trouble == NO_MEMORY) dev_fault(st->d, "arena segment: the device has no memory left");
    if (st->s->trouble == NOT_FINITE) op_fill(st->d, st->x, NAN);
    return st->s->trouble == STOPS ? E_BUSY : 0;
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
    st->x = *x;
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
                        .step = on_step,
                        .ctx = st};
    int rc = denoise_run(&n, a, *x, e);
    free(t);
    return rc;
}

// What a step must put on the wire, per rank and branch that it evaluates (branches are shared by guide ranks in turn),
// and that it puts nothing else there.
static int bytes_as_written(const struct scene *s, const struct mesh *m, const struct guide *guide, struct err *e)
{
    int64_t u = s->shape.heads, r = s->shape.ring, g = s->shape.guide, mine = 0, maps = 0;
    for (int k = m->i_guide; k < guide->n; k += s->shape.guide) {
        mine++;
        maps += s->n_speakers > 1 && !guide->branch[k].no_voice;
    }
    int64_t n = dit_rows(m, s->t, s->h, s->w), layers = s->n_steps * s->size.layers;
    int64_t x = n * s->size.dim * dtype_size(s->dtype), whole = s->size.vae_z * s->t * s->h * s->w * 4;
    struct comm_count heads = comm_counted_all(m->heads), ring = comm_counted_all(m->ring);
    struct comm_count sum = comm_counted(m->heads, COMM_ALL_REDUCE), world = comm_counted_all(m->world);
    CHECK(comm_counted(m->heads, COMM_ALL_TO_ALL).sent_bytes == mine * layers * 4 * x * (u - 1) / u);
    CHECK(comm_counted(m->ring, COMM_TRADE).sent_bytes == mine * layers * 2 * x * (r - 1));
    CHECK(comm_counted_all(m->sequence).sent_bytes == (u * r - 1) * n * 4 * s->size.vae_z * 4 * mine * s->n_steps);
    CHECK(comm_counted_all(m->guide).sent_bytes == mine * (g - 1) * whole * s->n_steps);
    // The speaker map: a sum of its block over the heads, and the ends of its range over the ring.
    int64_t map = CLASSES * n * 4;
    CHECK(llabs(sum.sent_bytes - 2 * (u - 1) * maps * layers * map) <= 8 * u * maps * layers);
    CHECK(heads.sent_bytes == comm_counted(m->heads, COMM_ALL_TO_ALL).sent_bytes + sum.sent_bytes);
    CHECK(ring.sent_bytes == comm_counted(m->ring, COMM_TRADE).sent_bytes + (r - 1) * maps * layers * CLASSES * 8);
    CHECK(world.sent_bytes == comm_counted(m->world, COMM_AGREE).sent_bytes && world.sent_bytes <= 1024 * 8);
    return 0;
}

static struct comm *sharers_of(const struct scene *s, const struct mesh *m)
{
    return !s->shared ? NULL : s->all ? m->sequence : m->heads;
}

// Gathers of weights: every block once a pass, and the first of the next pass; padding aside.
static int weights_as_written(const struct stage *st, const struct mesh *m, int n_branches, struct err *e)
{
    const struct scene *s = st->s;
    int64_t p = comm_size(sharers_of(s, m)), d = s->size.dim, f = s->size.ffn, mine = 0;
    for (int k = m->i_guide; k < n_branches; k += s->shape.guide) mine++;
    if (s->together && mine > 0) mine = 1;
    int64_t gathers = mine * s->n_steps * s->size.layers + (mine > 0);
    int64_t block = (8 * d * d + 2 * d * f) * dtype_size(s->dtype) + (6 + 7 + 9) * d * 4 + f * 4;
    struct comm *c = dit_block_comm(st->dit, DIT_STEP);
    int64_t got = comm_counted_all(c).received_bytes;
    int64_t want = gathers * block * (p - 1) / p, padding = gathers * (26 * 256 + p * 256);
    CHECK(got >= want && got <= want + padding);
    CHECK(got == comm_counted(c, COMM_ALL_GATHER).received_bytes);
    return 0;
}

static int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// What `p` ranks that share weights each hold of the blocks: a share of all of them and two whole ones, as two runs.
static int64_t held(const struct scene *s, int p)
{
    int64_t d = s->size.dim, f = s->size.ffn, w = dtype_size(s->dtype), unit = 256 * p;
    int64_t run[2] = {
        8 * aligned(d * d * w) + 2 * aligned(d * f * w) + aligned(6 * d * 4) + 16 * aligned(d * 4) + aligned(f * 4),
        4 * aligned(d * d * w) + aligned(2 * d * s->size.audio_dim * w) + 6 * aligned(d * 4) + aligned(2 * d * 4)};
    int64_t bytes = 0;
    for (int i = 0; i < 2; i++) {
        run[i] = (run[i] + unit - 1) / unit * unit;
        bytes += s->size.layers * run[i] / p + (p > 1 ? 2 * run[i] : 0);
    }
    return bytes;
}

static int holds_its_share(const struct scene *s, const struct stage *st, int p, struct err *e)
{
    int64_t more = dit_bytes(st->dit) - held(s, p) - s->rest_bytes, loose = 8 * 256;
    if (more >= -loose && more <= loose) return 0;
    return err_set(e, E_FATAL, "a rank of %d holds %lld bytes, %lld more than it should", p,
                   (long long)dit_bytes(st->dit), (long long)more);
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
    if (!(most <= bound)) return err_set(e, E_FATAL, "rank %d is off by %g", rank, most);
    if (!s->to_the_bit) return 0;
    if (!s->shared && rank == 0) memcpy(s->whole, x.data, (size_t)tensor_bytes(x));
    CHECK(!s->shared || memcmp(s->whole, x.data, (size_t)tensor_bytes(x)) == 0);
    return 0;
}

// Nobody makes more than the step that is under way, and all are told the same.
static int ended_as_told(const struct scene *s, const struct stage *st, int rc, struct err *e)
{
    static const struct {
        int code;
        const char *text;
        int steps;
    } ends[N_TROUBLES] = {[STOPS] = {E_BUSY, "ended at step", 0},
                          [NO_MEMORY] = {E_FATAL, "the device has no memory left", 1},
                          [NOT_FINITE] = {E_INPUT, "values that are not finite", 0}};
    char by[16], told[200];
    snprintf(by, sizeof by, "rank %d: ", s->bad_rank);
    snprintf(told, sizeof told, "%.150s", e->text);
    if (rc != ends[s->trouble].code || !strstr(e->text, ends[s->trouble].text) ||
        (s->trouble != NOT_FINITE && strncmp(e->text, by, strlen(by)) != 0) ||
        st->steps > s->bad_step + ends[s->trouble].steps)
        return err_set(e, E_FATAL, "rank %d, code %d after step %d of trouble %d: '%s'", st->rank, rc, st->steps,
                       s->trouble, told);
    return 0;
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
    if (stage_open(&st, s, comm_rank(world), sharers_of(s, &m), e) < 0) return e->code;
    comm_follow(world, st.d);
    if (s->shared && s->trouble == NOTHING && holds_its_share(s, &st, comm_size(sharers_of(s, &m)), e) < 0)
        return e->code;
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
    if (rc == 0 && s->trouble == NOTHING) rc = compare(s, x, comm_rank(world), e);
    if (s->trouble != NOTHING)
        rc = ended_as_told(s, &st, rc, e);
    else if (rc == 0 && !s->spec.teacache)
        rc = bytes_as_written(s, &m, &g, e);
    if (rc == 0 && s->shared && s->trouble == NOTHING) rc = weights_as_written(&st, &m, g.n, e);
    comm_follow(world, NULL);
    stage_close(&st);
    mesh_close(&m);
    return rc;
}

static const struct mesh_shape shapes[] = {{1, 1, 1}, {1, 1, 2}, {1, 1, 3}, {1, 1, 4}, {1, 1, 8}, {1, 2, 1}, {1, 3, 1},
                                           {1, 5, 1}, {1, 2, 2}, {1, 4, 2}, {2, 1, 1}, {3, 1, 1}, {2, 1, 4}, {2, 2, 2},
                                           {3, 1, 2}, {2, 3, 1}, {1, 1, 5}, {1, 8, 1}, {1, 2, 4}, {2, 4, 1}, {3, 2, 1}};
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
    struct comm *self = NULL;
    assert_int_equal(comm_open(&self, "self", &e), 0);
    assert_int_equal(stage_open(&st, s, 0, self, &e), 0);
    s->rest_bytes = dit_bytes(st.dit) - held(s, 1);
    assert_true(s->rest_bytes > 0);
    stage_close(&st);
    comm_close(&self);
}

static const char *layout_of(const struct scene *s)
{
    static _Thread_local char text[64];
    snprintf(text, sizeof text, "guide %d x ring %d x heads %d", s->shape.guide, s->shape.ring, s->shape.heads);
    return text;
}

static void expect_equal(struct scene *s)
{
    struct err e = {0};
    run_alone(s);
    for (int i = 0; i < N_SHAPES; i++) {
        s->shape = shapes[i];
        if (s->size.heads % s->shape.heads) continue;
        if (comm_thread_run(ranks_of(s->shape), rank_main, s, &e) < 0) fail_msg("%s: %s", layout_of(s), e.text);
    }
    free(s->want);
}

// On layouts where sums have another order than on one rank, weights shared against weights whole.
static void expect_same_bits(struct scene *s)
{
    static const struct mesh_shape several[] = {{1, 2, 1}, {1, 5, 1}, {1, 2, 2}, {2, 2, 2}, {1, 4, 2}};
    struct err e = {0};
    run_alone(s);
    s->to_the_bit = true;
    s->whole = malloc((size_t)(s->size.vae_z * s->t * s->h * s->w) * sizeof *s->whole);
    assert_non_null(s->whole);
    for (size_t i = 0; i < sizeof several / sizeof *several; i++)
        for (int k = 0; k < 2; k++) {
            s->shape = several[i];
            s->shared = k;
            if (comm_thread_run(ranks_of(s->shape), rank_main, s, &e) < 0)
                fail_msg("%s, weights %s: %s", layout_of(s), k ? "shared" : "whole", e.text);
        }
    s->to_the_bit = false;
    free(s->whole);
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
    struct scene s = scene_of(10, 1, 1, 1); // one: guide ranks beyond it idle
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
    s.together = s.all = true;
    expect_equal(&s);
    s.n_speakers = 2;
    expect_same_bits(&s);
    s.dtype = DT_BF16;
    expect_equal(&s);
    expect_same_bits(&s);
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

// A rank other than the first stops, runs out of memory, or has numbers that are none.
static void what_happens_to_one_rank_ends_all(void **state)
{
    (void)state;
    struct scene s = scene_of(4, 1, 1, 3);
    static const struct mesh_shape several[] = {{1, 1, 2}, {1, 2, 2}, {2, 2, 1}};
    s.n_steps = s.spec.steps = 4;
    s.bad_step = 2;
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2 * N_TROUBLES; k++) {
            struct err e = {0};
            s.shape = several[i];
            s.trouble = (enum trouble)(k / 2);
            s.shared = s.all = k % 2;
            s.bad_rank = ranks_of(s.shape) - 1;
            if (s.trouble == NOTHING) continue;
            if (comm_thread_run(ranks_of(s.shape), rank_main, &s, &e) < 0) fail_msg("%s: %s", layout_of(&s), e.text);
        }
    weights_free(&s.weights);
}

// ---- as ranks of mpirun

static int by_mpi(struct comm *world, struct scene *s, int *n)
{
    struct err e = {0};
    int rc = rank_main(world, s, &e);
    *n += 1;
    if (comm_agree(world, rc, NULL, &e) == 0) return 0;
    printf("%s: %s\n", layout_of(s), e.text);
    comm_abort(world);
    return -1;
}

// All layouts of that many ranks, with weights shared and branches together, two speakers, three branches; and with
// weights whole, one speaker, two branches and one, branch by branch. Then what happens to the last rank.
static int as_mpi(void)
{
    struct err e = {0};
    struct comm *world = NULL;
    struct scene scenes[] = {scene_of(4, 2, 5, 4), scene_of(10, 1, 1, 3), scene_of(8, 1, 1, 1)};
    int n = 0, troubles = 0, rc = 0;
    scenes[0].shared = scenes[0].together = true;
    for (int k = 0; k < 3; k++) run_alone(&scenes[k]);
    if (comm_open(&world, "mpi", &e) < 0) {
        printf("skip: %s\n", e.text);
        return 0;
    }
    for (int k = 0; k < 3 * N_SHAPES && rc == 0; k++) {
        struct scene *s = &scenes[k / N_SHAPES];
        s->shape = shapes[k % N_SHAPES];
        if (ranks_of(s->shape) == comm_size(world) && s->size.heads % s->shape.heads == 0) rc = by_mpi(world, s, &n);
    }
    struct scene *s = &scenes[0];
    s->shape = (struct mesh_shape){1, comm_size(world), 1};
    s->bad_rank = comm_size(world) - 1;
    s->bad_step = 1;
    for (s->trouble = STOPS; s->trouble < N_TROUBLES && rc == 0; s->trouble++) rc = by_mpi(world, s, &troubles);
    if (rc < 0) return 1;
    if (comm_rank(world) == 0) printf("%d layouts and %d troubles on %d ranks of mpi\n", n, troubles, comm_size(world));
    for (int k = 0; k < 3; k++) {
        free(scenes[k].want);
        weights_free(&scenes[k].weights);
    }
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
                                       cmocka_unit_test(what_happens_to_one_rank_ends_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
