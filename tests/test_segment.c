// Values that are not finite in a segment: the segment is rendered again, once, and comes out as if nothing had been;
// if they come again the job fails with segment, step and branch, and what the sink has of earlier segments stays. Of
// several ranks it is enough that one has them. And of a film's last segment no more is decoded than is wanted.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/table.h"
#include "parallel/comm_thread.h"
#include "proto/base/log.h"
#include "tests/folder.h"
#include "worker/render.h"
#include "worker/synth/synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEED = 43, H = 64, W = 64, F = 9, M = 5, SEGMENTS = 2, STEPS = 2, BLOCKS = 2, BRANCHES = 3 };
enum { FRAME = H * W * 3 / 2, TAIL_MAX = 1 << 16 };

struct scene {
    const char *model;
    struct spec_render spec;
    int ranks, fault_rank;
    int at;      // the block of the segment's forwards from which on attention is spoilt, over steps and branches
    bool always; // in F32 too
    int n_segments, keep; // frames that are wanted of the last segment
    // What the sink was given.
    uint8_t frames[SEGMENTS][F][FRAME], tail[TAIL_MAX];
    size_t tail_bytes;
    int n_frames[SEGMENTS], segment, n_notices;
    int n_decoded; // slices of the segment
    char notice[512];
};

// ---- the fault: a table of ops of which one spoils what it gives. A rank is a thread, and calls its ops from there.

static _Thread_local struct {
    struct ops plain;
    const struct scene *s;
    int block; // under way; below 0: none of the segment in question
    bool armed;
} fault;

static void spoilt_norm_rope(struct dev *d, tensor q, tensor k, tensor q_gain, tensor k_gain, float eps, tensor table)
{
    if (fault.armed) fault.block++;
    fault.plain.qk_norm_rope(d, q, k, q_gain, k_gain, eps, table);
}

static void spoilt_attention(struct dev *d, tensor y, tensor q, tensor k, tensor v, struct attn a)
{
    fault.plain.attention(d, y, q, k, v, a);
    if (!fault.armed || fault.block < fault.s->at || (a.wide && !fault.s->always)) return;
    if (y.dtype == DT_BF16) *(uint16_t *)y.data = 0x7f80; // infinity; in F32 are the networks of pictures
}

static void spoil(struct dev *d, const struct scene *s)
{
    fault.plain = d->ops;
    fault.s = s;
    fault.armed = false;
    d->ops.qk_norm_rope = spoilt_norm_rope;
    d->ops.attention = spoilt_attention;
}

// ---- the sink

static int on_step(void *ctx, const char *stage, int i, int n)
{
    struct scene *s = ctx;
    if (strcmp(stage, "decode") == 0) s->n_decoded = i == n ? n : -1;
    return 0;
}

static int on_tail(void *ctx, const void *bytes, size_t n)
{
    struct scene *s = ctx;
    if (n > TAIL_MAX) return E_FATAL;
    memcpy(s->tail, bytes, n);
    s->tail_bytes = n;
    return 0;
}

static int on_frames(void *ctx, int64_t first, int n, const uint8_t *yuv)
{
    struct scene *s = ctx;
    (void)first;
    memcpy(s->frames[s->segment][s->n_frames[s->segment]], yuv, (size_t)n * FRAME);
    s->n_frames[s->segment] += n;
    return 0;
}

static void on_notice(void *ctx, const char *text)
{
    struct scene *s = ctx;
    s->n_notices++;
    snprintf(s->notice, sizeof s->notice, "%s", text);
}

// ---- a job of two segments, the fault in the second

static void read_voice(void *ctx, float *dst, int64_t from, int64_t n)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) dst[i] = 0.3f * sinf((float)(from + i) * 0.05f) * sinf((float)(from + i) * 0.0007f);
}

static int run_segments(struct scene *s, struct set *set, const struct mesh *m, struct err *e)
{
    uint8_t picture[H * W * 3], tail[TAIL_MAX];
    for (int i = 0; i < H * W * 3; i++) picture[i] = (uint8_t)(i * 37 % 251);
    struct track voice = {.read = read_voice, .n_samples = 640 * s->spec.n_frames};
    struct render_order order = {.spec = &s->spec, .color_picture = picture, .voice = &voice, .cache_dir = top};
    struct render *render = NULL;
    int rank = m ? comm_rank(m->world) : 0, rc = render_open(&render, set, &order, e);
    struct render_sink sink = {.ctx = s, .step = on_step, .tail = on_tail, .frames = on_frames, .notice = on_notice};
    for (int k = 0; k < s->n_segments && rc == 0; k++) {
        int64_t bytes = 0;
        if (k && rank == 0) {
            bytes = (int64_t)s->tail_bytes;
            memcpy(tail, s->tail, s->tail_bytes);
        }
        if (k && m) comm_bcast(m->world, 0, &bytes, sizeof bytes);
        if (k && m) comm_bcast(m->world, 0, tail, bytes);
        if (rank == 0) s->segment = k;
        struct render_run run = {.segment = k,
                                 .start = k * (F - M),
                                 .first = k == 0,
                                 .last = k == s->n_segments - 1,
                                 .keep_from = k ? M : 0,
                                 .keep_to = k == s->n_segments - 1 ? s->keep : F,
                                 .picture = picture,
                                 .tail = k ? tail : NULL,
                                 .tail_bytes = (size_t)bytes};
        struct render_times t;
        fault.block = -1;
        fault.armed = k == SEGMENTS - 1 && rank == s->fault_rank;
        rc = render_segment(render, &run, rank == 0 ? &sink : NULL, &t, e);
    }
    render_close(&render);
    return rc;
}

static int open_and_run(struct scene *s, const struct mesh *m, struct err *e)
{
    struct dev *d = NULL;
    struct set *set = NULL;
    struct set_options o = {.model = s->model, .n_speakers = 1, .mesh = m, .dtype = DT_BF16};
    if (dev_open(&d, "ref", 1, e) < 0) return e->code;
    spoil(d, s);
    int rc = set_open(&set, d, &o, e);
    if (rc == 0) rc = run_segments(s, set, m, e);
    set_free(&set);
    dev_close(&d);
    return rc;
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    struct scene *s = ctx;
    struct mesh m = {0};
    comm_set_deadline_ms(world, 60000);
    int rc = mesh_open(&m, world, (struct mesh_shape){1, 1, s->ranks}, e);
    if (rc == 0) rc = open_and_run(s, &m, e);
    mesh_close(&m);
    return rc;
}

static int run(struct scene *s, struct err *e)
{
    return s->ranks > 1 ? comm_thread_run(s->ranks, rank_main, s, e) : open_and_run(s, NULL, e);
}

// ---- tests

static int begin(void **state)
{
    static char model[80];
    struct synth_report r;
    struct err e = {0};
    if (top_make("test_segment") < 0) return -1;
    snprintf(model, sizeof model, "%s/model", top);
    *state = model;
    printf("seed %d\n", SEED);
    return synth_write(&(struct synth_options){.dir = model, .seed = SEED}, &r, &e);
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

static struct scene *scene_of(void **state, int ranks, int fault_rank, int at, bool always)
{
    struct scene *s = calloc(1, sizeof *s);
    assert_non_null(s);
    *s = (struct scene){.model = *state,
                        .ranks = ranks,
                        .fault_rank = fault_rank,
                        .at = at,
                        .always = always,
                        .n_segments = SEGMENTS,
                        .keep = F};
    s->spec = (struct spec_render){.h = H,
                                   .w = W,
                                   .size = "tiny",
                                   .frame_num = F,
                                   .motion_frame = M,
                                   .n_frames = 2 * F - M,
                                   .n_speakers = 1,
                                   .steps = STEPS,
                                   .shift = 3,
                                   .text_scale = 5,
                                   .audio_scale = 4,
                                   .color_strength = 1,
                                   .seed = SEED,
                                   .prompt = "a woman talks"};
    return s;
}

// Where the fault is: block 1 of the second step's second branch, that without the words.
enum { WHERE = (BRANCHES + 1) * BLOCKS + 1, NOWHERE = 1 << 20 };

static void a_fault_that_passes_leaves_no_trace(void **state)
{
    for (int ranks = 1; ranks <= 2; ranks++) {
        struct scene *want = scene_of(state, ranks, ranks - 1, NOWHERE, false);
        struct scene *got = scene_of(state, ranks, ranks - 1, WHERE, false);
        struct err e = {0};
        if (run(want, &e) < 0 || run(got, &e) < 0) fail_msg("%d ranks: %s", ranks, e.text);
        assert_int_equal(want->n_notices, 0);
        assert_int_equal(got->n_notices, 1);
        if (!strstr(got->notice, "segment 2, step 2 of 2, the branch with negative words and voice: ") ||
            !strstr(got->notice, "rendered again, with attention in F32"))
            fail_msg("'%s'", got->notice);
        for (int k = 0; k < SEGMENTS; k++) {
            assert_int_equal(got->n_frames[k], want->n_frames[k]);
            assert_memory_equal(got->frames[k], want->frames[k], (size_t)want->n_frames[k] * FRAME);
        }
        free(want);
        free(got);
    }
}

static void a_fault_that_stays_ends_the_job(void **state)
{
    for (int ranks = 1; ranks <= 2; ranks++) {
        struct scene *s = scene_of(state, ranks, ranks - 1, 0, true);
        struct err e = {0};
        assert_int_equal(run(s, &e), E_INPUT);
        assert_int_equal(s->n_notices, 1);
        assert_int_equal(s->n_frames[0], F);
        assert_int_equal(s->n_frames[1], 0);
        const char *says[] = {"segment 2, step 1 of 2, the branch with words and voice: ", "second try", "--dtype f32"};
        for (int i = 0; i < 3; i++)
            if (!strstr(e.text, says[i])) fail_msg("%d ranks: '%s' lacks '%s'", ranks, e.text, says[i]);
        if (ranks > 1 && strncmp(e.text, "rank 0: segment", 15) != 0) fail_msg("'%s'", e.text);
        free(s);
    }
}

static void behind_the_last_frame_nothing_is_decoded(void **state)
{
    struct scene *whole = scene_of(state, 1, 0, NOWHERE, false);
    struct err e = {0};
    whole->n_segments = 1;
    if (run(whole, &e) < 0) fail_msg("%s", e.text);
    assert_int_equal(whole->n_decoded, 3);
    static const int cases[][2] = {{1, 1}, {2, 2}, {5, 2}, {6, 3}, {9, 3}}; // frames, slices that hold them
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene *s = scene_of(state, 1, 0, NOWHERE, false);
        s->n_segments = 1;
        s->keep = cases[i][0];
        if (run(s, &e) < 0) fail_msg("%d frames: %s", s->keep, e.text);
        assert_int_equal(s->n_decoded, cases[i][1]);
        assert_int_equal(s->n_frames[0], s->keep);
        assert_memory_equal(s->frames[0], whole->frames[0], (size_t)s->keep * FRAME);
        free(s);
    }
    free(whole);
}

int main(void)
{
    log_init(LOG_ERROR, "test_segment", 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_fault_that_passes_leaves_no_trace),
                                       cmocka_unit_test(a_fault_that_stays_ends_the_job),
                                       cmocka_unit_test(behind_the_last_frame_nothing_is_decoded)};
    return cmocka_run_group_tests(tests, begin, end);
}
