// One end of a control channel: ZeroMQ behind a few verbs, messages in, messages out.
//
// The coordinator binds (ROUTER, mandatory routing: a dead or full peer is an error, never a silent drop), a worker
// connects (DEALER). A channel belongs to one thread. Its descriptor is edge-triggered: after it fires, and after every
// send, call chan_recv until it returns 0. Received messages point into memory that the channel keeps until the next
// chan_recv.
#ifndef PROTO_CHAN_H
#define PROTO_CHAN_H

#include "proto/msg.h"

enum { CHAN_PEER_MAX = 64 };

struct chan;
struct chan_peer {
    uint8_t id[CHAN_PEER_MAX];
    int n;
};

// `endpoint` as ZeroMQ spells it: "ipc:///path/socket". Owner: caller.
int chan_bind(struct chan **out, const char *endpoint, struct err *e);
int chan_connect(struct chan **out, const char *endpoint, struct err *e);
void chan_close(struct chan **c);
// From now on chan_close waits up to `ms` for what was sent to reach the peer (0 at first: it is dropped).
void chan_linger(struct chan *c, int ms);
int chan_fd(const struct chan *c);

// 1: *m (and *from, at the binding end) filled; 0: nothing there; E_INPUT: a message that does not parse, dropped;
// E_LOST.
int chan_recv(struct chan *c, struct msg *m, struct chan_peer *from, struct err *e);
// 0; E_BUSY: the peer's queue is full, try when it drains; E_LOST: no such peer. `to` is NULL at the connecting end.
int chan_send(struct chan *c, const struct chan_peer *to, const struct msg *m, struct err *e);

#endif
