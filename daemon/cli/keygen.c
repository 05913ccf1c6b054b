// `longtake keygen`: a pair of keys for a daemon, a client or a worker.
#include "daemon/cli/cli.h"
#include "proto/chan_keys.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "longtake keygen -o FILE [--name NAME]: makes FILE, a secret key (mode 0600), and FILE.pub.\n\n"
    "  on the daemon's machine:  longtake keygen -o daemon.key\n"
    "  on a client's:            longtake keygen -o laptop.key\n"
    "  the client's .pub line goes into the file that --client-keys names (a worker's into that\n"
    "  of --worker-keys), the daemon's .pub file to the client, as its --server-key.\n";

static int read_words(int argc, char **argv, const char **path, const char **name, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        const char **to = !strcmp(argv[i], "-o") ? path : !strcmp(argv[i], "--name") ? name : NULL;
        if (!to) return err_set(e, E_INPUT, "keygen knows -o FILE and --name NAME, not '%s'", argv[i]);
        if (++i == argc) return err_set(e, E_INPUT, "%s wants a value", argv[i - 1]);
        *to = argv[i];
    }
    return *path ? 0 : err_set(e, E_INPUT, "no output; give -o FILE");
}

int cli_keygen(int argc, char **argv)
{
    struct err e = {0};
    struct chan_key k;
    const char *path = NULL, *name = NULL;
    char host[CHAN_NAME_SIZE] = "key";
    if (argc > 0 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    int rc = read_words(argc, argv, &path, &name, &e);
    if (!name && gethostname(host, sizeof host - 1) == 0) name = host;
    if (rc >= 0) rc = chan_key_make(&k, name ? name : host, &e);
    if (rc >= 0) rc = chan_key_write(&k, path, &e);
    memset(k.secret, 0, sizeof k.secret);
    if (rc < 0) cli_complain(&e);
    if (rc >= 0) printf("%s: keep it to yourself; %s.pub is for the others\n", path, path);
    return rc >= 0 ? EXIT_DONE : e.code == E_INPUT ? EXIT_USAGE : EXIT_JOB_FAILED;
}
