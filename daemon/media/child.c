// Two pipes: data (the child's standard output) and one for its error, so that a sentence never mixes with samples.
//
// The fence is put up by the child itself before it looks at a byte: limits (no file may grow, no core), no new
// privileges, and a filter that answers EPERM to sockets, to starting programs, to opening files for writing, to
// removing or renaming them. It is a fence against decoders that were talked into something.
//
// The daemon has threads, so the child is spawned, not forked and run on. Verbs stand in the table.
#include "daemon/media/child.h"

#include "daemon/media/voice_child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DATA_FD = 1, ERROR_FD = 3, MAX_ARGS = 8 };

static const struct child_verb {
    const char *name;
    int (*run)(int argc, char **argv, int out, struct err *e);
} verbs[] = {
    {"voice", voice_child},
};

struct child {
    pid_t pid;
    int data, error;
    char subject[512]; // the file, for messages
};

// ---- the parent's side

static int spawn(struct child *c, const char *self, char **argv, int data, int error)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, data, DATA_FD);
    posix_spawn_file_actions_adddup2(&actions, error, ERROR_FD);
    extern char **environ;
    int rc = posix_spawn(&c->pid, self, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

// A pipe whose ends lie above the child's own numbers, so that dup2 always clears close-on-exec.
static int pipe_open(int ends[2])
{
    int low[2];
    if (pipe2(low, O_CLOEXEC) < 0) return -1;
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
    int data[2] = {-1, -1}, error[2] = {-1, -1}, rc = 0;
    if (pipe_open(data) < 0 || pipe_open(error) < 0) rc = errno;
    if (!rc) rc = spawn(c, self, argv, data[1], error[1]);
    close(data[1]);
    close(error[1]);
    c->data = data[0];
    c->error = error[0];
    *out = c;
    if (!rc) return 0;
    c->pid = 0;
    child_kill(c);
    *out = NULL;
    return err_set(e, E_FATAL, "cannot start %s to decode: %s", self, strerror(rc));
}

static void child_free(struct child *c)
{
    close(c->data);
    close(c->error);
    free(c);
}

static int all_read(int fd, void *data, size_t n)
{
    for (char *p = data; n > 0;) {
        ssize_t got = read(fd, p, n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return -1;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

// What the child died of; 0 if it ended well.
static int child_fate(struct child *c, struct err *e)
{
    struct err said = {0};
    bool spoke = all_read(c->error, &said, sizeof said) == 0 && said.code < 0;
    int status = 0;
    while (c->pid > 0 && waitpid(c->pid, &status, 0) < 0 && errno == EINTR) continue;
    c->pid = 0;
    said.text[sizeof said.text - 1] = 0;
    if (spoke) return err_set(e, said.code, "%s", said.text);
    if (WIFSIGNALED(status))
        return err_set(e, E_INPUT, "%s: the decoder crashed on it (%s); convert it with another program first",
                       c->subject, strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) != 0)
        return err_set(e, E_FATAL, "%s: the decoder did not run (status %d)", c->subject, WEXITSTATUS(status));
    return 0;
}

int child_read(struct child *c, void *data, size_t n, struct err *e)
{
    if (all_read(c->data, data, n) == 0) return 0;
    int rc = child_fate(c, e);
    return rc < 0 ? rc : err_set(e, E_FATAL, "%s: the decoder said too little", c->subject);
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

static void fence(void)
{
    const struct rlimit none = {0, 0};
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
    fence();
    for (size_t i = 0; argc > 3 && i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(argv[2], verbs[i].name)) continue;
        status = verbs[i].run(argc - 3, argv + 3, DATA_FD, &e) < 0;
        if (status) child_write(ERROR_FD, &e, sizeof e, NULL);
    }
    _exit(status); // what runs at exit may want what the fence refuses
}
