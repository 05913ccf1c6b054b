// The one loop of the daemon: descriptors, a timer, signals, children, and blocking work beside it. libuv stays behind
// loop.c.
//
// Life: loop_new, what is to be watched, loop_run until loop_stop, loop_free. All callbacks run on the loop's thread,
// except `work` of loop_work. After whatever happened, and before the loop sleeps, `turn` is called: events record
// facts, the turn acts on them (dispatch.h).
#ifndef DAEMON_LOOP_H
#define DAEMON_LOOP_H

#include "proto/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;
struct loop_watch;
struct loop_child;

int loop_new(struct loop **out, void (*turn)(void *ctx), void *ctx, struct err *e);
void loop_free(struct loop **l);
void loop_run(struct loop *l);
void loop_stop(struct loop *l);

// Wakes the loop (and so `turn`) each `ms`.
void loop_tick(struct loop *l, int ms);
// The next turn comes at once.
void loop_again(struct loop *l);
// Wakes the loop when the descriptor is readable.
struct loop_watch *loop_watch(struct loop *l, int fd);
// Whether it was since the last time this was asked.
bool loop_woke(struct loop_watch *w);
void loop_unwatch(struct loop_watch **w);
void loop_signal(struct loop *l, int signum, void (*on)(void *ctx, int signum), void *ctx);

// A program in a session of its own. argv[0] is its path. Output goes to `log_fd`.
struct loop_child_end {
    bool ended;
    int status, signal; // exit status; the signal that ended it, or 0
};
int loop_spawn(struct loop_child **out, struct loop *l, char *const *argv, int log_fd, struct err *e);
pid_t loop_child_pid(const struct loop_child *c);
struct loop_child_end loop_child_end(const struct loop_child *c);
// Ends its whole session, if it has not ended, and frees `c`.
void loop_child_kill(struct loop_child **c);

// Runs work(ctx) on another thread, then done(ctx) on the loop's.
void loop_work(struct loop *l, void (*work)(void *ctx), void (*done)(void *ctx), void *ctx);

// Processors that this program may use.
int loop_cores(void);

// Waits for all work that is under way, its `done` included.
void loop_settle(struct loop *l);

#endif
