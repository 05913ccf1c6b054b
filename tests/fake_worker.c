// A worker without a model, for tests of the coordinator: it speaks the whole protocol, checks what it is told, and
// paints every frame with its absolute number in sixteen black and white stripes, the highest bit on the left.
//
// It is as strict as a worker may be: the voice must have the hash that OPEN promised, each RUN the tail of the segment
// before, frames go out under credit. What is wrong is answered by FAILED.
//
// The variable FAKE_WORKER asks for trouble, in words with commas between:
//   die:K exit:K silent:K stall:K garbage:K short:K fail:K   at segment K, when the coordinator has half of its frames
//   wrong:K     ends as one whose weights are wrong, and has no time to say so
//   twice:K late:K swap:K   at segment K: all is said twice; again when it is done; its halves the wrong way round
//   mute        never says HELLO        bye        says goodbye instead of opening a job
//   load        cannot load its weights             notice     tells one on OPEN
//   layout:NAME its layout class
//   step:MS     time of a step          once:FILE  trouble comes only while FILE is absent, and makes it
//   gate:FILE   while FILE is there no segment begins but the first three: a job that cannot end before it is looked at
//   log:FILE    a line for each RUN: segment, start, keep range, last, mean of its picture; before them its pid and
//   arguments
// FAKE_VERSION, FAKE_BUILD and FAKE_WEIGHTS (a number) are what it says of itself in HELLO.
#include "proto/base/clock.h"
#include "proto/base/hash.h"
#include "proto/chan_call.h"
#include "proto/mark.h"
#include "proto/voice_hash.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { STRIPES = 16, BEAT_MS = 500, MOST_FRAMES = 4, GATED = 3 };

struct fake {
    struct chan *chan;
    struct msg in, out, open;
    struct msg_hello hello;
    bool is_open, closed;
    bool left; // the segment under way: the job was cancelled
    float *voice[SPEC_SPEAKERS];
    size_t got[SPEC_SPEAKERS];
    int64_t credit, lent; // lent: what came with OPEN, and is had again when all frames are encoded
    struct msg runs[2];   // waiting; their picture is only looked at when they arrive
    int n_runs;
    int64_t tail_sent; // segment, -1: none
    uint64_t progress;
    int64_t beaten_ms, step_ms;
    char trouble[16], once[512], gate[512], log[512], layout[64];
    int64_t trouble_at;
    char stage[32];
    int64_t segment;
    uint32_t step;
};

static void options_read(struct fake *f)
{
    const char *v = getenv("FAKE_WORKER");
    f->trouble_at = -1;
    f->step_ms = 5;
    snprintf(f->layout, sizeof f->layout, "fake");
    char *text = strdup(v ? v : ""), *rest = text;
    for (char *word; (word = strsep(&rest, ","));) {
        char *colon = strchr(word, ':');
        const char *value = colon ? colon + 1 : "0";
        if (colon) *colon = 0;
        if (strcmp(word, "step") == 0)
            f->step_ms = atoi(value);
        else if (strcmp(word, "once") == 0)
            snprintf(f->once, sizeof f->once, "%s", value);
        else if (strcmp(word, "gate") == 0)
            snprintf(f->gate, sizeof f->gate, "%s", value);
        else if (strcmp(word, "layout") == 0)
            snprintf(f->layout, sizeof f->layout, "%s", value);
        else if (strcmp(word, "log") == 0)
            snprintf(f->log, sizeof f->log, "%s", value);
        else if (*word) {
            snprintf(f->trouble, sizeof f->trouble, "%s", word);
            f->trouble_at = atoi(value);
        }
    }
    free(text);
    if (f->once[0] && access(f->once, F_OK) == 0) f->trouble[0] = 0;
}

static void __attribute__((format(printf, 2, 3))) note(const struct fake *f, const char *fmt, ...)
{
    FILE *to = f->log[0] ? fopen(f->log, "a") : NULL;
    if (!to) return;
    va_list args;
    va_start(args, fmt);
    vfprintf(to, fmt, args);
    va_end(args);
    fclose(to);
}

// ---- out

static struct msg *message(struct fake *f, enum msg_kind kind)
{
    memset(&f->out, 0, sizeof f->out);
    f->out.kind = kind;
    f->out.job = kind == MSG_HELLO || kind == MSG_BEAT || kind == MSG_BYE ? 0 : f->open.job;
    return &f->out;
}

static void send(struct fake *f)
{
    while (chan_send(f->chan, NULL, &f->out, NULL) == E_BUSY) usleep(1000);
}

static void beat(struct fake *f, bool now)
{
    if (!now && clock_ms() - f->beaten_ms < BEAT_MS) return;
    struct msg *m = message(f, MSG_BEAT);
    m->beat = (struct msg_beat){.progress = f->progress,
                                .segment = f->segment,
                                .step = f->step,
                                .n_steps = f->is_open ? (uint32_t)f->open.open.spec.steps : 0};
    snprintf(m->beat.stage, sizeof m->beat.stage, "%s", f->stage);
    send(f);
    f->beaten_ms = clock_ms();
}

static void stage(struct fake *f, const char *name, int64_t segment, uint32_t step)
{
    snprintf(f->stage, sizeof f->stage, "%s", name);
    f->segment = segment;
    f->step = step;
    f->progress++;
    beat(f, true);
}

static void fail(struct fake *f, int64_t segment, const char *why)
{
    struct msg *m = message(f, MSG_FAILED);
    m->failed.segment = segment;
    m->failed.code = E_INPUT;
    snprintf(m->failed.text, sizeof m->failed.text, "%s", why);
    send(f);
}

// ---- in

static void voice_check(struct fake *f)
{
    const struct msg_open *o = &f->open.open;
    struct hash h;
    uint8_t hash[HASH_BYTES];
    voice_hash_init(&h, o->spec.n_speakers, o->n_samples);
    for (int p = 0; p < o->spec.n_speakers; p++) {
        if (f->got[p] != o->n_samples[p] * sizeof(float)) return;
        hash_update(&h, f->voice[p], f->got[p]);
    }
    hash_final(&h, hash);
    if (memcmp(hash, o->voice_hash, sizeof hash) != 0) fail(f, -1, "the voice is not the one that was promised");
}

static void on_open(struct fake *f)
{
    f->open = f->in;
    f->is_open = true;
    f->credit = f->lent = 0;
    f->tail_sent = -1;
    if (strcmp(f->trouble, "notice") == 0) {
        snprintf(message(f, MSG_NOTICE)->notice, sizeof f->out.notice, "the prompt is\ncut");
        send(f);
    }
    for (int p = 0; p < SPEC_SPEAKERS; p++) {
        free(f->voice[p]);
        f->voice[p] = p < f->in.open.spec.n_speakers ? calloc(f->in.open.n_samples[p] + 1, sizeof(float)) : NULL;
        f->got[p] = 0;
    }
}

static void on_blob(struct fake *f)
{
    const struct msg_blob *b = &f->in.blob;
    size_t n = f->in.bulk[0].n;
    if (b->offset != f->got[b->speaker] || b->offset + n > f->open.open.n_samples[b->speaker] * sizeof(float)) {
        fail(f, -1, "a piece of voice out of order");
        return;
    }
    memcpy((char *)f->voice[b->speaker] + b->offset, f->in.bulk[0].data, n);
    f->got[b->speaker] += n;
    voice_check(f);
}

static void tail_fill(const struct fake *f, int64_t segment, char *tail, size_t n)
{
    memset(tail, 0, n);
    snprintf(tail, n, "tail of segment %lld, seed %lld", (long long)segment, (long long)f->open.open.spec.seed);
}

static void on_run(struct fake *f)
{
    const struct msg_run *r = &f->in.run;
    char tail[100];
    tail_fill(f, r->segment - 1, tail, sizeof tail);
    bool right = r->first || (f->in.bulk[1].n == sizeof tail && memcmp(f->in.bulk[1].data, tail, sizeof tail) == 0);
    if (!right) fail(f, r->segment, "RUN with another tail than the last segment's");
    if (f->n_runs == 2) fail(f, r->segment, "more than one segment ahead");
    if (!right || f->n_runs == 2) return;
    double sum = 0;
    for (size_t i = 0; i < f->in.bulk[0].n; i++) sum += ((const uint8_t *)f->in.bulk[0].data)[i];
    note(f, "run %lld start %lld keep %lld %lld last %d picture %.3f\n", (long long)r->segment, (long long)r->start,
         (long long)r->keep_from, (long long)r->keep_to, r->last, sum / (double)f->in.bulk[0].n);
    f->runs[f->n_runs++] = f->in;
}

static void hello(struct fake *f)
{
    struct msg *m = message(f, MSG_HELLO);
    m->hello = f->hello;
    send(f);
}

// The coordinator refuses this worker, or has forgotten it.
static void on_failed(struct fake *f)
{
    fprintf(stderr, "refused: %s\n", f->in.failed.text);
    if (f->in.failed.code != E_LOST) exit(3);
    f->left = true;
    f->n_runs = 0;
    f->is_open = false;
    hello(f);
}

static void take(struct fake *f)
{
    struct err e = {0};
    while (chan_recv(f->chan, &f->in, NULL, &e) != 0) {
        switch (f->in.kind) {
        case MSG_OPEN:
            on_open(f);
            break;
        case MSG_BLOB:
            on_blob(f);
            break;
        case MSG_RUN:
            on_run(f);
            break;
        case MSG_CREDIT:
            f->credit += f->in.credit;
            if (f->lent == 0) f->lent = f->in.credit;
            break;
        case MSG_CANCEL:
            f->left = true;
            f->n_runs = 0;
            f->is_open = false;
            break;
        case MSG_CLOSE:
            f->is_open = false;
            break;
        case MSG_BYE:
            f->closed = true;
            break;
        case MSG_FAILED:
            on_failed(f);
            break;
        default:
            break;
        }
    }
}

static void wait_ms(struct fake *f, int64_t ms)
{
    int64_t end = clock_ms() + ms;
    do {
        take(f);
        beat(f, false);
        struct pollfd p = {.fd = chan_fd(f->chan), .events = POLLIN};
        int64_t left = end - clock_ms();
        poll(&p, 1, left < 0 ? 0 : left > 20 ? 20 : (int)left);
    } while (clock_ms() < end && !f->closed && !f->left);
}

// A job that may not end yet: alive, and getting on.
static void gate_wait(struct fake *f, int64_t segment)
{
    while (segment >= GATED && f->gate[0] && access(f->gate, F_OK) == 0 && !f->closed && !f->left) {
        f->progress++;
        wait_ms(f, 10);
    }
}

// ---- a segment

static void frame_paint(uint8_t *yuv, int h, int w, int64_t number)
{
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) yuv[y * w + x] = number >> (STRIPES - 1 - x * STRIPES / w) & 1 ? 220 : 30;
    memset(yuv + h * w, 128, (size_t)h * (size_t)w / 2);
}

static void frames_send(struct fake *f, int64_t segment, int64_t from, int64_t to)
{
    int h = f->open.open.spec.h, w = f->open.open.spec.w;
    size_t bytes = (size_t)h * (size_t)w * 3 / 2;
    uint8_t *yuv = malloc(MOST_FRAMES * bytes);
    for (int64_t at = from, n; at < to && !f->closed && !f->left; at += n) {
        n = to - at < MOST_FRAMES ? to - at : MOST_FRAMES;
        while (f->credit < n && !f->closed && !f->left) wait_ms(f, 1);
        if (f->left) break;
        for (int64_t i = 0; i < n; i++) frame_paint(yuv + (size_t)i * bytes, h, w, at + i);
        struct msg *m = message(f, MSG_FRAMES);
        m->frames = (struct msg_frames){.segment = segment, .first = at, .n = (uint32_t)n};
        m->bulk[0] = (struct msg_bulk){yuv, (size_t)n * bytes};
        m->n_bulk = 1;
        f->credit -= n;
        send(f);
        take(f);
    }
    free(yuv);
}

// What a process that has lost its mind might say: none of it may harm the coordinator.
static void garbage_send(struct fake *f, int64_t segment)
{
    static uint8_t noise[4096];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)(i * 131 + 7);
    struct msg *m = message(f, MSG_BEAT);
    memset(m->beat.stage, 'x', sizeof m->beat.stage - 1);
    m->beat.segment = INT64_MAX;
    m->beat.step = UINT32_MAX;
    send(f);
    m = message(f, MSG_TAIL);
    m->tail_segment = segment + 999;
    m->bulk[0] = (struct msg_bulk){noise, sizeof noise};
    m->n_bulk = 1;
    send(f);
    m = message(f, MSG_FRAMES);
    m->frames = (struct msg_frames){.segment = segment, .first = 1 << 29, .n = 1};
    m->bulk[0] = (struct msg_bulk){noise, sizeof noise};
    m->n_bulk = 1;
    send(f);
}

static void trouble(struct fake *f, int64_t segment)
{
    // what was said before has arrived: a process that ends takes along what still waits in its socket
    while (f->credit < f->lent && !f->closed && !f->left) wait_ms(f, 1);
    if (strcmp(f->trouble, "die") == 0) raise(SIGKILL);
    if (strcmp(f->trouble, "exit") == 0 || strcmp(f->trouble, "wrong") == 0) {
        fprintf(stderr, "cannot go on: the roof is leaking\n");
        exit(f->trouble[0] == 'w' ? 3 : 7);
    }
    if (strcmp(f->trouble, "silent") == 0)
        for (;;) pause();
    if (strcmp(f->trouble, "stall") == 0) wait_ms(f, 1000000);
    if (strcmp(f->trouble, "fail") == 0) fail(f, segment, "segment refused: the words are too long");
    if (strcmp(f->trouble, "garbage") == 0) garbage_send(f, segment);
}

static void tail_send(struct fake *f, int64_t segment)
{
    char tail[100];
    tail_fill(f, segment, tail, sizeof tail);
    struct msg *m = message(f, MSG_TAIL);
    m->tail_segment = segment;
    m->bulk[0] = (struct msg_bulk){tail, sizeof tail};
    m->n_bulk = 1;
    send(f);
}

static void done_send(struct fake *f, int64_t segment)
{
    struct msg *m = message(f, MSG_DONE);
    m->done = (struct msg_done){.segment = segment, .denoise_ms = f->step_ms, .drift = 0.25};
    send(f);
}

static bool asks_for(const struct fake *f, const char *what, int64_t segment)
{
    return f->trouble_at == segment && strcmp(f->trouble, what) == 0;
}

static void segment_run(struct fake *f, const struct msg *run)
{
    const struct msg_run *r = &run->run;
    bool bad = f->trouble[0] && f->trouble_at == r->segment;
    gate_wait(f, r->segment);
    for (uint32_t i = 0; i < (uint32_t)f->open.open.spec.steps && !f->closed && !f->left; i++) {
        stage(f, "denoise", r->segment, i + 1);
        wait_ms(f, f->step_ms);
    }
    if (f->left) return;
    stage(f, "decode", r->segment, 0);
    // before anything wrong is said: the answer to it may be a kill, and who comes next must find the file
    if (bad && f->once[0]) fclose(fopen(f->once, "w"));
    bool twice = asks_for(f, "twice", r->segment);
    for (int i = 0; i < 1 + twice; i++) tail_send(f, r->segment);
    int64_t from = r->start + r->keep_from, to = r->start + r->keep_to, half = (from + to) / 2;
    if (asks_for(f, "swap", r->segment)) frames_send(f, r->segment, half, to);
    for (int i = 0; i < 1 + twice; i++) frames_send(f, r->segment, from, half);
    if (bad) trouble(f, r->segment);
    if (!(bad && strcmp(f->trouble, "short") == 0))
        for (int i = 0; i < 1 + twice; i++) frames_send(f, r->segment, half, to);
    if (f->left) return;
    for (int i = 0; i < 1 + twice; i++) done_send(f, r->segment);
    if (!asks_for(f, "late", r->segment)) return;
    tail_send(f, r->segment);
    frames_send(f, r->segment, from, half);
    done_send(f, r->segment);
}

int main(int argc, char **argv)
{
    static struct fake f;
    struct err e = {0};
    struct chan_call call = {0};
    struct model model;
    struct mark_set set = {.n_speakers = 1};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    options_read(&f);
    note(&f, "pid %d\n", (int)getpid());
    for (int i = 1; i < argc; i++) {
        note(&f, "%s%s", argv[i], i + 1 < argc ? " " : "\n");
        if (strcmp(argv[i], "--parent") == 0 && i + 1 < argc && getppid() != atoi(argv[i + 1])) return 2;
        if (strcmp(argv[i], "--plain-tcp") == 0) call.plain_tcp = true;
        if (i + 1 == argc) break;
        if (strcmp(argv[i], "--connect") == 0) call.endpoint = argv[i + 1];
        if (strcmp(argv[i], "--key-file") == 0) call.key_file = argv[i + 1];
        if (strcmp(argv[i], "--server-key") == 0) call.server_key = argv[i + 1];
        if (strcmp(argv[i], "--speakers") == 0) set.n_speakers = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--dtype") == 0) set.bf16 = strcmp(argv[i + 1], "bf16") == 0;
        if (strcmp(argv[i], "--model") == 0 && model_open(&model, argv[i + 1], &e) == 0) {
            mark_weights(f.hello.model, &model);
            mark_set(f.hello.set, &model, &set);
        }
    }
    if (!call.endpoint || chan_call(&f.chan, &call, 0, &e) < 0) return 2;
    snprintf(f.stage, sizeof f.stage, "load");
    f.segment = -1;
    if (strcmp(f.trouble, "mute") == 0)
        for (;;) pause();
    const char *version = getenv("FAKE_VERSION");
    snprintf(f.hello.version, sizeof f.hello.version, "%s", version ? version : LONGTAKE_VERSION);
    const char *build = getenv("FAKE_BUILD"), *weights = getenv("FAKE_WEIGHTS");
    snprintf(f.hello.build, sizeof f.hello.build, "%s", build ? build : "none");
    f.hello.has_weights = weights != NULL;
    f.hello.weights[0] = (uint8_t)(weights ? atoi(weights) : 0);
    snprintf(f.hello.device, sizeof f.hello.device, "nothing");
    f.hello.ranks = 1;
    snprintf(f.hello.layout, sizeof f.hello.layout, "%s", f.layout);
    f.hello.pid = (uint64_t)getpid();
    hello(&f);
    wait_ms(&f, 20);
    if (strcmp(f.trouble, "load") == 0) {
        f.open.job = 0;
        fail(&f, -1, "the tensor blocks.0 is missing from the weights");
        wait_ms(&f, 20000); // it is ended as soon as that is heard
        return 3;
    }
    if (strcmp(f.trouble, "bye") == 0) {
        struct msg *m = message(&f, MSG_BYE);
        snprintf(m->bye, sizeof m->bye, "the weights are for another model");
        send(&f);
        wait_ms(&f, 1000); // its end must not overtake its word
        return 1;
    }
    while (!f.closed) {
        wait_ms(&f, 5);
        if (f.n_runs == 0) continue;
        struct msg run = f.runs[0];
        f.runs[0] = f.runs[1];
        f.n_runs--;
        f.left = false;
        segment_run(&f, &run);
    }
    chan_close(&f.chan);
    return 0;
}
