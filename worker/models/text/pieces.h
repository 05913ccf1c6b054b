// A set of texts with a number each, and which of them a longer text begins with.
#ifndef WORKER_MODELS_TEXT_PIECES_H
#define WORKER_MODELS_TEXT_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PIECE_MAX = 512 }; // bytes

struct piece {
    const char *s; // borrowed
    int32_t n, id;
};
struct pieces {
    struct piece *piece; // borrowed, room for all
    int32_t n;
};

// After the last piece is in: sorts. Of equal texts the one with the highest id stays, empty ones go.
void pieces_sort(struct pieces *p);
// The id of exactly this text, or -1.
int32_t pieces_find(const struct pieces *p, const char *s, size_t n);

// All pieces that a text begins with, shortest first:
//   struct piece_walk w = piece_walk_begin(p);
//   for (i = 0; piece_walk_step(&w, s[i]); i++) if (w.id >= 0) ... the piece w.id is s[0..i]
struct piece_walk {
    const struct pieces *p;
    int32_t from, to; // the pieces that begin like the text so far
    int32_t depth;
    int32_t id; // of the piece that ends here, or -1
};
struct piece_walk piece_walk_begin(const struct pieces *p);
bool piece_walk_step(struct piece_walk *w, char c); // false: no piece begins so

#endif
