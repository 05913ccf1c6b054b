// Frames into a film as they come: an encoder for the segment under way, its piece added when the segment ends. The
// coordinator does the same with files between (daemon/intake, daemon/reel). Include below cmocka.
#ifndef TESTS_FILM_MAKER_H
#define TESTS_FILM_MAKER_H

#include "daemon/media/mux.h"

#include <stdio.h>

struct maker {
    struct mux *mux;
    struct piece_options picture;
    struct piece *piece; // of the segment under way
    int64_t next;        // frame
};

static inline int maker_push(struct maker *m, int n, const uint8_t *yuv, struct err *e)
{
    int rc = m->piece ? 0 : piece_open(&m->piece, &m->picture, e);
    if (rc >= 0) rc = piece_push(m->piece, n, yuv, e);
    if (rc >= 0) m->next += n;
    return rc;
}

// The segment's piece goes through a file, as it would.
static inline int maker_end_segment(struct maker *m, const char *path, struct err *e)
{
    struct piece *back = NULL;
    if (!m->piece) return 0;
    int64_t n = piece_frames(m->piece);
    int rc = piece_end(m->piece, e);
    if (rc >= 0) rc = piece_write(m->piece, path, e);
    if (rc >= 0) rc = piece_read(&back, path, n, e);
    if (rc >= 0) rc = mux_piece(m->mux, back, e);
    if (rc >= 0) rc = mux_sync(m->mux, e);
    remove(path);
    piece_free(&m->piece);
    piece_free(&back);
    return rc;
}

#endif
