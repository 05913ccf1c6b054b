// A whole job by the ranks of a mesh, from words and a voice to tails and frames, equals one rank's, and with weights
// spread it is that of the same ranks with all of them to the bit, each holding its share; only one rank has a sink; an
// end or a fault in any stage on one rank ends it on all, within a step.
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
#include "worker/render.h"
#include "worker/synth/synth.h"
#include "worker/texts.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

enum { SEED = 41, H = 64, W = 96, F = 9, M = 5, SEGMENTS = 2, TAIL_MAX = 1 << 16, FRAME = H * W * 3 / 2 };

// The thread sanitizer does not see how oneDNN guards what its callers share.
#ifdef __SANITIZE_THREAD__
static const char table[] = "ref";
#else
static const char table[] = "cpu";
#endif

struct result { // what the sink was given
    uint8_t frames[SEGMENTS][F][FRAME], tail[SEGMENTS][TAIL_MAX];
    size_t tail_bytes[SEGMENTS];
    int n_frames[SEGMENTS], segment;
};

struct scene {
    const char *model;
    struct spec_render spec;
    struct mesh_shape shape;
    bool share_weights, together, twice;
    const char *stop_stage; // the sink ends the job there, or NULL
    const char *bad_stage;  // the device of bad_rank has a fault there, or NULL
    int bad_rank;
    atomic_int bad, after; // it has happened; calls of rank 0's sink since
    struct result *want, *got;
};

static void read_voice(void *ctx, float *dst, int64_t from, int64_t n)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) dst[i] = 0.3f * sinf((float)(from + i) * 0.05f) * sinf((float)(from + i) * 0.0007f);
}

static void draw_picture(uint8_t *rgb)
{
    for (int i = 0; i < H * W * 3; i++) rgb[i] = (uint8_t)(i * 37 % 251 / 2 + i / (W * 3) * 2);
}

// ---- the sink

struct sink {
    struct scene *s;
    struct result *r;
    int rank;
    struct dev *d;
};

// The fault of a device without memory, of a rank that has nothing to send.
static void strike(const struct sink *k, const char *stage)
{
    struct scene *s = k->s;
    if (k->rank == 0) atomic_fetch_add(&s->after, atomic_load(&s->bad));
    if (k->rank == 0 || strcmp(stage, s->bad_stage) != 0) return;
    dev_fault(k->d, "arena segment: the device has no memory left");
    atomic_store(&s->bad, 1);
}

static int on_step(void *ctx, const char *stage, int i, int n)
{
    const struct sink *k = ctx;
    (void)n;
    if (k->s->bad_stage) strike(k, stage);
    return k->s->stop_stage && i > 0 && strcmp(stage, k->s->stop_stage) == 0 ? E_BUSY : 0;
}

static int on_tail(void *ctx, const void *bytes, size_t n)
{
    struct sink *k = ctx;
    if (n > TAIL_MAX) return E_FATAL;
    memcpy(k->r->tail[k->r->segment], bytes, n);
    k->r->tail_bytes[k->r->segment] = n;
    return k->s->stop_stage && strcmp(k->s->stop_stage, "tail") == 0 ? E_BUSY : 0;
}

static int on_frames(void *ctx, int64_t first, int n, const uint8_t *yuv)
{
    struct sink *k = ctx;
    (void)first;
    memcpy(k->r->frames[k->r->segment][k->r->n_frames[k->r->segment]], yuv, (size_t)n * FRAME);
    k->r->n_frames[k->r->segment] += n;
    return 0;
}

// ---- one rank

// Tails go from the rank with the sink to all, as orders do.
static int run_job(struct scene *s, struct set *set, const struct mesh *m, struct texts *texts, struct result *r,
                   struct err *e)
{
    uint8_t picture[H * W * 3], *tail = malloc(TAIL_MAX);
    BUG_IF(!tail, "no memory");
    draw_picture(picture);
    struct track voice = {.read = read_voice, .n_samples = 640 * s->spec.n_frames};
    struct render_order order = {
        .spec = &s->spec, .color_picture = picture, .voice = &voice, .texts = texts, .cache_dir = top};
    struct render *render = NULL;
    int rank = m ? comm_rank(m->world) : 0, rc = render_open(&render, set, &order, e);
    for (int k = 0; k < SEGMENTS && rc == 0; k++) {
        struct sink ctx = {.s = s, .r = r, .rank = rank, .d = set->dev};
        struct render_sink sink = {.ctx = &ctx, .step = on_step, .tail = on_tail, .frames = on_frames};
        struct render_times t;
        int64_t bytes = k ? (int64_t)r->tail_bytes[k - 1] : 0;
        if (k && rank == 0) memcpy(tail, r->tail[k - 1], (size_t)bytes);
        if (k && m) comm_bcast(m->world, 0, &bytes, sizeof bytes);
        if (k && m) comm_bcast(m->world, 0, tail, bytes);
        r->segment = k;
        struct render_run run = {.segment = k,
                                 .start = k * (F - M),
                                 .first = k == 0,
                                 .last = k == SEGMENTS - 1,
                                 .keep_from = k ? M : 0,
                                 .keep_to = F,
                                 .picture = picture,
                                 .tail = k ? tail : NULL,
                                 .tail_bytes = (size_t)bytes};
        rc = render_segment(render, &run, rank == 0 || (s->bad_stage && rank == s->bad_rank) ? &sink : NULL, &t, e);
    }
    render_close(&render);
    free(tail);
    return rc;
}

// Who of the ranks has the words' weights: the one that reads them, and those that spread them with it.
static int holds_its_share(const struct scene *s, const struct set *set, const struct mesh *m, struct err *e)
{
    int n = m ? comm_size(m->heads) : 1, rank = m ? comm_rank(m->world) : 0, u = s->shape.heads;
    bool reads = rank == set->words_rank, spread = s->share_weights && n > 1;
    CHECK((set->umt5 != NULL) == (reads || (spread && rank / u == set->words_rank / u)));
    CHECK((set->unigram != NULL) == reads && (!spread || !set->umt5 || umt5_comm(set->umt5)));
    return 0;
}

// Twice, when told so: the second job's words were read by the first, and nothing is gathered for them.
static int open_and_run(struct scene *s, const struct mesh *m, struct result *r, struct err *e)
{
    struct dev *d = NULL;
    struct set *set = NULL;
    struct texts *texts = NULL;
    struct set_options o = {.model = s->model,
                            .n_speakers = 1,
                            .mesh = m,
                            .sharers = s->share_weights && m ? m->heads : NULL,
                            .together = s->together};
    if (dev_open(&d, table, 1, e) < 0) return e->code;
    texts_new(&texts);
    int rc = set_open(&set, d, &o, e);
    if (rc == 0) rc = holds_its_share(s, set, m, e);
    if (rc == 0) rc = run_job(s, set, m, texts, r, e);
    if (rc == 0 && s->twice) {
        struct comm *words = set->umt5 ? umt5_comm(set->umt5) : NULL;
        int64_t calls = words ? comm_counted_all(words).received_bytes : 0;
        r->n_frames[0] = r->n_frames[1] = 0;
        rc = run_job(s, set, m, texts, r, e);
        if (rc == 0 && words && (calls == 0 || comm_counted_all(words).received_bytes != calls))
            rc = err_set(e, E_FATAL, "words were gathered anew");
    }
    set_free(&set);
    texts_free(&texts);
    dev_close(&d);
    return rc;
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    struct scene *s = ctx;
    struct mesh m = {0};
    struct result *own = comm_rank(world) == 0 ? s->got : calloc(1, sizeof *own);
    BUG_IF(!own, "no memory");
    comm_set_deadline_ms(world, 60000);
    int rc = mesh_open(&m, world, s->shape, e);
    if (rc == 0) rc = open_and_run(s, &m, own, e);
    if (rc == 0 && own != s->got && own->n_frames[0] + own->n_frames[1] + (int)own->tail_bytes[0] > 0)
        rc = err_set(e, E_FATAL, "rank %d sent something", comm_rank(world));
    if (own != s->got) free(own);
    mesh_close(&m);
    return rc;
}

// ---- tests

static int begin(void **state)
{
    (void)state;
    if (top_make("test_render_ranks") < 0) return -1;
    static char model[80];
    snprintf(model, sizeof model, "%s/model", top);
    struct synth_report r;
    struct err e = {0};
    if (synth_write(&(struct synth_options){.dir = model, .seed = SEED}, &r, &e) < 0) {
        printf("%s\n", e.text);
        return -1;
    }
    *state = model;
    printf("seed %d\n", SEED);
    return 0;
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

static struct scene scene_of(void **state)
{
    struct scene s = {.model = *state, .want = calloc(1, sizeof *s.want), .got = calloc(1, sizeof *s.got)};
    assert_true(s.want && s.got);
    s.spec = (struct spec_render){.h = H,
                                  .w = W,
                                  .frame_num = F,
                                  .motion_frame = M,
                                  .n_frames = 2 * F - M,
                                  .n_speakers = 1,
                                  .steps = 2,
                                  .shift = 3,
                                  .text_scale = 5,
                                  .audio_scale = 4,
                                  .color_strength = 0.5,
                                  .seed = SEED};
    snprintf(s.spec.size, sizeof s.spec.size, "infinitetalk-480");
    snprintf(s.spec.prompt, sizeof s.spec.prompt, "a woman talks");
    return s;
}

static void scene_free(struct scene *s)
{
    free(s->want);
    free(s->got);
}

static void ranks_equal_one(void **state)
{
    static const struct {
        struct mesh_shape shape;
        bool share, together;
    } ways[] = {{{1, 1, 2}, true, false}, {{1, 2, 2}, true, true}, {{3, 1, 1}, false, false}, {{1, 5, 1}, false, true}};
    struct scene s = scene_of(state);
    struct err e = {0};
    if (open_and_run(&s, NULL, s.want, &e) < 0) fail_msg("alone: %s", e.text);
    assert_int_equal(s.want->n_frames[0], F);
    assert_int_equal(s.want->n_frames[1], F - M);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        memset(s.got, 0, sizeof *s.got);
        s.shape = ways[i].shape;
        s.share_weights = ways[i].share;
        s.together = ways[i].together;
        if (comm_thread_run(s.shape.guide * s.shape.ring * s.shape.heads, rank_main, &s, &e) < 0)
            fail_msg("guide %d x ring %d x heads %d: %s", s.shape.guide, s.shape.ring, s.shape.heads, e.text);
        int most = 0, differ = 0;
        for (int k = 0; k < SEGMENTS; k++) {
            assert_int_equal(s.got->n_frames[k], s.want->n_frames[k]);
            for (int f = 0; f < s.want->n_frames[k]; f++)
                for (int p = 0; p < FRAME; p++) {
                    int off = abs(s.got->frames[k][f][p] - s.want->frames[k][f][p]);
                    most = off > most ? off : most;
                    differ += off > 0;
                }
        }
        // Sums in another order: now and then a value rounds to the byte beside it.
        if (most > 1 || differ > (2 * F - M) * FRAME / 1000)
            fail_msg("way %zu: %d bytes, by up to %d", i, differ, most);
    }
    scene_free(&s);
}

static void an_end_is_an_end_for_all(void **state)
{
    static const char *const stages[] = {"denoise", "decode", "tail"};
    struct scene s = scene_of(state);
    s.shape = (struct mesh_shape){1, 2, 2};
    for (int i = 0; i < 3; i++) {
        struct err e = {0};
        s.stop_stage = stages[i];
        assert_int_equal(comm_thread_run(4, rank_main, &s, &e), E_BUSY);
        if (strncmp(e.text, "rank 0: ", 8) != 0 || strstr(e.text + 8, "rank")) fail_msg("%s: '%s'", stages[i], e.text);
    }
    scene_free(&s);
}

static void spread_weights_change_no_bit(void **state)
{
    static const struct mesh_shape shapes[] = {{1, 1, 2}, {1, 2, 2}};
    struct scene s = scene_of(state);
    struct err e = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct result *kept = s.want;
        s.shape = shapes[i];
        s.together = true;
        for (int k = 0; k < 2; k++) {
            memset(s.got, 0, sizeof *s.got);
            s.share_weights = s.twice = k;
            if (comm_thread_run(s.shape.guide * s.shape.ring * s.shape.heads, rank_main, &s, &e) < 0)
                fail_msg("guide %d x ring %d x heads %d, weights %s: %s", s.shape.guide, s.shape.ring, s.shape.heads,
                         k ? "spread" : "whole", e.text);
            if (k == 0) memcpy(kept, s.got, sizeof *kept);
        }
        assert_int_equal(s.got->n_frames[1], F - M);
        assert_memory_equal(s.got, kept, sizeof *kept);
    }
    scene_free(&s);
}

static void a_fault_of_one_rank_ends_it_on_all(void **state)
{
    static const char *const stages[] = {"condition", "denoise", "decode"};
    struct scene s = scene_of(state);
    for (int i = 0; i < 6; i++) {
        struct err e = {0};
        s.shape = i < 3 ? (struct mesh_shape){1, 2, 2} : (struct mesh_shape){3, 1, 1};
        s.share_weights = i < 3;
        s.bad_stage = stages[i % 3];
        s.bad_rank = i < 3 ? 3 : 1;
        s.bad = s.after = 0;
        int rc = comm_thread_run(s.shape.guide * s.shape.ring * s.shape.heads, rank_main, &s, &e);
        char says[64];
        snprintf(says, sizeof says, "rank %d: arena segment: the device has no memory", s.bad_rank);
        if (rc != E_FATAL || !strstr(e.text, says)) fail_msg("%s: code %d, '%s'", s.bad_stage, rc, e.text);
        // It came behind the look at a step, whose end rank 0 may still have told, and was seen in the one after.
        if (s.after > 2) fail_msg("%s: rank 0 made %d steps more", s.bad_stage, s.after);
    }
    scene_free(&s);
}

static void a_missing_part_is_missed_by_all(void **state)
{
    struct scene s = scene_of(state);
    struct err e = {0};
    char nowhere[80];
    snprintf(nowhere, sizeof nowhere, "%s/nowhere", top);
    s.model = nowhere;
    s.shape = (struct mesh_shape){1, 1, 2};
    assert_int_equal(comm_thread_run(2, rank_main, &s, &e), E_INPUT);
    assert_non_null(strstr(e.text, "nowhere"));
    scene_free(&s);
}

int main(void)
{
    log_init(LOG_ERROR, "test_render_ranks", 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_equal_one), cmocka_unit_test(spread_weights_change_no_bit),
        cmocka_unit_test(an_end_is_an_end_for_all), cmocka_unit_test(a_fault_of_one_rank_ends_it_on_all),
        cmocka_unit_test(a_missing_part_is_missed_by_all)};
    return cmocka_run_group_tests(tests, begin, end);
}
