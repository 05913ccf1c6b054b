// Jobs differ in their seeds alone. Arrivals at random moments are a Poisson process; an answer that is late delays the
// next job, which is what a client that waits for its answer does.
#include "bench/customer.h"

#include "proto/base/clock.h"
#include "proto/base/hash.h"
#include "proto/chan.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_US = 60000000, SEED = 7 };

struct customer {
    struct chan *chan;
    struct msg in, out;
    char picture[80], voice[80];
    _Atomic int64_t n_jobs;
    struct crowd_times times;
    // while it runs by itself
    pthread_t thread;
    double rate;
    atomic_bool stops;
    uint64_t random;
    struct err error;
};

static int content_of(char name[80], const char *path, struct err *e)
{
    uint8_t bytes[4096], hash[HASH_BYTES];
    struct hash h;
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(e, E_INPUT, "cannot read %s: %s", path, strerror(errno));
    hash_init(&h);
    while ((n = fread(bytes, 1, sizeof bytes, f)) > 0) hash_update(&h, bytes, n);
    fclose(f);
    hash_final(&h, hash);
    int at = snprintf(name, 80, "content:");
    for (int i = 0; i < HASH_BYTES; i++) at += snprintf(name + at, 80 - (size_t)at, "%02x", hash[i]);
    return 0;
}

int customer_open(struct customer **out, const char *endpoint, const char *picture, const char *voice, struct err *e)
{
    struct customer *c = calloc(1, sizeof *c);
    BUG_IF(!c, "no memory for a client");
    *out = c;
    c->random = SEED;
    int rc = content_of(c->picture, picture, e);
    if (rc >= 0) rc = content_of(c->voice, voice, e);
    return rc < 0 ? rc : chan_connect(&c->chan, endpoint, e);
}

void customer_close(struct customer **pc)
{
    struct customer *c = *pc;
    if (!c) return;
    chan_close(&c->chan);
    free(c->times.us);
    free(c);
    *pc = NULL;
}

int64_t customer_jobs(const struct customer *c) { return c->n_jobs; }
const struct crowd_times *customer_times(const struct customer *c) { return &c->times; }
void customer_forget(struct customer *c)
{
    free(c->times.us);
    c->times = (struct crowd_times){0};
}

// Sends one SUBMIT and reads its answer. *us: what it took.
static int ask(struct customer *c, json_t *tree, int64_t *us, struct err *e)
{
    char *text = json_dumps(tree, JSON_COMPACT);
    memset(&c->out, 0, sizeof c->out);
    c->out.kind = MSG_SUBMIT;
    c->out.submit.priority = 50;
    c->out.bulk[0] = (struct msg_bulk){text, strlen(text)};
    c->out.n_bulk = 1;
    int rc = chan_send(c->chan, NULL, &c->out, e);
    int64_t from = clock_us();
    free(text);
    while (rc >= 0 && (rc = chan_recv(c->chan, &c->in, NULL, e)) == 0) {
        struct pollfd p = {.fd = chan_fd(c->chan), .events = POLLIN};
        poll(&p, 1, 100);
        if (clock_us() - from > PATIENCE_US) return err_set(e, E_LOST, "the daemon does not answer");
    }
    *us = clock_us() - from;
    if (rc < 0) return rc;
    const struct msg_answer *a = &c->in.answer;
    if (c->in.kind == MSG_ANSWER && a->code < 0) return err_set(e, a->code, "%s", a->text);
    return 0;
}

static json_t *job(const struct customer *c)
{
    return json_pack("{s:s, s:s, s:I}", "image", c->picture, "audio", c->voice, "seed", (json_int_t)c->n_jobs);
}

int customer_submit(struct customer *c, struct err *e)
{
    json_t *tree = job(c);
    int64_t us = 0;
    int rc = ask(c, tree, &us, e);
    json_decref(tree);
    if (rc < 0) return rc;
    c->n_jobs++;
    if ((c->times.n & (c->times.n - 1)) == 0)
        c->times.us = realloc(c->times.us, (c->times.n ? 2 * c->times.n : 1) * sizeof *c->times.us);
    BUG_IF(!c->times.us, "no memory for %zu times", c->times.n);
    c->times.us[c->times.n++] = us;
    return 0;
}

int customer_submit_many(struct customer *c, int n, struct err *e)
{
    json_t *tree = job(c), *items = json_array();
    int64_t us = 0;
    for (int i = 0; i < n; i++) json_array_append_new(items, json_pack("{s:I}", "seed", (json_int_t)(c->n_jobs + i)));
    json_object_set_new(tree, "items", items);
    int rc = ask(c, tree, &us, e);
    json_decref(tree);
    if (rc >= 0) c->n_jobs += n;
    return rc;
}

// ---- by itself

static void *submits(void *ctx)
{
    struct customer *c = ctx;
    int rc = 0;
    int64_t at = clock_us();
    while (rc >= 0 && !c->stops) {
        c->random = c->random * 6364136223846793005u + 1442695040888963407u;
        double u = ((double)(c->random >> 33) + 1) / 2147483649.0;
        at += (int64_t)(-log(u) / c->rate * 1e6);
        for (int64_t now; (now = clock_us()) < at && !c->stops;)
            usleep((useconds_t)(at - now < 100000 ? at - now : 100000));
        if (!c->stops) rc = customer_submit(c, &c->error);
    }
    return NULL;
}

void customer_start(struct customer *c, double rate)
{
    c->rate = rate;
    c->stops = false;
    c->error = (struct err){0};
    int rc = pthread_create(&c->thread, NULL, submits, c);
    BUG_IF(rc != 0, "no thread for a client: %s", strerror(rc));
}

int customer_stop(struct customer *c, struct err *e)
{
    c->stops = true;
    pthread_join(c->thread, NULL);
    return c->error.code < 0 ? err_set(e, c->error.code, "a job was refused: %s", c->error.text) : 0;
}
