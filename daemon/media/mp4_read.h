// Packets of a growing film, in the order in which a player wants them.
//
// Reads the fragmented MP4 that mux.c writes, and only that kind: a head (ftyp, moov), then fragments (moof, mdat), one
// track of pictures and perhaps one of sound. Every size is checked before it is believed: a damaged or cut file is
// E_FATAL and a sentence that names the byte. Memory does not grow with the file.
#ifndef DAEMON_MEDIA_MP4_READ_H
#define DAEMON_MEDIA_MP4_READ_H

#include "proto/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MP4_PICTURES, MP4_SOUND, MP4_TRACKS };

struct mp4_bytes { // a whole box, its header too; p NULL: there is none
    const uint8_t *p;
    size_t n;
};

struct mp4_track {
    uint32_t id, timescale;
    int64_t media_time;                  // where the presentation begins, in its own timescale: what precedes is hidden
    struct mp4_bytes tkhd;               // version 0
    struct mp4_bytes mdhd;               // version 0
    struct mp4_bytes hdlr, header, dinf; // header: vmhd or smhd
    struct mp4_bytes entry;              // avc1 or mp4a
    uint32_t duration, size, flags;      // of a packet, where the fragment does not say
};

struct mp4_film {
    const char *path; // the caller's
    int fd;
    int64_t n;     // bytes of the file
    int64_t first; // where the fragments begin
    uint8_t *moov; // owned; the tracks point into it
    struct mp4_track t[MP4_TRACKS];
    bool has_sound;
};

struct mp4_packet {
    int track;  // MP4_PICTURES or MP4_SOUND
    bool opens; // a chunk: half a second of one track
    bool key;
    int64_t at;    // in the file
    uint32_t size; // at least 1
    int64_t dts;   // from 0 on, in the track's timescale
    uint32_t duration;
    int32_t delay; // pts - dts; not negative
};

struct mp4_cursor {
    const struct mp4_film *film;
    const struct mp4_track *track;
    int64_t at, moof, moof_at, moof_end, traf_at, traf_end; // next box to read, on each level; moof: where it begins
    int64_t mdat, mdat_end;                                 // its bytes
    uint32_t duration, size, flags;                         // of the track in this fragment, where the run does not say
    uint32_t run_flags, first_flags, n_left;                // the run
    bool is_mine, is_first;
    int64_t entry, data; // next one's
    int64_t dts;
    int64_t window_at; // in the file
    size_t window_n;
    uint8_t window[4096];
};

struct mp4_walk {
    struct mp4_cursor c[MP4_TRACKS];
    struct mp4_packet next[MP4_TRACKS];
    bool has[MP4_TRACKS];
    int track; // of the open chunk; -1: none
    int64_t slot;
};

int mp4_open(struct mp4_film *f, const char *path, struct err *e);
void mp4_close(struct mp4_film *f); // also after mp4_open failed

// The child box `type` of a whole box whose own fields take `skip` bytes after its header.
struct mp4_bytes mp4_child(struct mp4_bytes box, size_t skip, const char *type);
uint32_t mp4_get32(const uint8_t *p);

int mp4_walk_begin(struct mp4_walk *w, const struct mp4_film *f, struct err *e);
// 1: *p is the next packet. 0: there is none.
int mp4_walk_next(struct mp4_walk *w, struct mp4_packet *p, struct err *e);

#endif
