// A parcel is one block of memory: the message, then its bulk parts. What a peer may have here is bounded by the credit
// that it was given; more than the limits is a peer that heeds no credit.
#include "daemon/inbox.h"

#include <stdlib.h>
#include <string.h>

enum { PARCELS_MAX = 1024 };
static const size_t bytes_max = (size_t)512 << 20;

struct parcel {
    struct parcel *next;
    size_t bytes;
    struct msg m;
};

int inbox_put(struct inbox *b, const struct msg *m, struct err *e)
{
    size_t bytes = 0;
    for (int i = 0; i < m->n_bulk; i++) bytes += m->bulk[i].n;
    if (b->n >= PARCELS_MAX || bytes > bytes_max - b->bytes)
        return err_set(e, E_BUSY, "it sends more than it may: %zu messages of %zu bytes wait", b->n, b->bytes);
    struct parcel *p = malloc(sizeof *p + bytes);
    BUG_IF(!p, "no memory for a message of %zu bytes", bytes);
    p->next = NULL;
    p->bytes = bytes;
    p->m = *m;
    char *to = (char *)(p + 1);
    for (int i = 0; i < m->n_bulk; i++) {
        if (m->bulk[i].n) memcpy(to, m->bulk[i].data, m->bulk[i].n);
        p->m.bulk[i].data = to;
        to += m->bulk[i].n;
    }
    if (!b->first) b->end = &b->first;
    *b->end = p;
    b->end = &p->next;
    b->n++;
    b->bytes += bytes;
    return 0;
}

int inbox_take(struct inbox *b, struct msg *m)
{
    free(b->open);
    b->open = b->first;
    if (!b->open) return 0;
    b->first = b->open->next;
    b->n--;
    b->bytes -= b->open->bytes;
    *m = b->open->m;
    return 1;
}

void inbox_clear(struct inbox *b)
{
    free(b->open);
    while (b->first) {
        struct parcel *p = b->first;
        b->first = p->next;
        free(p);
    }
    *b = (struct inbox){0};
}
