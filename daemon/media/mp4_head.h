// What stands before a film's media: ftyp, and moov with room for the tables of its index.
#ifndef DAEMON_MEDIA_MP4_HEAD_H
#define DAEMON_MEDIA_MP4_HEAD_H

#include "daemon/media/mp4_index.h"

struct mp4_head {
    uint8_t *p; // owned: all but the rows of the tables
    size_t n, room;
    struct mp4_gap {
        size_t before; // bytes of `p`
        int64_t n;     // bytes of the table's rows
    } gap[MP4_TRACKS * MP4_TABLES];
    int n_gaps;
    int64_t n_rows;                     // bytes in the gaps so far
    int64_t at[MP4_TRACKS][MP4_TABLES]; // where each table's rows begin; 0: it is left out
    int64_t media, end;                 // of the file: where the media begins, and where it ends
    bool wide;                          // 64-bit offsets
};

// For the packets that `x` counted; `quicktime`: a .mov. Codecs, sizes and colours are those of `f`.
int mp4_head_build(struct mp4_head *h, const struct mp4_film *f, const struct mp4_index *x, bool quicktime,
                   struct err *e);
// All but the rows.
int mp4_head_write(const struct mp4_head *h, int fd, const char *path, struct err *e);
void mp4_head_free(struct mp4_head *h);

#endif
