// An order on its way from the link to every rank: what is said in it as one record, then its bulk, piece by piece.
//
// All ranks are one build (that is checked before), so a record of C is the same on all of them.
#include "worker/share.h"

#include <stdlib.h>
#include <string.h>

struct record {
    enum order_kind kind;
    uint64_t job;
    size_t n_bulk_bytes[MSG_BULK_MAX];
    union {
        struct msg_open open;
        struct msg_run run;
        char bye[256];
    };
};

enum { NO_LIMIT_MS = 1 << 30 };

static void record_of(struct record *to, const struct order *o)
{
    to->kind = o->kind;
    to->job = o->job;
    memcpy(to->n_bulk_bytes, o->n_bulk_bytes, sizeof to->n_bulk_bytes);
    if (o->kind == ORDER_OPEN) to->open = o->open;
    if (o->kind == ORDER_RUN) to->run = o->run;
    if (o->kind == ORDER_BYE) memcpy(to->bye, o->bye, sizeof to->bye);
}

static struct order *order_of(const struct record *from)
{
    struct order *o = calloc(1, sizeof *o);
    BUG_IF(!o, "no memory for an order");
    o->kind = from->kind;
    o->job = from->job;
    memcpy(o->n_bulk_bytes, from->n_bulk_bytes, sizeof o->n_bulk_bytes);
    if (o->kind == ORDER_OPEN) o->open = from->open;
    if (o->kind == ORDER_RUN) o->run = from->run;
    if (o->kind == ORDER_BYE) memcpy(o->bye, from->bye, sizeof o->bye);
    for (int i = 0; i < MSG_BULK_MAX; i++) {
        if (o->n_bulk_bytes[i] == 0) continue;
        o->bulk[i] = malloc(o->n_bulk_bytes[i]);
        BUG_IF(!o->bulk[i], "no memory for %zu bytes of an order", o->n_bulk_bytes[i]);
    }
    return o;
}

int share_order(const struct ranks *r, struct order **o, struct err *e)
{
    struct comm *c = ranks_comm(r);
    if (comm_size(c) == 1) return 0;
    struct record *record = calloc(1, sizeof *record); // its gaps go over the wire too
    BUG_IF(!record, "no memory for an order");
    if (*o) record_of(record, *o);
    int64_t patience = comm_deadline_ms(c);
    comm_set_deadline_ms(c, NO_LIMIT_MS);
    comm_bcast(c, 0, record, sizeof *record);
    comm_set_deadline_ms(c, patience);
    int rc = comm_check(c, e);
    if (rc == 0 && !*o) *o = order_of(record);
    for (int i = 0; i < MSG_BULK_MAX && rc == 0; i++)
        if (record->n_bulk_bytes[i]) comm_bcast(c, 0, (*o)->bulk[i], (int64_t)record->n_bulk_bytes[i]);
    free(record);
    return rc == 0 ? comm_check(c, e) : rc;
}
