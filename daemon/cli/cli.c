// The verbs as a table: help, main and the answer to a misspelt one read the same rows.
#include "daemon/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct verb cli_verbs[] = {
    {"render", cli_render, "render one video: longtake render --image FILE --audio FILE -o FILE.mp4"},
    {"weights", cli_weights, "make, check and convert model files"},
    {"version", cli_version, "print the version"},
    {"help", cli_help, "this list, or the flags of a verb: longtake help render"},
    {0},
};

void cli_complain(const struct err *e) { fprintf(stderr, "longtake: %s\n", e->text); }

void cli_sibling(char *path, size_t n, const char *name)
{
    char self[4096];
    ssize_t got = readlink("/proc/self/exe", self, sizeof self - 1);
    self[got < 0 ? 0 : got] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    snprintf(path, n, "%s/%s", self, name);
}
