// longtake: one program of several verbs.
//
// A picture, a video or a voice is decoded by this same program started anew with the verb __media, behind a fence
// (media/child.h); no one else uses that verb.
#include "daemon/cli/cli.h"
#include "daemon/media/child.h"
#include "proto/base/log.h"
#include "proto/base/near.h"

#include <stdio.h>
#include <string.h>

static int unknown(const char *word)
{
    const char *names[32];
    struct err e;
    int n = 0;
    for (const struct verb *v = cli_verbs; v->name && n < 31; v++) names[n++] = v->name;
    names[n] = NULL;
    const char *near = near_word(word, names);
    if (near)
        err_set(&e, E_INPUT, "there is no verb '%s'; did you mean %s?", word, near);
    else
        err_set(&e, E_INPUT, "there is no verb '%s'; longtake help lists them", word);
    cli_complain(&e);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "__media") == 0) return media_child_main(argc, argv);
    log_init(LOG_INFO, "longtake", 0);
    if (argc < 2) {
        cli_help(0, NULL);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return cli_help(argc - 2, argv + 2);
    if (strcmp(argv[1], "--version") == 0) return cli_version(0, NULL);
    for (const struct verb *v = cli_verbs; v->name; v++)
        if (strcmp(argv[1], v->name) == 0) return v->run(argc - 2, argv + 2);
    return unknown(argv[1]);
}
