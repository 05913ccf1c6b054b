// A thousand groups in one process and one thread: each has a socket of its own, says HELLO, beats every second, and
// paints numbered frames when its segment's time is over. They render nothing; what is measured is who feeds them.
//
// Life: crowd_new, crowd_run until a time as often as wanted, crowd_free. While `crowd_record` is on, each RUN leaves
// two times: since its group sent DONE of the job before, and since the daemon's CLOSE of it came.
#ifndef BENCH_CROWD_H
#define BENCH_CROWD_H

#include "proto/base/err.h"
#include "proto/model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct crowd;

struct crowd_options {
    const char *endpoint;
    const struct model *model;
    int n;
    int64_t segment_us; // from RUN to the first frame
    uint64_t seed;
};

struct crowd_times {
    int64_t *us;
    size_t n;
};

struct crowd_counts {
    int64_t n_joined, n_runs, n_done;
    int64_t n_fed;  // groups that have had a RUN
    int64_t n_kept; // DONEs after which the daemon closed the job: the segment is on disk
    int64_t n_lost; // groups that the daemon had given up, jobs that it took away
    char trouble[1024];
};

int crowd_new(struct crowd **out, const struct crowd_options *o, struct err *e);
void crowd_free(struct crowd **c);
// From now on the crowd has the first `n` of them; those who are new join within this time, at random moments.
void crowd_join(struct crowd *c, int n, int64_t within_us);
// `each_second` may be NULL. E_INPUT: the daemon refuses a group, or gives it what this crowd cannot do.
int crowd_run(struct crowd *c, int64_t until_us, void (*each_second)(void *ctx), void *ctx, struct err *e);
// From now on a segment takes so long; those under way end no later than that from now.
void crowd_pace(struct crowd *c, int64_t segment_us);
void crowd_record(struct crowd *c, bool on);

const struct crowd_counts *crowd_counted(const struct crowd *c);
const struct crowd_times *crowd_since_done(const struct crowd *c);
const struct crowd_times *crowd_since_close(const struct crowd *c);

#endif
