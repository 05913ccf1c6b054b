// The two ends of one pipe. The parent trusts nothing that the child says beyond its kind: rates, channel counts and
// piece sizes are bounds-checked, since a decoder that was talked into something speaks through the same pipe.
#include "daemon/media/voice_child.h"

#include "daemon/media/child.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIECE_MAX = 1 << 20 };

// ---- the child's side

struct pipe_end {
    int out;
    int32_t channels;
};

static int head_send(void *ctx, const struct decode_head *h, struct err *e)
{
    struct pipe_end *p = ctx;
    p->channels = h->channels;
    child_seal(); // the file is open, the decoder runs
    return child_write(p->out, h, sizeof *h, e);
}

static int samples_send(void *ctx, const float *x, int64_t n, struct err *e)
{
    struct pipe_end *p = ctx;
    for (int64_t piece; n > 0; n -= piece, x += piece * p->channels) {
        piece = n < PIECE_MAX ? n : PIECE_MAX;
        int rc = child_write(p->out, &piece, sizeof piece, e);
        if (rc >= 0) rc = child_write(p->out, x, (size_t)(piece * p->channels) * sizeof *x, e);
        if (rc < 0) return rc;
    }
    return 0;
}

int voice_child(int argc, char **argv, int out, struct err *e)
{
    if (argc != 2) return err_set(e, E_FATAL, "voice takes a file and a number");
    struct pipe_end p = {.out = out};
    struct decode_sink sink = {.ctx = &p, .head = head_send, .samples = samples_send};
    struct decode_tail tail;
    int rc = decode_voice(argv[0], (int)strtol(argv[1], NULL, 10), &sink, &tail, e);
    int64_t end = 0;
    if (rc >= 0) rc = child_write(out, &end, sizeof end, e);
    return rc < 0 ? rc : child_write(out, &tail, sizeof tail, e);
}

// ---- the parent's side

static int nonsense(const char *path, struct err *e)
{
    return err_set(e, E_INPUT, "voice %s: the decoder went wrong on it; convert it with another program first", path);
}

static int pieces_take(struct child *c, const char *path, int channels, const struct decode_sink *sink, float *x,
                       struct err *e)
{
    for (;;) {
        int64_t n;
        int rc = child_read(c, &n, sizeof n, e);
        if (rc < 0 || n == 0) return rc;
        if (n < 0 || n > PIECE_MAX) return nonsense(path, e);
        while (rc >= 0 && n > 0) {
            int64_t some = n < 8192 ? n : 8192;
            rc = child_read(c, x, (size_t)(some * channels) * sizeof *x, e);
            if (rc >= 0) rc = sink->samples(sink->ctx, x, some, e);
            n -= some;
        }
        if (rc < 0) return rc;
    }
}

int voice_child_run(const char *self, const char *path, int track, const struct decode_sink *sink,
                    struct decode_tail *tail, struct err *e)
{
    struct child *c = NULL;
    struct decode_head h;
    char number[16];
    snprintf(number, sizeof number, "%d", track);
    int rc = child_start(&c, self, "voice", (const char *const[]){path, number, NULL}, e);
    if (rc < 0) return rc;
    float *x = NULL;
    rc = child_read(c, &h, sizeof h, e);
    if (rc >= 0 && (h.rate < 1000 || h.rate > 768000 || h.channels < 1 || h.channels > DECODE_CHANNELS ||
                    h.center >= h.channels || h.lfe >= h.channels))
        rc = nonsense(path, e);
    if (rc >= 0) rc = sink->head(sink->ctx, &h, e);
    if (rc >= 0) {
        x = malloc((size_t)(8192 * h.channels) * sizeof *x);
        BUG_IF(!x, "no memory for samples");
        rc = pieces_take(c, path, h.channels, sink, x, e);
    }
    if (rc >= 0) rc = child_read(c, tail, sizeof *tail, e);
    free(x);
    if (rc >= 0) return child_end(c, e);
    child_kill(c);
    return rc;
}
