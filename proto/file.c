// Reading a small file as a whole. The limit is checked before memory is taken, so that a device, a pipe or a huge file
// given by mistake is refused instead of swallowed.
#include "proto/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_text(char **out, size_t *n, const char *path, size_t max, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe nobody writes to would be waited for
    FILE *f = fd >= 0 ? fdopen(fd, "rb") : NULL;
    if (!f) return err_set(e, E_INPUT, "cannot read %s: %s", path, strerror(errno));
    int rc = 0;
    char *text = NULL;
    if (fstat(fileno(f), &st) < 0 || !S_ISREG(st.st_mode))
        rc = err_set(e, E_INPUT, "%s is not a file", path);
    else if ((uint64_t)st.st_size > max)
        rc = err_set(e, E_INPUT, "%s has %lld bytes; at most %zu are read of such a file", path, (long long)st.st_size,
                     max);
    else if (!(text = malloc((size_t)st.st_size + 1)))
        rc = err_set(e, E_FATAL, "no memory to read %s", path);
    else if (fread(text, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        rc = err_set(e, E_INPUT, "cannot read %s to its end; copy it again", path);
    fclose(f);
    if (rc < 0) {
        free(text);
        return rc;
    }
    text[st.st_size] = 0;
    *out = text;
    *n = (size_t)st.st_size;
    return 0;
}

int file_way(const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0) return err_way(e, "check the name");
    if (!S_ISREG(st.st_mode)) return err_way(e, "name a file");
    return err_way(e, access(path, R_OK) < 0 ? "give yourself the right to read it (chmod)" : "mend it there");
}
