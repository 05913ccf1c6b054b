// Picking: of several ways to do one thing, the fastest that is right, found by trying; and what was picked, remembered
// by what the thing is. Nothing here knows a device.
#ifndef KERNELS_PICK_H
#define KERNELS_PICK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PICK_MOST = 16 };

// The ways are numbered in the order in which they are to be preferred.
struct pick_from {
    int n; // at most PICK_MOST
    // The time of way i, in any unit; negative or not finite: it does not work here. Its result stays where `same`
    // finds it, until the next call.
    double (*time)(void *ctx, int i);
    // Whether the result of way i, timed last, has the bytes of that of way `first`.
    bool (*same)(void *ctx, int i, int first);
    void *ctx;
};
struct picked {
    int way, n;         // -1: none works
    int n_failed;       // do not work
    int n_other;        // are faster, and give other bytes
    double time, first; // of the one taken; of the first that works
};
// The first way that works says what is right: another is taken if it is faster and gives the same bytes. Of equals the
// earlier one stays.
struct picked pick_fastest(const struct pick_from *f);

// What was picked, by a key that is compared as bytes (its gaps zeroed). Beyond `most` the oldest goes.
struct pick_memo {
    size_t key_bytes, value_bytes;
    int64_t most, n; // n: ever kept
    char *rows;
};
void pick_memo_init(struct pick_memo *m, size_t key_bytes, size_t value_bytes, int64_t most);
void pick_memo_release(struct pick_memo *m);
// NULL: it was not met.
const void *pick_memo_find(const struct pick_memo *m, const void *key);
const void *pick_memo_keep(struct pick_memo *m, const void *key, const void *value);
// The i-th of those that are kept; false past the last. Pointers last until the next keep.
bool pick_memo_row(const struct pick_memo *m, int64_t i, const void **key, const void **value);

#endif
