// Wire messages: a codec frame and bulk parts. Input: the number of bulk parts (0..3), a 16-bit length of each, then
// the codec frame; bulk bytes are zeros, for only their sizes matter to the codec. What is accepted must survive a
// round trip: encoded again and decoded again it is the same message.
#include "proto/msg.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { BULK_PARTS = 4 };

static void round_trip(const struct msg *m)
{
    static struct msg back;
    void *bytes, *again;
    size_t n, n_again;
    struct err e = {0};
    msg_encode(m, &bytes, &n);
    int rc = msg_decode(&back, bytes, n, m->bulk, m->n_bulk, &e);
    BUG_IF(rc < 0, "%s was accepted, but not its own encoding: %s", msg_name(m->kind), e.text);
    msg_encode(&back, &again, &n_again);
    BUG_IF(n != n_again || memcmp(bytes, again, n) != 0, "%s changes from encoding to encoding", msg_name(m->kind));
    free(bytes);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const uint8_t zeros[65536];
    static struct msg m;
    struct msg_bulk bulk[BULK_PARTS];
    struct err e = {0};
    if (n < 1) return 0;
    int n_bulk = data[0] % BULK_PARTS;
    size_t at = 1 + 2 * (size_t)n_bulk;
    if (n < at) return 0;
    for (int i = 0; i < n_bulk; i++)
        bulk[i] = (struct msg_bulk){zeros, (size_t)data[1 + 2 * i] | (size_t)data[2 + 2 * i] << 8};
    int rc = msg_decode(&m, data + at, n - at, bulk, n_bulk, &e);
    if (rc < 0)
        fuzz_refused(rc, &e);
    else
        round_trip(&m);
    return 0;
}
