// Host arena: memory by lifetime. Allocations are never freed one by one; a mark is taken and the arena is reset to it,
// or the whole arena is freed. Not thread safe. Never returns NULL: running out of memory ends the process.
#ifndef PROTO_BASE_ARENA_H
#define PROTO_BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;
struct arena {
    struct arena_chunk *head; // newest chunk; zero-initialise the struct to start
};
struct arena_mark {
    struct arena_chunk *chunk;
    size_t used;
};

void *arena_alloc(struct arena *a, size_t n_bytes);        // zeroed, aligned to 64
void *arena_array(struct arena *a, size_t n, size_t size); // n x size, overflow checked
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct arena_mark arena_mark(const struct arena *a);
void arena_reset(struct arena *a, struct arena_mark m); // frees what was allocated after the mark
void arena_free(struct arena *a);                       // frees all; the struct is ready for use again

#endif
