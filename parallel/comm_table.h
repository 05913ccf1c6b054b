// Inside of comm only: what a transport fills in, and the communicator it fills it for.
//
// A transport moves groups of messages. All else is made of that in comm_verbs.c, once; a transport that has its own
// collectives (NCCL) overrides them in the table.
#ifndef PARALLEL_COMM_TABLE_H
#define PARALLEL_COMM_TABLE_H

#include "parallel/comm.h"

// One message under way. The fields from `next` on belong to the transport.
struct comm_part {
    bool receive;
    int peer, world; // the other rank, in the communicator and in the world
    void *at;
    int64_t bytes;
    int context;
    struct comm_part *next;
    int owner; // world rank of this end
    int state;
};

struct comm_ticket {
    struct comm *comm;
    enum comm_verb verb;
    struct comm_part *parts; // [n] of [room]
    int n, room;
    bool posted;
    void *state;              // the transport's, kept when the ticket is used again
    struct comm_ticket *next; // spare ones
};

struct comm_table {
    const char *name;
    void (*copy)(struct comm *c, void *to, const void *from, int64_t bytes); // within this rank's memory
    void (*post)(struct comm_ticket *t);                                     // starts all parts
    // 1: all parts are done; 0: not yet, after waiting at most about wait_us; E_LOST: never, and end->fault says why.
    int (*test)(struct comm_ticket *t, int64_t wait_us);
    int (*late)(const struct comm_ticket *t);   // world rank of a peer that is not done
    void (*drop)(struct comm_ticket *t);        // forgets the parts that are not done
    void (*poll)(struct comm *c);               // or NULL
    void (*sync)(struct comm *c);               // waits for what was enqueued; or NULL
    void (*ticket_free)(struct comm_ticket *t); // its state; or NULL
    void (*abort)(struct comm *c);              // or NULL
    void (*close)(struct comm *c);              // the communicator's state, and the end's for the root; or NULL
    int (*open_child)(struct comm *child, struct comm *parent, struct err *e); // after a split; or NULL
    void (*keep)(struct comm *c, void *at, int64_t bytes);                     // or NULL, with forget
    void (*forget)(struct comm *c, const void *at);
    // Overrides; NULL: made of messages.
    void (*bcast)(struct comm *c, int root, void *at, int64_t bytes);
    void (*all_reduce)(struct comm *c, void *at, int64_t n, enum dtype t, enum comm_op op);
    void (*all_gather)(struct comm_ticket *t, void *all, const void *mine, int64_t bytes); // posts
};

// One rank's end of a world, shared by all communicators split from it.
struct comm_end {
    int rank, n;
    int n_contexts;
    int64_t deadline_ms;
    bool dry;
    const struct dev *dev; // whose dry runs count too, or NULL
    struct err fault;      // sticky
    void *state;           // the transport's
};

struct comm {
    const struct comm_table *table;
    struct comm_end *end;
    struct comm *host; // a device transport: the same ranks over the host, owned; else NULL
    bool root;         // owns its end
    int rank, n;
    int context; // tells messages of different communicators apart
    int *world;  // [n] world rank of each member
    void *state; // the transport's
    struct comm_count count[COMM_VERBS];
    struct comm_ticket *spare;
    char *scratch;
    int64_t n_scratch;
};

// A world of `n` ranks with this one at `rank`; `end` is zeroed but for what the transport sets. NULL: no memory.
struct comm *comm_world_new(const struct comm_table *table, int rank, int n, void *end_state);
// Records a fault; the first one stays. Returns E_LOST.
int comm_fault(struct comm_end *end, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool comm_dry(const struct comm *c);
bool comm_idle(const struct comm *c); // dry or at fault: nothing is sent
int64_t comm_now_us(void);            // the real clock, whatever a test sets

struct comm_ticket *comm_ticket_new(struct comm *c, enum comm_verb v);
void comm_ticket_add(struct comm_ticket *t, bool receive, int peer, const void *at, int64_t bytes);
void comm_ticket_post(struct comm_ticket *t); // counts and starts
void comm_count_add(struct comm *c, enum comm_verb v, int64_t sent, int64_t received);
void *comm_scratch(struct comm *c, int64_t bytes); // until the next call

#endif
