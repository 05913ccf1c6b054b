// The pictures of one segment as H.264: encoded beside the loop, kept in a file until the film's turn comes (mux.h).
//
// Life: piece_open, piece_push in order, piece_end; piece_write. Later piece_read, mux_piece. piece_free at any time.
//
// A segment's packets depend on its pixels and the options alone: the encoder is fresh and its thread count is fixed.
// In memory a piece is what its packets are: a few hundred kilobytes for a segment.
#ifndef DAEMON_MEDIA_PIECE_H
#define DAEMON_MEDIA_PIECE_H

#include "proto/base/err.h"

#include <libavcodec/avcodec.h>
#include <stdbool.h>
#include <stdint.h>

struct piece;

enum { PIECE_KEY_FRAMES = 48, PIECE_FPS = 25 }; // an IDR picture at least so often

struct piece_options {
    int w, h;           // even
    int crf;            // 0..51
    const char *preset; // NULL: medium; read by piece_open only
    int threads;        // of x264; 0: 2. Part of the bytes: never the machine's core count
    int fps;            // 0: 25
};

// One in order of decoding. `pts` counts frames from the segment's first.
struct piece_packet {
    int64_t pts;
    bool key;
    const uint8_t *bytes;
    size_t n;
};

// E_INPUT: x264 has no such preset, or does not take the numbers.
int piece_open(struct piece **out, const struct piece_options *o, struct err *e);
// `n` frames, planar 4:2:0, w * h * 3 / 2 bytes each.
int piece_push(struct piece *p, int n, const uint8_t *yuv, struct err *e);
int piece_end(struct piece *p, struct err *e);
int64_t piece_frames(const struct piece *p); // pushed
struct piece_packet piece_at(const struct piece *p, int64_t i);
// After piece_end: the file is on disk, its name too.
int piece_write(const struct piece *p, const char *path, struct err *e);
// E_INPUT: the file is damaged, or has not `n_frames`.
int piece_read(struct piece **out, const char *path, int64_t n_frames, struct err *e);
void piece_free(struct piece **p);

// The encoder itself, for whoever must describe a film before there is a piece.
int piece_encoder(AVCodecContext **out, const struct piece_options *o, struct err *e);

#endif
