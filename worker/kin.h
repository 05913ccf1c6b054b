// The other ranks of this machine, watched by the rank that speaks for all: one that ends takes the group with it, and
// nobody but the launcher is told which one it was.
//
// Life: kin_open on every rank, kin_fd beside what a thread waits for anyway, kin_lost when it can be read, kin_rest
// when the last word is said, or kin_leave when ranks end as they should; kin_close.
#ifndef WORKER_KIN_H
#define WORKER_KIN_H

#include "proto/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct kin;

// Of ranks 0 to n - 1, `own` is this one; `pid` has their processes, 0 where they are on another machine. From here on
// a rank that is told to end (SIGTERM) does so a moment later. *out is for rank 0 of several, elsewhere NULL: nobody is
// watched.
void kin_open(struct kin **out, const int32_t *pid, int n, int own);
void kin_close(struct kin **k);

int kin_fd(const struct kin *k); // can be read when a rank has ended, or this one was told to end
// E_LOST: the group is over; names the rank that ended. 0: all is well.
int kin_lost(const struct kin *k, struct err *e);
// From here on nobody is watched, and SIGTERM ends this rank as it ends any program.
void kin_leave(struct kin *k);
// Waits until the launcher tells this rank to end, at most `ms`, and takes the word: who ends before is taken for the
// cause.
void kin_rest(const struct kin *k, int ms);

#endif
