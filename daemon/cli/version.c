// `longtake version`
#include "daemon/cli/cli.h"
#include "proto/base/opt.h"

#include <stdio.h>
#include <string.h>

int cli_version(int argc, char **argv)
{
    if (argc > 0) {
        static const struct opt rows[] = {{.key = "help", .type = OPT_FLAG}, {0}};
        struct err e = {0};
        if (strncmp(argv[0], "--", 2) == 0)
            opt_unknown(rows, "flag", argv[0] + 2, &e);
        else
            err_set(&e, E_INPUT, "version takes no '%s'", argv[0]);
        cli_complain(&e);
        return EXIT_USAGE;
    }
    printf("longtake %s\n", LONGTAKE_VERSION);
    return EXIT_DONE;
}
