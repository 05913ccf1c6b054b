// Who may connect to a bound channel: asked by ZeroMQ for each connection that comes with a key (its ZAP, RFC 27).
//
// Life: guard_open before the socket is bound, guard_allow whenever the list changes, guard_close after the socket.
#ifndef PROTO_CHAN_GUARD_H
#define PROTO_CHAN_GUARD_H

#include "proto/chan_keys.h"

struct guard;

// `context` is ZeroMQ's.
int guard_open(struct guard **out, void *context, struct err *e);
// A copy is kept.
void guard_allow(struct guard *g, const struct chan_friends *f);
// `context` must have been shut down, which ends the guard's thread.
void guard_close(struct guard **g);

#endif
