// Nameless files: O_TMPFILE where the disk can do it, else a name that is removed at once.
#include "worker/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int scratch_open(const char *dir, const char *what, struct err *e)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    char path[4096];
    snprintf(path, sizeof path, "%s/scratchXXXXXX", dir);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return err_set(e, E_FATAL, "cannot keep %s in %s: %s; name another folder with --cache", what, dir,
                       strerror(errno));
    unlink(path);
    return fd;
}
