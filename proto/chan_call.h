// What a program that connects was told on its command line, as a channel needs it.
#ifndef PROTO_CHAN_CALL_H
#define PROTO_CHAN_CALL_H

#include "proto/chan.h"

struct chan_call {
    const char *endpoint, *key_file, *server_key;
    bool plain_tcp;
};

// Connects. E_INPUT: a key is missing, or is none; TCP without keys was not asked for.
int chan_call(struct chan **out, const struct chan_call *c, int64_t message_max, struct err *e);

#endif
