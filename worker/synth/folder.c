// A folder written under another name.
//
// The partial folder holds a mark, locked for as long as its writer lives. So three cases of a partial folder that is
// already there are told apart: a lock that is held is another run; a mark that nobody holds is what a killed run left,
// which is removed; no mark is somebody's own folder, which is not touched. Renaming replaces an empty folder.
#include "worker/synth/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char mark[] = ".longtake-partial";

static bool is_empty(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    if (!d) return false;
    for (struct dirent *f; (f = readdir(d));) n += strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0;
    closedir(d);
    return n == 0;
}

// Where the folder is, if it is there and empty; else as it was written, without trailing slashes.
static int find_place(struct folder *f, const char *dir, struct err *e)
{
    struct stat st;
    char whole[PATH_MAX];
    if (stat(dir, &st) == 0) {
        if (!S_ISDIR(st.st_mode)) return err_set(e, E_INPUT, "%s is a file; name a folder that is not there yet", dir);
        if (!is_empty(dir)) return err_set(e, E_INPUT, "%s is not empty; name another folder or empty it first", dir);
        if (!realpath(dir, whole)) return err_set(e, E_INPUT, "cannot use the folder %s: %s", dir, strerror(errno));
        dir = whole;
    }
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    if (n == 0 || n >= FOLDER_PATH)
        return err_set(e, E_INPUT, "the path of the output folder has %zu bytes; 1 to %d are allowed", n,
                       FOLDER_PATH - 1);
    snprintf(f->dir, sizeof f->dir, "%.*s", (int)n, dir);
    snprintf(f->partial, sizeof f->partial, "%s.partial", f->dir);
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *place)
{
    (void)st;
    (void)flag;
    (void)place;
    return remove(path);
}

static void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

// Opens and locks the mark; `flags` O_CREAT | O_EXCL for a new one.
static int take_mark(struct folder *f, int flags, struct err *e)
{
    char path[FOLDER_PATH + 64];
    snprintf(path, sizeof path, "%s/%s", f->partial, mark);
    f->lock = open(path, O_RDWR | O_CLOEXEC | flags, 0666);
    if (f->lock < 0 && errno == ENOENT)
        return err_set(e, E_INPUT, "%s is in the way; remove it or name another folder", f->partial);
    if (f->lock < 0) return err_set(e, E_INPUT, "cannot write %s: %s", path, strerror(errno));
    if (flock(f->lock, LOCK_EX | LOCK_NB) == 0) return 0;
    close(f->lock);
    return err_set(e, E_INPUT, "another run is writing %s; wait for it or name another folder", f->partial);
}

static int clear_old(struct folder *f, struct err *e)
{
    int rc = take_mark(f, 0, e);
    if (rc < 0) return rc;
    remove_tree(f->partial);
    close(f->lock);
    return 0;
}

int folder_begin(struct folder *f, const char *dir, struct err *e)
{
    int rc = find_place(f, dir, e);
    struct stat st;
    if (rc == 0 && lstat(f->partial, &st) == 0) rc = clear_old(f, e);
    if (rc == 0 && mkdir(f->partial, 0777) < 0)
        rc = err_set(e, E_INPUT, "cannot make the folder %s: %s; choose another place with -o", f->partial,
                     strerror(errno));
    return rc < 0 ? rc : take_mark(f, O_CREAT | O_EXCL, e);
}

int folder_finish(struct folder *f, struct err *e)
{
    char path[FOLDER_PATH + 64];
    if (rename(f->partial, f->dir) < 0)
        return err_set(e, E_INPUT, "cannot rename %s to %s: %s", f->partial, f->dir, strerror(errno));
    snprintf(path, sizeof path, "%s/%s", f->dir, mark);
    unlink(path);
    close(f->lock);
    return 0;
}

void folder_drop(struct folder *f)
{
    remove_tree(f->partial);
    close(f->lock);
}
