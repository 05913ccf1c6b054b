// Jobs meet groups: one turn compares what jobs need with what groups do, and acts. Calling it twice is harmless; an
// event that was missed costs a turn, not a job.
//
// Life: dispatch_new, dispatch_add, then loop_run; dispatch_free ends all groups. Jobs are the caller's and must
// outlive the dispatcher; a job that is over (job_is_over) is not touched again.
#ifndef DAEMON_DISPATCH_H
#define DAEMON_DISPATCH_H

#include "daemon/group.h"
#include "daemon/job.h"
#include "daemon/loop.h"

struct dispatch;

struct dispatch_options {
    const char *self, *worker;              // programs
    int attempts;                           // groups a job may lose before it fails; 0: 1
    int64_t hello_ms, silence_ms, stall_ms; // 0: group.h's
    // Whatever changed in a job: a state, a step, a segment.
    void (*changed)(void *ctx, struct job *j);
    void *ctx;
};

void dispatch_new(struct dispatch **out, struct loop *l, const struct dispatch_options *o);
void dispatch_free(struct dispatch **d);
void dispatch_add(struct dispatch *d, struct job *j);
void dispatch_turn(struct dispatch *d);
// Ends a job where it is: its group is ended, its film closed.
void dispatch_cancel(struct dispatch *d, struct job *j);
// Says goodbye to the groups; true when all have gone and no work is under way.
bool dispatch_drain(struct dispatch *d);

#endif
