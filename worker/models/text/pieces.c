// Pieces sorted by their bytes. A prefix is a range of the list, and one byte more narrows the range by two binary
// searches: no tree to build, and a text that no piece begins with ends the walk at once.
#include "worker/models/text/pieces.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *pa, const void *pb)
{
    const struct piece *a = pa, *b = pb;
    int order = memcmp(a->s, b->s, (size_t)(a->n < b->n ? a->n : b->n));
    if (order) return order;
    if (a->n != b->n) return a->n < b->n ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

void pieces_sort(struct pieces *p)
{
    if (p->n > 0) qsort(p->piece, (size_t)p->n, sizeof *p->piece, compare);
    int32_t n = 0;
    for (int32_t i = 0; i < p->n; i++) {
        const struct piece *one = &p->piece[i];
        if (one->n == 0) continue;
        bool again = n > 0 && p->piece[n - 1].n == one->n && memcmp(p->piece[n - 1].s, one->s, (size_t)one->n) == 0;
        p->piece[again ? n - 1 : n++] = *one;
    }
    p->n = n;
}

struct piece_walk piece_walk_begin(const struct pieces *p)
{
    return (struct piece_walk){.p = p, .from = 0, .to = p->n, .id = -1};
}

// The first piece of [from, to) whose byte at `depth` is not below c; one that ends there is below all.
static int32_t first_not_below(const struct piece_walk *w, int c)
{
    int32_t from = w->from, to = w->to;
    while (from < to) {
        int32_t mid = from + (to - from) / 2;
        const struct piece *one = &w->p->piece[mid];
        if (one->n > w->depth && (uint8_t)one->s[w->depth] >= c)
            to = mid;
        else
            from = mid + 1;
    }
    return from;
}

bool piece_walk_step(struct piece_walk *w, char c)
{
    int32_t from = first_not_below(w, (uint8_t)c), to = first_not_below(w, (uint8_t)c + 1);
    w->from = from;
    w->to = to;
    w->depth++;
    w->id = from < to && w->p->piece[from].n == w->depth ? w->p->piece[from].id : -1;
    return from < to;
}

int32_t pieces_find(const struct pieces *p, const char *s, size_t n)
{
    struct piece_walk w = piece_walk_begin(p);
    for (size_t i = 0; i < n; i++)
        if (!piece_walk_step(&w, s[i])) return -1;
    return w.id;
}
