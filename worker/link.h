// The worker's end of the channel: a thread that owns the socket and keeps the beat while the renderer computes.
//
// Life: link_open (HELLO goes out), then link_take for one order after another, link_send and link_stage meanwhile,
// link_close (what was sent is flushed). link_take, link_send, link_stage and link_cancelled belong to the renderer's
// thread. An OPEN is handed on when its whole voice has come.
#ifndef WORKER_LINK_H
#define WORKER_LINK_H

#include "proto/msg.h"
#include "worker/voice_file.h"

struct link;

enum order_kind {
    ORDER_OPEN,
    ORDER_RUN,
    ORDER_CLOSE, // the job is over, or was cancelled
    ORDER_BYE,   // no more orders: the coordinator said so, or is gone
};

struct order {
    enum order_kind kind;
    uint64_t job;
    union {
        struct msg_open open;
        struct msg_run run;
        char bye[256]; // why
    };
    void *bulk[MSG_BULK_MAX]; // as the message had it; NULL when empty. Owned
    size_t n_bulk_bytes[MSG_BULK_MAX];
    struct voice_file *voice; // of OPEN. Owned
    struct order *next;
};
void order_free(struct order **o);

// `cache_dir`: where voices lie. Owner: caller.
int link_open(struct link **out, const char *endpoint, const struct msg_hello *hello, const char *cache_dir,
              struct err *e);
// Tells the end of the program in a BYE, waits (up to 5 s) until everything sent has left.
void link_close(struct link **l, const char *reason);

// Waits for the next order; the caller frees it. At the end it is ORDER_BYE, every time.
struct order *link_take(struct link *l);
// Sends a copy of `m`; waits while the queue is full, and FRAMES wait for credit. E_BUSY when the job was cancelled or
// nobody listens any more: then only FAILED is still taken.
int link_send(struct link *l, const struct msg *m, struct err *e);
// Where the renderer is; counts as progress. Beats carry it.
void link_stage(struct link *l, const char *stage, int64_t segment, int step, int n_steps);
// Whether the job under way was cancelled or the coordinator is gone: the renderer leaves at the next step.
bool link_cancelled(const struct link *l);

#endif
