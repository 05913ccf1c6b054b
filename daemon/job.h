// A job's life: its state, and the one table that moves it.
#ifndef DAEMON_JOB_H
#define DAEMON_JOB_H

#include "daemon/reel.h"
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

struct job_tail {
    int64_t segment; // -1: none
    void *bytes;
    size_t n;
};

struct job {
    uint64_t id;
    enum job_state state;
    int priority;
    struct spec *spec;            // the caller's
    const struct model *model;    // likewise
    char folder[4096];            // for its film and other files
    struct reel *reel;            // from READY on
    struct err why;               // of FAILED
    bool bad_model;               // why: its weights cannot be loaded
    bool busy;                    // work is under way for it on another thread
    int attempts;                 // groups that were lost since the last committed segment
    int64_t next_start_ms;        // no group is started for it before
    int64_t committed;            // segments that are in the film, on disk
    int64_t frames, bytes;        // of the film, with them
    int64_t n_frames, n_segments; // planned, 0: not yet
    struct job_tail tail[2];      // of segment i in tail[i % 2]: of the last committed one and of the one under way
    uint8_t *picture;             // the reference picture of segment `picture_of`
    int64_t picture_of;           // -1: none
    int64_t picture_wanted;       // by its group
    // what its group said last
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
// What the store knows of it: where it stands, and the tail to go on from.
int job_load(struct job *j, struct store *s, struct err *e);
// Lets its media and its film go, for a job that holds no group and has no work under way. True: a film stays.
bool job_let_go(struct job *j);
// Frees what it holds; the film must be finished or abandoned.
void job_release(struct job *j);

// A sentence for whoever asked for the job: kept here and with the store's events, once.
int job_note(struct job *j, struct store *s, const char *text, struct err *e);

// Keeps a copy of a segment's tail.
void job_tail_keep(struct job *j, int64_t segment, const void *bytes, size_t n);
// The tail of `segment`, or NULL.
const struct job_tail *job_tail_of(const struct job *j, int64_t segment);
// What a beat says; counts percent, never beyond the segment whose frames are awaited.
void job_beat(struct job *j, const char *stage, int64_t segment, uint32_t step, uint32_t n_steps);
// Seconds left, -1: nobody knows yet.
double job_seconds_left(const struct job *j);

#endif
