// `longtake plan`: the worker measures and predicts, since it knows networks and ranks; this program starts as many of
// it as are asked for. Of the flags only the number of ranks and the model concern it; the rest are the worker's.
//
// The trap: mpirun has its own say about a rank that refuses, under the sentence of rank 0, and is told to be quiet;
// but then it is quiet about a rank that was killed, too. So that is told here.
#include "daemon/cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANKS_MAX = 4096, SIGNALLED = 128 };

static char *const launcher[] = {
    "mpirun", "--quiet", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", "-n"};
enum { N_LAUNCHER = sizeof launcher / sizeof *launcher };

struct words {
    char **v;
    int n;
    bool knows_sizes; // a model was named
    const char *ranks;
};

static bool begins(const char *word, const char *flag) { return strncmp(word, flag, strlen(flag)) == 0; }

static int take_words(struct words *w, int argc, char **argv, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        char *word = argv[i];
        bool apart = strcmp(word, "-n") == 0 || strcmp(word, "--ranks") == 0;
        if (apart && i + 1 == argc) return err_set(e, E_INPUT, "%s wants a value: %s N", word, word);
        if (apart)
            w->ranks = argv[++i];
        else if (begins(word, "--ranks="))
            w->ranks = word + strlen("--ranks=");
        else
            w->v[w->n++] = strcmp(word, "-h") == 0 ? "--help" : word;
        w->knows_sizes |= begins(word, "--model") || begins(word, "--like");
        w->knows_sizes |= strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0;
    }
    return 0;
}

static int count_ranks(int *n, const char *text, struct err *e)
{
    char *end = NULL;
    long v = text ? strtol(text, &end, 10) : 1;
    if (text && (end == text || *end || v < 1 || v > RANKS_MAX))
        return err_set(e, E_INPUT, "-n: '%s' is not a number of ranks from 1 to %d", text, RANKS_MAX);
    *n = (int)v;
    return 0;
}

static void complain_of_run(const char *program, bool many)
{
    struct err e;
    err_set(&e, E_FATAL, "cannot run %s: %s; install it%s", program, strerror(errno),
            many ? " (package openmpi-bin)" : " beside longtake");
    cli_complain(&e);
}

// What the shell would say of mpirun, which ends as its first rank that fails.
static int run_ranks(char **run)
{
    pid_t self = getpid(), child = fork();
    int status = 0, code = EXIT_CONFIG;
    struct err e;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() == self) execvp(run[0], run);
        complain_of_run(run[0], true);
        _exit(EXIT_CONFIG);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (child < 0)
        complain_of_run(run[0], true);
    else
        code = WIFSIGNALED(status) ? SIGNALLED + WTERMSIG(status) : WEXITSTATUS(status);
    if (code > SIGNALLED && code != SIGNALLED + SIGINT) {
        err_set(&e, E_FATAL, "a rank ended on signal %d (%s); if nobody sent it, memory may be short: take fewer ranks",
                code - SIGNALLED, strsignal(code - SIGNALLED));
        cli_complain(&e);
    }
    return code;
}

int cli_plan(int argc, char **argv)
{
    char worker[4200], model[4200], number[16];
    char **all = calloc((size_t)argc + N_LAUNCHER + 8, sizeof *all);
    BUG_IF(!all, "no memory for arguments");
    struct words w = {.v = all + N_LAUNCHER + 3};
    struct err e = {0};
    int n = 1, rc = take_words(&w, argc, argv, &e), status = EXIT_USAGE;
    if (rc == 0) rc = count_ranks(&n, w.ranks, &e);
    if (rc == 0 && !w.knows_sizes) {
        rc = cli_model(model, sizeof model, NULL, &e);
        w.v[w.n++] = "--model";
        w.v[w.n++] = model;
    }
    cli_sibling(worker, sizeof worker, "longtake-worker");
    if (rc == 0) {
        char **run = all + N_LAUNCHER + 1;
        run[0] = worker;
        run[1] = "plan";
        if (n == 1)
            execv(worker, run);
        else if (access(worker, X_OK) == 0) { // mpirun ... -n N worker plan ...
            run = all;
            memcpy(run, launcher, sizeof launcher);
            snprintf(number, sizeof number, "%d", n);
            run[N_LAUNCHER] = number;
            setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0); // mpirun refuses root unless told twice
            setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
            status = run_ranks(run);
        }
        if (run != all) {
            complain_of_run(worker, false);
            status = EXIT_CONFIG;
        }
    } else
        cli_complain(&e);
    free(all);
    return status;
}
