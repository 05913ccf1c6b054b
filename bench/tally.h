// A device that does nothing and writes down what it was asked for: which ops, on what shapes, how often.
//
// Code that runs on it is the code that renders, so its list of ops is counted and not guessed. Memory is address
// space; nothing may look at values.
#ifndef BENCH_TALLY_H
#define BENCH_TALLY_H

#include "kernels/dev.h"

enum { TALLY_ROWS = 256 };

struct tally_row {
    const char *op;
    char shape[64];
    int64_t calls;
    double work;  // operations of a call, a multiply-add being two; 0 where memory is what counts
    double bytes; // of a call at least: each input once, each output once
    enum dtype dtype;
};
struct tally {
    struct dev *dev;
    struct tally_row row[TALLY_ROWS];
    int n;
};

// Owner of what *t holds: the caller, until tally_close. E_FATAL: no memory.
int tally_open(struct tally *t, struct err *e);
void tally_close(struct tally *t);
void tally_forget(struct tally *t); // what was written down so far

#endif
