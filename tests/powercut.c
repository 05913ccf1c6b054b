// What a power cut leaves: a library to be preloaded (LD_PRELOAD) that keeps, beside a folder, what of it is surely on
// disk.
//
//   POWERCUT_FROM  the folder        POWERCUT_TO  where the sure things go
//
// fsync or fdatasync of a file copies its bytes to TO/bytes/<inode and birth>; of a folder, the list of its names to
// TO/names/<inode and birth>. powercut.py puts the folder together from these: a name that was not synced is gone, a
// file whose bytes were not synced is empty.
//
// CLOCK_BACK names a file: while it exists, the wall clock shows a day less.
//
// HOLD names a file, and HOLD_AT how the name of another one ends: while the first exists, a sync of the second waits,
// and <HOLD>.held says that it does.
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fsync(int fd);
int fdatasync(int fd);

static int key_of(int fd, const char *path, char *key, size_t n)
{
    struct statx s;
    int at = path ? AT_FDCWD : fd;
    if (statx(at, path ? path : "", path ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &s) < 0)
        return -1;
    snprintf(key, n, "%llu-%lld-%u", (unsigned long long)s.stx_ino, (long long)s.stx_btime.tv_sec, s.stx_btime.tv_nsec);
    return 0;
}

static void copy_bytes(const char *path, const char *to)
{
    static const size_t piece = 1 << 16;
    char *buffer = malloc(piece);
    int fd = open(path, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    off_t at = 0;
    for (ssize_t k; out >= 0 && buffer && (k = pread(fd, buffer, piece, at)) > 0; at += k)
        if (write(out, buffer, (size_t)k) != k) break;
    if (fd >= 0) close(fd);
    if (out >= 0) close(out);
    free(buffer);
}

static void copy_names(const char *folder, const char *to)
{
    FILE *out = fopen(to, "w");
    DIR *dir = opendir(folder);
    for (struct dirent *d; out && dir && (d = readdir(dir));) {
        char path[2 * PATH_MAX], key[96];
        struct stat st;
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, d->d_name);
        if (lstat(path, &st) == 0 && key_of(-1, path, key, sizeof key) == 0)
            fprintf(out, "%c %s %s\n", S_ISDIR(st.st_mode) ? 'd' : S_ISREG(st.st_mode) ? 'f' : '-', key, d->d_name);
    }
    if (dir) closedir(dir);
    if (out) fclose(out);
}

static void note(int fd)
{
    const char *from = getenv("POWERCUT_FROM"), *to = getenv("POWERCUT_TO");
    char link[64], path[PATH_MAX], key[96], part[PATH_MAX + 200], whole[PATH_MAX + 200];
    struct stat st;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (!from || !to || n < 0 || fstat(fd, &st) < 0) return;
    path[n] = 0;
    if (strncmp(path, from, strlen(from)) != 0 || key_of(fd, NULL, key, sizeof key) < 0) return;
    bool folder = S_ISDIR(st.st_mode);
    snprintf(whole, sizeof whole, "%s/%s/%s", to, folder ? "names" : "bytes", key);
    snprintf(part, sizeof part, "%s.%ld", whole, (long)syscall(SYS_gettid));
    if (folder)
        copy_names(path, part);
    else
        copy_bytes(path, part);
    rename(part, whole);
}

static void hold(int fd)
{
    const char *while_there = getenv("HOLD"), *end = getenv("HOLD_AT");
    char link[64], path[PATH_MAX], held[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (!while_there || !end || n < (ssize_t)strlen(end)) return;
    path[n] = 0;
    if (strcmp(path + n - strlen(end), end) != 0 || access(while_there, F_OK) < 0) return;
    snprintf(held, sizeof held, "%s.held", while_there);
    close(open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    while (access(while_there, F_OK) == 0) usleep(10000);
}

int fsync(int fd)
{
    hold(fd);
    note(fd);
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    note(fd);
    return (int)syscall(SYS_fdatasync, fd);
}

static time_t shift(void)
{
    const char *back = getenv("CLOCK_BACK");
    return back && access(back, F_OK) == 0 ? -86400 : 0;
}

time_t time(time_t *to)
{
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &t);
    t.tv_sec += shift();
    if (to) *to = t.tv_sec;
    return t.tv_sec;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (rc == 0 && id == CLOCK_REALTIME) t->tv_sec += shift();
    return rc;
}
