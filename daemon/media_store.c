// A file grows as HASH.part, is hashed once it has its length, synced, and then takes its name. A piece that does not
// go on where the part ends changes nothing: the answer says where to go on.
#include "daemon/media_store.h"

#include "daemon/inputs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 4096 };

struct media_store {
    char folder[PATH_SIZE - 128];
    int64_t most;
};

int media_store_open(struct media_store **out, const char *folder, int64_t most, struct err *e)
{
    struct media_store *m = calloc(1, sizeof *m);
    BUG_IF(!m, "no memory for the media");
    m->most = most;
    snprintf(m->folder, sizeof m->folder, "%s/media", folder);
    if (mkdir(m->folder, 0700) < 0 && errno != EEXIST) {
        int rc = err_set(e, E_FATAL, "cannot make the folder %s: %s; choose another place with --store", m->folder,
                         strerror(errno));
        free(m);
        return rc;
    }
    *out = m;
    return 0;
}

void media_store_close(struct media_store **m)
{
    free(*m);
    *m = NULL;
}

int media_store_path(const struct media_store *m, const char *name, char *path, size_t n, struct err *e)
{
    static const char prefix[] = "content:";
    const char *hash = name + sizeof prefix - 1;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || strlen(hash) != 64 || strspn(hash, "0123456789abcdef") != 64)
        return err_set(e, E_INPUT, "'%.80s' is not content: and a hash; files of this machine cannot be named", name);
    snprintf(path, n, "%s/%s", m->folder, hash);
    return access(path, R_OK) == 0 ? 0 : err_set(e, E_INPUT, "the file %.16s... was not brought", hash);
}

static int write_all(int fd, const void *data, size_t n, uint64_t offset)
{
    for (size_t at = 0; at < n;) {
        ssize_t some = pwrite(fd, (const char *)data + at, n - at, (off_t)(offset + at));
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) return -1;
        at += (size_t)some;
    }
    return 0;
}

// The part has its length: its name, if its bytes are right.
static int complete(const struct media_store *m, int fd, const char *part, const char *whole, const char *want,
                    struct err *e)
{
    char got[65];
    int rc = inputs_hash(got, part, e);
    if (rc < 0) err_wrap(e, "%s", part);
    if (rc >= 0 && strcmp(got, want) != 0) {
        unlink(part);
        return err_set(e, E_INPUT, "the file that was brought as %.16s... has other bytes; bring it again", want);
    }
    int folder = open(m->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc >= 0 && (fsync(fd) < 0 || rename(part, whole) < 0 || folder < 0 || fsync(folder) < 0))
        rc = err_set(e, E_FATAL, "cannot keep %s: %s; look at the disk of the store", whole, strerror(errno));
    if (folder >= 0) close(folder);
    return rc;
}

int media_store_put(struct media_store *m, const uint8_t hash[32], uint64_t offset, uint64_t total, const void *data,
                    size_t n, uint64_t *have, struct err *e)
{
    char name[65], part[PATH_SIZE], whole[PATH_SIZE];
    struct stat st;
    for (int i = 0; i < 32; i++) snprintf(name + 2 * i, 3, "%02x", hash[i]);
    snprintf(whole, sizeof whole, "%s/%s", m->folder, name);
    snprintf(part, sizeof part, "%s.part", whole);
    if (total == 0 || total > (uint64_t)m->most)
        return err_set(e, E_INPUT, "a file of %llu bytes is not taken; at most %lld are (upload-max)",
                       (unsigned long long)total, (long long)m->most);
    *have = total;
    if (access(whole, F_OK) == 0) return 0;
    *have = stat(part, &st) == 0 ? (uint64_t)st.st_size : 0;
    if (n == 0 || offset != *have || *have + n > total) return 0;
    int fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc = 0;
    if (fd < 0 || write_all(fd, data, n, offset) < 0)
        rc = err_set(e, E_FATAL, "cannot keep the file %s: %s; look at the disk of the store", part, strerror(errno));
    else {
        *have += n;
        if (*have == total) rc = complete(m, fd, part, whole, name, e);
    }
    if (fd >= 0) close(fd);
    return rc;
}
