// Where clients ask: a socket in the store's folder and, where that is wanted, one over TCP; one answer to each
// message, and more to those that watch.
//
// Life: desk_open, desk_turn once per turn of the loop, desk_close. desk_changed says that a job did.
#ifndef DAEMON_DESK_H
#define DAEMON_DESK_H

#include "daemon/loop.h"
#include "daemon/service.h"
#include "proto/chan.h"

struct desk;

int desk_open(struct desk **out, struct loop *l, const char *folder, struct err *e);
// A second socket, for clients of other machines.
int desk_listen(struct desk *d, const char *endpoint, const struct chan_options *o, struct err *e);
// Who may come in there from now on.
void desk_allow(struct desk *d, const struct chan_friends *allowed);
void desk_close(struct desk **d);
void desk_turn(struct desk *d, struct service *s);
void desk_changed(struct desk *d, uint64_t id);
// What became of what a client submitted.
void desk_submitted(struct desk *d, struct service *s, uint64_t ticket, uint64_t id, const struct err *why);
// The socket of the store in `folder`, as ZeroMQ spells it. E_INPUT: its name is too long for one.
int desk_endpoint(char *endpoint, size_t n, const char *folder, struct err *e);

#endif
