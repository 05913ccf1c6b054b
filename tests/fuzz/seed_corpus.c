// Writes the first inputs of the fuzz targets that are made by our own writers: whole files of every format, and one
// message of every kind. seed_corpus DIR makes DIR/fuzz_safetensors, DIR/fuzz_torchpt, DIR/fuzz_message.
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

static void write_message(const struct msg *m)
{
    void *bytes;
    size_t n;
    msg_encode(m, &bytes, &n);
    FILE *f = fopen(path_of("fuzz_message", msg_name(m->kind)), "w");
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

static void write_messages(void)
{
    static struct msg m;
    for (enum msg_kind k = MSG_HELLO; k <= MSG_ANSWER; k++) {
        m = (struct msg){.kind = k, .job = 3};
        if (k == MSG_OPEN) {
            m.open.spec = (struct spec_render){.h = 16,
                                               .w = 16,
                                               .size = "t",
                                               .frame_num = 5,
                                               .motion_frame = 1,
                                               .n_frames = 9,
                                               .n_speakers = 1,
                                               .steps = 2,
                                               .teacache_poly = {1, -2, 3, -4, 5},
                                               .prompt = "words"};
            m.open.n_samples[0] = 640;
            m.n_bulk = 2;
            m.bulk[0].n = 768;
        } else if (k == MSG_RUN) {
            m.run = (struct msg_run){.keep_to = 5, .first = true};
            m.n_bulk = 2;
            m.bulk[0].n = 768;
        } else if (k == MSG_BLOB || k == MSG_TAIL || k == MSG_FRAMES) {
            m.n_bulk = 1;
            m.bulk[0].n = 768;
        }
        if (k == MSG_SUBMIT || k == MSG_PUT || k == MSG_ANSWER) {
            m.n_bulk = 1;
            m.bulk[0].n = 100;
        }
        if (k == MSG_PUT) m.put.total = 200;
        if (k == MSG_NOTICE) snprintf(m.notice, sizeof m.notice, "a sentence");
        if (k == MSG_CONTROL) snprintf(m.control, sizeof m.control, "pause");
        if (k == MSG_FRAMES) m.frames.n = 2;
        if (k == MSG_FAILED) m.failed.code = E_INPUT;
        write_message(&m);
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
