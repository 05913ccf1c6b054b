// One worker group: its processes, its channel, and what it last said.
//
// Life: group_start (a socket in a private folder, the worker as a session of its own), group_recv and group_send,
// group_end. Nobody connects to the socket but who may enter the folder, and only the first to say HELLO is heard.
//
// A group that came by itself is a guest: it has no process here, its messages are brought (fleet.h), and to end it is
// to forget it.
#ifndef DAEMON_GROUP_H
#define DAEMON_GROUP_H

#include "daemon/launch.h"
#include "daemon/loop.h"
#include "proto/msg.h"

#include <stdbool.h>
#include <stdint.h>

struct group;

struct group_options {
    const char *self;   // this program
    const char *worker; // the worker's
    struct launch_ranks ranks;
    const struct spec *spec; // what decides its model set: parts, LoRAs, dtype, threads, speakers
    const char *model;       // folder
    const char *log;         // file for its output, made anew
    const char *cache;       // folder for its working files
    int64_t hello_ms;        // patience until HELLO; 0: a minute
    int64_t silence_ms;      // until it counts as lost; 0: three seconds
    int64_t stall_ms;        // without progress; 0: an hour
};

// E_FATAL names what cannot be started.
int group_start(struct group **out, struct loop *l, const struct group_options *o, struct err *e);
struct chan;
struct chan_peer;
struct group_guest {
    struct chan *chan; // the host's; must outlive the group
    const struct chan_peer *peer;
    const struct msg_hello *hello;
    int64_t silence_ms, stall_ms;              // as above
    void (*ended)(void *ctx, struct group *g); // from group_end
    void *ctx;
};
void group_welcome(struct group **out, const struct group_guest *o);
// A message of a guest, copied. E_BUSY: it sends more than it may.
int group_bring(struct group *g, const struct msg *m, struct err *e);

// Ends the session at once, removes the socket's folder, frees.
void group_end(struct group **g);

// Something may have come since the last time this was asked.
bool group_woke(struct group *g);
// The next message of the group: 1, 0 when there is none. HELLO, BEAT and BYE are also kept here; what does not parse
// is logged and passed over. *m is valid until the next call.
int group_recv(struct group *g, struct msg *m);
// 0, or E_BUSY: its queue is full, or it is gone and group_check will say so.
int group_send(struct group *g, const struct msg *m, struct err *e);

bool group_is_known(const struct group *g); // it said HELLO
bool group_is_up(const struct group *g);    // it said HELLO and has not gone
// After all messages are taken: 0, or E_LOST with what became of it: ended, silent, stalled, never called. E_INPUT: it
// ended because of its weights or flags (a busy machine may tell that before its FAILED is here).
int group_check(struct group *g, struct err *e);
// It has nothing to do: its counter may stand still.
void group_rests(struct group *g);
// Two groups that are to make the same film: 0, or E_INPUT with what is different, build or weights. Who does not tell
// is taken for the same.
int group_differs(const struct group *g, const struct group *other, struct err *e);
// One of the daemon's own is of the daemon's version; or E_INPUT.
int group_version(const struct group *g, struct err *e);
// A guest is not wanted, for this reason: group_check says so, and it is told when it is ended.
void group_refuse(struct group *g, const struct err *why);
int group_ranks(const struct group *g);          // likewise
const char *group_layout(const struct group *g); // its layout class, once it is known
bool group_has_ended(const struct group *g);
bool group_is_guest(const struct group *g);
// For people: what it is and where.
const char *group_name(const struct group *g);

#endif
