// A job's life: its state, and the one table that moves it.
#ifndef DAEMON_JOB_H
#define DAEMON_JOB_H

#include "daemon/reel.h"
#include "daemon/span.h"
#include "daemon/store.h"
#include "proto/spec.h"

enum job_state {
    JOB_QUEUED,
    JOB_PREPARING, // its media are being read
    JOB_READY,     // waits for a group
    JOB_RUNNING,
    JOB_FINISHING, // all is rendered; the delivered file is being written
    JOB_PAUSED,    // holds nothing; what is committed stays
    JOB_COMPLETED,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_STATES,
};
enum job_event {
    JOB_PREPARE,
    JOB_PREPARED,
    JOB_START,
    JOB_LOSE_GROUP, // and may be tried again
    JOB_RENDERED,
    JOB_FINISHED,
    JOB_FAIL,
    JOB_PAUSE,
    JOB_RESUME,
    JOB_RETRY,
    JOB_CANCEL,
    JOB_EVENTS,
};

struct job {
    uint64_t id;
    enum job_state state;
    int priority;
    struct spec *spec;                              // the caller's
    const struct model *model;                      // likewise
    char folder[4096];                              // for its film and other files
    struct reel *reel;                              // from READY on
    struct err why;                                 // of FAILED
    bool bad_model;                                 // why: no fault of its own but the weights' or settings'
    int n_busy;                                     // pieces of work under way for it on other threads
    bool picture_busy, film_busy;                   // of which kind
    bool film_failed;                               // nothing goes into it any more
    int attempts;                                   // groups that were lost since the last committed segment
    int64_t next_start_ms;                          // no group takes it before
    int64_t n_frames, n_segments;                   // planned; 0: not yet
    int64_t committed;                              // segments that are kept, in whatever span
    int64_t film_segments, film_frames, film_bytes; // so much of them is in the film, on disk
    char layout[128];                               // class of the groups that made it; "": none yet
    bool mixed;                                     // another class made some of it
    bool misplaced;                                 // a group was there for it, of another class
    bool unserved;                                  // no group that is here has loaded what it needs
    bool unsaved;                                   // its state could not be written to the store; it is tried again
    int64_t tried_ms;                               // then
    struct span *span;
    int n_spans, n_taken; // that groups have
    // what a group of its said last
    char stage[32];
    int64_t stage_segment;
    uint32_t step, n_steps;
    double percent; // of all steps; never goes back
    char *notices;  // sentences, one a line: what was taken otherwise than it was given; NULL: none. Owned
    // for the report
    int64_t begun_ms, stepped_ms, ended_ms;
    double stepped_percent; // at stepped_ms, the first step seen
    int64_t condition_ms, denoise_ms, decode_ms, tail_ms;
    double drift; // the largest of a segment
};

// Does what the table says and tells whether it did; an event that a state does not know changes nothing.
bool job_move(struct job *j, enum job_event event);
const char *job_state_name(enum job_state s);
// Completed, failed or cancelled.
bool job_is_over(const struct job *j);

void job_init(struct job *j, uint64_t id, struct spec *spec, const struct model *model, const char *folder);
// What the store knows of it: where it stands.
int job_load(struct job *j, struct store *s, struct err *e);
// Its spans, by the plan that its open reel has: the store's, or, where there is none, kept there now. Then what is
// committed of them. E_INPUT: the media give another plan than they did.
int job_plan(struct job *j, struct store *s, struct err *e);
// The span that a group should take now, or NULL: the first one that the film waits for, else the longest.
struct span *job_span_next(const struct job *j);
// The span of a segment.
struct span *job_span_of(const struct job *j, int64_t segment);
// Its next segment can go into the film.
bool job_feeds_film(const struct job *j);
// It is over or paused, and what is kept of it still goes into its film, so that it plays.
bool job_settles(const struct job *j);
// Lets its media and its film go, for a job that holds no group and has no work under way. True: a film stays.
bool job_let_go(struct job *j);
// Frees what it holds; the film must be finished or abandoned.
void job_release(struct job *j);

// A sentence for whoever asked for the job: kept here and with the store's events, once.
int job_note(struct job *j, struct store *s, const char *text, struct err *e);

// What a beat says; counts percent, never beyond the segment whose frames are awaited.
void job_beat(struct job *j, struct span *span, const char *stage, int64_t segment, uint32_t step, uint32_t n_steps);
// Seconds left, -1: nobody knows yet.
double job_seconds_left(const struct job *j);

#endif
