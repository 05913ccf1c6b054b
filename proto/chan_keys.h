// Keys of channels beyond this machine: each end has a pair, and knows the other's public half (CURVE: Curve25519).
//
// A key file holds the pair, is its owner's alone (mode 0600) and has a second file beside it, NAME.pub, with one line
// "NAME KEY". A list of those who may connect is such lines in a file.
#ifndef PROTO_CHAN_KEYS_H
#define PROTO_CHAN_KEYS_H

#include "proto/base/err.h"

#include <stdint.h>

enum { CHAN_KEY_BYTES = 32, CHAN_NAME_SIZE = 64 };

struct chan_key {
    char name[CHAN_NAME_SIZE];
    uint8_t open[CHAN_KEY_BYTES]; // the public half
    uint8_t secret[CHAN_KEY_BYTES];
};
struct chan_friend {
    char name[CHAN_NAME_SIZE];
    uint8_t open[CHAN_KEY_BYTES];
};
struct chan_friends {
    struct chan_friend *v;
    int n;
};

// A new pair. `name`: letters, digits, dots, dashes; for people.
int chan_key_make(struct chan_key *k, const char *name, struct err *e);
// Writes PATH and PATH.pub, on disk when it returns. E_INPUT: one of them is there.
int chan_key_write(const struct chan_key *k, const char *path, struct err *e);
// E_INPUT: no key file, or one that others than its owner may read.
int chan_key_read(struct chan_key *k, const char *path, struct err *e);
// The one line of a .pub file.
int chan_friend_read(struct chan_friend *f, const char *path, struct err *e);
// Lines "NAME KEY"; empty ones and ones that begin with "# " are passed over. The caller frees `v`.
int chan_friends_read(struct chan_friends *f, const char *path, struct err *e);
// The name of a key, or NULL.
const char *chan_friend_name(const struct chan_friends *f, const uint8_t open[CHAN_KEY_BYTES]);

#endif
