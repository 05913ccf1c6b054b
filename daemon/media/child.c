// Two pipes: data (the child's standard output) and one for its error, so that a sentence never mixes with samples.
// Requests go over a socket (its standard input): unlike a pipe's, a write to it can do without the signal that would
// end the daemon when the child is gone.
//
// The fence is put up by the child itself before it looks at a byte: limits (memory, no file may grow, no core), no
// other descriptors, no new privileges, and a filter that answers EPERM to sockets, to starting programs, to opening
// files for writing, to removing or renaming them. A second filter (child_seal) takes reading of other files and new
// threads too, once the decoder has what it needs. It is a fence against decoders that were talked into something.
//
// The daemon has threads, so the child is spawned, not forked and run on. Verbs stand in the table.
#include "daemon/media/child.h"

#include "daemon/media/picture.h"
#include "daemon/media/voice_child.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ASK_FD = 0, DATA_FD = 1, ERROR_FD = 3, MAX_ARGS = 8, SILENCE_MS = 300000 };

static const struct child_verb {
    const char *name;
    int (*run)(int argc, char **argv, int out, struct err *e);
} verbs[] = {
    {"picture", picture_child},
    {"voice", voice_child},
};

struct child {
    pid_t pid;
    int ask, data, error;
    char subject[512]; // the file, for messages
};

// ---- the parent's side

// What the loader and sanitizers want to know; other variables, tokens among them, are none of a decoder's business.
static void environment(char **kept, size_t max)
{
    static const char *const names[] = {"LD_LIBRARY_PATH=", "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS="};
    size_t n = 0;
    for (char **v = environ; *v; v++)
        for (size_t i = 0; i < sizeof names / sizeof *names && n + 1 < max; i++)
            if (!strncmp(*v, names[i], strlen(names[i]))) kept[n++] = *v;
    kept[n] = NULL;
}

static int spawn(struct child *c, const char *self, char **argv, int ask, int data, int error)
{
    char *kept[16];
    environment(kept, sizeof kept / sizeof *kept);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ask, ASK_FD);
    posix_spawn_file_actions_adddup2(&actions, data, DATA_FD);
    posix_spawn_file_actions_adddup2(&actions, error, ERROR_FD);
    posix_spawn_file_actions_addclosefrom_np(&actions, ERROR_FD + 1);
    int rc = posix_spawn(&c->pid, self, &actions, NULL, argv, kept);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

// A pipe, or two sockets, whose ends lie above the child's own numbers, so that dup2 always clears close-on-exec.
static int pipe_open(int ends[2], bool sockets)
{
    int low[2];
    if ((sockets ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, low) : pipe2(low, O_CLOEXEC)) < 0) return -1;
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, ERROR_FD + 1);
        close(low[i]);
    }
    return ends[0] < 0 || ends[1] < 0 ? -1 : 0;
}

int child_start(struct child **out, const char *self, const char *verb, const char *const *args, struct err *e)
{
    char *argv[MAX_ARGS + 4] = {(char *)self, "__media", (char *)verb};
    int n = 3;
    for (int i = 0; args[i]; i++) {
        BUG_IF(i == MAX_ARGS, "too many arguments for %s", verb);
        argv[n++] = (char *)args[i];
    }
    struct child *c = calloc(1, sizeof *c);
    BUG_IF(!c, "no memory for a child");
    snprintf(c->subject, sizeof c->subject, "%s %s", verb, args[0] ? args[0] : "");
    int ask[2] = {-1, -1}, data[2] = {-1, -1}, error[2] = {-1, -1}, rc = 0;
    if (pipe_open(ask, true) < 0 || pipe_open(data, false) < 0 || pipe_open(error, false) < 0) rc = errno;
    if (!rc) rc = spawn(c, self, argv, ask[1], data[1], error[1]);
    close(ask[1]);
    close(data[1]);
    close(error[1]);
    c->ask = ask[0];
    c->data = data[0];
    c->error = error[0];
    *out = c;
    if (!rc) return 0;
    c->pid = 0;
    child_kill(c);
    *out = NULL;
    return err_set(e, E_FATAL, "cannot start %s to decode: %s; try again when the machine has less to do", self,
                   strerror(rc));
}

static void child_free(struct child *c)
{
    close(c->ask);
    close(c->data);
    close(c->error);
    free(c);
}

// `patience` in ms, -1: any. A child that is silent for longer has not ended: errno is ETIMEDOUT.
static int all_read(int fd, void *data, size_t n, int patience)
{
    for (char *p = data; n > 0;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = poll(&wait, 1, patience);
        if (ready == 0) errno = ETIMEDOUT;
        ssize_t got = ready > 0 ? read(fd, p, n) : -1;
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = 0;
        if (got <= 0) return -1;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

// Both its pipes have ended, so it should too; one that was taken over might stay.
static void child_hurry(struct child *c)
{
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, c->pid, 0), .events = POLLIN};
    if (end.fd < 0) return;
    if (poll(&end, 1, SILENCE_MS) == 0) kill(c->pid, SIGKILL);
    close(end.fd);
}

// What the child died of; 0 if it ended well.
static int child_fate(struct child *c, struct err *e)
{
    struct err said = {0};
    bool spoke = all_read(c->error, &said, sizeof said, SILENCE_MS) == 0 && said.code < 0;
    int status = 0;
    if (c->pid > 0) child_hurry(c);
    while (c->pid > 0 && waitpid(c->pid, &status, 0) < 0 && errno == EINTR) continue;
    c->pid = 0;
    said.text[sizeof said.text - 1] = 0;
    for (char *p = said.text; *p; p++)
        if (iscntrl((unsigned char)*p)) *p = ' '; // a sentence goes to logs and terminals
    if (spoke && said.code < E_FATAL) said.code = E_INPUT;
    if (spoke) return err_set(e, said.code, "%s", said.text);
    if (WIFSIGNALED(status))
        return err_set(e, E_INPUT, "%s: the decoder crashed on it (%s); convert it with another program first",
                       c->subject, strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) != 0)
        return err_set(e, E_FATAL, "%s: the decoder did not run (status %d); try again, and look at longtake doctor",
                       c->subject, WEXITSTATUS(status));
    return 0;
}

int child_read(struct child *c, void *data, size_t n, struct err *e)
{
    if (all_read(c->data, data, n, SILENCE_MS) == 0) return 0;
    if (errno == ETIMEDOUT)
        return err_set(e, E_INPUT, "%s: the decoder is stuck on it; convert it with another program first", c->subject);
    int rc = child_fate(c, e);
    return rc < 0 ? rc : err_set(e, E_FATAL, "%s: the decoder said too little; try again", c->subject);
}

int child_ask(struct child *c, const void *data, size_t n, struct err *e)
{
    for (const char *p = data; n > 0;) {
        ssize_t put = send(c->ask, p, n, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) {
            int rc = child_fate(c, e);
            return rc < 0 ? rc : err_set(e, E_FATAL, "%s: the decoder ended too soon; try again", c->subject);
        }
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

int child_end(struct child *c, struct err *e)
{
    int rc = child_fate(c, e);
    child_free(c);
    return rc;
}

void child_kill(struct child *c)
{
    if (!c) return;
    if (c->pid > 0) {
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR) continue;
    }
    child_free(c);
}

// ---- the child's side

int child_write(int out, const void *data, size_t n, struct err *e)
{
    for (const char *p = data; n > 0;) {
        ssize_t put = write(out, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return err_set(e, E_LOST, "the parent is gone");
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

bool child_asked(void *data, size_t n) { return all_read(ASK_FD, data, n, -1) == 0; }

#if defined __x86_64__
enum { ARCH = AUDIT_ARCH_X86_64 };
#elif defined __aarch64__
enum { ARCH = AUDIT_ARCH_AARCH64 };
#endif

// What no decoder needs: the network, other programs and processes, names on disk, and rings that go round this filter.
static const int refused[] = {
    __NR_socket,         __NR_connect, __NR_bind,      __NR_execve,    __NR_execveat,          __NR_ptrace,
    __NR_kill,           __NR_tkill,   __NR_unlinkat,  __NR_renameat2, __NR_process_vm_writev, __NR_process_vm_readv,
    __NR_io_uring_setup, __NR_linkat,  __NR_symlinkat, __NR_fchmodat,  __NR_truncate,          __NR_ftruncate,
    __NR_openat2,
#ifdef __NR_open // the calls of old, which newer machines do not have
    __NR_open,           __NR_creat,   __NR_unlink,    __NR_rename,    __NR_renameat,          __NR_link,
    __NR_symlink,        __NR_chmod,   __NR_rmdir,
#endif
};

static void fence_calls(void)
{
    enum { N = sizeof refused / sizeof *refused, WRITES = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC };
    struct sock_filter f[N + 10];
    int n = 0, last = N + 8; // the last line refuses, the one before it allows
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    f[n] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)ARCH, 0, (unsigned char)(last - n - 1)),
    n++;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    f[n] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, (unsigned char)(last - n - 1), 0), n++;
    for (int i = 0; i < N; i++, n++)
        f[n] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refused[i],
                                            (unsigned char)(last - n - 1), 0);
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 2);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2]));
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (unsigned)WRITES, 1, 0);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    BUG_IF(n != last, "the filter has %d lines", n);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {(unsigned short)n, f};
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program); // a kernel without it has the limits still
}

void child_seal(void)
{
    static const int taken[] = {
        __NR_openat, __NR_clone, __NR_clone3,
#ifdef __NR_fork
        __NR_fork,   __NR_vfork,
#endif
    };
    enum { N = sizeof taken / sizeof *taken };
    struct sock_filter f[N + 3];
    f[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < N; i++)
        f[i + 1] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)taken[i], (unsigned char)(N - i), 0);
    f[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {N + 3, f};
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

// Sanitizers map terabytes that they never touch.
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
static const rlim_t memory_max = RLIM_INFINITY;
#else
static const rlim_t memory_max = (rlim_t)4 << 30;
#endif

void child_fence(void)
{
    const struct rlimit none = {0, 0}, memory = {memory_max, memory_max};
    setrlimit(RLIMIT_AS, &memory);
    setrlimit(RLIMIT_FSIZE, &none); // pipes are not files
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    fence_calls();
}

int media_child_main(int argc, char **argv)
{
    struct err e = {0};
    int status = 2;
    signal(SIGPIPE, SIG_IGN);
    child_fence();
    for (size_t i = 0; argc > 3 && i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(argv[2], verbs[i].name) != 0) continue;
        status = verbs[i].run(argc - 3, argv + 3, DATA_FD, &e) < 0;
        if (status) child_write(ERROR_FD, &e, sizeof e, NULL);
    }
    _exit(status); // what runs at exit may want what the fence refuses
}
