// Boxes around gaps: all of the head is small and built in memory, except the rows of the tables. They are only counted
// here; their bytes are gaps, which the sizes of the boxes around them include, and their places are told to those who
// write them.
//
// Traps. Everything that counts time or bytes has a 32-bit and a 64-bit form: a film of a day in 1/48000 s has more
// than 2^32 of them. Offsets become 64 bits wide when the file ends past 2^32, which itself depends on how wide they
// are: the head is built narrow, and again if that was too small. The movie's own unit of time is the sound's rate, so
// that edit lists are exact in samples; 25 pictures a second divide every rate that AAC has.
//
// QuickTime (.mov) wants another brand, handlers with their old component fields, and sample entries in its spelling.
#include "daemon/media/mp4_head.h"

#include "daemon/media/mp4_entry.h"

#include <stdlib.h>
#include <string.h>

enum { FIXED_MOST = 2048 }; // bytes of the head that are not copied from the film

// ---- bytes

static void put(struct mp4_head *h, const void *p, size_t n)
{
    BUG_IF(n > h->room - h->n, "a head of more than %zu bytes", h->room);
    memcpy(h->p + h->n, p, n);
    h->n += n;
}

static void put8(struct mp4_head *h, uint8_t v) { put(h, &v, 1); }

static void put32(struct mp4_head *h, uint32_t v)
{
    uint8_t b[4];
    mp4_set32(b, v);
    put(h, b, 4);
}

static void put64(struct mp4_head *h, uint64_t v)
{
    put32(h, (uint32_t)(v >> 32));
    put32(h, (uint32_t)v);
}

static void put_zeros(struct mp4_head *h, int n)
{
    while (n-- > 0) put8(h, 0);
}

static void put_time(struct mp4_head *h, int64_t v, bool wide)
{
    if (wide)
        put64(h, (uint64_t)v);
    else
        put32(h, (uint32_t)v);
}

struct mark {
    size_t at;      // of the size field
    int64_t before; // bytes of rows
};

static struct mark box_begin(struct mp4_head *h, const char *type)
{
    struct mark m = {h->n, h->n_rows};
    put32(h, 0);
    put(h, type, 4);
    return m;
}

static struct mark full_begin(struct mp4_head *h, const char *type, int version, uint32_t flags)
{
    struct mark m = box_begin(h, type);
    put32(h, (uint32_t)version << 24 | flags);
    return m;
}

static void box_end(struct mp4_head *h, struct mark m)
{
    mp4_set32(h->p + m.at, (uint32_t)((int64_t)(h->n - m.at) + h->n_rows - m.before));
}

// ---- tables

struct shape {
    const char *type;
    int row; // bytes
};

static void table_put(struct mp4_head *h, const struct mp4_index *x, int track, int k)
{
    static const struct shape shapes[] = {
        [MP4_STTS] = {"stts", 8},  [MP4_STSS] = {"stss", 4}, [MP4_CTTS] = {"ctts", 8},
        [MP4_STSC] = {"stsc", 12}, [MP4_STSZ] = {"stsz", 4}, [MP4_STCO] = {"stco", 4},
    };
    const struct mp4_totals *t = &x->c[track].total;
    if (k == MP4_STSS && t->n_keys == t->n_packets) return; // each is a key: no table says so
    if (k == MP4_CTTS && t->delayed == 0) return;
    bool wide = k == MP4_STCO && h->wide;
    struct mark box = full_begin(h, wide ? "co64" : shapes[k].type, 0, 0);
    if (k == MP4_STSZ) put32(h, 0); // not all of one size
    put32(h, t->rows[k]);
    int64_t n = (int64_t)t->rows[k] * (wide ? 8 : shapes[k].row);
    h->at[track][k] = (int64_t)h->n + h->n_rows;
    h->gap[h->n_gaps++] = (struct mp4_gap){h->n, n};
    h->n_rows += n;
    box_end(h, box);
}

// A decoder that starts within the sound needs the packet before: all packets are of one group that says so.
static void preroll_put(struct mp4_head *h, uint32_t n_packets)
{
    struct mark sgpd = full_begin(h, "sgpd", 1, 0);
    put(h, "roll", 4);
    put32(h, 2); // bytes of a description
    put32(h, 1);
    put(h, "\xff\xff", 2); // -1 packet
    box_end(h, sgpd);
    struct mark sbgp = full_begin(h, "sbgp", 0, 0);
    put(h, "roll", 4);
    put32(h, 1);
    put32(h, n_packets);
    put32(h, 1);
    box_end(h, sbgp);
}

// ---- tracks

struct plan {
    const struct mp4_film *f;
    const struct mp4_index *x;
    bool quicktime;
    uint32_t timescale; // of the movie
    int64_t shown[MP4_TRACKS], longest;
};

static void handler_put(struct mp4_head *h, const char *kind, const char *type, const char *name)
{
    struct mark hdlr = full_begin(h, "hdlr", 0, 0);
    put(h, kind, 4);
    put(h, type, 4);
    put_zeros(h, 12);
    put8(h, (uint8_t)strlen(name));
    put(h, name, strlen(name));
    box_end(h, hdlr);
}

static int entry_put(struct mp4_head *h, const struct plan *p, int track, struct err *e)
{
    const struct mp4_track *t = &p->f->t[track];
    struct mark stsd = full_begin(h, "stsd", 0, 0);
    put32(h, 1);
    if (p->quicktime) {
        BUG_IF(h->room - h->n < t->entry.n + MP4_ENTRY_MORE, "no room for a codec's entry");
        size_t n = (track == MP4_SOUND ? mp4_entry_sound : mp4_entry_pictures)(t, h->p + h->n);
        if (n == 0) return err_set(e, E_FATAL, "%s is damaged in its head: a codec half said", p->f->path);
        h->n += n;
    } else {
        put(h, t->entry.p, t->entry.n);
    }
    box_end(h, stsd);
    return 0;
}

static int media_put(struct mp4_head *h, const struct plan *p, int track, struct err *e)
{
    const struct mp4_track *t = &p->f->t[track];
    const struct mp4_totals *total = &p->x->c[track].total;
    bool wide = total->duration > UINT32_MAX, sound = track == MP4_SOUND;
    struct mark mdia = box_begin(h, "mdia"), mdhd = full_begin(h, "mdhd", wide, 0);
    put_zeros(h, wide ? 16 : 8); // when it was made: part of no film's bytes
    put32(h, t->timescale);
    put_time(h, total->duration, wide);
    if (p->quicktime)
        put32(h, 0x7fff0000); // no language
    else
        put(h, t->mdhd.p + 28, 4);
    box_end(h, mdhd);
    if (p->quicktime)
        handler_put(h, "mhlr", sound ? "soun" : "vide", sound ? "SoundHandler" : "VideoHandler");
    else
        put(h, t->hdlr.p, t->hdlr.n);
    struct mark minf = box_begin(h, "minf");
    put(h, t->header.p, t->header.n);
    if (p->quicktime) handler_put(h, "dhlr", "url ", "DataHandler");
    put(h, t->dinf.p, t->dinf.n);
    struct mark stbl = box_begin(h, "stbl");
    int rc = entry_put(h, p, track, e);
    if (rc < 0) return rc;
    for (int k = 0; k < MP4_TABLES; k++) table_put(h, p->x, track, k);
    if (sound) preroll_put(h, total->n_packets);
    box_end(h, stbl);
    box_end(h, minf);
    box_end(h, mdia);
    return 0;
}

static int track_put(struct mp4_head *h, const struct plan *p, int track, struct err *e)
{
    const struct mp4_track *t = &p->f->t[track];
    bool wide = p->shown[track] > UINT32_MAX;
    struct mark trak = box_begin(h, "trak"), tkhd = full_begin(h, "tkhd", wide, 3);
    put_zeros(h, wide ? 16 : 8);
    put32(h, (uint32_t)track + 1);
    put32(h, 0);
    put_time(h, p->shown[track], wide);
    put(h, t->tkhd.p + 32, 60); // layer, volume, matrix, size
    box_end(h, tkhd);
    struct mark edts = box_begin(h, "edts"), elst = full_begin(h, "elst", wide, 0);
    put32(h, 1);
    put_time(h, p->shown[track], wide);
    put_time(h, t->media_time, wide);
    put32(h, 1U << 16); // at its own speed
    box_end(h, elst);
    box_end(h, edts);
    int rc = media_put(h, p, track, e);
    box_end(h, trak);
    return rc;
}

// ---- the head

static void movie_put(struct mp4_head *h, const struct plan *p)
{
    static const uint32_t matrix[] = {1U << 16, 0, 0, 0, 1U << 16, 0, 0, 0, 1U << 30};
    bool wide = p->longest > UINT32_MAX;
    struct mark mvhd = full_begin(h, "mvhd", wide, 0);
    put_zeros(h, wide ? 16 : 8);
    put32(h, p->timescale);
    put_time(h, p->longest, wide);
    put32(h, 1U << 16); // rate
    put32(h, 1U << 24); // volume
    put_zeros(h, 8);
    for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) put32(h, matrix[i]);
    put_zeros(h, 24);
    put32(h, p->f->has_sound ? 3 : 2); // the next track's number
    box_end(h, mvhd);
}

static int head_put(struct mp4_head *h, const struct plan *p, struct err *e)
{
    static const char brands[] = "isom\0\0\2\0isomiso2avc1mp41", quicktime[] = "qt  \0\0\2\0qt  ";
    h->n = 0;
    h->n_rows = 0;
    h->n_gaps = 0;
    struct mark ftyp = box_begin(h, "ftyp");
    put(h, p->quicktime ? quicktime : brands, p->quicktime ? sizeof quicktime - 1 : sizeof brands - 1);
    box_end(h, ftyp);
    struct mark moov = box_begin(h, "moov");
    movie_put(h, p);
    int rc = 0;
    for (int i = 0; i < (p->f->has_sound ? 2 : 1) && rc >= 0; i++) rc = track_put(h, p, i, e);
    if (rc < 0) return rc;
    if ((int64_t)h->n + h->n_rows > UINT32_MAX)
        return err_set(e, E_FATAL, "%s is too long: its index has more than 4 GiB", p->f->path);
    box_end(h, moov);
    int64_t media = p->x->c[MP4_PICTURES].total.n_bytes + p->x->c[MP4_SOUND].total.n_bytes;
    bool large = media + 8 > UINT32_MAX;
    put32(h, large ? 1 : (uint32_t)(media + 8));
    put(h, "mdat", 4);
    if (large) put64(h, (uint64_t)media + 16);
    h->media = (int64_t)h->n + h->n_rows;
    h->end = h->media + media;
    return 0;
}

// In units of the movie, no part of one lost.
static int64_t rescale_up(int64_t n, uint32_t from, uint32_t to)
{
    return n / from * to + (n % from * to + from - 1) / from;
}

int mp4_head_build(struct mp4_head *h, const struct mp4_film *f, const struct mp4_index *x, bool quicktime,
                   struct err *e)
{
    struct plan p = {f, x, quicktime, f->t[f->has_sound ? MP4_SOUND : MP4_PICTURES].timescale, {0}, 0};
    size_t copied = 0;
    for (int i = 0; i < (f->has_sound ? 2 : 1); i++) {
        const struct mp4_track *t = &f->t[i];
        if (x->c[i].total.end <= t->media_time)
            return err_set(e, E_FATAL, "%s: all of a track is hidden by its edit list", f->path);
        p.shown[i] = rescale_up(x->c[i].total.end - t->media_time, t->timescale, p.timescale);
        if (p.shown[i] > p.longest) p.longest = p.shown[i];
        copied += t->entry.n + t->hdlr.n + t->header.n + t->dinf.n;
    }
    *h = (struct mp4_head){.room = copied + MP4_TRACKS * MP4_ENTRY_MORE + FIXED_MOST};
    h->p = malloc(h->room);
    BUG_IF(!h->p, "no memory for a film's head");
    int rc = head_put(h, &p, e);
    if (rc < 0 || h->end <= UINT32_MAX) return rc;
    h->wide = true;
    return head_put(h, &p, e);
}

int mp4_head_write(const struct mp4_head *h, int fd, const char *path, struct err *e)
{
    int64_t at = 0;
    size_t from = 0;
    int rc = 0;
    for (int i = 0; i <= h->n_gaps && rc >= 0; i++) {
        size_t to = i < h->n_gaps ? h->gap[i].before : h->n;
        rc = mp4_write_at(fd, path, at, h->p + from, to - from, e);
        at += (int64_t)(to - from) + (i < h->n_gaps ? h->gap[i].n : 0);
        from = to;
    }
    return rc;
}

void mp4_head_free(struct mp4_head *h)
{
    free(h->p);
    *h = (struct mp4_head){0};
}
