// A whole job by the ranks of a mesh, from words and a voice to tails and frames, equals one rank's; only one rank has
// a sink; an end in any stage on one rank ends it on all.
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

#include <math.h>
#include <string.h>
#include <unistd.h>

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
    bool share_weights, together;
    const char *stop_stage; // the sink ends the job there, or NULL
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
    const struct scene *s;
    struct result *r;
};

static int on_step(void *ctx, const char *stage, int i, int n)
{
    const struct sink *k = ctx;
    (void)n;
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
static int run_job(const struct scene *s, struct set *set, const struct mesh *m, struct result *r, struct err *e)
{
    uint8_t picture[H * W * 3], *tail = malloc(TAIL_MAX);
    BUG_IF(!tail, "no memory");
    draw_picture(picture);
    struct track voice = {.read = read_voice, .n_samples = 640 * s->spec.n_frames};
    struct render_order order = {.spec = &s->spec, .color_picture = picture, .voice = &voice, .cache_dir = top};
    struct render *render = NULL;
    int rank = m ? comm_rank(m->world) : 0, rc = render_open(&render, set, &order, e);
    for (int k = 0; k < SEGMENTS && rc == 0; k++) {
        struct sink ctx = {.s = s, .r = r};
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
        rc = render_segment(render, &run, rank == 0 ? &sink : NULL, &t, e);
    }
    render_close(&render);
    free(tail);
    return rc;
}

static int open_and_run(const struct scene *s, const struct mesh *m, struct result *r, struct err *e)
{
    struct dev *d = NULL;
    struct set *set = NULL;
    struct set_options o = {.model = s->model,
                            .n_speakers = 1,
                            .mesh = m,
                            .sharers = s->share_weights && m ? m->heads : NULL,
                            .together = s->together};
    if (dev_open(&d, table, 1, e) < 0) return e->code;
    int rc = set_open(&set, d, &o, e);
    if (rc == 0) rc = run_job(s, set, m, r, e);
    set_free(&set);
    dev_close(&d);
    return rc;
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    const struct scene *s = ctx;
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranks_equal_one), cmocka_unit_test(an_end_is_an_end_for_all),
                                       cmocka_unit_test(a_missing_part_is_missed_by_all)};
    return cmocka_run_group_tests(tests, begin, end);
}
