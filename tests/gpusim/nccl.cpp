// Stand-in for NCCL: ranks are processes of one machine, and a communicator is a piece of shared memory with a pipe
// from every rank to every other. The id is its name.
//
// A call only notes what is to be done; the stream does it when something waits for it, as late as the rules allow, so
// ops that use what they did not wait for find it missing. All messages of a group move together, a little of each at a
// time, so no order of sends and receives can block; but what is not in a group is its own, as with the real library.
// A rank that aborts is seen by the others at their next try: their communicator has a remote error then, which only
// ncclCommGetAsyncError tells, and its work ends undone.
//
// Checked as the real library would: device memory that was handed out, ranks in range, no message to oneself outside
// of copies, no call on a communicator that is finalised, aborted or not yet connected, equal counts on both sides.
#include "tests/gpusim/parts.h"

#include <nccl.h>

#include <atomic>
#include <errno.h>
#include <fcntl.h>
#include <memory>
#include <set>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <vector>

enum { RANKS_MAX = 8, PIPE = 64 << 10, PATIENCE_S = 60 };

// One direction between two ranks: numbers count all bytes ever.
struct sim_pipe {
    std::atomic<uint64_t> written, read;
    char bytes[PIPE];
};

struct sim_room {
    std::atomic<int> joined, aborted;
    struct sim_pipe pipe[RANKS_MAX][RANKS_MAX]; // from, to
};

struct sim_nccl {
    char name[64];
    struct sim_room *room;
    int n, rank;
    bool finalized;
    ncclResult_t state;
    std::set<const void *> kept;
};

// One message of a group. It begins with its length, so that unequal counts are found.
struct message {
    bool receive;
    int peer;
    char *at;
    uint64_t bytes, moved; // with the length's own
    uint64_t length;
};

static struct {
    int depth;
    sim_nccl *comm;
    cudaStream_t stream;
    std::vector<message> messages;
} group;

static bool is_ready(const sim_nccl *c)
{
    return c && !c->finalized && c->state == ncclSuccess && c->room->joined == c->n;
}

static int size_of(ncclDataType_t t) { return t == ncclChar ? 1 : t == ncclInt || t == ncclFloat ? 4 : 8; }

const char *ncclGetErrorString(ncclResult_t code)
{
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "a remote process exited or there was a network error",
                                        "in progress"};
    return texts[code];
}

// ---- life

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int n;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/gpusim-%d-%d-%lld", (int)getpid(), n++, (long long)time(nullptr));
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int n, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    if (config->magic != NCCL_CONFIG_MAGIC || config->blocking != 0 || n < 1 || n > RANKS_MAX || rank < 0 || rank >= n)
        return ncclInvalidArgument;
    int fd = shm_open(id.internal, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(sim_room)) < 0) return ncclSystemError;
    void *p = mmap(nullptr, sizeof(sim_room), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return ncclSystemError;
    sim_nccl *c = new sim_nccl{};
    snprintf(c->name, sizeof c->name, "%.63s", id.internal);
    c->room = (sim_room *)p;
    c->n = n;
    c->rank = rank;
    if (++c->room->joined == n) shm_unlink(c->name); // all have it open
    *out = c;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state)
{
    if (c->state == ncclSuccess && c->room->aborted) c->state = ncclRemoteError;
    *state = c->state != ncclSuccess ? c->state : c->room->joined < c->n ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

static void leave(sim_nccl *c)
{
    if (c->room->joined < c->n) shm_unlink(c->name);
    munmap(c->room, sizeof *c->room);
    delete c;
}

ncclResult_t ncclCommFinalize(ncclComm_t c)
{
    if (!is_ready(c)) return ncclInvalidUsage;
    c->finalized = true;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    if (!c->finalized || !c->kept.empty()) return ncclInvalidUsage;
    leave(c);
    return ncclSuccess;
}

// The memory stays: work of a stream may still look at it, to find that it is over.
ncclResult_t ncclCommAbort(ncclComm_t c)
{
    c->room->aborted = 1;
    c->state = ncclRemoteError;
    return ncclSuccess;
}

ncclResult_t ncclCommRegister(const ncclComm_t c, void *at, size_t bytes, void **handle)
{
    if (!is_ready(c) || bytes == 0 || !sim_is_device(at) || !sim_is_device((char *)at + bytes - 1) ||
        !c->kept.insert(at).second)
        return ncclInvalidArgument;
    *handle = at;
    return ncclSuccess;
}

ncclResult_t ncclCommDeregister(const ncclComm_t c, void *handle)
{
    return c->kept.erase(handle) == 1 ? ncclSuccess : ncclInvalidArgument;
}

// ---- moving

// As much of a message as goes now.
static void move_some(sim_nccl *c, message *m)
{
    sim_pipe *p = m->receive ? &c->room->pipe[m->peer][c->rank] : &c->room->pipe[c->rank][m->peer];
    while (m->moved < sizeof m->length + m->bytes) {
        uint64_t w = p->written, r = p->read, able = m->receive ? w - r : PIPE - (w - r);
        bool head = m->moved < sizeof m->length;
        uint64_t at = head ? m->moved : m->moved - sizeof m->length, left = (head ? sizeof m->length : m->bytes) - at;
        char *mine = (head ? (char *)&m->length : m->at) + at;
        uint64_t here = (m->receive ? r : w) % PIPE, some = left < able ? left : able;
        if (some > PIPE - here) some = PIPE - here;
        if (some == 0) return;
        if (m->receive)
            memcpy(mine, p->bytes + here, some);
        else
            memcpy(p->bytes + here, mine, some);
        (m->receive ? p->read : p->written) += some;
        m->moved += some;
        if (m->receive && m->moved == sizeof m->length && m->length != m->bytes)
            sim_fault("NCCL: rank %d sends %llu bytes where rank %d expects %llu", m->peer,
                      (unsigned long long)m->length, c->rank, (unsigned long long)m->bytes);
    }
}

// Messages as work of a stream: done when all have moved, or at once when the communicator is lost.
struct moving {
    sim_nccl *comm;
    std::vector<message> messages;
    bool begun;
    int64_t until;
    std::function<void()> after;

    void begin()
    {
        begun = true;
        until = time(nullptr) + PATIENCE_S;
        for (message &m : messages) {
            const char *who = m.receive ? "NCCL writes" : "NCCL reads";
            void *at = m.receive ? sim_host_write(m.at, (int64_t)m.bytes, who)
                                 : (void *)sim_host_read(m.at, (int64_t)m.bytes, who);
            m.at = (char *)at;
            m.length = m.bytes;
        }
    }

    bool turn()
    {
        if (comm->room->aborted || comm->state != ncclSuccess || sim_fault_text()[0]) return true;
        if (!begun) begin();
        bool done = true;
        for (size_t i = 0; i < messages.size() && !sim_fault_text()[0]; i++) {
            // Messages of one pipe go one after the other.
            bool first = true;
            for (size_t k = 0; k < i; k++)
                first = first && (messages[k].receive != messages[i].receive || messages[k].peer != messages[i].peer ||
                                  messages[k].moved == sizeof messages[k].length + messages[k].bytes);
            if (first) move_some(comm, &messages[i]);
            done = done && messages[i].moved == sizeof messages[i].length + messages[i].bytes;
        }
        if (done && after) after();
        if (!done && time(nullptr) > until) {
            comm->state = ncclRemoteError;
            return true;
        }
        if (!done) usleep(20);
        return done;
    }
};

static void enqueue(sim_nccl *c, cudaStream_t s, std::vector<message> messages, std::function<void()> after = {})
{
    auto work = std::make_shared<moving>(moving{c, std::move(messages), false, 0, std::move(after)});
    sim_later(s, [=] { return work->turn(); });
}

static message message_of(bool receive, int peer, const void *at, uint64_t bytes)
{
    return {receive, peer, (char *)at, bytes, 0, bytes};
}

// ---- calls

ncclResult_t ncclGroupStart(void)
{
    group.depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (group.depth-- < 1) return ncclInvalidUsage;
    if (group.depth > 0 || group.messages.empty()) return ncclSuccess;
    enqueue(group.comm, group.stream, std::move(group.messages));
    group.messages.clear();
    group.comm = nullptr;
    return ncclSuccess;
}

static ncclResult_t add(bool receive, const void *at, size_t n, ncclDataType_t t, int peer, ncclComm_t c,
                        cudaStream_t s)
{
    if (!is_ready(c)) return ncclInvalidUsage;
    if (peer < 0 || peer >= c->n || !s || !sim_is_device(at)) return ncclInvalidArgument;
    if (group.depth == 0) {
        enqueue(c, s, {message_of(receive, peer, at, n * (size_t)size_of(t))});
        return ncclSuccess;
    }
    if (group.comm && (group.comm != c || group.stream != s)) return ncclInvalidUsage; // ours never mix
    group.comm = c;
    group.stream = s;
    group.messages.push_back(message_of(receive, peer, at, n * (size_t)size_of(t)));
    return ncclInProgress;
}

ncclResult_t ncclSend(const void *at, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s)
{
    return add(false, at, n, t, peer, c, s);
}

ncclResult_t ncclRecv(void *at, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s)
{
    return add(true, at, n, t, peer, c, s);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t t, int root, ncclComm_t c,
                           cudaStream_t s)
{
    if (!is_ready(c) || group.depth > 0) return ncclInvalidUsage;
    if (root < 0 || root >= c->n || from != to || !sim_is_device(to) || !s) return ncclInvalidArgument;
    std::vector<message> all;
    size_t bytes = n * (size_t)size_of(t);
    if (c->rank != root) all.push_back(message_of(true, root, to, bytes));
    for (int i = 0; i < c->n && c->rank == root; i++)
        if (i != root) all.push_back(message_of(false, i, from, bytes));
    enqueue(c, s, std::move(all));
    return ncclSuccess;
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t n, ncclDataType_t t, ncclComm_t c, cudaStream_t s)
{
    if (!is_ready(c) || group.depth > 0) return ncclInvalidUsage;
    if (!sim_is_device(from) || !sim_is_device(to) || !s) return ncclInvalidArgument;
    std::vector<message> all;
    size_t bytes = n * (size_t)size_of(t);
    for (int i = 0; i < c->n; i++) {
        if (i == c->rank) continue;
        all.push_back(message_of(false, i, from, bytes));
        all.push_back(message_of(true, i, (char *)to + (size_t)i * bytes, bytes));
    }
    char *own = (char *)to + (size_t)c->rank * bytes;
    enqueue(c, s, std::move(all), [=] {
        const void *src = sim_host_read(from, (int64_t)bytes, "NCCL reads");
        void *dst = sim_host_write(own, (int64_t)bytes, "NCCL writes");
        if (src && dst) memmove(dst, src, bytes);
    });
    return ncclSuccess;
}

template <class T> static void fold(T *to, const T *from, size_t n, ncclRedOp_t op)
{
    for (size_t i = 0; i < n; i++)
        to[i] = op == ncclSum   ? to[i] + from[i]
                : op == ncclMax ? (to[i] > from[i] ? to[i] : from[i])
                                : (to[i] < from[i] ? to[i] : from[i]);
}

// Everybody's values to everybody, then added up in the order of ranks.
ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t s)
{
    if (!is_ready(c) || group.depth > 0) return ncclInvalidUsage;
    if (from != to || !sim_is_device(to) || !s || op == ncclProd || t == ncclChar) return ncclInvalidArgument;
    size_t bytes = n * (size_t)size_of(t);
    void *others = sim_reserve((int64_t)bytes * c->n);
    if (!others) return ncclUnhandledCudaError;
    sim_memory_taken(others, (int64_t)bytes * c->n);
    std::vector<message> all;
    for (int i = 0; i < c->n; i++) {
        if (i == c->rank) continue;
        all.push_back(message_of(false, i, from, bytes));
        all.push_back(message_of(true, i, (char *)others + (size_t)i * bytes, bytes));
    }
    enqueue(c, s, std::move(all), [=] {
        const void *own = sim_host_read(to, (int64_t)bytes, "NCCL reads");
        void *mine = sim_host_write((char *)others + (size_t)c->rank * bytes, (int64_t)bytes, "NCCL writes");
        if (own && mine) memcpy(mine, own, bytes);
        char *sum = (char *)sim_host_write(to, (int64_t)bytes, "NCCL writes");
        const char *each = (const char *)sim_host_read(others, (int64_t)bytes * c->n, "NCCL reads");
        for (int i = 0; sum && each && i < c->n; i++) {
            const char *v = each + (size_t)i * bytes;
            if (i == 0)
                memcpy(sum, v, bytes);
            else if (t == ncclFloat)
                fold((float *)sum, (const float *)v, n, op);
            else if (t == ncclDouble)
                fold((double *)sum, (const double *)v, n, op);
            else if (t == ncclInt)
                fold((int *)sum, (const int *)v, n, op);
            else
                fold((int64_t *)sum, (const int64_t *)v, n, op);
        }
        sim_memory_given_back(others, (int64_t)bytes * c->n);
    });
    return ncclSuccess;
}
