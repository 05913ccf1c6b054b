// The worker program as a pure function of its orders, with a tiny model of random weights: a coordinator played by the
// test opens a job and asks for segments. Frames are complete and in order, the same order gives the same bytes on the
// same and on another process, a segment rendered from a kept tail is the one rendered in passing, cancel is quick,
// what a job took of the device is given back, and what is wrong is answered by FAILED.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/clock.h"
#include "proto/base/hash.h"
#include "proto/base/log.h"
#include "proto/chan.h"
#include "proto/plan_segments.h"
#include "proto/voice_hash.h"
#include "tests/folder.h"

#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { H = 64, W = 64, FRAMES = 110, N = FRAMES * 640, JOB = 5, PATIENCE_MS = 240000 };

static char model[96];

struct bench {
    char endpoint[128];
    pid_t pid;
    struct chan *chan;
    struct chan_peer peer;
    struct msg got;
    uint32_t step; // of denoising, by the last beat
};

// `log`: where it says what it does, or NULL.
static pid_t spawn(char *const *argv, const char *log)
{
    pid_t pid = fork();
    if (pid == 0) {
        int quiet = open(log ? log : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (!getenv("LOUD")) dup2(quiet, 2);
        dup2(quiet, 1);
        execv(argv[0], argv);
        _exit(127);
    }
    return pid;
}

static int group_setup(void **state)
{
    (void)state;
    log_init(LOG_OFF, "test_worker", 0);
    if (top_make("test_worker") < 0) return -1;
    snprintf(model, sizeof model, "%s/model", top);
    char *argv[] = {BIN_DIR "/longtake-worker", "weights", "synth", "--seed", "1", "-o", model, NULL};
    int status = -1;
    waitpid(spawn(argv, NULL), &status, 0);
    return status;
}

static int group_teardown(void **state)
{
    (void)state;
    return top_remove();
}

// The next message that is no beat; or the first beat of a step, if that is asked for.
static enum msg_kind hear(struct bench *b, bool until_step)
{
    int64_t end = clock_ms() + PATIENCE_MS;
    while (clock_ms() < end) {
        struct err e = {0};
        int rc = chan_recv(b->chan, &b->got, &b->peer, &e);
        if (rc < 0) fail_msg("%s", e.text);
        if (rc == 1 && b->got.kind != MSG_BEAT) return b->got.kind;
        if (rc == 1 && strcmp(b->got.beat.stage, "denoise") == 0) b->step = b->got.beat.step;
        if (rc == 1 && until_step && b->step > 0) return MSG_BEAT;
        if (rc == 1) continue;
        struct pollfd p = {.fd = chan_fd(b->chan), .events = POLLIN};
        poll(&p, 1, 20);
    }
    fail_msg("the worker said nothing");
    return MSG_NONE;
}

static enum msg_kind next(struct bench *b) { return hear(b, false); }

static void say(struct bench *b, const struct msg *m)
{
    struct err e = {0};
    if (chan_send(b->chan, &b->peer, m, &e) < 0) fail_msg("%s: %s", msg_name(m->kind), e.text);
}

static void start_told(struct bench *b, const char *folder, const char *log)
{
    static int n;
    struct err e = {0};
    snprintf(b->endpoint, sizeof b->endpoint, "ipc://%s/socket%d", top, n++);
    if (chan_bind(&b->chan, b->endpoint, &e) < 0) fail_msg("%s", e.text);
    char *argv[] = {
        BIN_DIR "/longtake-worker", "--connect", b->endpoint, "--model", (char *)folder, "--cache", top, NULL};
    b->pid = spawn(argv, log);
    assert_int_equal(next(b), MSG_HELLO);
    assert_string_equal(b->got.hello.version, LONGTAKE_VERSION);
}

static void start(struct bench *b, const char *folder) { start_told(b, folder, NULL); }

// Says goodbye; the worker's exit status.
static int stop(struct bench *b)
{
    struct msg m = {.kind = MSG_BYE, .bye = "done"};
    int status = 0;
    chan_send(b->chan, &b->peer, &m, NULL);
    waitpid(b->pid, &status, 0);
    chan_close(&b->chan);
    return status;
}

// ---- a job

static float voice[N];
static uint8_t picture[H * W * 3];

static struct spec_render spec_of(void)
{
    return (struct spec_render){.h = H,
                                .w = W,
                                .size = "tiny",
                                .frame_num = 81,
                                .motion_frame = 9,
                                .n_frames = FRAMES,
                                .n_speakers = 1,
                                .steps = 2,
                                .shift = 7,
                                .text_scale = 1,
                                .audio_scale = 1,
                                .color_strength = 1,
                                .seed = 11,
                                .prompt = "words"};
}

static void open_job(struct bench *b, const struct spec_render *spec)
{
    for (int i = 0; i < N; i++) voice[i] = 0.2f * sinf((float)i * (0.02f + (float)(i / 4000 % 7) * 0.01f));
    for (int i = 0; i < H * W * 3; i++) picture[i] = (uint8_t)(i * 7 % 251);
    struct msg m = {.kind = MSG_OPEN, .job = JOB, .bulk = {{picture, sizeof picture}, {NULL, 0}}, .n_bulk = 2};
    struct hash h;
    m.open.spec = *spec;
    m.open.n_samples[0] = N;
    voice_hash_init(&h, 1, m.open.n_samples);
    hash_update(&h, voice, sizeof voice);
    hash_final(&h, m.open.voice_hash);
    say(b, &m);
    m = (struct msg){.kind = MSG_BLOB, .job = JOB, .bulk = {{voice, sizeof voice}}, .n_bulk = 1};
    say(b, &m);
    m = (struct msg){.kind = MSG_CREDIT, .job = JOB, .credit = 1000};
    say(b, &m);
}

struct result {
    void *tail;
    size_t n_tail;
    int64_t n_frames, first;
    uint8_t hash[HASH_BYTES]; // of all frames
    char failed[1024];
};

static void say_run(struct bench *b, int64_t k, const void *tail, size_t n_tail)
{
    struct spec_render spec = spec_of();
    struct plan_segments plan;
    int64_t n_voice = FRAMES;
    plan_segments_init(&plan, &spec, 0, &n_voice, 1);
    assert_int_equal(plan_segments_count(&plan), 2);
    struct plan_segment p = plan_segments_at(&plan, k);
    struct msg m = {.kind = MSG_RUN,
                    .job = JOB,
                    .run = {.segment = k,
                            .start = p.start,
                            .keep_from = p.keep_from,
                            .keep_to = p.keep_to,
                            .first = p.first,
                            .last = p.last},
                    .bulk = {{picture, sizeof picture}, {tail, n_tail}},
                    .n_bulk = 2};
    say(b, &m);
}

static void await(struct bench *b, int64_t k, struct result *r)
{
    struct hash h;
    *r = (struct result){0};
    hash_init(&h);
    for (;;) {
        switch (next(b)) {
        case MSG_TAIL:
            assert_int_equal(b->got.tail_segment, k);
            assert_int_equal(r->n_frames, 0); // before any frame
            r->n_tail = b->got.bulk[0].n;
            r->tail = malloc(r->n_tail);
            memcpy(r->tail, b->got.bulk[0].data, r->n_tail);
            break;
        case MSG_FRAMES:
            if (r->n_frames == 0) r->first = b->got.frames.first;
            assert_int_equal(b->got.frames.first, r->first + r->n_frames);
            assert_int_equal(b->got.bulk[0].n, b->got.frames.n * H * W * 3 / 2);
            r->n_frames += b->got.frames.n;
            hash_update(&h, b->got.bulk[0].data, b->got.bulk[0].n);
            break;
        case MSG_DONE:
            assert_int_equal(b->got.done.segment, k);
            hash_final(&h, r->hash);
            return;
        case MSG_FAILED:
            snprintf(r->failed, sizeof r->failed, "%s", b->got.failed.text);
            return;
        default:
            fail_msg("a %s", msg_name(b->got.kind));
        }
    }
}

static void run(struct bench *b, int64_t k, const struct result *before, struct result *r)
{
    say_run(b, k, before ? before->tail : NULL, before ? before->n_tail : 0);
    await(b, k, r);
    if (r->failed[0]) fail_msg("%s", r->failed);
}

static void same(const struct result *a, const struct result *b)
{
    assert_int_equal(a->n_frames, b->n_frames);
    assert_memory_equal(a->hash, b->hash, HASH_BYTES);
    assert_int_equal(a->n_tail, b->n_tail);
    if (a->n_tail) assert_memory_equal(a->tail, b->tail, a->n_tail);
}

static void test_pure_function(void **state)
{
    (void)state;
    struct bench b = {0};
    struct spec_render spec = spec_of();
    struct result one, two, one_again, two_again;
    start(&b, model);
    open_job(&b, &spec);
    run(&b, 0, NULL, &one);
    run(&b, 1, &one, &two);
    assert_int_equal(one.first, 0);
    assert_int_equal(one.n_frames, 81);
    assert_int_equal(two.first, 81);
    assert_int_equal(two.n_frames, FRAMES - 81);
    assert_true(one.n_tail > 0 && two.n_tail == 0);
    run(&b, 1, &one, &two_again); // out of turn, from the kept tail
    same(&two, &two_again);
    run(&b, 0, NULL, &one_again);
    same(&one, &one_again);
    free(one_again.tail);
    struct msg close_job = {.kind = MSG_CLOSE, .job = JOB};
    say(&b, &close_job);
    spec.seed = 12; // the next job of the same process
    open_job(&b, &spec);
    run(&b, 0, NULL, &one_again);
    assert_true(memcmp(one.hash, one_again.hash, HASH_BYTES) != 0);
    free(one_again.tail);
    assert_int_equal(stop(&b), 0);

    spec.seed = 11; // another process
    start(&b, model);
    open_job(&b, &spec);
    run(&b, 1, &one, &two_again);
    same(&two, &two_again);
    free(one.tail);
    assert_int_equal(stop(&b), 0);
}

// Published parity may plan a segment of which nothing is kept: it is rendered, and sends no frame.
static void test_a_segment_may_keep_nothing(void **state)
{
    (void)state;
    struct bench b = {0};
    struct spec_render spec = spec_of();
    struct result r;
    start(&b, model);
    open_job(&b, &spec);
    struct msg m = {.kind = MSG_RUN,
                    .job = JOB,
                    .run = {.segment = 0, .keep_from = 9, .keep_to = 9, .first = true},
                    .bulk = {{picture, sizeof picture}, {NULL, 0}},
                    .n_bulk = 2};
    say(&b, &m);
    await(&b, 0, &r);
    assert_string_equal(r.failed, "");
    assert_int_equal(r.n_frames, 0);
    assert_true(r.n_tail > 0);
    free(r.tail);
    m.run.keep_from = m.run.keep_to = 82; // of 81
    say(&b, &m);
    await(&b, 0, &r);
    assert_non_null(strstr(r.failed, "keeps frames 82 to 82 of 81"));
    assert_int_equal(stop(&b), 0);
}

static void test_wrong_orders_fail(void **state)
{
    (void)state;
    struct bench b = {0};
    struct spec_render spec = spec_of();
    struct result one, r;
    start(&b, model);
    open_job(&b, &spec);
    run(&b, 0, NULL, &one);
    ((uint8_t *)one.tail)[one.n_tail / 2] ^= 1; // a byte that changed on the way
    say_run(&b, 1, one.tail, one.n_tail);
    await(&b, 1, &r);
    assert_non_null(strstr(r.failed, "damaged"));
    ((uint8_t *)one.tail)[one.n_tail / 2] ^= 1;
    run(&b, 1, &one, &r); // and the worker is none the worse for it
    free(one.tail);
    assert_int_equal(stop(&b), 0);
}

static void test_cancel_is_quick(void **state)
{
    (void)state;
    struct bench b = {0};
    struct spec_render spec = spec_of();
    struct result r;
    spec.steps = 1000;
    start(&b, model);
    open_job(&b, &spec);
    say_run(&b, 0, NULL, 0);
    assert_int_equal(hear(&b, true), MSG_BEAT);
    struct msg cancel = {.kind = MSG_CANCEL, .job = JOB};
    say(&b, &cancel);
    await(&b, 0, &r);
    assert_true(r.failed[0]);
    assert_in_range(b.step, 1, 500); // long before the last one
    spec.steps = 2;
    open_job(&b, &spec);
    run(&b, 0, NULL, &r);
    free(r.tail);
    assert_int_equal(stop(&b), 0);
}

// The figure in the n-th line of the log that tells of such an event.
static int64_t held(const char *log, const char *event, int n)
{
    char line[1024];
    for (int64_t end = clock_ms() + PATIENCE_MS; clock_ms() < end; usleep(10000)) {
        FILE *f = fopen(log, "r");
        int seen = 0;
        while (f && fgets(line, sizeof line, f)) {
            const char *figure = strstr(line, "held_bytes=");
            if (!strchr(line, '\n') || !strstr(line, event) || !figure || ++seen < n) continue;
            fclose(f);
            return atoll(figure + strlen("held_bytes="));
        }
        if (f) fclose(f);
    }
    fail_msg("no line %d of %s in %s", n, event, log);
    return -1;
}

static void until_step(struct bench *b)
{
    struct err e = {0};
    for (int64_t end = clock_ms() + PATIENCE_MS; clock_ms() < end;) {
        int rc = chan_recv(b->chan, &b->got, &b->peer, &e);
        if (rc == 1 && b->got.kind == MSG_BEAT && !strcmp(b->got.beat.stage, "denoise") && b->got.beat.step > 0) return;
        if (rc == 0) usleep(1000);
    }
    fail_msg("no step was made");
}

// By the arenas' own count: after the end of a job, and after one that was cancelled or paused amid its steps (which is
// the same to a worker), the device holds what it held before; what was paused comes to the same bytes.
static void test_what_a_job_took_is_given_back(void **state)
{
    (void)state;
    struct bench b = {0};
    struct spec_render spec = spec_of();
    struct result whole, r;
    char log[128];
    snprintf(log, sizeof log, "%s/held.log", top);
    start_told(&b, model, log);
    struct msg end = {.kind = MSG_CLOSE, .job = JOB};
    open_job(&b, &spec);
    run(&b, 0, NULL, &whole);
    say(&b, &end);
    int64_t before = held(log, "serve.ready", 1);
    assert_true(before > 0); // the weights
    assert_true(held(log, "job.open", 1) > before);
    assert_int_equal(held(log, "job.close", 1), before);
    spec.steps = 1000;
    open_job(&b, &spec);
    say_run(&b, 0, NULL, 0);
    until_step(&b);
    end.kind = MSG_CANCEL;
    say(&b, &end);
    await(&b, 0, &r);
    assert_true(r.failed[0]);
    assert_int_equal(held(log, "job.close", 2), before);
    spec.steps = 2;
    open_job(&b, &spec);
    run(&b, 0, NULL, &r);
    same(&whole, &r);
    assert_int_equal(held(log, "job.open", 3), held(log, "job.open", 1));
    assert_int_equal(stop(&b), 0);
    assert_int_equal(held(log, "job.close", 3), before);
    free(whole.tail);
    free(r.tail);
}

static void test_missing_part_is_told(void **state)
{
    (void)state;
    struct bench b = {0};
    char from[160], to[160];
    snprintf(from, sizeof from, "%s/Wan2.1_VAE.pth", model);
    snprintf(to, sizeof to, "%s/elsewhere.pth", model);
    assert_int_equal(rename(from, to), 0);
    start(&b, model);
    assert_int_equal(next(&b), MSG_FAILED);
    assert_int_equal(b.got.failed.segment, -1);
    assert_non_null(strstr(b.got.failed.text, "Wan2.1_VAE.pth"));
    assert_int_equal(next(&b), MSG_BYE);
    int status = stop(&b);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    assert_int_equal(rename(to, from), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pure_function),
        cmocka_unit_test(test_a_segment_may_keep_nothing),
        cmocka_unit_test(test_wrong_orders_fail),
        cmocka_unit_test(test_cancel_is_quick),
        cmocka_unit_test(test_what_a_job_took_is_given_back),
        cmocka_unit_test(test_missing_part_is_told),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
