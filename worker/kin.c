// Who of us ended first.
//
// The launcher sees a rank end, tells the others to end (SIGTERM) and a second later kills them. It says which rank it
// was on its own stderr; who joined a coordinator by hand has nobody who reads that. So rank 0 holds a descriptor of
// each process (pidfd), which can be read when that has ended, and does not die of SIGTERM before it has told.
//
// The traps. A launcher that is told to end itself tells all ranks at once, and the first to go must not be taken for
// the cause: every other rank rests before it obeys, rank 0 looks at once. And rank 0 may not leave before the launcher
// has seen who ended, or its own end would be the one that is told.
//
// On other machines there is nothing to hold; that nobody here ended is still worth saying.
#include "worker/kin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { REST_MS = 200, STATUS_TERM = 128 + SIGTERM };

struct kin {
    int epoll;
    int told; // eventfd: SIGTERM came
    int n;
    int32_t *pid;
    int *held; // pidfd of each rank; -1: cannot be watched
};

static volatile sig_atomic_t told_fd = -1; // a handler can be given nothing

static void on_told(int signum)
{
    (void)signum;
    int was = errno;
    uint64_t one = 1;
    if (write(told_fd, &one, sizeof one) < 0) _exit(STATUS_TERM);
    errno = was;
}

static void on_told_beside(int signum)
{
    (void)signum;
    struct timespec rest = {.tv_nsec = REST_MS * 1000000L};
    nanosleep(&rest, NULL);
    _exit(STATUS_TERM);
}

static void hold(struct kin *k, int rank)
{
    k->held[rank] = -1;
    if (rank == 0 || k->pid[rank] == 0) return;
    int fd = (int)syscall(SYS_pidfd_open, k->pid[rank], 0);
    struct epoll_event what = {.events = EPOLLIN, .data.fd = fd};
    if (fd >= 0 && epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &what) < 0) {
        close(fd);
        fd = -1;
    }
    k->held[rank] = fd;
}

void kin_open(struct kin **out, const int32_t *pid, int n, int own)
{
    struct sigaction a = {.sa_handler = own == 0 ? on_told : on_told_beside, .sa_flags = SA_RESTART};
    *out = NULL;
    if (n == 1) return;
    if (own == 0) {
        struct kin *k = calloc(1, sizeof *k);
        BUG_IF(!k, "no memory for the ranks of this machine");
        *k = (struct kin){.n = n,
                          .epoll = epoll_create1(EPOLL_CLOEXEC),
                          .told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                          .pid = calloc((size_t)n, sizeof *k->pid),
                          .held = calloc((size_t)n, sizeof *k->held)};
        BUG_IF(k->epoll < 0 || k->told < 0 || !k->pid || !k->held, "no room for the ranks of this machine");
        struct epoll_event what = {.events = EPOLLIN, .data.fd = k->told};
        BUG_IF(epoll_ctl(k->epoll, EPOLL_CTL_ADD, k->told, &what) < 0, "no word of SIGTERM");
        for (int i = 0; i < n; i++) {
            k->pid[i] = pid[i];
            hold(k, i);
        }
        told_fd = k->told;
        *out = k;
    }
    BUG_IF(sigaction(SIGTERM, &a, NULL) < 0, "no handler for SIGTERM");
}

static bool is_readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return fd >= 0 && poll(&p, 1, ms) > 0;
}

void kin_leave(struct kin *k)
{
    signal(SIGTERM, SIG_DFL);
    if (is_readable(k->told, 0)) raise(SIGTERM);
    told_fd = -1;
}

void kin_close(struct kin **pk)
{
    struct kin *k = *pk;
    if (!k) return;
    kin_leave(k);
    for (int i = 0; i < k->n; i++)
        if (k->held[i] >= 0) close(k->held[i]);
    close(k->told);
    close(k->epoll);
    free(k->held);
    free(k->pid);
    free(k);
    *pk = NULL;
}

int kin_fd(const struct kin *k) { return k->epoll; }

int kin_lost(const struct kin *k, struct err *e)
{
    int others = 0;
    for (int i = 1; i < k->n; i++) {
        if (is_readable(k->held[i], 0))
            return err_set(e, E_LOST, "rank %d of %d (process %d) ended", i, k->n, (int)k->pid[i]);
        others += k->pid[i] == 0;
    }
    if (!is_readable(k->told, 0)) return 0;
    if (others > 0)
        return err_set(e, E_LOST,
                       "the group was told to end (signal 15), and no rank of this machine had: if one did, it was one "
                       "of %d on other machines, and its launcher names it",
                       others);
    return err_set(e, E_LOST, "the group was told to end (signal 15)");
}

void kin_rest(const struct kin *k, int ms)
{
    uint64_t told;
    if (is_readable(k->told, ms) && read(k->told, &told, sizeof told) < 0) return; // what matters is the time
}
