// The name of a film that was given none: as the published program has it, in the working folder, and never one that is
// taken.
#ifndef DAEMON_CLI_NAME_H
#define DAEMON_CLI_NAME_H

#include "proto/base/err.h"

#include <stddef.h>
#include <time.h>

enum { NAME_BYTES = 120 }; // of the name, without the folder

struct name_of {
    const char *size, *prompt;
    int ulysses, ring;
    time_t when;
};

// FOLDER/infinitetalk_SIZE_ULYSSES_RING_PROMPT_YYYYmmdd_HHMMSS.mp4. Of the prompt, the first 50 letters, digits, "-",
// "_" and "."; what else is in it becomes "_". Where a film of that name or a render of it is there: "-1", "-2", ...
// behind it.
int name_choose(char *path, size_t n, const char *folder, const struct name_of *o, struct err *e);

#endif
