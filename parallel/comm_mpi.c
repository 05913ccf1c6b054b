// Messages by MPI: non-blocking calls only, completed by MPI_Testsome under our own deadline.
//
// MPI's own collectives are not used: a rank inside one cannot be called back, and their order of sums is not ours.
// The context of a communicator rides as the tag, so that one MPI communicator carries all of them; two messages of
// one pair and context stay in order because MPI never lets them overtake. Lengths are `int` in MPI: longer messages
// go in pieces.
//
// The trap: nothing moves while nobody calls MPI. A long message under way needs comm_poll between ops.
#include "parallel/comm_mpi.h"

#include "parallel/comm_table.h"

#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 30, SPIN_TURNS = 200, RESTS = 500, REST_US = 30 };

struct requests { // of a ticket
    int n, room;
    MPI_Request *open;
    int *index; // MPI_Testsome writes here
    int *peer;  // world rank of each
};

static int mpi_fault(struct comm_end *end, const char *what, int code)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(code, text, &n);
    return comm_fault(end, "rank %d: %s: %s", end->rank, what, text);
}

static struct requests *requests_of(struct comm_ticket *t)
{
    if (!t->state) t->state = calloc(1, sizeof(struct requests));
    BUG_IF(!t->state, "no memory for messages");
    return t->state;
}

static void requests_grow(struct requests *r)
{
    if (r->n < r->room) return;
    r->room = r->room ? 2 * r->room : 16;
    r->open = realloc(r->open, (size_t)r->room * sizeof *r->open);
    r->index = realloc(r->index, (size_t)r->room * sizeof *r->index);
    r->peer = realloc(r->peer, (size_t)r->room * sizeof *r->peer);
    BUG_IF(!r->open || !r->index || !r->peer, "no memory for %d messages", r->room);
}

static void mpi_post(struct comm_ticket *t)
{
    struct requests *r = requests_of(t);
    r->n = 0;
    for (int i = 0; i < t->n; i++) {
        struct comm_part *p = &t->parts[i];
        for (int64_t at = 0; at < p->bytes; at += PIECE_BYTES) {
            int n = (int)(p->bytes - at < PIECE_BYTES ? p->bytes - at : PIECE_BYTES);
            char *bytes = (char *)p->at + at;
            requests_grow(r);
            int rc = p->receive ? MPI_Irecv(bytes, n, MPI_BYTE, p->world, p->context, MPI_COMM_WORLD, &r->open[r->n])
                                : MPI_Isend(bytes, n, MPI_BYTE, p->world, p->context, MPI_COMM_WORLD, &r->open[r->n]);
            if (rc != MPI_SUCCESS) {
                mpi_fault(t->comm->end, comm_verb_name(t->verb), rc);
                return;
            }
            r->peer[r->n++] = p->world;
        }
    }
}

// MPI_Testsome turns finished requests into null ones; MPI_UNDEFINED says that none is left.
static int mpi_test(struct comm_ticket *t, int64_t wait_us)
{
    struct requests *r = requests_of(t);
    int64_t until = wait_us > 0 ? comm_now_us() + wait_us : 0;
    for (int turn = 0;; turn++) {
        int n_done = 0, rc = MPI_Testsome(r->n, r->open, &n_done, r->index, MPI_STATUSES_IGNORE);
        if (rc != MPI_SUCCESS) return mpi_fault(t->comm->end, comm_verb_name(t->verb), rc);
        if (n_done == MPI_UNDEFINED) return 1;
        if (n_done > 0) continue;
        if (wait_us == 0 || comm_now_us() > until) return 0;
        if (turn < SPIN_TURNS)
            sched_yield();
        else
            usleep((useconds_t)(wait_us / RESTS > REST_US ? wait_us / RESTS : REST_US));
    }
}

static int mpi_late(const struct comm_ticket *t)
{
    const struct requests *r = t->state;
    int i = 0;
    while (i < r->n - 1 && r->open[i] == MPI_REQUEST_NULL) i++;
    return r->peer[i];
}

// The messages are left to MPI: cancelling may hang, and after a fault this process ends.
static void mpi_drop(struct comm_ticket *t) { requests_of(t)->n = 0; }

static void mpi_poll(struct comm *c)
{
    int flag = 0;
    int rc = MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
    if (rc != MPI_SUCCESS) mpi_fault(c->end, "poll", rc);
}

static void mpi_copy(struct comm *c, void *to, const void *from, int64_t bytes)
{
    (void)c;
    memmove(to, from, (size_t)bytes);
}

static void mpi_ticket_free(struct comm_ticket *t)
{
    struct requests *r = t->state;
    if (!r) return;
    free(r->open);
    free(r->index);
    free(r->peer);
    free(r);
}

static void mpi_abort(struct comm *c)
{
    (void)c;
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void mpi_close(struct comm *c)
{
    if (c->root && c->end->fault.code == 0) MPI_Finalize();
}

static const struct comm_table mpi_table = {.name = "mpi",
                                            .copy = mpi_copy,
                                            .post = mpi_post,
                                            .test = mpi_test,
                                            .late = mpi_late,
                                            .drop = mpi_drop,
                                            .poll = mpi_poll,
                                            .ticket_free = mpi_ticket_free,
                                            .abort = mpi_abort,
                                            .close = mpi_close};

int comm_mpi_open(struct comm **out, struct err *e)
{
    int level = 0, rank = 0, n = 0;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS)
        return err_set(e, E_FATAL, "MPI does not start; run this program under mpirun");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    *out = comm_world_new(&mpi_table, rank, n, NULL);
    return *out ? 0 : err_set(e, E_FATAL, "no memory for a communicator");
}
