// One job on one group, span by span: what was said to it, what is to be said next, and what its answers do to the job.
//
// Life: talk_begin; talk_turn as often as anything may have happened; talk_next when the span is done and the group is
// to take another one of the job; talk_end when the group is to be free. The group and the store are the caller's.
#ifndef DAEMON_TALK_H
#define DAEMON_TALK_H

#include "daemon/group.h"
#include "daemon/job.h"
#include "daemon/store.h"

struct talk_room; // where messages are put together; one serves all talks of a thread

struct talk {
    struct job *job;
    struct span *span;
    uint64_t id; // on the wire, in place of the job's: answers to an earlier talk are none to this one
    bool opened;
    uint32_t credit;  // due
    int64_t allowed;  // frames that may still come
    int colour_of;    // the span whose colours the group has
    int speaker;      // of the next piece of voice
    int64_t sample;   // likewise
    int64_t next_run; // segment
    bool over;        // the group can do no more for it, for this reason; what came whole is kept first
    struct err why;
    bool changed; // the job did: set here, cleared by the caller
};

void talk_room_new(struct talk_room **out);
void talk_room_free(struct talk_room **r);

// The span is taken; it is left by talk_end or talk_next.
void talk_begin(struct talk *t, struct job *j, struct span *s, struct talk_room *r);
void talk_next(struct talk *t, struct span *s);
// Takes all messages, then says what is due; with `hold`, no further segment is begun. 0 or what is wrong: E_LOST with
// the group, E_INPUT with the job, E_FATAL with its film or the store.
int talk_turn(struct talk *t, struct group *g, struct store *s, struct talk_room *r, bool hold, struct err *e);
// All of the span is kept.
bool talk_is_done(const struct talk *t);
// No segment is under way.
bool talk_is_idle(const struct talk *t);
// The job leaves the group: CLOSE, or CANCEL while a segment is under way.
void talk_end(struct talk *t, struct group *g, struct talk_room *r);
// Takes what a group without a job says. 0 or E_LOST.
int talk_hear(struct group *g, struct talk_room *r, struct err *e);
void talk_bye(struct group *g, struct talk_room *r);

#endif
