// What stays on the disk, and how much of it must stay free.
//
// Films of jobs that have ended go when they are old, or when all together are too much, the oldest first, and with
// them the job's row; files that clients brought go when no job names them any more. And one number that decides
// whether anything may grow: the free space of the store's disk.
//
// Life: keep_open, keep_turn as often as one likes, keep_close.
#ifndef DAEMON_KEEP_H
#define DAEMON_KEEP_H

#include "daemon/store.h"

struct keep;

struct keep_limits {
    int64_t age_s;    // of films after their job ended; 0: for ever
    int64_t bytes;    // of all films that have ended; 0: any
    int64_t free_min; // bytes that the disk must have left; 0: none
};

void keep_open(struct keep **out, const char *folder);
void keep_close(struct keep **k);
void keep_limit(struct keep *k, const struct keep_limits *l);
// A little of the work. `in_use`: the job is under way, and is not touched.
void keep_turn(struct keep *k, struct store *s, bool (*in_use)(void *ctx, uint64_t id), void *ctx);
// 0, or E_BUSY: less is free than should be; the sentence says how much, and the way out.
int keep_room(struct keep *k, struct err *e);

#endif
