// Ranks that work together: messages and collectives, one front door for every transport.
//
// Verbs are void, as ops are: between two agreements nothing may fail except by dying. A peer that is gone or late
// beyond the deadline is a fault that sticks to this rank's end of the world and to every communicator split from it;
// from then on verbs do nothing, and comm_agree (once per step) or comm_check tells. Errors of a rank's own work and
// cancel travel by comm_agree, so that all ranks leave together: a rank with an error still takes part in it.
//
// All ranks of a communicator call the same collectives in the same order. Buffers are plain bytes in the transport's
// memory (host, or the device for NCCL). A call that starts something returns a ticket; its buffers must not be touched
// until comm_wait. One thread per rank.
#ifndef PARALLEL_COMM_H
#define PARALLEL_COMM_H

#include "kernels/tensor.h"
#include "proto/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct comm;
struct comm_ticket;
struct dev;

enum comm_verb {
    COMM_TRADE, // send, recv and groups of them
    COMM_BCAST,
    COMM_GATHER,
    COMM_ALL_GATHER,
    COMM_ALL_REDUCE,
    COMM_ALL_TO_ALL,
    COMM_BARRIER,
    COMM_AGREE,
    COMM_SPLIT,
    COMM_VERBS
};
const char *comm_verb_name(enum comm_verb v);

// ---- life

// The world by the name of its transport: "self" (this process alone), "mpi" (under mpirun; host memory). E_INPUT when
// this build lacks it. Threads as ranks: comm_thread.h. Devices: comm_nccl.h, over one of these.
int comm_open(struct comm **out, const char *transport, struct err *e);
// Collective. Ranks with the same colour form a communicator, in the order of (key, rank). The caller owns *out. In a
// dry run too: who belongs together is asked in earnest, since what is dry then needs a communicator to be dry in.
int comm_split(struct comm *c, struct comm **out, int colour, int key, struct err *e);
void comm_close(struct comm **c); // children first; the world last
// For a rank that gives up: frees the others from waiting for it, without being tidy. The caller exits next.
void comm_abort(struct comm *c);

int comm_rank(const struct comm *c);
int comm_size(const struct comm *c);
const char *comm_transport(const struct comm *c);
// How long a verb waits for its peers, from now on, in all communicators of this end. Default ten minutes.
void comm_set_deadline_ms(struct comm *c, int64_t ms);
int64_t comm_deadline_ms(const struct comm *c);
// Messages are counted and none is sent, in all communicators of this end: for timing a step without its wire.
void comm_set_dry(struct comm *c, bool dry);
// The same whenever this device runs dry. It must outlive the communicators, or be taken back with NULL.
void comm_follow(struct comm *c, const struct dev *d);

// The same ranks over the host's memory: `c` itself, or of a device transport the one that it was opened over.
struct comm *comm_host(struct comm *c);
// Tells a device transport of memory that messages will come from and go to, so that they need no copy between; once,
// when an arena is made. Forgotten before the memory goes. On the host it does nothing.
void comm_keep(struct comm *c, void *at, int64_t bytes);
void comm_forget(struct comm *c, const void *at);

// ---- faults

// 0, or E_LOST and the sentence of the fault. On a device transport this waits for what was enqueued.
int comm_check(struct comm *c, struct err *e);
// All ranks learn of the worst `code` (0 or E_*; when negative, *e says why) and of anybody's *cancel. Returns the code
// that all ranks agree on; *e then holds "rank 2: ..." of the lowest rank with that code (once, however often it is
// agreed on). `cancel` may be NULL.
int comm_agree(struct comm *c, int code, bool *cancel, struct err *e);

// ---- messages

struct comm_move {
    bool receive;
    int peer; // another rank of the communicator
    void *at; // not written when sending
    int64_t bytes;
};
// All of them under way at once; between two ranks they pair in order.
void comm_trade(struct comm *c, const struct comm_move *moves, int n);
void comm_send(struct comm *c, int to, const void *at, int64_t bytes);
void comm_recv(struct comm *c, int from, void *at, int64_t bytes);

// ---- collectives. Arrays of bytes have a number per rank; pieces lie in the order of ranks without gaps.

void comm_barrier(struct comm *c);
void comm_bcast(struct comm *c, int root, void *at, int64_t bytes);
// `all` is written on the root only.
void comm_gather(struct comm *c, int root, void *all, const void *mine, int64_t bytes);
void comm_gatherv(struct comm *c, int root, void *all, const void *mine, const int64_t *bytes);
// `mine` may be its own place in `all`.
void comm_all_gather(struct comm *c, void *all, const void *mine, int64_t bytes);
void comm_all_gatherv(struct comm *c, void *all, const void *mine, const int64_t *bytes);

enum comm_op { COMM_SUM, COMM_MAX, COMM_MIN };
// In place over `n` elements of F32, F64, I32 or I64. Every rank gets the same bits; on host transports the order of
// the sum is the order of ranks.
void comm_all_reduce(struct comm *c, void *at, int64_t n, enum dtype t, enum comm_op op);

// Piece j of `send` goes to rank j; piece j of `recv` comes from it. `runs` exchanges in one go: both buffers are
// [runs][ranks][bytes].
void comm_all_to_all(struct comm *c, void *recv, const void *send, int64_t bytes, int runs);
void comm_all_to_allv(struct comm *c, void *recv, const int64_t *recv_bytes, const void *send,
                      const int64_t *send_bytes);

// ---- under way while something else is computed

struct comm_ticket *comm_start_trade(struct comm *c, const struct comm_move *moves, int n);
struct comm_ticket *comm_start_all_gather(struct comm *c, void *all, const void *mine, int64_t bytes);
void comm_wait(struct comm_ticket **t);
// Lets transports without a helper thread move what is under way; cheap, call it between ops.
void comm_poll(struct comm *c);

// ---- counters: of this rank in this communicator; bytes to and from other ranks only

struct comm_count {
    int64_t calls, sent_bytes, received_bytes;
    int64_t wait_us; // spent in waiting
};
struct comm_count comm_counted(const struct comm *c, enum comm_verb v);
struct comm_count comm_counted_all(const struct comm *c);
void comm_count_reset(struct comm *c);

#endif
