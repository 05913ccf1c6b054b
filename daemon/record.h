// What is on record of a job, for people and programs that ask after it: its report and its events, as JSON. Both are
// read from the store, so they are there as long as the job is, whatever became of it.
#ifndef DAEMON_RECORD_H
#define DAEMON_RECORD_H

#include "daemon/store.h"
#include "proto/json.h"

// Times of stages, device seconds, drift and seams of all that is committed, and, where it is known what an hour of a
// device costs, what a minute of film did. 1, or 0: there is no such job.
int record_report(struct store *s, uint64_t id, double device_cost, json_t **out, struct err *e);
// At most `most` events with numbers above `after`: [{"number", "at", "text"}, ..]. 1, or 0: there is no such job.
int record_events(struct store *s, uint64_t id, int64_t after, int most, json_t **out, struct err *e);

#endif
