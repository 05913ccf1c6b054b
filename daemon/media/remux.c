// Fragments to one index: packets are copied as they are, and only what is said about them is written anew.
//
// Two walks over the packets. The first counts the rows of each table, so the size of the head is known and with it
// where the media begins. The second writes rows and media, each to its place. Neither remembers a packet, so an
// hour takes the memory of a minute.
//
// The last packet of the voice may hold padding: the voice's length is known here, and the packet's duration is cut to
// it; packets wholly past it are left out. Pictures and samples are counted: a short film is never delivered.
#include "daemon/media/remux.h"

#include "daemon/media/mp4_head.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 17 };

struct remux {
    struct mp4_film film;
    struct mp4_walk walk;
    struct mp4_index count, fill;
    struct mp4_head head;
    const char *to;
    int fd;
    int64_t sound_end;        // of the voice in its track, priming and all
    int64_t from, at, n_wait; // media read but not yet copied: where it lies, where it goes, bytes
    uint8_t copy[COPY_BYTES];
};

// ---- media

static int copy_now(struct remux *r, struct err *e)
{
    while (r->n_wait > 0) {
        size_t n = r->n_wait < COPY_BYTES ? (size_t)r->n_wait : COPY_BYTES;
        ssize_t got = pread(r->film.fd, r->copy, n, (off_t)r->from);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return err_set(e, E_FATAL, "%s: cannot read back: %s; look at that disk, then give the same command again",
                           r->film.path, got < 0 ? strerror(errno) : "it shrank");
        int rc = mp4_write_at(r->fd, r->to, r->at, r->copy, (size_t)got, e);
        if (rc < 0) return rc;
        r->from += got;
        r->at += got;
        r->n_wait -= got;
    }
    return 0;
}

// Neighbours in the fragment go as one piece.
static int copy_add(struct remux *r, const struct mp4_packet *p, struct err *e)
{
    if (p->at != r->from + r->n_wait) {
        int rc = copy_now(r, e);
        if (rc < 0) return rc;
        r->from = p->at;
    }
    r->n_wait += p->size;
    return r->n_wait >= COPY_BYTES ? copy_now(r, e) : 0;
}

// ---- the two walks

static int packets_walk(struct remux *r, struct mp4_index *x, struct err *e)
{
    struct mp4_packet p;
    int rc = mp4_walk_begin(&r->walk, &r->film, e);
    while (rc >= 0 && (rc = mp4_walk_next(&r->walk, &p, e)) > 0) {
        if (p.track == MP4_SOUND) {
            int64_t left = r->sound_end - p.dts;
            if (left <= 0) continue;
            if (p.duration > left) p.duration = (uint32_t)left;
        }
        rc = mp4_index_add(x, &p, e);
        if (rc >= 0 && x->fd >= 0) rc = copy_add(r, &p, e);
    }
    if (rc >= 0 && x->fd >= 0) rc = copy_now(r, e);
    return rc < 0 ? rc : mp4_index_end(x, e);
}

static int counts_check(const struct remux *r, int64_t n_frames, int64_t n_audio, struct err *e)
{
    const struct mp4_totals *pictures = &r->count.c[MP4_PICTURES].total, *sound = &r->count.c[MP4_SOUND].total;
    if (pictures->n_packets != n_frames)
        return err_set(e, E_FATAL, "%s has %lld pictures where %lld were written", r->film.path,
                       (long long)pictures->n_packets, (long long)n_frames);
    int64_t n = sound->duration - r->film.t[MP4_SOUND].media_time;
    if (n != n_audio)
        return err_set(e, E_FATAL, "%s has %lld samples of sound where %lld were written", r->film.path, (long long)n,
                       (long long)n_audio);
    return 0;
}

static bool totals_equal(const struct mp4_totals *a, const struct mp4_totals *b)
{
    return a->n_packets == b->n_packets && a->n_keys == b->n_keys && a->n_chunks == b->n_chunks &&
           a->n_bytes == b->n_bytes && a->duration == b->duration && a->end == b->end && a->delayed == b->delayed &&
           memcmp(a->rows, b->rows, sizeof a->rows) == 0;
}

static int film_write(struct remux *r, struct err *e)
{
    mp4_index_init(&r->fill, r->fd, r->to);
    r->fill.wide = r->head.wide;
    r->fill.media = r->at = r->head.media;
    for (int i = 0; i < MP4_TRACKS; i++)
        for (int k = 0; k < MP4_TABLES; k++) r->fill.c[i].t[k].at = r->head.at[i][k];
    int rc = mp4_head_write(&r->head, r->fd, r->to, e);
    if (rc >= 0) rc = packets_walk(r, &r->fill, e);
    if (rc < 0) return rc;
    for (int i = 0; i < MP4_TRACKS; i++)
        if (!totals_equal(&r->count.c[i].total, &r->fill.c[i].total))
            return err_set(e, E_FATAL,
                           "%s changed while it was copied; leave it alone, and give the same command again",
                           r->film.path);
    return fsync(r->fd) < 0
               ? err_set(e, E_FATAL, "%s: cannot sync: %s; look at that disk, then give the same command again", r->to,
                         strerror(errno))
               : 0;
}

int remux_faststart(const char *from, const char *to, const char *container, int64_t n_frames, int64_t n_audio,
                    struct err *e)
{
    struct remux *r = calloc(1, sizeof *r);
    BUG_IF(!r, "no memory to finish a film");
    r->to = to;
    r->fd = -1;
    int rc = mp4_open(&r->film, from, e);
    if (rc < 0) goto out;
    r->sound_end = r->film.t[MP4_SOUND].media_time + n_audio;
    mp4_index_init(&r->count, -1, from);
    rc = packets_walk(r, &r->count, e);
    if (rc >= 0) rc = counts_check(r, n_frames, n_audio, e);
    if (rc >= 0) rc = mp4_head_build(&r->head, &r->film, &r->count, strcmp(container, "mov") == 0, e);
    if (rc < 0) goto out;
    r->fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    rc = r->fd < 0 ? err_set(e, E_FATAL, "%s: cannot create: %s; choose another place with -o", to, strerror(errno))
                   : film_write(r, e);
out:
    if (r->fd >= 0 && close(r->fd) < 0 && rc >= 0)
        rc = err_set(e, E_FATAL, "%s: cannot write: %s; look at that disk, then give the same command again", to,
                     strerror(errno));
    mp4_head_free(&r->head);
    mp4_close(&r->film);
    free(r);
    return rc;
}
