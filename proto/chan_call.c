// Beyond this machine a channel has keys, unless the user says by name that it has none: a forgotten flag must not send
// pictures of people through a network for all to see.
#include "proto/chan_call.h"

#include <string.h>

int chan_call(struct chan **out, const struct chan_call *c, int64_t message_max, struct err *e)
{
    struct chan_key own;
    struct chan_friend server;
    struct chan_options o = {.message_max = message_max};
    bool tcp = strncmp(c->endpoint, "tcp://", 6) == 0;
    if (!tcp && strncmp(c->endpoint, "ipc://", 6) != 0)
        return err_set(e, E_INPUT, "--connect: '%s' is no endpoint; write tcp://HOST:PORT or ipc:///PATH", c->endpoint);
    if (!tcp || (c->plain_tcp && !c->key_file)) return chan_connect_with(out, c->endpoint, &o, e);
    if (c->plain_tcp)
        return err_set(e, E_INPUT, "--key-file and --plain-tcp exclude each other; leave one of them out");
    if (!c->key_file || !c->server_key)
        return err_set(e, E_INPUT,
                       "%s lies beyond this machine: give --key-file FILE (longtake keygen makes one) and --server-key "
                       "FILE.pub, or --plain-tcp, with which all can be read on the way",
                       c->endpoint);
    int rc = chan_key_read(&own, c->key_file, e);
    if (rc >= 0) rc = chan_friend_read(&server, c->server_key, e);
    if (rc < 0) return rc;
    o.own = &own;
    o.server = server.open;
    return chan_connect_with(out, c->endpoint, &o, e);
}
