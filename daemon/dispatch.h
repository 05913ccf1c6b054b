// Jobs meet groups: one turn compares what jobs need with what groups do, and acts. Calling it twice is harmless; an
// event that was missed costs a turn, not a job.
//
// Life: dispatch_new, dispatch_add, then loop_run; dispatch_free ends all groups. Jobs are the caller's and must
// outlive the dispatcher, or be taken from it first. What becomes of a job is in the store before `changed` tells.
#ifndef DAEMON_DISPATCH_H
#define DAEMON_DISPATCH_H

#include "daemon/job.h"
#include "daemon/launch.h"
#include "daemon/loop.h"
#include "daemon/store.h"

struct dispatch;
struct group;

struct dispatch_options {
    const char *self, *worker; // programs
    struct launch_ranks ranks; // of each group
    struct store *store;
    const char *folder;                     // for groups' logs and working files
    int groups;                             // at most so many of its own at a time
    int attempts;                           // groups in a row that a job may lose before it fails; 0: 4
    bool patient;                           // a group that never came up is no loss of the job's
    int64_t hello_ms, silence_ms, stall_ms; // 0: group.h's
    // Whatever changed in a job: a state, a step, a segment.
    void (*changed)(void *ctx, struct job *j);
    void *ctx;
};

void dispatch_new(struct dispatch **out, struct loop *l, const struct dispatch_options *o);
void dispatch_free(struct dispatch **d);
// A job in any state but running, which has waited since then. Queued ones are read as soon as it is their turn:
// dispatch_wants says whether one of `priority` should be brought, so that some are read ahead of the groups and an
// urgent one is read soon.
void dispatch_add(struct dispatch *d, struct job *j, int64_t since_ms);
bool dispatch_wants(const struct dispatch *d, int priority);
// Forgets a job that is over or paused, and for which no work is under way.
void dispatch_take(struct dispatch *d, struct job *j);
void dispatch_turn(struct dispatch *d);
// While it is on, no segment is begun; those under way are kept when they end.
void dispatch_hold(struct dispatch *d, bool on);
// A group that came by itself: the dispatcher's from now on. `set`: the mark of what it has loaded (proto/mark.h).
void dispatch_join(struct dispatch *d, struct group *g, const uint8_t set[32]);

// E_BUSY: its state has no such move.
int dispatch_cancel(struct dispatch *d, struct job *j, struct err *e);
int dispatch_pause(struct dispatch *d, struct job *j, struct err *e);
int dispatch_resume(struct dispatch *d, struct job *j, struct err *e); // a paused one

// From now on nothing is begun and groups are told goodbye; what is committed stays, and a segment that has come whole
// is committed first (*owes: that is under way). True when all have gone and no work is under way.
bool dispatch_drain(struct dispatch *d, bool *owes);
// Groups that are up, and all.
void dispatch_groups(const struct dispatch *d, int *n_up, int *n);

#endif
