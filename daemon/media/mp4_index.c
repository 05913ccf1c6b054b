// Six tables a track, each at its own place in the file with its own small buffer.
//
// The rows of a table lie together, but a packet adds to nearly every table: so each writes behind its own buffer, at
// the place that the counting pass found for it, and one walk over the packets fills all of them. The counting pass
// runs the same code with the writing left out, so the two cannot disagree about a row.
#include "daemon/media/mp4_index.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void mp4_set32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

void mp4_set64(uint8_t *p, uint64_t v)
{
    mp4_set32(p, (uint32_t)(v >> 32));
    mp4_set32(p + 4, (uint32_t)v);
}

int mp4_write_at(int fd, const char *path, int64_t at, const void *data, size_t n, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, (const uint8_t *)data + done, n - done, (off_t)(at + (int64_t)done));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0)
            return err_set(e, E_FATAL, "%s: cannot write: %s", path,
                           errno == ENOSPC ? "no space left on the disk; free some" : strerror(errno));
        done += (size_t)put;
    }
    return 0;
}

static int table_flush(const struct mp4_index *x, struct mp4_table *t, struct err *e)
{
    int rc = mp4_write_at(x->fd, x->path, t->at, t->row, t->fill, e);
    t->at += (int64_t)t->fill;
    t->fill = 0;
    return rc;
}

static int table_row(const struct mp4_index *x, struct mp4_table *t, const uint32_t *v, int n, struct err *e)
{
    t->n++;
    if (x->fd < 0 || t->at == 0) return 0;
    for (int i = 0; i < n; i++, t->fill += 4) mp4_set32(t->row + t->fill, v[i]);
    return t->fill + 12 > sizeof t->row ? table_flush(x, t, e) : 0;
}

// A row of runs: how often, and what. It is written when another value comes, or none.
static int run_add(const struct mp4_index *x, struct mp4_table *t, uint32_t *n, uint32_t *value, uint32_t next,
                   struct err *e)
{
    if (*n && *value != next) {
        int rc = table_row(x, t, (const uint32_t[]){*n, *value}, 2, e);
        if (rc < 0) return rc;
        *n = 0;
    }
    *value = next;
    ++*n;
    return 0;
}

static int chunk_end(const struct mp4_index *x, struct mp4_column *c, struct err *e)
{
    uint32_t n = c->chunk_n;
    c->chunk_n = 0;
    if (n == 0 || n == c->stsc) return 0;
    c->stsc = n;
    return table_row(x, &c->t[MP4_STSC], (const uint32_t[]){c->total.n_chunks, n, 1}, 3, e);
}

static int chunk_begin(const struct mp4_index *x, struct mp4_column *c, struct err *e)
{
    int rc = chunk_end(x, c, e);
    if (rc < 0) return rc;
    c->total.n_chunks++;
    uint32_t at[] = {(uint32_t)((uint64_t)x->media >> 32), (uint32_t)x->media};
    return table_row(x, &c->t[MP4_STCO], x->wide ? at : at + 1, x->wide ? 2 : 1, e);
}

void mp4_index_init(struct mp4_index *x, int fd, const char *path)
{
    memset(x, 0, sizeof *x);
    x->fd = fd;
    x->path = path;
}

int mp4_index_add(struct mp4_index *x, const struct mp4_packet *p, struct err *e)
{
    struct mp4_column *c = &x->c[p->track];
    struct mp4_totals *t = &c->total;
    if (t->n_packets == UINT32_MAX) return err_set(e, E_FATAL, "%s: too many packets for one film", x->path);
    t->n_packets++;
    int rc = p->opens ? chunk_begin(x, c, e) : 0;
    c->chunk_n++;
    if (rc >= 0) rc = run_add(x, &c->t[MP4_STTS], &c->stts_n, &c->stts, p->duration, e);
    if (rc >= 0) rc = run_add(x, &c->t[MP4_CTTS], &c->ctts_n, &c->ctts, (uint32_t)p->delay, e);
    if (rc >= 0 && p->key) rc = table_row(x, &c->t[MP4_STSS], &t->n_packets, 1, e);
    if (rc >= 0) rc = table_row(x, &c->t[MP4_STSZ], &p->size, 1, e);
    t->n_keys += p->key;
    t->delayed += p->delay > 0;
    t->n_bytes += p->size;
    t->duration += p->duration;
    int64_t shown = p->dts + p->delay + p->duration;
    if (shown > t->end) t->end = shown;
    x->media += p->size;
    return rc;
}

int mp4_index_end(struct mp4_index *x, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < MP4_TRACKS && rc >= 0; i++) {
        struct mp4_column *c = &x->c[i];
        if (c->total.n_packets == 0) continue;
        rc = chunk_end(x, c, e);
        if (rc >= 0) rc = table_row(x, &c->t[MP4_STTS], (const uint32_t[]){c->stts_n, c->stts}, 2, e);
        if (rc >= 0) rc = table_row(x, &c->t[MP4_CTTS], (const uint32_t[]){c->ctts_n, c->ctts}, 2, e);
        for (int k = 0; k < MP4_TABLES && rc >= 0; k++) {
            c->total.rows[k] = c->t[k].n;
            if (x->fd >= 0 && c->t[k].at) rc = table_flush(x, &c->t[k], e);
        }
    }
    return rc;
}
