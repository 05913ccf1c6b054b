// Command lines, and the reading of logs.
//
// mpirun is told not to tie ranks to cores (each ties its own threads), not to count cores, and to keep what it needs
// of files in the group's folder, so that a kill leaves nothing elsewhere. It refuses to run for root unless told
// twice that this is meant.
//
// The trap: MPI's launcher says which rank ended first in a sentence on stderr and nowhere else. That sentence is
// looked for; where another launcher words it differently the last line of the log has to do.
#include "daemon/launch.h"

#include "proto/base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { EXIT_MISSING = 127, TAIL_BYTES = 8192, LINE_MAX_BYTES = 300 };

const char *const launch_weights[] = {"auto", "resident", "streamed", "sharded", NULL};
const char *const launch_shards[] = {"auto", "off", "node", "all", NULL};
const char *const launch_devices[] = {"auto", "cpu", "cuda", NULL};

struct arguments {
    struct arena *arena;
    char **v;
    int n;
};

static void add(struct arguments *a, const char *flag, const char *value)
{
    BUG_IF(a->n + 3 > LAUNCH_ARGS, "too many arguments for a worker");
    a->v[a->n++] = (char *)flag;
    if (value) a->v[a->n++] = arena_strdup(a->arena, value);
    a->v[a->n] = NULL;
}

static bool in_path(const char *program)
{
    const char *path = getenv("PATH");
    char full[4096];
    for (; path && *path; path += strcspn(path, ":"), path += *path == ':') {
        snprintf(full, sizeof full, "%.*s/%s", (int)strcspn(path, ":"), path, program);
        if (access(full, X_OK) == 0) return true;
    }
    return false;
}

static void add_launcher(struct arguments *a, const struct launch *l)
{
    const char *const mca[][2] = {
        {"mpi_yield_when_idle", "1"}, {"orte_tmpdir_base", l->folder}, {"btl_vader_backing_directory", l->folder}};
    add(a, l->self, "__launch");
    add(a, arena_printf(a->arena, "%d", (int)getpid()), NULL);
    add(a, "mpirun", "--oversubscribe");
    add(a, "--bind-to", "none");
    for (size_t i = 0; i < sizeof mca / sizeof *mca; i++) {
        add(a, "--mca", mca[i][0]);
        add(a, mca[i][1], NULL);
    }
    add(a, "-n", arena_printf(a->arena, "%d", l->ranks.n));
}

static void add_worker(struct arguments *a, const struct launch *l)
{
    const struct spec *s = l->spec;
    add(a, l->worker, NULL);
    add(a, "--connect", arena_printf(a->arena, "ipc://%s/socket", l->folder));
    add(a, "--model", l->model);
    if (s->dit) add(a, "--dit", s->dit);
    if (s->adapter) add(a, "--adapter", s->adapter);
    if (s->voice) add(a, "--voice", s->voice);
    add(a, "--speakers", arena_printf(a->arena, "%d", s->n_speakers));
    add(a, "--dtype", s->dtype ? "bf16" : "f32");
    if (s->threads) add(a, "--threads", arena_printf(a->arena, "%d", s->threads));
    for (int i = 0; i < s->n_lora; i++) {
        add(a, "--lora", s->lora[i]);
        add(a, "--lora-scale", arena_printf(a->arena, "%.17g", s->lora_scale[i]));
    }
    if (s->r.parity == SPEC_PARITY_PUBLISHED) add(a, "--parity", "published");
    add(a, "--cache", l->cache);
    add(a, "--device", l->ranks.device ? launch_devices[l->ranks.device] : "cpu");
    if (l->ranks.layout) add(a, "--layout", l->ranks.layout);
    if (l->ranks.weights) add(a, "--weights", launch_weights[l->ranks.weights]);
    if (l->ranks.shard) add(a, "--shard", launch_shards[l->ranks.shard]);
}

int launch_arguments(char *argv[LAUNCH_ARGS], struct arena *arena, const struct launch *l, struct err *e)
{
    struct arguments a = {.arena = arena, .v = argv};
    if (access(l->worker, X_OK) < 0)
        return err_set(e, E_FATAL, "the worker program %s cannot be run: %s; install it beside longtake", l->worker,
                       strerror(errno));
    if (l->ranks.n > 1 && !in_path("mpirun"))
        return err_set(e, E_FATAL,
                       "%d ranks are started by mpirun, and there is none in PATH; install Open MPI "
                       "(openmpi-bin), or take one rank",
                       l->ranks.n);
    if (l->ranks.n > 1) add_launcher(&a, l);
    add_worker(&a, l);
    if (l->ranks.n <= 1) add(&a, "--parent", arena_printf(arena, "%d", (int)getpid()));
    return 0;
}

int launch_main(int argc, char **argv)
{
    if (argc < 2) return EXIT_MISSING;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != atoi(argv[0])) return EXIT_MISSING; // it died before its death could be asked for
    if (geteuid() == 0) {
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    }
    execvp(argv[1], argv + 1);
    fprintf(stderr, "longtake: cannot start %s: %s\n", argv[1], strerror(errno));
    return EXIT_MISSING;
}

// ---- last words

static void take_line(char *to, size_t n, const char *line)
{
    size_t length = strcspn(line, "\n");
    if (length > LINE_MAX_BYTES) length = LINE_MAX_BYTES;
    snprintf(to, n, "%.*s", (int)length, line);
    for (char *c = to; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = ' ';
}

// "... process rank 2 with PID 71 on node a exited on signal 9 (Killed)."
static bool rank_ended(const char *text, char *to, size_t n)
{
    int rank = 0, pid = 0, got = 0;
    const char *at = strstr(text, "process rank ");
    if (!at || sscanf(at, "process rank %d with PID %d on node %*s exited on %n", &rank, &pid, &got) < 2 || got == 0)
        return false;
    char how[96];
    take_line(how, sizeof how, at + got);
    size_t length = strlen(how);
    if (length > 0 && how[length - 1] == '.') how[length - 1] = 0;
    snprintf(to, n, "rank %d ended on %s", rank, how);
    return true;
}

// What the worker itself said at its end, behind which a launcher has its say; else the last line.
static const char *last_sentence(const char *text)
{
    static const char own[] = "longtake-worker: ";
    const char *said = NULL, *last = strrchr(text, '\n');
    for (const char *at = text; (at = strstr(at, own)); at += sizeof own - 1)
        if (at == text || at[-1] == '\n') said = at + sizeof own - 1;
    if (said) return said;
    return last ? last + 1 : text;
}

bool launch_last_words(const char *log, char *to, size_t n)
{
    char *text = calloc(1, TAIL_BYTES);
    FILE *f = fopen(log, "r");
    bool known = false;
    to[0] = 0;
    BUG_IF(!text, "no memory for a log");
    if (f) {
        if (fseek(f, -TAIL_BYTES + 1, SEEK_END) < 0) rewind(f);
        size_t got = fread(text, 1, TAIL_BYTES - 1, f);
        fclose(f);
        while (got > 0 && strchr("\n -", text[got - 1])) got--; // mpirun draws lines
        text[got] = 0;
        const char *line = last_sentence(text);
        known = rank_ended(text, to, n);
        if (!known && !strstr(line, " info ") && !strstr(line, " debug ")) take_line(to, n, line);
    }
    free(text);
    return known;
}
