// longtake: one program of several verbs.
//
// A picture, a video or a voice is decoded by this same program started anew with the verb __media, behind a fence
// (media/child.h); no one else uses that verb. Groups of several ranks are started through another one (launch.h).
#include "daemon/cli/cli.h"
#include "daemon/launch.h"
#include "daemon/media/child.h"
#include "proto/base/log.h"

#include <string.h>

static bool is_help(const char *word) { return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0; }

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "__media") == 0) return media_child_main(argc, argv);
    if (argc > 1 && strcmp(argv[1], "__launch") == 0) return launch_main(argc - 2, argv + 2);
    log_init(LOG_INFO, "longtake", 0);
    if (argc < 2) {
        cli_help(0, NULL);
        return EXIT_USAGE;
    }
    if (is_help(argv[1])) return cli_help(argc - 2, argv + 2);
    if (strcmp(argv[1], "--version") == 0) return cli_version(argc - 2, argv + 2);
    struct err e = {0};
    const struct verb *v = cli_verb(argv[1], &e);
    if (!v) {
        cli_complain(&e);
        return EXIT_USAGE;
    }
    if (argc == 3 && is_help(argv[2]) && !v->helps) return cli_help(1, argv + 1);
    return v->run(argc - 2, argv + 2);
}
