// What the tests of the built `longtake` share: running it in a folder of the test's own against a worker without a
// model (fake_worker.c), and looking at what it made. Include below cmocka.
#ifndef TESTS_CLI_H
#define TESTS_CLI_H

#include "folder.h"
#include "proto/json.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEDIA    TEST_DIR "/../deploy/media/"
#define PORTRAIT MEDIA "portrait.png"
#define VOICE    MEDIA "voice.wav"
#define VOICE2   MEDIA "voice2.wav"

enum { ARGS = 48, TEXT = 65536 };

static inline const char *in_folder(const char *name)
{
    static char path[8][256];
    static int turn;
    char *p = path[turn++ % 8];
    snprintf(p, 256, "%s/%s", top, name);
    return p;
}

static inline void file_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline char *file_text(const char *path, char *to, size_t size)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(to, 1, size - 1, f) : 0;
    to[n] = 0;
    if (f) fclose(f);
    return to;
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

// ---- running it

struct ran {
    int status; // exit code, or minus the signal
    char out[TEXT], err[TEXT];
};

// Words of a command; @ in front of one stands for the test's folder.
static inline pid_t begin(const char *const *args, const char *trouble)
{
    static char text[ARGS][512];
    char *argv[ARGS + 2] = {BIN_DIR "/longtake"};
    int n = 0;
    for (; args[n]; n++) {
        assert_true(n < ARGS);
        if (args[n][0] == '@')
            snprintf(text[n], sizeof text[n], "%s/%s", top, args[n] + 1);
        else
            snprintf(text[n], sizeof text[n], "%s", args[n]);
        argv[n + 1] = text[n];
    }
    unlink(in_folder("stderr")); // nobody shall read the last one's
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    if (trouble)
        setenv("FAKE_WORKER", trouble, 1);
    else
        unsetenv("FAKE_WORKER");
    dup2(open(in_folder("stdout"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
    dup2(open(in_folder("stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
    alarm(120);
    execv(argv[0], argv);
    _exit(127);
}

static inline void finish(pid_t pid, struct ran *r)
{
    int status;
    while (waitpid(pid, &status, 0) < 0) assert_int_equal(errno, EINTR);
    r->status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
    file_text(in_folder("stdout"), r->out, sizeof r->out);
    file_text(in_folder("stderr"), r->err, sizeof r->err);
}

static inline struct ran *run_with(const char *trouble, const char *const *args)
{
    static struct ran r;
    finish(begin(args, trouble), &r);
    return &r;
}

#define RUN(...)         run_with(NULL, (const char *const[]){__VA_ARGS__, NULL})
#define RUN_WITH(t, ...) run_with(t, (const char *const[]){__VA_ARGS__, NULL})
#define RENDER           "render", "--worker", BIN_DIR "/fake_worker", "--model", "@model"
#define GOOD             RENDER, "--image", PORTRAIT, "--audio", VOICE

static inline void succeeded(const struct ran *r)
{
    if (r->status != 0) fail_msg("status %d: %s", r->status, r->err);
}

static inline json_t *result(const struct ran *r)
{
    struct err e = {0};
    json_t *o = NULL;
    if (json_parse(&o, "stdout", r->out, strlen(r->out), &e) < 0) fail_msg("%s: %s", e.text, r->out);
    return o;
}

static inline int64_t number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v)) fail_msg("no number %s", key);
    return json_integer_value(v);
}

// ---- looking at films

// How many pictures of `path` can be decoded; each must show its own number.
static inline int64_t film_frames(const char *path)
{
    char line[1024];
    snprintf(line, sizeof line,
             "ffmpeg -v error -i file:%s -map 0:v -fps_mode passthrough -f rawvideo -pix_fmt gray -s 64x64 -", path);
    FILE *f = popen(line, "r");
    assert_non_null(f);
    static uint8_t y[64 * 64];
    int64_t n = 0;
    for (; fread(y, 1, sizeof y, f) == sizeof y; n++) {
        int64_t seen = 0;
        for (int b = 0; b < 16; b++) seen = seen * 2 + (y[32 * 64 + b * 4 + 2] > 125);
        if (seen != n) fail_msg("%s: picture %lld shows %lld", path, (long long)n, (long long)seen);
    }
    pclose(f);
    return n;
}

static inline double probe(const char *path, const char *what)
{
    char line[1024], text[64] = "";
    snprintf(line, sizeof line, "ffprobe -v error %s -of csv=p=0 file:%s", what, path);
    FILE *f = popen(line, "r");
    assert_non_null(f);
    if (!fgets(text, sizeof text, f)) text[0] = 0;
    pclose(f);
    return atof(text);
}

static inline uint64_t file_sum(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint64_t h = 14695981039346656037u;
    for (int c; (c = getc(f)) != EOF;) h = (h ^ (uint64_t)c) * 1099511628211u;
    fclose(f);
    return h;
}

// ---- the folder

// The test's folder with a model in it, and sockets in it too. 0 or -1, as cmocka wants it.
static inline int cli_set_up(const char *program)
{
    static const char yaml[] =
        "frame-num: 17\nmotion-frame: 5\nsteps: 3\nsizes:\n"
        "  - {name: tiny, shift: 7, buckets: [[1.0, 64, 64], [0.5, 64, 128]]}\n"
        "dit: part\nadapter: part\ntext: part\ntokenizer: part\nclip: part\nvae: part\nvoice: part\n";
    if (top_make(program) < 0) return -1;
    setenv("XDG_RUNTIME_DIR", top, 1); // sockets
    if (mkdir(in_folder("model"), 0700) < 0) return -1;
    file_write(in_folder("model/model.yaml"), yaml);
    file_write(in_folder("model/part"), "");
    return 0;
}

static inline void nothing_is_left_in_tmp(void **state)
{
    (void)state;
    char line[300];
    // the sockets' folders, but for those of renders that were killed
    snprintf(line, sizeof line, "test $(ls -d %s/longtake-* 2>/dev/null | wc -l) -le 6", top);
    assert_int_equal(system(line), 0);
}

static inline int tear_down(void **state)
{
    (void)state;
    return top_remove();
}

#endif
