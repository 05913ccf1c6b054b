// `longtake version`
#include "daemon/cli/cli.h"

#include <stdio.h>

int cli_version(int argc, char **argv)
{
    (void)argc, (void)argv;
    printf("longtake %s\n", LONGTAKE_VERSION);
    return EXIT_DONE;
}
