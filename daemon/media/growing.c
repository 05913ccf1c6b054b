// An AVIOContext over a descriptor, with one turn: a muxer that goes on with a film begins with a header all the same.
// That header is passed over box by box; what follows it is appended to the kept part.
//
// The kept part is read by its boxes (type and size, nothing else): the place to go on from must be the end of one, and
// the fragments in it are counted, because each carries its number.
#include "daemon/media/growing.h"

#include <errno.h>
#include <fcntl.h>
#include <libavutil/mem.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 15 };

struct growing {
    int fd;
    char path[4200];
    bool named; // the folder is synced
    int n_fragments;
    int64_t n_bytes;
    AVIOContext *io;
    // the header that is passed over
    bool passing, is_moov;
    uint8_t head[8];
    int n_head;
    int64_t left; // of its box
};

static uint32_t big32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

// How many of the n bytes belong to the header.
static int pass(struct growing *g, const uint8_t *bytes, int n)
{
    int at = 0;
    while (g->passing && at < n) {
        if (g->n_head < 8) {
            g->head[g->n_head++] = bytes[at++];
            if (g->n_head < 8) continue;
            g->left = (int64_t)big32(g->head) - 8;
            g->is_moov = memcmp(g->head + 4, "moov", 4) == 0;
        }
        int some = g->left < n - at ? (int)g->left : n - at;
        at += some;
        g->left -= some;
        if (g->left > 0) continue;
        g->n_head = 0;
        g->passing = !g->is_moov;
    }
    return at;
}

static int io_write(void *ctx, uint8_t *bytes, int n)
{
    struct growing *g = ctx;
    for (int at = pass(g, bytes, n); at < n;) {
        ssize_t some = write(g->fd, bytes + at, (size_t)(n - at));
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) return AVERROR(errno);
        at += (int)some;
        g->n_bytes += some;
    }
    return n;
}

// Walks the boxes up to `keep`.
static int kept_read(struct growing *g, const char *path, int64_t keep, struct err *e)
{
    struct stat st;
    if (fstat(g->fd, &st) < 0 || st.st_size < keep)
        return err_set(e, E_INPUT, "%s has %lld bytes where %lld were written", path, (long long)st.st_size,
                       (long long)keep);
    int64_t at = 0;
    while (at < keep) {
        uint8_t head[8];
        int64_t size = pread(g->fd, head, sizeof head, at) == sizeof head ? (int64_t)big32(head) : 0;
        if (size < 8) return err_set(e, E_INPUT, "%s is damaged at byte %lld", path, (long long)at);
        g->n_fragments += memcmp(head + 4, "moof", 4) == 0;
        at += size;
    }
    if (at != keep) return err_set(e, E_INPUT, "%s has no end of a fragment at byte %lld", path, (long long)keep);
    g->n_bytes = keep;
    g->passing = keep > 0;
    return 0;
}

static int file_open(struct growing *g, const char *path, int64_t keep, struct err *e)
{
    g->fd = open(path, O_RDWR | O_CLOEXEC | (keep > 0 ? 0 : O_CREAT | O_TRUNC), 0600);
    if (g->fd < 0)
        return err_set(e, E_FATAL, "%s: cannot create: %s; choose another place with -o", path, strerror(errno));
    int rc = kept_read(g, path, keep, e);
    if (rc < 0) return rc;
    if (ftruncate(g->fd, keep) < 0 || lseek(g->fd, keep, SEEK_SET) < 0)
        return err_set(e, E_FATAL, "%s: cannot cut off after %lld bytes: %s; look at that disk", path, (long long)keep,
                       strerror(errno));
    return 0;
}

int growing_open(struct growing **out, const char *path, int64_t keep, struct err *e)
{
    struct growing *g = calloc(1, sizeof *g);
    BUG_IF(!g, "no memory for a file");
    snprintf(g->path, sizeof g->path, "%s", path);
    int rc = file_open(g, path, keep, e);
    if (rc < 0) {
        growing_close(&g);
        return rc;
    }
    uint8_t *buffer = av_malloc(BUFFER);
    g->io = buffer ? avio_alloc_context(buffer, BUFFER, 1, g, NULL, io_write, NULL) : NULL;
    BUG_IF(!g->io, "no memory for a file");
    *out = g;
    return 0;
}

AVIOContext *growing_io(struct growing *g) { return g->io; }
int growing_fragments(const struct growing *g) { return g->n_fragments; }
int64_t growing_bytes(const struct growing *g) { return g->n_bytes; }

int growing_sync_folder(const char *path)
{
    char folder[4200];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0 ? AVERROR(errno) : 0;
    if (fd >= 0) close(fd);
    return rc;
}

int growing_sync(struct growing *g)
{
    if (fsync(g->fd) < 0) return AVERROR(errno);
    int rc = g->named ? 0 : growing_sync_folder(g->path);
    g->named = rc == 0;
    return rc;
}

int growing_close(struct growing **pg)
{
    struct growing *g = *pg;
    int rc = 0;
    if (!g) return 0;
    if (g->io) {
        avio_flush(g->io);
        rc = g->io->error;
        av_freep(&g->io->buffer);
        avio_context_free(&g->io);
    }
    if (g->fd >= 0) close(g->fd);
    free(g);
    *pg = NULL;
    return rc;
}
