// The wire codec and channels: every message there and back, hostile bytes refused, ROUTER and DEALER over ipc.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/chan.h"

static struct msg *there_and_back(const struct msg *m, struct err *e, int *rc)
{
    void *bytes;
    size_t n;
    msg_encode(m, &bytes, &n);
    struct msg *out = malloc(sizeof *out);
    *rc = msg_decode(out, bytes, n, m->bulk, m->n_bulk, e);
    free(bytes);
    return out;
}

static struct msg *sample_open(const uint8_t *pixels)
{
    struct msg *m = calloc(1, sizeof *m);
    m->kind = MSG_OPEN;
    m->job = 77;
    m->open.spec = (struct spec_render){.h = 48,
                                        .w = 64,
                                        .frame_num = 81,
                                        .motion_frame = 9,
                                        .n_frames = 90000,
                                        .n_speakers = 2,
                                        .steps = 8,
                                        .shift = 2.5,
                                        .text_scale = 5,
                                        .audio_scale = 4,
                                        .color_strength = 1,
                                        .seed = INT64_MAX,
                                        .apg = true,
                                        .apg_momentum = -0.75,
                                        .apg_norm_threshold = 55,
                                        .teacache = true,
                                        .teacache_thresh = 0.2,
                                        .teacache_poly = {1e5, -3, 0, 0.25, -0.125},
                                        .tail = SPEC_TAIL_MIRROR,
                                        .parity = SPEC_PARITY_PUBLISHED,
                                        .mode = SPEC_CLIP};
    strcpy(m->open.spec.size, "tiny");
    strcpy(m->open.spec.prompt, "a woman speaks: \xc3\xa4");
    m->open.n_samples[0] = 57600000;
    m->open.n_samples[1] = 640;
    memset(m->open.voice_hash, 9, sizeof m->open.voice_hash);
    m->bulk[0] = (struct msg_bulk){pixels, 48 * 64 * 3};
    m->bulk[1] = (struct msg_bulk){pixels, 48 * 64 * 2};
    m->n_bulk = 2;
    return m;
}

static void open_survives(void **state)
{
    (void)state;
    uint8_t *pixels = calloc(1, 48 * 64 * 3);
    struct msg *m = sample_open(pixels);
    struct err e = {0};
    int rc;
    struct msg *back = there_and_back(m, &e, &rc);
    assert_int_equal(rc, 0);
    assert_int_equal(back->kind, MSG_OPEN);
    assert_int_equal(back->job, 77);
    assert_memory_equal(&back->open, &m->open, sizeof m->open);
    free(back);
    free(m);
    free(pixels);
}

static void small_messages_survive(void **state)
{
    (void)state;
    static const uint8_t bytes[64 * 48 * 3] = {1, 2, 3};
    const struct msg all[] = {
        {.kind = MSG_HELLO, .hello = {.version = "0.1", .device = "cpu", .layout = "cpu x2", .ranks = 1, .pid = 5}},
        {.kind = MSG_HELLO,
         .hello = {.version = "0.1",
                   .device = "cpu",
                   .ranks = 4,
                   .build = "0f1e",
                   .layout = "cpu x1, 4 ranks",
                   .has_weights = true,
                   .weights = {1, 2, 250}}},
        {.kind = MSG_BEAT, .beat = {.progress = 9, .stage = "denoise", .segment = 3, .step = 1, .n_steps = 2}},
        {.kind = MSG_BYE, .bye = "done"},
        {.kind = MSG_BLOB, .job = 1, .blob = {.speaker = 1, .offset = 4096}, .bulk = {{bytes, 100}}, .n_bulk = 1},
        {.kind = MSG_RUN,
         .job = 1,
         .run = {.segment = 2, .start = 144, .keep_from = 9, .keep_to = 81, .last = true},
         .bulk = {{bytes, 300}, {bytes, 50}},
         .n_bulk = 2},
        {.kind = MSG_CREDIT, .job = 1, .credit = 16},
        {.kind = MSG_CANCEL, .job = 1},
        {.kind = MSG_CLOSE, .job = 1},
        {.kind = MSG_TAIL, .job = 1, .tail_segment = 4, .bulk = {{bytes, 10}}, .n_bulk = 1},
        {.kind = MSG_FRAMES,
         .job = 1,
         .frames = {.segment = 4, .first = 400, .n = 4},
         .bulk = {{bytes, 400}},
         .n_bulk = 1},
        {.kind = MSG_DONE, .job = 1, .done = {.segment = 4, .denoise_ms = 17, .drift = 0.5}},
        {.kind = MSG_FAILED, .job = 1, .failed = {.segment = -1, .code = E_INPUT, .text = "no", .setting = true}},
        {.kind = MSG_NOTICE, .job = 1, .notice = "the prompt is cut"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct err e = {0};
        int rc;
        struct msg *back = there_and_back(&all[i], &e, &rc);
        if (rc < 0) print_error("%s: %s\n", msg_name(all[i].kind), e.text);
        assert_int_equal(rc, 0);
        assert_int_equal(back->kind, all[i].kind);
        assert_memory_equal(&back->hello, &all[i].hello, sizeof(struct msg_failed));
        free(back);
    }
}

static void clients_words_survive(void **state)
{
    (void)state;
    uint8_t piece[100] = {7};
    struct err e = {0};
    int rc;
    struct msg m = {.kind = MSG_SUBMIT, .submit = {.key = "k", .priority = 70}, .bulk = {{piece, 5}}, .n_bulk = 1};
    struct msg *back = there_and_back(&m, &e, &rc);
    assert_int_equal(rc, 0);
    assert_string_equal(back->submit.key, "k");
    assert_int_equal(back->submit.priority, 70);
    assert_int_equal(back->bulk[0].n, 5);
    free(back);
    m = (struct msg){
        .kind = MSG_PUT, .put = {.hash = {1, 2}, .offset = 50, .total = 150}, .bulk = {{piece, 100}}, .n_bulk = 1};
    back = there_and_back(&m, &e, &rc);
    assert_int_equal(rc, 0);
    assert_memory_equal(&back->put, &m.put, sizeof m.put);
    free(back);
    m = (struct msg){.kind = MSG_CONTROL, .job = 9, .control = "pause"};
    back = there_and_back(&m, &e, &rc);
    assert_int_equal(rc, 0);
    assert_string_equal(back->control, "pause");
    assert_int_equal(back->job, 9);
    free(back);
    m = (struct msg){.kind = MSG_FETCH, .fetch_offset = 1ull << 40};
    back = there_and_back(&m, &e, &rc);
    assert_int_equal(rc, 0);
    assert_true(back->fetch_offset == 1ull << 40);
    free(back);
    m = (struct msg){.kind = MSG_ANSWER, .answer = {.code = E_BUSY, .text = "later", .offset = 3, .total = 4}};
    back = there_and_back(&m, &e, &rc);
    assert_int_equal(rc, 0);
    assert_memory_equal(&back->answer, &m.answer, sizeof m.answer);
    free(back);
    static const enum msg_kind bare[] = {MSG_STATUS, MSG_LIST, MSG_WATCH};
    for (int i = 0; i < 3; i++) {
        m = (struct msg){.kind = bare[i], .job = 3};
        back = there_and_back(&m, &e, &rc);
        assert_int_equal(rc, 0);
        assert_int_equal(back->kind, bare[i]);
        free(back);
    }
    const struct msg wrong[] = {
        {.kind = MSG_SUBMIT, .submit = {.priority = 70}},
        {.kind = MSG_SUBMIT, .submit = {.priority = 101}, .bulk = {{piece, 5}}, .n_bulk = 1},
        {.kind = MSG_PUT, .put = {.offset = 51, .total = 150}, .bulk = {{piece, 100}}, .n_bulk = 1},
        {.kind = MSG_PUT, .put = {.offset = UINT64_MAX, .total = 150}, .bulk = {{piece, 100}}, .n_bulk = 1},
        {.kind = MSG_PUT, .put = {.total = UINT64_MAX}, .bulk = {{piece, 100}}, .n_bulk = 1},
        {.kind = MSG_FETCH, .fetch_offset = UINT64_MAX},
        {.kind = MSG_ANSWER, .answer = {.code = 3}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        free(there_and_back(&wrong[i], &e, &rc));
        assert_int_equal(rc, E_INPUT);
    }
}

static void refuse(struct msg *m, const char *part_of_sentence)
{
    struct err e = {0};
    int rc;
    free(there_and_back(m, &e, &rc));
    assert_int_equal(rc, E_INPUT);
    if (!strstr(e.text, part_of_sentence)) fail_msg("'%s' lacks '%s'", e.text, part_of_sentence);
}

static void wrong_numbers_are_refused(void **state)
{
    (void)state;
    uint8_t *pixels = calloc(1, 48 * 64 * 3);
    struct msg *m = sample_open(pixels);
    m->bulk[0].n--;
    refuse(m, "the colour picture has 9215 bytes, not 9216");
    m->bulk[0].n++;
    m->open.spec.frame_num = 80;
    refuse(m, "do not fit together");
    m->open.spec.frame_num = 81;
    m->open.spec.h = 1 << 20;
    refuse(m, "h is 1048576");
    m->open.spec.h = 48;
    m->open.n_samples[1] = 1ull << 60;
    refuse(m, "n_samples is 1152921504606846976");
    m->open.n_samples[1] = 0;
    m->open.spec.teacache_poly[3] = 0.0 / 0.0;
    refuse(m, "teacache_poly is not a usable number");
    m->open.spec.teacache_poly[3] = 0;
    m->open.spec.shift = 0.0 / 0.0;
    refuse(m, "shift is not a usable number");
    *m = (struct msg){.kind = MSG_FRAMES, .frames = {.n = 3}, .bulk = {{pixels, 100}}, .n_bulk = 1};
    refuse(m, "FRAMES of 100 bytes for 3 frames");
    *m = (struct msg){.kind = MSG_BLOB, .blob = {.speaker = 2}, .bulk = {{pixels, 100}}, .n_bulk = 1};
    refuse(m, "speaker 2");
    *m = (struct msg){.kind = MSG_RUN, .run = {.first = true}, .bulk = {{pixels, 100}, {pixels, 5}}, .n_bulk = 2};
    refuse(m, "RUN with a tail of 5 bytes");
    free(m);
    free(pixels);
}

static void random_bytes_never_crash(void **state)
{
    (void)state;
    uint64_t seed = 20240601;
    print_message("seed %llu\n", (unsigned long long)seed);
    uint8_t *pixels = calloc(1, 48 * 64 * 3);
    struct msg *m = sample_open(pixels), *out = malloc(sizeof *out);
    void *good;
    size_t n;
    msg_encode(m, &good, &n);
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[9000];
        memcpy(bytes, good, n);
        size_t len = n;
        for (int k = 0; k < 4; k++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            bytes[(seed >> 33) % n] = (uint8_t)(seed >> 25);
        }
        if (round % 3 == 0) len = (seed >> 40) % n;
        struct err e = {0};
        int rc = msg_decode(out, bytes, len, m->bulk, 2, &e);
        assert_true(rc == 0 || (rc == E_INPUT && e.text[0]));
    }
    free(good);
    free(out);
    free(m);
    free(pixels);
}

static int receive(struct chan *c, struct msg *m, struct chan_peer *from)
{
    struct err e = {0};
    for (int i = 0; i < 60000; i++) {
        int rc = chan_recv(c, m, from, &e);
        if (rc != 0) return rc;
        usleep(1000);
    }
    return 0;
}

static void channel_carries_both_ways(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_msg_XXXXXX", endpoint[64], path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/s", dir);
    struct err e = {0};
    struct chan *server = NULL, *client = NULL;
    assert_int_equal(chan_bind(&server, endpoint, &e), 0);
    assert_int_equal(chan_connect(&client, endpoint, &e), 0);
    struct msg *in = malloc(sizeof *in);
    struct msg hello = {.kind = MSG_HELLO, .hello = {.version = "1", .device = "d"}};
    assert_int_equal(chan_send(client, NULL, &hello, &e), 0);
    struct chan_peer peer, stranger = {.id = {1, 2, 3}, .n = 3};
    assert_int_equal(receive(server, in, &peer), 1);
    assert_int_equal(in->kind, MSG_HELLO);
    static uint8_t tail[100000];
    for (size_t i = 0; i < sizeof tail; i++) tail[i] = (uint8_t)(i * 7);
    struct msg t = {.kind = MSG_TAIL, .tail_segment = 3, .bulk = {{tail, sizeof tail}}, .n_bulk = 1};
    assert_int_equal(chan_send(server, &peer, &t, &e), 0);
    assert_int_equal(receive(client, in, NULL), 1);
    assert_int_equal(in->bulk[0].n, sizeof tail);
    assert_memory_equal(in->bulk[0].data, tail, sizeof tail);
    assert_int_equal(chan_send(server, &stranger, &t, &e), E_LOST);
    free(in);
    chan_close(&client);
    chan_close(&server);
    snprintf(path, sizeof path, "%s/s", dir);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_survives),
        cmocka_unit_test(small_messages_survive),
        cmocka_unit_test(clients_words_survive),
        cmocka_unit_test(wrong_numbers_are_refused),
        cmocka_unit_test(random_bytes_never_crash),
        cmocka_unit_test(channel_carries_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
