// What survives: jobs, what of them is committed, and what happened to them. One folder, one process, one thread.
//
// Life: store_open, store_close. Whatever a call has written is on disk when it returns: a job exists from store_add
// on, whatever happens then. All texts and bytes that are given out belong to the store, valid until the next call.
//
// The folder is made (mode 0700) if it is not there, and locked. It holds store.db; other files in it are its owner's.
// E_FATAL: the store cannot be written or read any more; what was committed is still there.
#ifndef DAEMON_STORE_H
#define DAEMON_STORE_H

#include "proto/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

enum { STORE_EVENTS_MAX = 1000 }; // kept of a job

struct store_job {
    uint64_t id;
    const char *key;   // of whoever submitted it, or NULL; one job a key
    const char *spec;  // JSON
    const char *state; // job_state_name
    int priority;
    int code;                   // E_* of a failed job
    const char *error;          // its sentence, or NULL
    int64_t created_s, ended_s; // Unix time; 0: not yet
    uint64_t batch;             // the number of its batch (that of the batch's first job), or 0
    // what its media gave, once known
    int64_t n_frames, n_segments, n_cuts;
    int64_t segments;   // that are committed, in any order of spans
    const char *layout; // class that made the first of them, or NULL
    bool mixed;         // another class made some
    // the film: so many of the first segments are in it, on disk
    int64_t film_segments, film_frames, film_bytes;
};

struct store_plan {
    int64_t n_frames, n_segments;
    const int64_t *cut; // where spans begin but the first, rising
    int n_cuts;
};

struct store_segment {
    uint64_t job;
    int64_t number;
    bool first;         // of its span; another one comes after number - 1
    const char *layout; // class of the group
    const void *tail;   // NULL: the span ends
    size_t n_tail;
    const void *last; // what the next segment's seam is measured from (seam.h), or NULL
    size_t n_last;
    int64_t condition_ms, denoise_ms, decode_ms, tail_ms;
    double drift;
    int ranks;   // of that group
    double seam; // seam.h; negative: not known
};

// Of all segments of a job that are committed.
struct store_report {
    int64_t n, condition_ms, denoise_ms, decode_ms, tail_ms;
    int64_t device_ms; // of all stages, once for each rank
    double drift_most, drift_mean, seam_most, seam_mean;
    int64_t n_seams;
};

struct store_tail {
    const void *bytes;
    size_t n;
};

// E_BUSY: another process has it. E_INPUT: no place for a store, or one of a later version.
int store_open(struct store **out, const char *folder, struct err *e);
void store_close(struct store **s);
bool store_is_new(const struct store *s); // made by this store_open
// Closes it and removes the folder with everything in it.
void store_remove(struct store **s);

// Jobs. `j`: key, spec, state and priority are read.
int store_add(struct store *s, const struct store_job *j, uint64_t *id, struct err *e);
// All or none; id[n] are filled. The batch's number is id[0].
int store_add_batch(struct store *s, const struct store_job *j, int n, uint64_t *id, struct err *e);
// 1: found, 0: there is none.
int store_get(struct store *s, uint64_t id, struct store_job *j, struct err *e);
int store_get_key(struct store *s, const char *key, struct store_job *j, struct err *e);
// The job with the least id above `after`: 1, or 0 at the end.
int store_next(struct store *s, uint64_t after, struct store_job *j, struct err *e);
// Likewise, among those that have not ended, or that are of a batch.
int store_next_open(struct store *s, uint64_t after, struct store_job *j, struct err *e);
int store_next_of_batch(struct store *s, uint64_t batch, uint64_t after, struct store_job *j, struct err *e);
// `error`: NULL, or why it failed. An event goes with it.
int store_move(struct store *s, uint64_t id, const char *state, const struct err *error, struct err *e);
// Other keys for a job.
int store_spec(struct store *s, uint64_t id, const char *spec, struct err *e);
int store_delete(struct store *s, uint64_t id, struct err *e);

int store_plan(struct store *s, uint64_t id, const struct store_plan *p, struct err *e);
// The cuts of a job's plan, j->n_cuts of them, malloc'd.
int store_cuts(struct store *s, const struct store_job *j, int64_t **cut, struct err *e);
// A segment whose piece is on disk; of a span only the newest tail is kept.
int store_commit(struct store *s, const struct store_segment *g, struct err *e);
// The first segment of `job` that is committed, from number `from` on: 1 or 0.
int store_segment(struct store *s, uint64_t job, int64_t from, struct store_segment *g, struct err *e);
int store_report(struct store *s, uint64_t job, struct store_report *r, struct err *e);
// The film has so many segments now, synced before.
int store_film(struct store *s, uint64_t job, int64_t segments, int64_t frames, int64_t bytes, struct err *e);

int store_event(struct store *s, uint64_t job, const char *text, struct err *e);
// The first event of `job` with a number above *number, which becomes its number: 1 or 0.
int store_event_next(struct store *s, uint64_t job, int64_t *number, int64_t *at_s, const char **text, struct err *e);

#endif
