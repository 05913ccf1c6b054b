// `longtake doctor`: a line for each thing that rendering needs, with a verdict and, where something is wrong, the way
// out.
//
//   ok    as it should be
//   note  works without it, but slower, or not everything
//   bad   will not work; the exit code is 3 then
//
// It looks, and runs the worker's self-test; it changes nothing. What it finds is read from the system's own files, so
// that it says what a job would meet, limits of a container included.
#include "daemon/cli/cli.h"
#include "daemon/config.h"
#include "daemon/media/codecs.h"
#include "proto/json.h"
#include "proto/model.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum verdict { OK, NOTE, BAD };
enum { PATH_SIZE = 4200, TEXT_SIZE = 1400 };
static const char *const verdicts[] = {"ok", "note", "bad"};

struct doctor {
    const char *model, *store;
    bool json, quick, help;
    struct arena arena;
    json_t *list; // of a machine's reader
    int n[3];
    char worker[PATH_SIZE];
    double weights_bytes;
};

#define AT(name) offsetof(struct doctor, name)
// clang-format off
static const struct opt rows[] = {
    {"model", OPT_TEXT, AT(model), 0, 0, NULL, NULL, "DIR", "model folder (the one that stands beside the programs)"},
    {"store", OPT_TEXT, AT(store), 0, 0, NULL, NULL, "DIR", "the daemon's store ($XDG_DATA_HOME/longtake)"},
    {"quick", OPT_FLAG, AT(quick), 0, 0, NULL, NULL, NULL, "leave the worker's self-test out"},
    {"json", OPT_FLAG, AT(json), 0, 0, NULL, NULL, NULL, "print JSON"},
    {"help", OPT_FLAG, AT(help), 0, 0, NULL, NULL, NULL, "this list"},
    {0},
};
// clang-format on

static void __attribute__((format(printf, 4, 5)))
tell(struct doctor *d, enum verdict v, const char *what, const char *fmt, ...)
{
    char text[TEXT_SIZE];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->n[v]++;
    if (d->json)
        json_array_append_new(d->list, json_pack("{ssssss}", "verdict", verdicts[v], "what", what, "text", text));
    else
        printf("%-5s %-9s %s\n", verdicts[v], what, text);
    fflush(stdout);
}

// ---- reading the system

// The number behind `key` in a file of lines "key value", -1: there is none.
static double number_of(const char *path, const char *key)
{
    char line[512];
    double value = -1;
    FILE *f = fopen(path, "r");
    while (f && value < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), " %lf", &value) != 1) value = -1;
    if (f) fclose(f);
    return value;
}

static bool line_has(const char *path, const char *key, const char *word)
{
    char *line = NULL;
    size_t n = 0;
    bool has = false;
    FILE *f = fopen(path, "r");
    while (f && !has && getline(&line, &n, f) > 0)
        if (strncmp(line, key, strlen(key)) == 0)
            for (char *rest = line, *w; !has && (w = strsep(&rest, " \t\n"));) has = strcmp(w, word) == 0;
    free(line);
    if (f) fclose(f);
    return has;
}

// What a program prints, its end; its exit code, -1: it cannot be run.
static int run(char *const *argv, char *out, size_t n)
{
    int fd[2], status;
    out[0] = 0;
    if (pipe2(fd, O_CLOEXEC) < 0) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd[1], STDOUT_FILENO);
        dup2(fd[1], STDERR_FILENO);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(fd[1]);
    size_t have = 0;
    char piece[512];
    for (ssize_t got; pid > 0 && (got = read(fd[0], piece, sizeof piece)) > 0;) {
        size_t keep = have + (size_t)got < n ? have : n - 1 - (size_t)got;
        memmove(out, out + have - keep, keep);
        memcpy(out + keep, piece, (size_t)got);
        have = keep + (size_t)got;
        out[have] = 0;
    }
    close(fd[0]);
    if (pid < 0 || waitpid(pid, &status, 0) < 0) return -1;
    return WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
}

static void last_line(char *text, char *to, size_t n)
{
    size_t end = strlen(text);
    while (end > 0 && text[end - 1] == '\n') text[--end] = 0;
    const char *line = strrchr(text, '\n');
    snprintf(to, n, "%s", line ? line + 1 : text);
}

// ---- the machine

static void check_cpu(struct doctor *d)
{
    static const char *const wanted[] = {"avx2", "avx512f", "avx512_bf16", "amx_bf16"};
    char has[96] = "";
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (line_has("/proc/cpuinfo", "flags", wanted[i])) {
            size_t n = strlen(has);
            snprintf(has + n, sizeof has - n, "%s%s", n ? " " : "", wanted[i]);
        }
    double quota = number_of("/sys/fs/cgroup/cpu.max", ""), of = 100000;
    char limit[64] = "";
    if (quota > 0) snprintf(limit, sizeof limit, ", of which this container gets %.1f", quota / of);
    if (strstr(has, "avx2"))
        tell(d, OK, "cpu", "%d cores%s, %s", cores, limit, has);
    else
        tell(d, NOTE, "cpu", "%d cores%s without AVX2: plain loops, many times slower; take another machine", cores,
             limit);
}

static void check_memory(struct doctor *d)
{
    double kib = 1024, gib = kib * kib * kib;
    double all = number_of("/proc/meminfo", "MemTotal:") * kib,
           free = number_of("/proc/meminfo", "MemAvailable:") * kib;
    double limit = number_of("/sys/fs/cgroup/memory.max", ""), used = number_of("/sys/fs/cgroup/memory.current", "");
    if (limit > 0 && limit < all) {
        all = limit;
        if (limit - used < free) free = limit - used;
    }
    if (d->weights_bytes > free)
        tell(d, BAD, "memory",
             "%.1f GiB free of %.1f, and the weights have %.1f: close programs, or take a smaller model", free / gib,
             all / gib, d->weights_bytes / gib);
    else
        tell(d, OK, "memory", "%.1f GiB free of %.1f; the weights have %.1f", free / gib, all / gib,
             d->weights_bytes / gib);
}

static void check_files(struct doctor *d)
{
    struct rlimit r;
    struct statvfs v;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < 1024)
        tell(d, NOTE, "files", "a process may open %llu files; 1024 are wanted for many groups: ulimit -n 1024",
             (unsigned long long)r.rlim_cur);
    if (statvfs("/dev/shm", &v) == 0 && (double)v.f_blocks * (double)v.f_frsize < 1 << 30)
        tell(d, NOTE, "shm", "/dev/shm has %.0f MiB; several ranks want 1 GiB: mount it larger (docker --shm-size 1g)",
             (double)v.f_blocks * (double)v.f_frsize / (1 << 20));
}

// ---- files

static double bytes_of(char *path)
{
    char *const paths[] = {path, NULL};
    double bytes = 0;
    FTS *f = fts_open(paths, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *at; f && (at = fts_read(f));)
        if (at->fts_info == FTS_F) bytes += (double)at->fts_statp->st_size;
    if (f) fts_close(f);
    return bytes;
}

static void check_model(struct doctor *d)
{
    struct err e = {0};
    struct model m;
    char folder[PATH_SIZE];
    int rc = cli_model(folder, sizeof folder, d->model, &e);
    if (rc >= 0) rc = model_open(&m, folder, &e);
    if (rc >= 0) rc = model_missing(&m, &e);
    if (rc < 0) {
        tell(d, BAD, "model", "%s", e.text);
        return;
    }
    char *const part[] = {m.dit, m.adapter, m.text, m.clip, m.vae, m.voice};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (part[i][0]) d->weights_bytes += bytes_of(part[i]);
    tell(d, OK, "model", "%s (%s), %.1f GiB", folder, m.name, d->weights_bytes / (1 << 30));
}

static bool is_remote(const char *path)
{
    static const long remote[] = {0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x01021997, 0x0BD00BD0, 0x65735546};
    struct statfs s;
    if (statfs(path, &s) < 0) return false;
    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
        if ((long)s.f_type == remote[i]) return true;
    return false;
}

static void check_store(struct doctor *d)
{
    char path[PATH_SIZE], there[PATH_SIZE], lock[PATH_SIZE + 8];
    struct err e = {0};
    struct statvfs v;
    if (d->store)
        snprintf(path, sizeof path, "%s", d->store);
    else if (config_store_name(path, sizeof path, &e) < 0) {
        tell(d, BAD, "store", "%s", e.text);
        return;
    }
    snprintf(there, sizeof there, "%s", path);
    for (char *slash; access(there, F_OK) < 0 && (slash = strrchr(there, '/')) && slash > there;) *slash = 0;
    if (access(there, W_OK) < 0 || statvfs(there, &v) < 0) {
        tell(d, BAD, "store", "cannot write in %s: %s; choose another place with --store", there, strerror(errno));
        return;
    }
    double free = (double)v.f_bavail * (double)v.f_frsize / (1 << 30);
    snprintf(lock, sizeof lock, "%s/lock", path);
    int fd = open(lock, O_RDONLY | O_CLOEXEC);
    bool taken = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0;
    if (fd >= 0) close(fd);
    if (is_remote(there))
        tell(d, BAD, "store", "%s lies on another machine's disk, where its locks do not hold; choose a local one",
             path);
    else if (free < 2)
        tell(d, NOTE, "store", "%s: %.1f GiB are free; below free-min segments wait: free some", path, free);
    else
        tell(d, OK, "store", "%s%s, %.1f GiB free", path, taken ? ", where a daemon works" : "", free);
}

static void check_sockets(struct doctor *d)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    if (!base || strlen(base) > 80 || access(base, W_OK) < 0) base = "/tmp";
    if (access(base, W_OK) == 0)
        tell(d, OK, "sockets", "in %s", base);
    else
        tell(d, BAD, "sockets", "cannot write in %s: %s; set XDG_RUNTIME_DIR to a folder of your own", base,
             strerror(errno));
}

// ---- programs

static bool check_worker(struct doctor *d)
{
    char out[4096], line[512];
    char *argv[] = {d->worker, "--version", NULL};
    int rc = run(argv, out, sizeof out);
    last_line(out, line, sizeof line);
    if (rc < 0)
        tell(d, BAD, "worker", "%s cannot be run: install it beside longtake", d->worker);
    else if (rc > 0 || strcmp(line, "longtake-worker " LONGTAKE_VERSION) != 0)
        tell(d, BAD, "worker", "%s says '%s', and this is longtake %s: install both from one build", d->worker, line,
             LONGTAKE_VERSION);
    else
        tell(d, OK, "worker", "%s, %s", d->worker, line);
    return rc == 0;
}

static void check_mpirun(struct doctor *d)
{
    char out[4096], *argv[] = {"mpirun", "--version", NULL};
    int rc = run(argv, out, sizeof out);
    out[strcspn(out, "\n")] = 0;
    if (rc == 0)
        tell(d, OK, "mpirun", "%s", out);
    else
        tell(d, NOTE, "mpirun", "there is none: one rank a group; install openmpi-bin for more");
}

static void check_codecs(struct doctor *d)
{
    char text[256];
    bool good = codecs_check(text, sizeof text);
    tell(d, good ? OK : BAD, "media", "%s%s", text, good ? "" : "; install Debian's libavcodec59 or later");
}

static bool check_card(struct doctor *d)
{
    bool driver = access("/proc/driver/nvidia/version", R_OK) == 0, card = access("/dev/nvidiactl", R_OK | W_OK) == 0;
    if (driver && card)
        tell(d, OK, "card", "an NVIDIA driver and a card that this user may open");
    else if (driver)
        tell(d, NOTE, "card",
             "an NVIDIA driver, but /dev/nvidiactl cannot be opened: %s; give this user, or this "
             "container, the devices",
             strerror(errno));
    else
        tell(d, NOTE, "card", "none: it renders on the CPU, slowly with a large model");
    return driver && card;
}

static void check_ops(struct doctor *d, char *device)
{
    char out[16384], line[TEXT_SIZE - 64];
    char *argv[] = {d->worker, "--selftest", "--device", device, NULL};
    int rc = run(argv, out, sizeof out);
    last_line(out, line, sizeof line);
    if (rc == 0)
        tell(d, OK, "ops", "%s", line);
    else
        tell(d, BAD, "ops", "%s: run %s --selftest --device %s for all lines, and report them", line, d->worker,
             device);
}

static int flags_read(struct doctor *d, int argc, char **argv, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        const char *key = strncmp(argv[i], "--", 2) == 0 ? argv[i] + 2 : argv[i];
        const struct opt *o = opt_find(rows, key);
        if (!o) return opt_unknown(rows, "flag", key, e);
        if (o->type != OPT_FLAG && i + 1 == argc) return err_set(e, E_INPUT, "%s wants a value", argv[i]);
        const char *from = argv[i], *text = o->type == OPT_FLAG ? "yes" : argv[++i];
        int rc = opt_set(o, d, &d->arena, from, text, e);
        if (rc < 0) return rc;
    }
    return 0;
}

static void examine(struct doctor *d)
{
    char cpu[] = "cpu", cuda[] = "cuda";
    tell(d, OK, "program", "longtake %s", LONGTAKE_VERSION);
    check_cpu(d);
    check_model(d);
    check_memory(d);
    check_files(d);
    check_store(d);
    check_sockets(d);
    check_codecs(d);
    check_mpirun(d);
    bool card = check_card(d), worker = check_worker(d);
    if (worker && !d->quick) check_ops(d, cpu);
    if (worker && !d->quick && card) check_ops(d, cuda);
}

int cli_doctor(int argc, char **argv)
{
    struct doctor d = {0};
    struct err e = {0};
    int rc = flags_read(&d, argc, argv, &e);
    if (rc < 0 || d.help) {
        if (rc < 0) cli_complain(&e);
        if (rc >= 0) opt_help(rows, stdout);
        arena_free(&d.arena);
        return rc < 0 ? EXIT_USAGE : EXIT_DONE;
    }
    cli_sibling(d.worker, sizeof d.worker, "longtake-worker");
    d.list = json_array();
    examine(&d);
    if (d.json) {
        json_dumpf(d.list, stdout, JSON_COMPACT);
        putchar('\n');
    } else
        printf("%d ok, %d notes, %d bad\n", d.n[OK], d.n[NOTE], d.n[BAD]);
    json_decref(d.list);
    arena_free(&d.arena);
    return d.n[BAD] ? EXIT_CONFIG : EXIT_DONE;
}
