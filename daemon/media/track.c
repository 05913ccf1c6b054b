// A track is a nameless file and three numbers. pread and pwrite at sample positions; no offset is shared, no page
// mapped, so a disk that fills up is an error and not a signal.
#include "daemon/media/track.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int track_open(struct track *t, const char *folder, int rate, int channels, struct err *e)
{
    char name[4200];
    snprintf(name, sizeof name, "%s/.track-XXXXXX", folder);
    *t = (struct track){.fd = mkostemp(name, O_CLOEXEC), .rate = rate, .channels = channels};
    if (t->fd < 0)
        return err_set(e, E_FATAL, "cannot create a file in %s: %s; choose another place with -o", folder,
                       strerror(errno));
    unlink(name);
    return 0;
}

int track_append(struct track *t, const float *x, int64_t n, struct err *e)
{
    size_t sample = (size_t)t->channels * sizeof *x, left = (size_t)n * sample;
    off_t at = (off_t)((size_t)t->n * sample);
    const char *p = (const char *)x;
    while (left > 0) {
        ssize_t put = pwrite(t->fd, p, left, at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0)
            return err_set(e, E_FATAL, "cannot store the decoded voice beside the output: %s; free some space there",
                           strerror(errno));
        p += put;
        at += put;
        left -= (size_t)put;
    }
    t->n += n;
    return 0;
}

static int read_all(int fd, char *p, size_t left, off_t at, struct err *e)
{
    while (left > 0) {
        ssize_t got = pread(fd, p, left, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return err_set(
                e, E_FATAL,
                "cannot read the stored voice: %s; look at the disk of the output, then give the same command again",
                got < 0 ? strerror(errno) : "it is cut short");
        p += got;
        at += got;
        left -= (size_t)got;
    }
    return 0;
}

int track_read(const struct track *t, float *x, int64_t from, int64_t n, struct err *e)
{
    int64_t first = from < 0 ? 0 : from, end = from + n > t->n ? t->n : from + n;
    size_t channels = (size_t)t->channels, sample = channels * sizeof *x;
    if (end <= first) {
        memset(x, 0, (size_t)n * sample);
        return 0;
    }
    memset(x, 0, (size_t)(first - from) * sample);
    memset(x + (size_t)(end - from) * channels, 0, (size_t)(from + n - end) * sample);
    return read_all(t->fd, (char *)(x + (size_t)(first - from) * channels), (size_t)(end - first) * sample,
                    (off_t)((size_t)first * sample), e);
}

void track_close(struct track *t)
{
    if (t->fd > 0) close(t->fd);
    *t = (struct track){0};
}
