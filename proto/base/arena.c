// Host arena. A chain of chunks, newest first; a chunk is as large as its first allocation needs, at least 64 KiB.
#include "proto/base/arena.h"

#include "proto/base/err.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_ALIGN = 64, ARENA_CHUNK_BYTES = 64 << 10 };

struct arena_chunk {
    struct arena_chunk *older;
    size_t size, used;
    char *data; // aligned to ARENA_ALIGN
};

void *arena_alloc(struct arena *a, size_t n_bytes)
{
    BUG_IF(n_bytes > SIZE_MAX / 2, "arena_alloc of %zu bytes", n_bytes);
    size_t need = (n_bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct arena_chunk *c = a->head;
    if (!c || c->size - c->used < need) {
        size_t size = need > ARENA_CHUNK_BYTES ? need : ARENA_CHUNK_BYTES;
        c = malloc(sizeof *c);
        void *data = aligned_alloc(ARENA_ALIGN, size);
        if (!c || !data) {
            fprintf(stderr, "out of memory: %zu bytes\n", size);
            abort();
        }
        *c = (struct arena_chunk){.older = a->head, .size = size, .data = data};
        a->head = c;
    }
    void *p = c->data + c->used;
    c->used += need;
    memset(p, 0, need);
    return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t bytes = 0;
    BUG_IF(__builtin_mul_overflow(n, size, &bytes), "arena_array %zu x %zu", n, size);
    return arena_alloc(a, bytes);
}

char *arena_strdup(struct arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(arena_alloc(a, n), s, n);
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    BUG_IF(n < 0, "arena_printf format");
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){.chunk = a->head, .used = a->head ? a->head->used : 0};
}

void arena_reset(struct arena *a, struct arena_mark m)
{
    while (a->head != m.chunk) {
        struct arena_chunk *c = a->head;
        BUG_IF(!c, "arena_reset to a foreign mark");
        a->head = c->older;
        free(c->data);
        free(c);
    }
    if (a->head) a->head->used = m.used;
}

void arena_free(struct arena *a) { arena_reset(a, (struct arena_mark){0}); }
