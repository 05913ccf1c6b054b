// The worker's link against a coordinator played by the test: orders arrive whole and in order, frames wait for credit,
// beats go on while the renderer is busy, cancel is seen and answered, wrong orders are answered by FAILED.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/chan.h"
#include "proto/voice_hash.h"
#include "worker/link.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { H = 16, W = 32, N = 1280, JOB = 7, PATIENCE_MS = 60000 };

struct bench {
    char dir[64], endpoint[96];
    struct chan *chan;
    struct link *link;
    struct chan_peer peer;
    struct msg got; // the last message
};

// The next message that is no beat; MSG_NONE: two beats came and nothing else, so nothing waited to be sent.
static enum msg_kind next_or_beats(struct bench *b, int beats)
{
    int64_t end = clock_ms() + PATIENCE_MS;
    for (;;) {
        struct err e = {0};
        int rc = chan_recv(b->chan, &b->got, &b->peer, &e);
        if (rc == 1 && b->got.kind != MSG_BEAT) return b->got.kind;
        if (rc == 1 && --beats == 0) return MSG_NONE;
        if (rc == 1) continue;
        assert_true(rc == 0);
        if (clock_ms() > end) fail_msg("the link says nothing");
        struct pollfd p = {.fd = chan_fd(b->chan), .events = POLLIN};
        poll(&p, 1, 10);
    }
}

static enum msg_kind next(struct bench *b) { return next_or_beats(b, -1); }

static void say(struct bench *b, const struct msg *m)
{
    struct err e = {0};
    int rc = chan_send(b->chan, &b->peer, m, &e);
    if (rc < 0) fail_msg("%s: %s", msg_name(m->kind), e.text);
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    struct err e = {0};
    struct msg_hello hello = {.version = "t", .device = "cpu", .ranks = 1, .pid = 1};
    log_init(LOG_OFF, "test_link", 0);
    snprintf(b->dir, sizeof b->dir, "/tmp/test_linkXXXXXX");
    if (!mkdtemp(b->dir)) return -1;
    snprintf(b->endpoint, sizeof b->endpoint, "ipc://%s/socket", b->dir);
    if (chan_bind(&b->chan, b->endpoint, &e) < 0) return -1;
    if (link_open(&b->link, &(struct link_options){.call.endpoint = b->endpoint, .hello = &hello, .cache_dir = b->dir},
                  &e) < 0)
        return -1;
    *state = b;
    return next(b) == MSG_HELLO ? 0 : -1;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    char path[96];
    link_close(&b->link, "test over");
    chan_close(&b->chan);
    snprintf(path, sizeof path, "%s/socket", b->dir);
    unlink(path);
    int rc = rmdir(b->dir); // nothing else was left in it
    free(b);
    return rc;
}

// ---- what a coordinator says

static uint8_t picture[H * W * 3];

static struct msg open_message(const float *voice)
{
    struct msg m = {.kind = MSG_OPEN, .job = JOB, .bulk = {{picture, sizeof picture}, {NULL, 0}}, .n_bulk = 2};
    m.open.spec = (struct spec_render){.h = H,
                                       .w = W,
                                       .size = "t",
                                       .frame_num = 5,
                                       .motion_frame = 1,
                                       .n_frames = 2,
                                       .n_speakers = 1,
                                       .steps = 1,
                                       .shift = 1,
                                       .text_scale = 1,
                                       .audio_scale = 1};
    m.open.n_samples[0] = N;
    struct hash h;
    voice_hash_init(&h, 1, m.open.n_samples);
    hash_update(&h, voice, N * sizeof *voice);
    hash_final(&h, m.open.voice_hash);
    return m;
}

static void say_blob(struct bench *b, const float *voice, int from, int n)
{
    struct msg m = {.kind = MSG_BLOB,
                    .job = JOB,
                    .blob = {.offset = (uint64_t)from * sizeof *voice},
                    .bulk = {{voice + from, (size_t)n * sizeof *voice}},
                    .n_bulk = 1};
    say(b, &m);
}

static void say_run(struct bench *b, int64_t segment, size_t picture_bytes)
{
    struct msg m = {.kind = MSG_RUN,
                    .job = JOB,
                    .run = {.segment = segment, .keep_to = 5, .first = true, .last = true},
                    .bulk = {{picture, picture_bytes}, {NULL, 0}},
                    .n_bulk = 2};
    say(b, &m);
}

static void say_plain(struct bench *b, enum msg_kind kind)
{
    struct msg m = {.kind = kind, .job = JOB};
    say(b, &m);
}

static void say_credit(struct bench *b, uint32_t frames)
{
    struct msg m = {.kind = MSG_CREDIT, .job = JOB, .credit = frames};
    say(b, &m);
}

static void voice_fill(float *voice)
{
    for (int i = 0; i < N; i++) voice[i] = (float)i / N;
}

// OPEN with its voice; the order comes out whole.
static void open_job(struct bench *b, float *voice)
{
    voice_fill(voice);
    struct msg m = open_message(voice);
    say(b, &m);
    say_blob(b, voice, 0, 1000);
    say_blob(b, voice, 1000, N - 1000);
    struct order *o = link_take(b->link);
    assert_int_equal(o->kind, ORDER_OPEN);
    assert_int_equal(o->job, JOB);
    order_free(&o);
}

static int send_frames(struct bench *b, int64_t first, uint32_t n)
{
    static uint8_t yuv[4 * H * W * 3 / 2];
    struct msg m = {.kind = MSG_FRAMES,
                    .job = JOB,
                    .frames = {.first = first, .n = n},
                    .bulk = {{yuv, n * H * W * 3 / 2}},
                    .n_bulk = 1};
    return link_send(b->link, &m, NULL);
}

// ---- tests

static void test_open_carries_voice(void **state)
{
    struct bench *b = *state;
    float voice[N], back[N + 20];
    struct err e = {0};
    voice_fill(voice);
    struct msg m = open_message(voice);
    say(b, &m);
    say_blob(b, voice, 0, 640);
    say_blob(b, voice, 640, N - 640);
    struct order *o = link_take(b->link);
    assert_int_equal(o->kind, ORDER_OPEN);
    assert_int_equal(o->open.spec.h, H);
    assert_int_equal(o->n_bulk_bytes[0], sizeof picture);
    assert_int_equal(voice_file_check(o->voice, o->open.voice_hash, &e), 0);
    struct track t = voice_file_track(o->voice, 0);
    t.read(t.ctx, back, -10, N + 20);
    for (int i = 0; i < N + 20; i++) assert_true(back[i] == (i < 10 || i >= N + 10 ? 0 : voice[i - 10]));
    uint8_t other[HASH_BYTES] = {1};
    assert_int_equal(voice_file_check(o->voice, other, &e), E_INPUT);
    order_free(&o);
}

static void test_blob_with_a_gap_is_refused(void **state)
{
    struct bench *b = *state;
    float voice[N];
    voice_fill(voice);
    struct msg m = open_message(voice);
    say(b, &m);
    say_blob(b, voice, 100, 10);
    assert_int_equal(next(b), MSG_FAILED);
    assert_int_equal(b->got.failed.code, E_INPUT);
    assert_non_null(strstr(b->got.failed.text, "byte 400"));
}

static void test_orders_in_order(void **state)
{
    struct bench *b = *state;
    float voice[N];
    open_job(b, voice);
    say_run(b, 0, sizeof picture);
    say_run(b, 1, sizeof picture);
    say_plain(b, MSG_CLOSE);
    for (int i = 0; i < 2; i++) {
        struct order *o = link_take(b->link);
        assert_int_equal(o->kind, ORDER_RUN);
        assert_int_equal(o->run.segment, i);
        assert_null(o->bulk[1]);
        order_free(&o);
    }
    struct order *o = link_take(b->link);
    assert_int_equal(o->kind, ORDER_CLOSE);
    order_free(&o);
}

static void test_wrong_runs_fail(void **state)
{
    struct bench *b = *state;
    float voice[N];
    say_run(b, 3, sizeof picture); // no job is open
    assert_int_equal(next(b), MSG_FAILED);
    assert_int_equal(b->got.failed.segment, 3);
    open_job(b, voice);
    say_run(b, 4, sizeof picture - 3);
    assert_int_equal(next(b), MSG_FAILED);
    assert_int_equal(b->got.failed.segment, 4);
    assert_non_null(strstr(b->got.failed.text, "picture"));
}

static void test_frames_wait_for_credit(void **state)
{
    struct bench *b = *state;
    float voice[N];
    open_job(b, voice);
    struct msg done = {.kind = MSG_DONE, .job = JOB};
    assert_int_equal(send_frames(b, 0, 4), 0);
    assert_int_equal(send_frames(b, 4, 4), 0);
    assert_int_equal(link_send(b->link, &done, NULL), 0);
    assert_int_equal(next_or_beats(b, 2), MSG_NONE); // nothing without credit, but the beat goes on
    say_credit(b, 6);
    assert_int_equal(next(b), MSG_FRAMES);
    assert_int_equal(b->got.frames.first, 0);
    assert_int_equal(next_or_beats(b, 2), MSG_NONE); // 2 left, 4 wanted; DONE stays behind them
    say_credit(b, 2);
    assert_int_equal(next(b), MSG_FRAMES);
    assert_int_equal(b->got.frames.first, 4);
    assert_int_equal(next(b), MSG_DONE);
}

static void test_cancel(void **state)
{
    struct bench *b = *state;
    float voice[N];
    open_job(b, voice);
    say_run(b, 0, sizeof picture);
    say_run(b, 1, sizeof picture);
    struct order *o = link_take(b->link);
    assert_int_equal(o->kind, ORDER_RUN);
    order_free(&o);
    assert_int_equal(send_frames(b, 0, 4), 0); // waits for credit
    say_plain(b, MSG_CANCEL);
    for (int64_t end = clock_ms() + PATIENCE_MS; !link_cancelled(b->link) && clock_ms() < end;) usleep(1000);
    assert_true(link_cancelled(b->link));
    assert_int_equal(send_frames(b, 4, 4), E_BUSY);
    assert_int_equal(next(b), MSG_FAILED); // RUN 1, which waited
    assert_int_equal(b->got.failed.segment, 1);
    struct msg failed = {.kind = MSG_FAILED, .job = JOB, .failed = {.code = E_BUSY, .text = "cancelled"}};
    assert_int_equal(link_send(b->link, &failed, NULL), 0);
    assert_int_equal(next(b), MSG_FAILED); // and not the frames
    o = link_take(b->link);                // RUN 1 is gone
    assert_int_equal(o->kind, ORDER_CLOSE);
    order_free(&o);
    assert_false(link_cancelled(b->link));
    open_job(b, voice); // the next job is none the worse for it
}

static void test_bye_ends(void **state)
{
    struct bench *b = *state;
    struct msg m = {.kind = MSG_BYE, .bye = "closing time"};
    say(b, &m);
    struct order *o = link_take(b->link);
    assert_int_equal(o->kind, ORDER_BYE);
    assert_string_equal(o->bye, "closing time");
    order_free(&o);
    o = link_take(b->link);
    assert_int_equal(o->kind, ORDER_BYE);
    order_free(&o);
}

static void test_last_words_arrive(void **state)
{
    struct bench *b = *state;
    struct msg failed = {.kind = MSG_FAILED, .failed = {.segment = -1, .code = E_INPUT, .text = "no weights"}};
    assert_int_equal(link_send(b->link, &failed, NULL), 0);
    link_close(&b->link, "no weights");
    assert_int_equal(next(b), MSG_FAILED);
    assert_int_equal(next(b), MSG_BYE);
    assert_string_equal(b->got.bye, "no weights");
}

#define WITH_LINK(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_LINK(test_open_carries_voice), WITH_LINK(test_blob_with_a_gap_is_refused), WITH_LINK(test_orders_in_order),
        WITH_LINK(test_wrong_runs_fail),    WITH_LINK(test_frames_wait_for_credit),     WITH_LINK(test_cancel),
        WITH_LINK(test_bye_ends),           WITH_LINK(test_last_words_arrive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
