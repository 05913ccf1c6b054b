// The tables of a film's index, row by row as packets come.
//
// Life: mp4_index_init, mp4_index_add for every packet in order, mp4_index_end. The first time it only counts, so that
// mp4_head.h can say where each table lies; the second time, with those places and a file, it writes them. What it
// holds is the open row of each table and a few KiB: nothing grows with the film.
#ifndef DAEMON_MEDIA_MP4_INDEX_H
#define DAEMON_MEDIA_MP4_INDEX_H

#include "daemon/media/mp4_read.h"

enum mp4_table_name { // in the order of their place in the file
    MP4_STTS,         // how long packets last: runs of (count, duration)
    MP4_STSS,         // key packets: numbers from 1 on
    MP4_CTTS,         // how long after its decoding each is shown: runs of (count, delay)
    MP4_STSC,         // packets a chunk: (first chunk, packets) where it changes
    MP4_STSZ,         // bytes of each packet
    MP4_STCO,         // where chunks begin
    MP4_TABLES
};

struct mp4_table {
    uint32_t n; // rows so far
    int64_t at; // where the next flush goes; 0: this table is counted, not written
    size_t fill;
    uint8_t row[4096];
};

struct mp4_totals {
    uint32_t n_packets, n_keys, n_chunks;
    int64_t n_bytes;
    int64_t duration; // of all packets
    int64_t end;      // the latest moment at which a packet is still shown
    int64_t delayed;  // packets shown later than decoded
    uint32_t rows[MP4_TABLES];
};

struct mp4_column {          // a track
    struct mp4_totals total; // rows: after mp4_index_end
    struct mp4_table t[MP4_TABLES];
    uint32_t stts_n, stts, ctts_n, ctts, chunk_n, stsc; // open rows
};

struct mp4_index {
    struct mp4_column c[MP4_TRACKS];
    int fd; // the caller's; -1: count
    const char *path;
    bool wide;     // 64-bit offsets
    int64_t media; // where the next packet will lie
};

// `fd` -1: count. `at`: each table's first row in the file, 0 where it is left out; `media`: of the first packet.
void mp4_index_init(struct mp4_index *x, int fd, const char *path);
int mp4_index_add(struct mp4_index *x, const struct mp4_packet *p, struct err *e);
int mp4_index_end(struct mp4_index *x, struct err *e);

// All of it, or E_FATAL with a sentence that names `path`.
int mp4_write_at(int fd, const char *path, int64_t at, const void *data, size_t n, struct err *e);
void mp4_set32(uint8_t *p, uint32_t v);
void mp4_set64(uint8_t *p, uint64_t v);

#endif
