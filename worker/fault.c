// The handler of SIGBUS.
//
// Which file lies at the address stands in /proc/self/maps:
//
//   7f1c00000000-7f1c00100000 r--p 00000000 08:01 131 /models/Wan2.1_VAE.pth
//
// so no table of maps is kept for a handler to look at. It runs in whatever state the process is in, possibly inside
// malloc: only system calls, one line at a time in a buffer on the stack.
#include "worker/fault.h"

#include "proto/base/err.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 4400 };

static char fault_rank[24]; // "rank 1: ", or nothing: a handler can be given nothing

static void say(const char *text)
{
    for (size_t n = strlen(text); n > 0;) {
        ssize_t put = write(STDERR_FILENO, text, n);
        if (put <= 0) return;
        text += put;
        n -= (size_t)put;
    }
}

static uintptr_t hex(const char **p)
{
    uintptr_t v = 0;
    for (;; ++*p) {
        char c = **p;
        if (c >= '0' && c <= '9')
            v = v << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (uintptr_t)(c - 'a' + 10);
        else
            return v;
    }
}

// The file of the line if `at` lies in its range.
static const char *file_at(const char *line, uintptr_t at)
{
    uintptr_t from = hex(&line);
    if (*line++ != '-') return NULL;
    uintptr_t to = hex(&line);
    return at >= from && at < to ? strchr(line, '/') : NULL;
}

static bool line_read(int fd, char line[LINE])
{
    size_t n = 0;
    for (; n + 1 < LINE && read(fd, line + n, 1) == 1 && line[n] != '\n'; n++) continue;
    line[n] = 0;
    return n > 0;
}

static void on_fault(int signum, siginfo_t *info, void *context)
{
    (void)signum, (void)context;
    char line[LINE];
    const char *file = NULL;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && !file && line_read(fd, line)) file = file_at(line, (uintptr_t)info->si_addr);
    say("longtake-worker: ");
    say(fault_rank);
    say(file ? file : "a mapped file");
    say(" was cut short, or its disk failed, while it was in use; copy it again, and leave it alone while a job "
        "runs\n");
    _exit(EXIT_FAILURE);
}

void fault_watch(int rank)
{
    if (rank >= 0) snprintf(fault_rank, sizeof fault_rank, "rank %d: ", rank);
    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    BUG_IF(sigaction(SIGBUS, &a, NULL) < 0, "no handler for SIGBUS");
}
