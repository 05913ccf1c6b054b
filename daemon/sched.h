// Who is next: pure arithmetic over jobs that wait and jobs that run.
//
// A job's weight is its priority, and one more for each minute that it has waited since it last had a group; a job that
// has one does not wait. So the urgent one comes first, nobody starves, jobs of one priority take turns, and groups are
// shared out among those that have spans for several.
#ifndef DAEMON_SCHED_H
#define DAEMON_SCHED_H

#include <stdbool.h>
#include <stdint.h>

enum { SCHED_AGE_MS = 60000, SCHED_MARGIN = 5 }; // weight that a waiting job must have above a running one

struct sched_job {
    uint64_t id;
    int priority;
    int64_t waiting_since_ms;
    int64_t not_before_ms; // it may not start earlier
    int n_groups;          // that it has already
    uint64_t set;          // its model set, as a hash
};

// The index of the job that an idle group with model set `set` (0: none yet) takes now, -1: none. Of equal weights the
// one with the fewest groups, then the one whose weights are loaded, then the older one.
int sched_pick(const struct sched_job *j, int n, uint64_t set, int64_t now_ms);
// A job of priority `priority` that runs on `n_groups` should leave one at the next border for one of those that wait:
// by a margin the last one, without a margin one of several.
bool sched_yields(int priority, int n_groups, const struct sched_job *waiting, int n, int64_t now_ms);
// How long to wait after the n-th loss in a row: a quarter of a second, doubled each time, half a minute at most.
int64_t sched_pause_ms(int n_losses);

#endif
