// Two cursors over one file, one a track, merged by time.
//
// The head is small and read whole. Fragments are not: a cursor goes from box to box by their headers and reads the
// rows of a run (trun) through a window of a few KiB, so a fragment of any size costs the same memory. Each
// cursor skips the other's runs.
//
// The encoders run ahead of each other by seconds, so the fragments' own order is no order to play by: packets
// come out half a second of pictures, then half a second of sound, as close together as a player with a small buffer
// likes them.
//
// Trap: a track's times. A fragment says where it begins (tfdt), a row says how long its packet is. The two must agree,
// or the index would move sound against pictures: where they do not, the file is damaged.
#include "daemon/media/mp4_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEAD_MOST = 1 << 20, // bytes of moov; the muxer's has under 2,000
    SLOTS_A_SECOND = 2,
    RUN_OFFSET = 0x1, // fields of trun
    RUN_FIRST_FLAGS = 0x4,
    ROW_DURATION = 0x100,
    ROW_SIZE = 0x200,
    ROW_FLAGS = 0x400,
    ROW_DELAY = 0x800,
    NO_KEY = 0x10000, // of a packet's flags
    BASE_IS_MOOF = 0x20000,
};

static const int64_t longest = (int64_t)1 << 53; // in units of a track

uint32_t mp4_get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static uint64_t get64(const uint8_t *p) { return (uint64_t)mp4_get32(p) << 32 | mp4_get32(p + 4); }

static bool is_type(const uint8_t *p, const char *type) { return memcmp(p, type, 4) == 0; }

static int damaged(const struct mp4_film *f, int64_t at, const char *what, struct err *e)
{
    return err_set(e, E_FATAL, "%s is damaged at byte %lld: %s", f->path, (long long)at, what);
}

static int read_at(const struct mp4_film *f, int64_t at, void *to, size_t n, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(f->fd, (uint8_t *)to + done, n - done, (off_t)(at + (int64_t)done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return err_set(e, E_FATAL, "%s: cannot read back: %s; look at that disk, then give the same command again",
                           f->path, strerror(errno));
        if (got == 0) return damaged(f, at, "it ends early", e);
        done += (size_t)got;
    }
    return 0;
}

// ---- boxes

struct box {
    uint8_t type[4];
    int64_t data, end; // the bytes inside
};

// The box at `at`, which must lie before `limit`.
static int box_read(const struct mp4_film *f, int64_t at, int64_t limit, struct box *b, struct err *e)
{
    uint8_t h[16];
    if (limit - at < 8) return damaged(f, at, "a box is cut off", e);
    int rc = read_at(f, at, h, 8, e);
    if (rc < 0) return rc;
    uint64_t n = mp4_get32(h);
    int64_t header = 8;
    if (n == 1 && limit - at >= 16) {
        if ((rc = read_at(f, at + 8, h + 8, 8, e)) < 0) return rc;
        n = get64(h + 8);
        header = 16;
    }
    if (n < (uint64_t)header || n > (uint64_t)(limit - at))
        return err_set(e, E_FATAL, "%s is damaged at byte %lld: a box of %llu bytes where %lld are left", f->path,
                       (long long)at, (unsigned long long)n, (long long)(limit - at));
    memcpy(b->type, h + 4, 4);
    b->data = at + header;
    b->end = at + (int64_t)n;
    return 0;
}

struct mp4_bytes mp4_child(struct mp4_bytes box, size_t skip, const char *type)
{
    for (size_t at = 8 + skip; box.p && at + 8 <= box.n;) {
        size_t n = mp4_get32(box.p + at);
        if (n < 8 || n > box.n - at) break;
        if (is_type(box.p + at + 4, type)) return (struct mp4_bytes){box.p + at, n};
        at += n;
    }
    return (struct mp4_bytes){NULL, 0};
}

// ---- the head

static int head_fail(const struct mp4_film *f, const char *what, struct err *e)
{
    return err_set(e, E_FATAL, "%s is damaged in its head: %s", f->path, what);
}

// A box of version 0 that has at least `n` bytes.
static bool is_plain(struct mp4_bytes b, size_t n) { return b.p && b.n >= n && b.p[8] == 0; }

// No edit list: the presentation begins with the media.
static int track_edits(const struct mp4_film *f, struct mp4_bytes trak, struct mp4_track *t, struct err *e)
{
    struct mp4_bytes edts = mp4_child(trak, 0, "edts"), elst = mp4_child(edts, 0, "elst");
    if (!edts.p) return 0;
    if (!is_plain(elst, 28) || mp4_get32(elst.p + 12) != 1 || mp4_get32(elst.p + 20) > INT32_MAX)
        return head_fail(f, "an edit list that this program does not write", e);
    t->media_time = mp4_get32(elst.p + 20);
    return 0;
}

static int track_read(struct mp4_film *f, struct mp4_bytes trak, struct err *e)
{
    struct mp4_track t = {.tkhd = mp4_child(trak, 0, "tkhd")};
    struct mp4_bytes mdia = mp4_child(trak, 0, "mdia"), minf = mp4_child(mdia, 0, "minf");
    t.mdhd = mp4_child(mdia, 0, "mdhd");
    t.hdlr = mp4_child(mdia, 0, "hdlr");
    t.dinf = mp4_child(minf, 0, "dinf");
    if (!is_plain(t.tkhd, 92) || !is_plain(t.mdhd, 32) || !is_plain(t.hdlr, 32) || !t.dinf.p)
        return head_fail(f, "a track without tkhd, mdhd, hdlr or dinf", e);
    bool sound = is_type(t.hdlr.p + 16, "soun");
    if (!sound && !is_type(t.hdlr.p + 16, "vide")) return head_fail(f, "a track neither of pictures nor of sound", e);
    t.header = mp4_child(minf, 0, sound ? "smhd" : "vmhd");
    struct mp4_bytes stsd = mp4_child(mp4_child(minf, 0, "stbl"), 0, "stsd");
    t.entry = mp4_child(stsd, 8, sound ? "mp4a" : "avc1");
    if (!t.header.p || t.entry.n < (sound ? 36 : 86)) return head_fail(f, "a track that does not say its codec", e);
    t.id = mp4_get32(t.tkhd.p + 20);
    t.timescale = mp4_get32(t.mdhd.p + 20);
    if (t.timescale == 0) return head_fail(f, "a track whose seconds have no parts", e);
    int rc = track_edits(f, trak, &t, e);
    if (rc < 0) return rc;
    struct mp4_track *to = &f->t[sound ? MP4_SOUND : MP4_PICTURES];
    if (to->id) return head_fail(f, "two tracks of one kind", e);
    *to = t;
    return 0;
}

static int head_read(struct mp4_film *f, struct mp4_bytes moov, struct err *e)
{
    for (size_t at = 8; at + 8 <= moov.n;) {
        size_t n = mp4_get32(moov.p + at);
        if (n < 8 || n > moov.n - at) return head_fail(f, "a box larger than what holds it", e);
        struct mp4_bytes trak = {moov.p + at, n};
        int rc = is_type(trak.p + 4, "trak") ? track_read(f, trak, e) : 0;
        if (rc < 0) return rc;
        at += n;
    }
    f->has_sound = f->t[MP4_SOUND].id != 0;
    if (!f->t[MP4_PICTURES].id) return head_fail(f, "no pictures", e);
    if (f->t[MP4_PICTURES].id == f->t[MP4_SOUND].id) return head_fail(f, "two tracks of one number", e);
    struct mp4_bytes mvex = mp4_child(moov, 0, "mvex");
    for (size_t at = 8; at + 32 <= mvex.n; at += 32)
        for (int i = 0; i < MP4_TRACKS; i++) {
            const uint8_t *trex = mvex.p + at;
            if (!is_type(trex + 4, "trex") || mp4_get32(trex + 12) != f->t[i].id) continue;
            f->t[i].duration = mp4_get32(trex + 20);
            f->t[i].size = mp4_get32(trex + 24);
            f->t[i].flags = mp4_get32(trex + 28);
        }
    return 0;
}

int mp4_open(struct mp4_film *f, const char *path, struct err *e)
{
    *f = (struct mp4_film){.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
    struct stat st;
    if (f->fd < 0 || fstat(f->fd, &st) < 0)
        return err_set(e, E_FATAL, "%s: cannot read back: %s; look at that disk, then give the same command again",
                       path, strerror(errno));
    f->n = st.st_size;
    struct box ftyp, moov;
    int rc = box_read(f, 0, f->n, &ftyp, e);
    if (rc < 0) return rc;
    if (!is_type(ftyp.type, "ftyp")) return damaged(f, 0, "it is no film", e);
    if ((rc = box_read(f, ftyp.end, f->n, &moov, e)) < 0) return rc;
    int64_t n = moov.end - ftyp.end;
    if (!is_type(moov.type, "moov") || n > HEAD_MOST || moov.data != ftyp.end + 8)
        return damaged(f, ftyp.end, "its head is not there", e);
    f->first = moov.end;
    f->moov = malloc((size_t)n);
    BUG_IF(!f->moov, "no memory for the head of a film");
    if ((rc = read_at(f, ftyp.end, f->moov, (size_t)n, e)) < 0) return rc;
    return head_read(f, (struct mp4_bytes){f->moov, (size_t)n}, e);
}

void mp4_close(struct mp4_film *f)
{
    if (f->fd >= 0) close(f->fd);
    free(f->moov);
    *f = (struct mp4_film){.fd = -1};
}

// ---- one track's packets

static int tfhd_read(struct mp4_cursor *c, const struct box *b, struct err *e)
{
    uint8_t d[20] = {0};
    int64_t n = b->end - b->data;
    int rc = n < 8 || n > (int64_t)sizeof d ? damaged(c->film, b->data, "a track's fragment without its head", e)
                                            : read_at(c->film, b->data, d, (size_t)n, e);
    if (rc < 0) return rc;
    if (mp4_get32(d + 4) != c->track->id) { // the other's
        c->traf_at = c->traf_end;
        return 0;
    }
    c->is_mine = true;
    uint32_t flags = mp4_get32(d) & 0xffffff, *fields[] = {&c->duration, &c->size, &c->flags};
    if ((flags & ~0x38U) != BASE_IS_MOOF || n != 8 + 4 * __builtin_popcount(flags & 0x38))
        return damaged(c->film, b->data, "a fragment that this program does not write", e);
    const uint8_t *p = d + 8;
    c->duration = c->track->duration;
    c->size = c->track->size;
    c->flags = c->track->flags;
    for (int i = 0; i < 3; i++)
        if (flags & 0x8U << i) {
            *fields[i] = mp4_get32(p);
            p += 4;
        }
    return 0;
}

static int tfdt_check(const struct mp4_cursor *c, const struct box *b, struct err *e)
{
    uint8_t d[12];
    if (b->end - b->data != 12) return damaged(c->film, b->data, "a fragment that does not say when it begins", e);
    int rc = read_at(c->film, b->data, d, sizeof d, e);
    if (rc < 0) return rc;
    if (d[0] != 1 || get64(d + 4) != (uint64_t)c->dts)
        return err_set(e, E_FATAL, "%s is damaged at byte %lld: a fragment begins at %llu where the last ended at %lld",
                       c->film->path, (long long)b->data, (unsigned long long)get64(d + 4), (long long)c->dts);
    return 0;
}

static int row_bytes(uint32_t run_flags) { return 4 * __builtin_popcount(run_flags & 0xf00); }

static int trun_begin(struct mp4_cursor *c, const struct box *b, struct err *e)
{
    uint8_t d[16];
    int64_t n = b->end - b->data;
    if (n < 12 || !c->is_mine) return damaged(c->film, b->data, "a run without its head", e);
    int rc = read_at(c->film, b->data, d, n < 16 ? 12 : 16, e);
    if (rc < 0) return rc;
    c->run_flags = mp4_get32(d) & 0xffffff;
    c->n_left = mp4_get32(d + 4);
    c->data = c->moof + (int32_t)mp4_get32(d + 8);
    bool first = c->run_flags & RUN_FIRST_FLAGS;
    c->entry = b->data + (first ? 16 : 12);
    if (!(c->run_flags & RUN_OFFSET) || c->run_flags & ~0xf05U ||
        b->end - c->entry != (int64_t)c->n_left * row_bytes(c->run_flags))
        return damaged(c->film, b->data, "a run that this program does not write", e);
    if (c->data < c->mdat || c->data > c->mdat_end) return damaged(c->film, b->data, "a run outside its fragment", e);
    c->is_first = first;
    c->first_flags = first ? mp4_get32(d + 12) : 0;
    return 0;
}

// The next box at the top level; a fragment opens with both of its boxes.
static int fragment_next(struct mp4_cursor *c, struct err *e)
{
    struct box b;
    int rc = box_read(c->film, c->at, c->film->n, &b, e);
    if (rc < 0) return rc;
    c->moof = c->at;
    c->at = b.end;
    if (!is_type(b.type, "moof")) return 0;
    c->moof_at = b.data;
    c->moof_end = b.end;
    if ((rc = box_read(c->film, b.end, c->film->n, &b, e)) < 0) return rc;
    if (!is_type(b.type, "mdat")) return damaged(c->film, c->at, "a fragment without media", e);
    c->mdat = b.data;
    c->mdat_end = c->at = b.end;
    return 0;
}

// Up to the next run of this track: 1, or 0 at the end of the file.
static int run_next(struct mp4_cursor *c, struct err *e)
{
    struct box b;
    for (int rc = 0; rc >= 0;) {
        if (c->traf_at < c->traf_end) {
            if ((rc = box_read(c->film, c->traf_at, c->traf_end, &b, e)) < 0) return rc;
            c->traf_at = b.end;
            if (is_type(b.type, "trun")) return (rc = trun_begin(c, &b, e)) < 0 ? rc : 1;
            if (is_type(b.type, "tfhd")) rc = tfhd_read(c, &b, e);
            if (is_type(b.type, "tfdt")) rc = tfdt_check(c, &b, e);
        } else if (c->moof_at < c->moof_end) {
            if ((rc = box_read(c->film, c->moof_at, c->moof_end, &b, e)) < 0) return rc;
            c->moof_at = b.end;
            if (!is_type(b.type, "traf")) continue;
            c->traf_at = b.data;
            c->traf_end = b.end;
            c->is_mine = false;
        } else if (c->at < c->film->n) {
            rc = fragment_next(c, e);
        } else {
            return 0;
        }
        if (rc < 0) return rc;
    }
    return 0;
}

static int row_read(struct mp4_cursor *c, uint8_t *row, size_t n, struct err *e)
{
    if (c->entry < c->window_at || c->entry + (int64_t)n > c->window_at + (int64_t)c->window_n) {
        int64_t left = c->film->n - c->entry;
        c->window_at = c->entry;
        c->window_n = left < (int64_t)sizeof c->window ? (size_t)left : sizeof c->window;
        int rc = read_at(c->film, c->window_at, c->window, c->window_n, e);
        if (rc < 0) return rc;
    }
    memcpy(row, c->window + (c->entry - c->window_at), n);
    c->entry += (int64_t)n;
    return 0;
}

static int packet_next(struct mp4_cursor *c, struct mp4_packet *p, struct err *e)
{
    int rc;
    while (c->n_left == 0)
        if ((rc = run_next(c, e)) <= 0) return rc;
    uint8_t row[16];
    const uint8_t *at = row;
    if ((rc = row_read(c, row, (size_t)row_bytes(c->run_flags), e)) < 0) return rc;
    uint32_t flags = c->is_first ? c->first_flags : c->flags, duration = c->duration, size = c->size, delay = 0;
    uint32_t *fields[] = {&duration, &size, &flags, &delay};
    for (int i = 0; i < 4; i++)
        if (c->run_flags & (uint32_t)ROW_DURATION << i) {
            *fields[i] = mp4_get32(at);
            at += 4;
        }
    if (size == 0 || size > c->mdat_end - c->data || delay > INT32_MAX || c->dts > longest)
        return damaged(c->film, c->entry, "a packet outside its fragment", e);
    *p = (struct mp4_packet){.key = !(flags & NO_KEY),
                             .at = c->data,
                             .size = size,
                             .dts = c->dts,
                             .duration = duration,
                             .delay = (int32_t)delay};
    c->is_first = false;
    c->n_left--;
    c->data += size;
    c->dts += duration;
    return 1;
}

// ---- both

static int walk_fetch(struct mp4_walk *w, int i, struct err *e)
{
    int rc = packet_next(&w->c[i], &w->next[i], e);
    w->has[i] = rc > 0;
    w->next[i].track = i;
    return rc;
}

int mp4_walk_begin(struct mp4_walk *w, const struct mp4_film *f, struct err *e)
{
    *w = (struct mp4_walk){.track = -1};
    for (int i = 0; i < (f->has_sound ? 2 : 1); i++) {
        w->c[i] = (struct mp4_cursor){.film = f, .track = &f->t[i], .at = f->first};
        int rc = walk_fetch(w, i, e);
        if (rc < 0) return rc;
    }
    return 0;
}

static int64_t slot_of(const struct mp4_walk *w, int i)
{
    return w->has[i] ? w->next[i].dts * SLOTS_A_SECOND / w->c[i].track->timescale : INT64_MAX;
}

int mp4_walk_next(struct mp4_walk *w, struct mp4_packet *p, struct err *e)
{
    int64_t pictures = slot_of(w, MP4_PICTURES), sound = slot_of(w, MP4_SOUND);
    int i = pictures <= sound ? MP4_PICTURES : MP4_SOUND;
    int64_t slot = i == MP4_PICTURES ? pictures : sound;
    if (!w->has[i]) return 0;
    *p = w->next[i];
    p->opens = i != w->track || slot != w->slot;
    w->track = i;
    w->slot = slot;
    int rc = walk_fetch(w, i, e);
    return rc < 0 ? rc : 1;
}
