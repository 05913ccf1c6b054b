// The worker's end of the channel: a thread that owns the socket and keeps the beat while the renderer computes.
//
// Life: link_open (HELLO goes out), then link_take for one order after another, link_send and link_stage meanwhile,
// link_close (what was sent is flushed). link_take, link_send, link_stage and link_cancelled belong to the renderer's
// thread. An OPEN is handed on when its whole voice has come.
#ifndef WORKER_LINK_H
#define WORKER_LINK_H

#include "proto/chan_call.h"
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

struct kin;
struct link_options {
    struct chan_call call;
    const struct msg_hello *hello;
    const char *cache_dir; // where voices lie
    int64_t wait_ms;       // for a coordinator that is away; 0: for ever
    // No order will come any more, and that is no goodbye. E_INPUT: the coordinator refuses this group; E_LOST: nobody
    // answers, or the coordinator has given the group up. Called on the link's thread; may end the program, whose
    // renderer may be loading weights or hang.
    void (*refused)(const struct err *why);
    struct kin *kin; // the ranks beside this one, which outlive the link; NULL: none
    // One of them has ended, which the coordinator was told. Called on the link's thread, and does not return.
    void (*bereft)(const struct err *why);
};

// Owner: caller. A coordinator that is away and comes again is told HELLO anew, and the job that was open is closed.
int link_open(struct link **out, const struct link_options *o, struct err *e);
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
