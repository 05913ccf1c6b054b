// A client that submits jobs of one picture and one voice, one after the other, and keeps the time of each answer: from
// the message's last byte handed to the socket until the answer is read. The daemon has looked at the media before.
#ifndef BENCH_CUSTOMER_H
#define BENCH_CUSTOMER_H

#include "bench/crowd.h"

struct customer;

int customer_open(struct customer **out, const char *endpoint, const char *picture, const char *voice, struct err *e);
void customer_close(struct customer **c);
// One job; its time is kept.
int customer_submit(struct customer *c, struct err *e);
// `n` jobs in one message; no time is kept.
int customer_submit_many(struct customer *c, int n, struct err *e);
// On a thread of its own from here to customer_stop: jobs at random moments, `rate` a second.
void customer_start(struct customer *c, double rate);
int customer_stop(struct customer *c, struct err *e);

int64_t customer_jobs(const struct customer *c);
// Of the single ones since the last customer_forget.
const struct crowd_times *customer_times(const struct customer *c);
void customer_forget(struct customer *c);

#endif
