// NCCL behind the table, with no logic of its own: what is proven on threads and MPI is what runs here.
//
// Every communicator has a stream for its wire, ahead of the ops' in priority: a message that could go and waits for a
// kernel's end makes two ranks wait. A group of messages waits for an event of the compute stream, and the
// compute stream waits for the event that follows the group: started and waited for are the same two events as a call
// that blocks. Communicators are non-blocking: a call may answer "in progress", and is polled under the deadline, so
// that no thread ever sits inside NCCL.
//
// The trap: an error sticks. A communicator at fault can only be aborted, and aborting it frees this rank alone.
#include "parallel/comm_nccl.h"

#include "parallel/comm_table.h"
#include "proto/base/log.h"

#include <cuda_runtime.h>
#include <nccl.h>
#include <stdlib.h>
#include <unistd.h>

enum { REST_US = 30, KEPT_MAX = 8 };

struct nccl { // of a communicator
    ncclComm_t comm;
    struct { // memory that NCCL knows
        const void *at;
        void *handle;
    } kept[KEPT_MAX];
    cudaStream_t compute, wire;
    cudaEvent_t ready;
    bool aborted;
};

static struct nccl *nccl_of(const struct comm *c) { return c->state; }

static void nccl_abort(struct comm *c)
{
    struct nccl *n = nccl_of(c);
    if (!n->aborted && n->comm) ncclCommAbort(n->comm);
    n->aborted = true;
}

static bool cuda_ok(struct comm *c, cudaError_t rc)
{
    if (rc == cudaSuccess) return true;
    comm_fault(c->end, "rank %d: the device: %s", c->end->rank, cudaGetErrorString(rc));
    nccl_abort(c);
    return false;
}

// Waits while NCCL says "in progress".
static bool nccl_ok(struct comm *c, ncclResult_t rc)
{
    int64_t until = comm_now_us() + c->end->deadline_ms * 1000;
    while (rc == ncclInProgress && comm_now_us() < until) {
        ncclResult_t asked = ncclCommGetAsyncError(nccl_of(c)->comm, &rc);
        if (asked != ncclSuccess) rc = asked;
        if (rc == ncclInProgress) usleep(REST_US);
    }
    if (rc == ncclSuccess) return true;
    comm_fault(c->end, "rank %d: NCCL: %s", c->end->rank,
               rc == ncclInProgress ? "no progress within the deadline" : ncclGetErrorString(rc));
    nccl_abort(c);
    return false;
}

// ---- the two events

static bool wire_begin(struct comm *c)
{
    struct nccl *n = nccl_of(c);
    return cuda_ok(c, cudaEventRecord(n->ready, n->compute)) && cuda_ok(c, cudaStreamWaitEvent(n->wire, n->ready, 0));
}

static void wire_end(struct comm_ticket *t)
{
    struct comm *c = t->comm;
    if (!t->state && !cuda_ok(c, cudaEventCreateWithFlags((cudaEvent_t *)&t->state, cudaEventDisableTiming))) return;
    cuda_ok(c, cudaEventRecord(t->state, nccl_of(c)->wire));
}

static int nccl_test(struct comm_ticket *t, int64_t wait_us)
{
    (void)wait_us;
    cuda_ok(t->comm, cudaStreamWaitEvent(nccl_of(t->comm)->compute, t->state, 0));
    return t->comm->end->fault.code < 0 ? E_LOST : 1;
}

static void nccl_drop(struct comm_ticket *t) { nccl_abort(t->comm); }
static int nccl_late(const struct comm_ticket *t) { return t->parts[0].world; }

// ---- verbs

static void nccl_post(struct comm_ticket *t)
{
    struct comm *c = t->comm;
    struct nccl *n = nccl_of(c);
    if (!wire_begin(c) || !nccl_ok(c, ncclGroupStart())) return;
    for (int i = 0; i < t->n; i++) {
        struct comm_part *p = &t->parts[i];
        ncclResult_t rc = p->receive ? ncclRecv(p->at, (size_t)p->bytes, ncclChar, p->peer, n->comm, n->wire)
                                     : ncclSend(p->at, (size_t)p->bytes, ncclChar, p->peer, n->comm, n->wire);
        if (!nccl_ok(c, rc == ncclInProgress ? ncclSuccess : rc)) return; // the group's end waits
    }
    if (nccl_ok(c, ncclGroupEnd())) wire_end(t);
}

// A whole collective between the two events.
static void whole(struct comm *c, enum comm_verb v, ncclResult_t rc)
{
    struct comm_ticket *t = comm_ticket_new(c, v);
    if (nccl_ok(c, rc)) wire_end(t);
    t->posted = c->end->fault.code == 0;
    comm_wait(&t);
}

static void nccl_bcast(struct comm *c, int root, void *at, int64_t bytes)
{
    comm_count_add(c, COMM_BCAST, c->rank == root ? bytes : 0, c->rank == root ? 0 : bytes);
    if (comm_idle(c) || !wire_begin(c)) return;
    struct nccl *n = nccl_of(c);
    whole(c, COMM_BCAST, ncclBroadcast(at, at, (size_t)bytes, ncclChar, root, n->comm, n->wire));
}

static void nccl_all_reduce(struct comm *c, void *at, int64_t count, enum dtype t, enum comm_op op)
{
    static const ncclRedOp_t ops[] = {[COMM_SUM] = ncclSum, [COMM_MAX] = ncclMax, [COMM_MIN] = ncclMin};
    ncclDataType_t type = t == DT_F32 ? ncclFloat : t == DT_F64 ? ncclDouble : t == DT_I32 ? ncclInt : ncclInt64;
    int64_t bytes = 2 * (c->n - 1) * count * dtype_size(t) / c->n;
    comm_count_add(c, COMM_ALL_REDUCE, bytes, bytes);
    if (comm_idle(c) || !wire_begin(c)) return;
    struct nccl *n = nccl_of(c);
    whole(c, COMM_ALL_REDUCE, ncclAllReduce(at, at, (size_t)count, type, ops[op], n->comm, n->wire));
}

static void nccl_all_gather(struct comm_ticket *t, void *all, const void *mine, int64_t bytes)
{
    struct comm *c = t->comm;
    struct nccl *n = nccl_of(c);
    if (!wire_begin(c)) return;
    if (nccl_ok(c, ncclAllGather(mine, all, (size_t)bytes, ncclChar, n->comm, n->wire))) wire_end(t);
    t->posted = c->end->fault.code == 0;
}

static void nccl_copy(struct comm *c, void *to, const void *from, int64_t bytes)
{
    cuda_ok(c, cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, nccl_of(c)->compute));
}

// Both streams drained, or a fault: NCCL's errors come here and nowhere else.
static void nccl_sync(struct comm *c)
{
    struct nccl *n = nccl_of(c);
    int64_t until = comm_now_us() + c->end->deadline_ms * 1000;
    for (;;) {
        ncclResult_t state = ncclSuccess;
        if (!nccl_ok(c, ncclCommGetAsyncError(n->comm, &state))) return;
        if (state != ncclInProgress && !nccl_ok(c, state)) return;
        cudaError_t wire = cudaStreamQuery(n->wire), compute = cudaStreamQuery(n->compute);
        if (wire == cudaSuccess && compute == cudaSuccess) return;
        if (wire != cudaErrorNotReady && !cuda_ok(c, wire)) return;
        if (compute != cudaErrorNotReady && !cuda_ok(c, compute)) return;
        if (comm_now_us() > until) {
            comm_fault(c->end, "rank %d waited %lld ms for its device and its peers", c->end->rank,
                       (long long)c->end->deadline_ms);
            nccl_abort(c);
            return;
        }
        usleep(REST_US);
    }
}

// ---- known memory: without it messages are slower and no less right, so a refusal is told and no more

static void nccl_keep(struct comm *c, void *at, int64_t bytes)
{
    struct nccl *n = nccl_of(c);
    int i = 0;
    while (i < KEPT_MAX && n->kept[i].at) i++;
    ncclResult_t rc =
        i < KEPT_MAX ? ncclCommRegister(n->comm, at, (size_t)bytes, &n->kept[i].handle) : ncclInvalidUsage;
    if (rc == ncclSuccess)
        n->kept[i].at = at;
    else
        log_warn("nccl.register", "mb=%lld text=\"%s\"", (long long)(bytes >> 20), ncclGetErrorString(rc));
}

static void nccl_forget(struct comm *c, const void *at)
{
    struct nccl *n = nccl_of(c);
    for (int i = 0; i < KEPT_MAX; i++) {
        if (!n->kept[i].at || n->kept[i].at != at) continue;
        if (!n->aborted) ncclCommDeregister(n->comm, n->kept[i].handle);
        n->kept[i].at = NULL;
    }
}

// ---- life

static void nccl_ticket_free(struct comm_ticket *t)
{
    if (t->state) cudaEventDestroy(t->state);
}

static void nccl_close(struct comm *c)
{
    struct nccl *n = nccl_of(c);
    if (!n) return;
    for (int i = 0; i < KEPT_MAX; i++)
        if (n->kept[i].at) nccl_forget(c, n->kept[i].at);
    if (!n->aborted && n->comm && nccl_ok(c, ncclCommFinalize(n->comm))) ncclCommDestroy(n->comm);
    if (n->ready) cudaEventDestroy(n->ready);
    if (n->wire) cudaStreamDestroy(n->wire);
    free(n);
}

static int open_over(struct comm *c, cudaStream_t compute, struct err *e)
{
    struct nccl *n = calloc(1, sizeof *n);
    if (!n) return err_set(e, E_FATAL, "no memory for a communicator");
    c->state = n;
    n->compute = compute;
    ncclUniqueId id;
    ncclResult_t rc = c->rank == 0 ? ncclGetUniqueId(&id) : ncclSuccess;
    struct err own = {0};
    if (rc != ncclSuccess) err_set(&own, E_FATAL, "NCCL gives no id: %s", ncclGetErrorString(rc));
    if (comm_agree(c->host, own.code, NULL, &own) < 0) return err_set(e, own.code, "%s", own.text);
    comm_bcast(c->host, 0, &id, sizeof id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    int least = 0, first = 0;
    bool ok = cuda_ok(c, cudaDeviceGetStreamPriorityRange(&least, &first)) &&
              cuda_ok(c, cudaStreamCreateWithPriority(&n->wire, cudaStreamNonBlocking, first)) &&
              cuda_ok(c, cudaEventCreateWithFlags(&n->ready, cudaEventDisableTiming)) &&
              nccl_ok(c, ncclCommInitRankConfig(&n->comm, c->n, id, c->rank, &config));
    return ok ? 0 : err_set(e, E_LOST, "%s", c->end->fault.text);
}

static int nccl_open_child(struct comm *child, struct comm *parent, struct err *e)
{
    return open_over(child, nccl_of(parent)->compute, e);
}

static const struct comm_table nccl_table = {.name = "nccl",
                                             .copy = nccl_copy,
                                             .post = nccl_post,
                                             .test = nccl_test,
                                             .late = nccl_late,
                                             .drop = nccl_drop,
                                             .sync = nccl_sync,
                                             .ticket_free = nccl_ticket_free,
                                             .abort = nccl_abort,
                                             .close = nccl_close,
                                             .open_child = nccl_open_child,
                                             .keep = nccl_keep,
                                             .forget = nccl_forget,
                                             .bcast = nccl_bcast,
                                             .all_reduce = nccl_all_reduce,
                                             .all_gather = nccl_all_gather};

int comm_nccl_open(struct comm **out, struct comm *host, void *stream, struct err *e)
{
    struct comm *c = NULL;
    int rc = comm_split(host, &c, 0, comm_rank(host), e);
    if (rc < 0) return rc;
    struct comm *device = calloc(1, sizeof *device);
    int *world = calloc((size_t)host->n, sizeof *world);
    BUG_IF(!device || !world, "no memory for a communicator");
    for (int i = 0; i < host->n; i++) world[i] = host->world[i];
    *device = (struct comm){.table = &nccl_table,
                            .end = host->end,
                            .host = c,
                            .rank = host->rank,
                            .n = host->n,
                            .context = c->context,
                            .world = world};
    rc = open_over(device, stream, e);
    if (rc < 0)
        comm_close(&device);
    else
        *out = device;
    return rc;
}
