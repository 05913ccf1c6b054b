// The ways into the daemon from other machines: which endpoints, and with which keys.
//
// Life: doors_read (zeroed before), doors_free. All is refused here that would let somebody in unasked.
#ifndef DAEMON_DOORS_H
#define DAEMON_DOORS_H

#include "daemon/config.h"
#include "proto/chan.h"

struct doors {
    const char *listen, *join; // the configuration's
    struct chan_key key;
    bool keyed;
    struct chan_friends clients, workers;
};

// E_INPUT: no endpoint, no key for one beyond this machine, or a key file that is none.
int doors_read(struct doors *d, const struct config *c, struct err *e);
void doors_free(struct doors *d);
// What a channel bound to one of them needs.
struct chan_options doors_client_options(const struct doors *d);
struct chan_options doors_worker_options(const struct doors *d);

#endif
