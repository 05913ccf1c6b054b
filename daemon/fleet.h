// Groups that come by themselves, started by hand, by Slurm, by Kubernetes: one socket for all of them, who may join,
// and which message is whose.
//
// Life: fleet_open; fleet_turn once per turn of the loop; fleet_close, after all groups that it gave out have ended.
#ifndef DAEMON_FLEET_H
#define DAEMON_FLEET_H

#include "daemon/group.h"
#include "proto/chan.h"

struct fleet;

struct fleet_options {
    const char *endpoint;         // tcp://ADDRESS:PORT or ipc://PATH
    struct chan_options chan;     // its keys
    const uint8_t *model;         // mark that a group's model folder must have
    int64_t silence_ms, stall_ms; // 0: group.h's
    // A group has joined; `set` is the mark of what it has loaded. It is the callee's, to end.
    void (*joined)(void *ctx, struct group *g, const uint8_t set[32]);
    void *ctx;
};

int fleet_open(struct fleet **out, struct loop *l, const struct fleet_options *o, struct err *e);
void fleet_close(struct fleet **f);
// Takes what has come. True: more waits.
bool fleet_turn(struct fleet *f);
bool fleet_ready(const struct fleet *f); // something waits, whether or not the loop was told
// Who may join from now on.
void fleet_allow(struct fleet *f, const struct chan_friends *allowed);

#endif
