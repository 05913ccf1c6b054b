// What the person at the command line sees of a job: notices, progress, and the end.
//
// On a terminal, progress is one line that is written over; elsewhere a line a segment; with `json`, one object a line
// on stderr, and one on stdout at the end.
#ifndef DAEMON_CLI_REPORT_H
#define DAEMON_CLI_REPORT_H

#include "daemon/job.h"

#include <stdbool.h>
#include <stdint.h>

struct report {
    bool json, terminal;
    enum job_state state; // shown last
    int64_t committed;
    size_t noted; // bytes of the job's notices
    int64_t shown_ms;
    bool line; // the terminal's line is not empty
};

void report_init(struct report *r, bool json);
// Something changed in the job.
void report_job(struct report *r, const struct job *j);
// The end of a job; `kept`: the film that stays, or NULL.
void report_end(struct report *r, const struct job *j, const char *kept);
// A film that an earlier run has finished.
void report_delivered(struct report *r, const char *output);
// A job that was refused before it was one.
void report_refused(struct report *r, const struct err *e);

#endif
