// Messages that wait for whoever they are for: copies, in order, bounded.
//
// Life: zeroed; inbox_put and inbox_take; inbox_clear.
#ifndef DAEMON_INBOX_H
#define DAEMON_INBOX_H

#include "proto/msg.h"

struct inbox {
    struct parcel *first, **end, *open; // `open` was taken last: its bytes are in use
    size_t n, bytes;
};

// 0, or E_BUSY: too much waits here.
int inbox_put(struct inbox *b, const struct msg *m, struct err *e);
// 1 or 0. *m is valid until the next call.
int inbox_take(struct inbox *b, struct msg *m);
void inbox_clear(struct inbox *b);

#endif
