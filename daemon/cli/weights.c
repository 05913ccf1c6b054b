// `longtake weights`: the worker knows weights; this program only finds it.
#include "daemon/cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cli_weights(int argc, char **argv)
{
    char worker[4200];
    struct err e = {0};
    cli_sibling(worker, sizeof worker, "longtake-worker");
    char **args = calloc((size_t)argc + 3, sizeof *args);
    BUG_IF(!args, "no memory for arguments");
    args[0] = worker;
    args[1] = "weights";
    for (int i = 0; i < argc; i++) args[i + 2] = argv[i];
    execv(worker, args);
    err_set(&e, E_FATAL, "cannot run %s: %s; install it beside longtake", worker, strerror(errno));
    cli_complain(&e);
    free(args);
    return EXIT_CONFIG;
}
