// The fastest of the ways that agree.
//
// A library offers candidates and cannot say which is fastest on this card; so each is timed. Their sums may run in
// another order, and then the same film would differ from card to card of one kind, for clocks differ: so only those
// count that give the bytes of the first that works. What is picked then changes the time and nothing else.
//
// The trap: a key holds gaps between its fields, and bytes are what is compared; whoever fills one zeroes it first.
#include "kernels/pick.h"

#include "proto/base/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool works(double time) { return isfinite(time) && time >= 0; }

struct picked pick_fastest(const struct pick_from *f)
{
    struct picked p = {.way = -1, .n = f->n};
    int first = -1;
    BUG_IF(f->n > PICK_MOST, "%d ways to pick from", f->n);
    for (int i = 0; i < f->n; i++) {
        double time = f->time(f->ctx, i);
        if (!works(time)) {
            p.n_failed++;
        } else if (first < 0) {
            first = p.way = i;
            p.time = p.first = time;
        } else if (time < p.time) {
            bool same = f->same(f->ctx, i, first);
            p.n_other += !same;
            if (same) p.way = i, p.time = time;
        }
    }
    return p;
}

// ---- what was picked

static size_t even(size_t bytes) { return (bytes + 15) / 16 * 16; } // fields of any type lie right

static char *row(const struct pick_memo *m, int64_t i)
{
    return m->rows + (size_t)(i % m->most) * (even(m->key_bytes) + even(m->value_bytes));
}
static char *value_of(const struct pick_memo *m, char *row) { return row + even(m->key_bytes); }

static int64_t held(const struct pick_memo *m) { return m->n < m->most ? m->n : m->most; }

void pick_memo_init(struct pick_memo *m, size_t key_bytes, size_t value_bytes, int64_t most)
{
    *m = (struct pick_memo){.key_bytes = key_bytes, .value_bytes = value_bytes, .most = most};
    m->rows = calloc((size_t)most, even(key_bytes) + even(value_bytes));
    BUG_IF(!m->rows, "no memory for %lld choices", (long long)most);
}

void pick_memo_release(struct pick_memo *m)
{
    free(m->rows);
    *m = (struct pick_memo){0};
}

const void *pick_memo_find(const struct pick_memo *m, const void *key)
{
    for (int64_t i = 0; i < held(m); i++)
        if (memcmp(row(m, i), key, m->key_bytes) == 0) return value_of(m, row(m, i));
    return NULL;
}

const void *pick_memo_keep(struct pick_memo *m, const void *key, const void *value)
{
    char *r = row(m, m->n++);
    memcpy(r, key, m->key_bytes);
    return memcpy(value_of(m, r), value, m->value_bytes);
}

bool pick_memo_row(const struct pick_memo *m, int64_t i, const void **key, const void **value)
{
    if (i >= held(m)) return false;
    *key = row(m, i);
    *value = value_of(m, row(m, i));
    return true;
}
