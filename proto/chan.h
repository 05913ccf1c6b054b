// One end of a control channel: ZeroMQ behind a few verbs, messages in, messages out.
//
// The coordinator binds (ROUTER, mandatory routing: a dead or full peer is an error, never a silent drop), a worker
// connects (DEALER). A channel belongs to one thread. Its descriptor is edge-triggered: after it fires, and after every
// send, call chan_recv until it returns 0. Received messages point into memory that the channel keeps until the next
// chan_recv.
#ifndef PROTO_CHAN_H
#define PROTO_CHAN_H

#include "proto/chan_keys.h"
#include "proto/msg.h"

enum { CHAN_PEER_MAX = 64 };

struct chan;
struct chan_peer {
    uint8_t id[CHAN_PEER_MAX];
    int n;
};

// What a channel beyond this machine needs. With `own` everything is encrypted, and each end knows the other.
struct chan_options {
    const struct chan_key *own;
    const uint8_t *server;              // of the connecting end: the other's public key
    const struct chan_friends *allowed; // of the binding end: who may connect
    int64_t message_max;                // bytes of a part; 0: 256 MiB
};

// `endpoint` as ZeroMQ spells it: "ipc:///path/socket", "tcp://10.0.0.1:7400". Owner: caller.
int chan_bind(struct chan **out, const char *endpoint, struct err *e);
int chan_connect(struct chan **out, const char *endpoint, struct err *e);
int chan_bind_with(struct chan **out, const char *endpoint, const struct chan_options *o, struct err *e);
int chan_connect_with(struct chan **out, const char *endpoint, const struct chan_options *o, struct err *e);
// Who may connect from now on.
void chan_allow(struct chan *c, const struct chan_friends *allowed);
// What the connecting end has noticed since it last asked: 0: nothing, 1: it is connected, E_LOST: nobody listens there
// (it goes on trying), E_INPUT: it was refused and always will be: keys that do not fit.
int chan_trouble(struct chan *c, struct err *e);
// Something waits to be received, whether or not the descriptor says so.
bool chan_ready(const struct chan *c);
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
