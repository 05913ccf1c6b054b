// What the dispatcher's files share: jobs with their work under way (dispatch_work.c), seats with their groups
// (dispatch_seat.c), and the turn (dispatch.c).
#ifndef DAEMON_DISPATCH_PARTS_H
#define DAEMON_DISPATCH_PARTS_H

#include "daemon/dispatch.h"
#include "daemon/sched.h"
#include "daemon/talk.h"
#include "proto/mark.h"

enum { SETS_KNOWN = 16 };

// Work of one kind that is under way for a job.
struct errand {
    int rc;
    struct err error;
};

struct entry {
    struct dispatch *d;
    struct job *job;
    int64_t waiting_since_ms;
    uint64_t set, weights; // its model set, as a hash; the same whatever its threads
    bool rests;            // its media children do not stay between two questions
    // reading its media
    struct errand prepare;
    struct reel *reel;
    struct reel_options reel_options;
    int64_t *cut;
    // pictures of a span
    struct errand look;
    struct span *span;
    int64_t segment;
    uint8_t *picture, *colour;
    // the film
    struct errand film;
    int64_t film_bytes;
};

struct seat {
    struct group *group;
    uint64_t set;        // that the group was started with
    struct entry *entry; // whose job it has, or NULL
    struct talk talk;
    bool met;    // its group was held against the others
    bool due;    // something was made ready for it
    bool yields; // leaves its job at the next border
    bool said_bye;
    bool guest;            // goes with its group, which came by itself
    int n_losses;          // groups in a row that were lost here before they had committed a segment
    int64_t next_start_ms; // no group is started here before
};

struct known_set {
    uint64_t words, set, weights;
};

struct dispatch {
    struct loop *loop;
    struct dispatch_options o;
    struct entry **entry;
    int n_entries;
    int n_preparing, most_preparing; // jobs whose media are being read at the same time
    struct seat **seat;              // its own, then guests'
    int n_seats;
    struct known_set known[SETS_KNOWN];
    int n_known;
    struct talk_room *room;
    struct sched_job *waiting, *fitting; // scratch, [n_entries]
    struct entry **waiter;               // likewise
    int n_waiting;
    char layout[128]; // class of the groups that are started here, once one has called
    int64_t swept_ms;
    bool draining;
    bool holding; // no segment is begun for now
};

// ---- dispatch.c
// False: the state has no such move. What must outlive this process is in the store then.
bool dispatch_move(struct dispatch *d, struct job *j, enum job_event event);
void dispatch_fail(struct dispatch *d, struct entry *en, const struct err *why);
void dispatch_changed(struct dispatch *d, struct job *j);

// ---- dispatch_set.c
uint64_t dispatch_set_number(const uint8_t mark[MARK_BYTES], int threads);
// Valid until the next call.
const struct known_set *dispatch_set_of(struct dispatch *d, const struct job *j);

// ---- dispatch_work.c
// Media of jobs that wait for it, the weightiest first.
void dispatch_prepare(struct dispatch *d);
// Begins what a job needs else that is no group's business.
void dispatch_work(struct dispatch *d, struct entry *en);

// ---- dispatch_seat.c
void seat_add(struct dispatch *d, struct seat **out);
// One turn of all seats: hears and tells, lets go, fills.
void seats_turn(struct dispatch *d);
// All groups leave the job.
void seats_leave(struct dispatch *d, struct entry *en);
// All groups leave their jobs, but for those of which a segment is on its way to the disk: true while there are such.
bool seats_drain(struct dispatch *d);
// The seat of a span has something to send.
void seats_wake(struct dispatch *d, const struct span *s);

#endif
