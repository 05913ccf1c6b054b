// Jobs that wait to be looked at: numbers, not jobs. Ten thousand of them cost half a megabyte and no time.
//
// The order is sched.h's: by priority, and one more for each minute of waiting.
#ifndef DAEMON_QUEUE_H
#define DAEMON_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

struct queue;

struct queue_item {
    uint64_t id;
    int priority;
    int64_t since_ms;
};

void queue_new(struct queue **out);
void queue_free(struct queue **q);
void queue_add(struct queue *q, struct queue_item item);
// The first one, without taking it. False: none waits.
bool queue_top(const struct queue *q, struct queue_item *item);
// False: it does not wait here.
bool queue_remove(struct queue *q, uint64_t id);
int64_t queue_length(const struct queue *q);
// How many come before it; -1: it does not wait here.
int64_t queue_position(const struct queue *q, uint64_t id);

#endif
