// Writes the first inputs of the fuzz targets that are made by our own writers: whole files of every format, and
// messages of every kind. seed_corpus DIR makes DIR/fuzz_safetensors, DIR/fuzz_torchpt, DIR/fuzz_message.
#include "proto/msg.h"
#include "worker/weights/write_safetensors.h"
#include "worker/weights/write_torchpt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct tensor_head heads[] = {
    {"a.weight", DT_F32, 2, {3, 5}}, {"scalar", DT_F32, 0, {0}},         {"none", DT_BF16, 2, {0, 4}},
    {"half", DT_F16, 1, {7}},        {"b", DT_BF16, 5, {2, 1, 3, 1, 2}}, {"ids", DT_I64, 1, {30}},
};
enum { N_HEADS = sizeof heads / sizeof *heads };

static const char *top;

static const char *path_of(const char *target, const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", top, target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", top, target, name);
    return path;
}

static void check(int rc, const struct err *e)
{
    if (rc == 0) return;
    fprintf(stderr, "seed_corpus: %s\n", e->text);
    exit(1);
}

static void write_weights(void)
{
    static const char *const meta[] = {"format", "pt", NULL};
    static const uint8_t zeros[4096];
    struct err e = {0};
    size_t n = 0;
    for (int i = 0; i < N_HEADS; i++) n += (size_t)head_bytes(&heads[i]);
    struct safetensors_out *s = NULL;
    check(safetensors_create(&s, path_of("fuzz_safetensors", "whole"), heads, N_HEADS, meta, &e), &e);
    check(safetensors_put(s, zeros, n, &e), &e);
    check(safetensors_close(&s, &e), &e);
    for (int ordered = 0; ordered < 2; ordered++) {
        struct torchpt_out *t = NULL;
        const char *name = ordered ? "ordered" : "plain";
        check(torchpt_create(&t, path_of("fuzz_torchpt", name), "archive", ordered, heads, N_HEADS, &e), &e);
        check(torchpt_put(t, zeros, n, &e), &e);
        check(torchpt_close(&t, &e), &e);
    }
}

static void write_message(const struct msg *m, const char *name)
{
    void *bytes;
    size_t n;
    struct err e = {0};
    struct msg back;
    msg_encode(m, &bytes, &n);
    check(msg_decode(&back, bytes, n, m->bulk, m->n_bulk, &e), &e); // a first input that is refused shows little
    FILE *f = fopen(path_of("fuzz_message", name), "w");
    if (!f) exit(1);
    fputc(m->n_bulk, f);
    for (int i = 0; i < m->n_bulk; i++) {
        fputc((int)(m->bulk[i].n & 255), f);
        fputc((int)(m->bulk[i].n >> 8), f);
    }
    fwrite(bytes, 1, n, f);
    fclose(f);
    free(bytes);
}

enum { PICTURE = 16 * 16 * 3, MASKS = 2 * 16 * 16 };

static void bulk(struct msg *m, int n_bulk, size_t a, size_t b, size_t c)
{
    static const uint8_t zeros[1024];
    size_t n[] = {a, b, c};
    m->n_bulk = n_bulk;
    for (int i = 0; i < n_bulk; i++) m->bulk[i] = (struct msg_bulk){zeros, n[i]};
}

static void fill(struct msg *m)
{
    switch (m->kind) {
    case MSG_HELLO:
        m->hello = (struct msg_hello){"0.1.0", "cpu", "cpu avx2 x2", "here", 2, 71, "ab12", true, {1}, {2}, {3}};
        break;
    case MSG_OPEN:
        m->open = (struct msg_open){.spec = {.h = 16,
                                             .w = 16,
                                             .size = "t",
                                             .frame_num = 5,
                                             .motion_frame = 1,
                                             .n_frames = 9,
                                             .n_speakers = 1,
                                             .steps = 2,
                                             .teacache_poly = {1, -2, 3, -4, 5},
                                             .prompt = "words"},
                                    .n_samples = {640}};
        bulk(m, 2, PICTURE, 0, 0);
        break;
    case MSG_RUN:
        m->run = (struct msg_run){.keep_to = 5, .first = true};
        bulk(m, 3, PICTURE, 0, 0);
        break;
    case MSG_FRAMES:
        m->frames.n = 2;
        bulk(m, 1, PICTURE, 0, 0);
        break;
    case MSG_BLOB:
    case MSG_TAIL:
    case MSG_SUBMIT:
    case MSG_ANSWER:
        bulk(m, 1, 100, 0, 0);
        break;
    case MSG_PUT:
        m->put.total = 200;
        bulk(m, 1, 100, 0, 0);
        break;
    case MSG_FAILED:
        m->failed.code = E_INPUT;
        break;
    case MSG_NOTICE:
        snprintf(m->notice, sizeof m->notice, "a sentence");
        break;
    case MSG_CONTROL:
        snprintf(m->control, sizeof m->control, "pause");
        break;
    default:
        break;
    }
}

// One of every kind, and the forms that some have besides: two speakers with their masks over several spans, a span
// that begins with colours of its own, one that goes on from a tail and ends, the jobs of a batch.
static void write_messages(void)
{
    struct msg m;
    for (enum msg_kind k = MSG_HELLO; k <= MSG_ANSWER; k++) {
        m = (struct msg){.kind = k, .job = 3};
        fill(&m);
        write_message(&m, msg_name(k));
        if (k == MSG_OPEN) {
            m.open.spec.n_speakers = 2;
            m.open.spec.n_reach = 12;
            m.open.spec.mode = SPEC_CLIP;
            m.open.spec.teacache = m.open.spec.apg = true;
            m.open.n_samples[1] = 1280;
            bulk(&m, 2, PICTURE, MASKS, 0);
            write_message(&m, "OPEN-two");
        } else if (k == MSG_RUN) {
            m.run = (struct msg_run){.segment = 7, .start = 40, .keep_to = 5, .first = true, .ends = true};
            bulk(&m, 3, PICTURE, 0, PICTURE);
            write_message(&m, "RUN-span");
            m.run = (struct msg_run){.segment = 8, .start = 44, .keep_from = 1, .keep_to = 3, .last = true};
            bulk(&m, 2, PICTURE, 300, 0);
            write_message(&m, "RUN-tail");
        } else if (k == MSG_LIST) {
            m.list_batch = 3;
            write_message(&m, "LIST-batch");
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: seed_corpus FOLDER\n");
        return 2;
    }
    top = argv[1];
    mkdir(top, 0777);
    write_weights();
    write_messages();
    return 0;
}
