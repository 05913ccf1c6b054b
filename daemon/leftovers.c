// Who is killed cleans nothing up; the next one to start a worker does.
//
// Whether a folder is alive only its socket knows: a connection that is refused means that nobody has it open. A daemon
// that is stopped or busy still takes connections, into its queue. Trap: between making the folder and listening there
// is a moment in which a living one refuses, too; so young folders are left alone.
#include "daemon/leftovers.h"

#include "proto/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { YOUNG_S = 60, DEPTH_FILES = 16 };

static const char prefix[] = "longtake-";

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    remove(path);
    return 0;
}

void leftovers_remove(const char *folder) { nftw(folder, remove_entry, DEPTH_FILES, FTW_DEPTH | FTW_PHYS); }

static bool nobody_listens(const char *folder)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (snprintf(at.sun_path, sizeof at.sun_path, "%s/socket", folder) >= (int)sizeof at.sun_path) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool refused = connect(fd, (const struct sockaddr *)&at, sizeof at) < 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

void leftovers_sweep(const char *base)
{
    DIR *dir = opendir(base);
    if (!dir) return;
    for (struct dirent *f; (f = readdir(dir));) {
        struct stat st;
        char folder[4096];
        if (strncmp(f->d_name, prefix, sizeof prefix - 1) != 0 || strlen(f->d_name) != sizeof prefix - 1 + 6) continue;
        if (fstatat(dirfd(dir), f->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
        bool ours = S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 0777) == 0700;
        if (!ours || time(NULL) - st.st_mtime < YOUNG_S) continue;
        snprintf(folder, sizeof folder, "%s/%s", base, f->d_name);
        if (!nobody_listens(folder)) continue;
        log_info("group.leftover", "folder=\"%s\"", folder);
        leftovers_remove(folder);
    }
    closedir(dir);
}
