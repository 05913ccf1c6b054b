// A pass looks at every job, a few rows at a time and not more than once a minute, so that a store of many thousand
// jobs is walked without anybody noticing. What it has added up decides what the next pass may remove to come below the
// limit of bytes; age is known at once.
//
// A job's row goes first, then its folder: whoever is killed in between leaves a folder without a row, which the next
// pass of a later daemon does not miss. Brought files are removed an hour after they came at the earliest: their job
// may still be on its way.
#include "daemon/keep.h"

#include "proto/base/clock.h"
#include "proto/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { SLICE = 64, SLICE_MS = 50, PASS_MS = 60000, ROOM_MS = 1000, BROUGHT_S = 3600, PATH_SIZE = 4400, NAME = 64 };

struct keep {
    char folder[4096];
    struct keep_limits limits;
    // the pass under way
    uint64_t at; // the last job looked at
    bool walking;
    int64_t sliced_ms, passed_ms;
    int64_t bytes, surplus; // of ended films: counted in this pass, to be removed in it
    char (*named)[NAME];    // contents that jobs name
    size_t n_named, room_named;
    // free space, asked for once a second
    int64_t asked_ms, free;
};

void keep_open(struct keep **out, const char *folder)
{
    struct keep *k = calloc(1, sizeof *k);
    BUG_IF(!k, "no memory for keeping");
    snprintf(k->folder, sizeof k->folder, "%s", folder);
    k->passed_ms = clock_ms() - PASS_MS;
    k->asked_ms = clock_ms() - ROOM_MS;
    *out = k;
}

void keep_close(struct keep **k)
{
    if (*k) free((*k)->named);
    free(*k);
    *k = NULL;
}

void keep_limit(struct keep *k, const struct keep_limits *l)
{
    k->limits = *l;
    k->asked_ms = clock_ms() - ROOM_MS;
}

// ---- a job

static bool has_ended(const struct store_job *j)
{
    return !strcmp(j->state, "completed") || !strcmp(j->state, "failed") || !strcmp(j->state, "cancelled");
}

static int64_t folder_bytes(const char *path)
{
    int64_t bytes = 0;
    DIR *d = opendir(path);
    for (struct dirent *at; d && (at = readdir(d));) {
        struct stat st;
        if (fstatat(dirfd(d), at->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) bytes += st.st_size;
    }
    if (d) closedir(d);
    return bytes;
}

static void folder_remove(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *at; d && (at = readdir(d));)
        if (strcmp(at->d_name, ".") != 0 && strcmp(at->d_name, "..") != 0) unlinkat(dirfd(d), at->d_name, 0);
    if (d) closedir(d);
    rmdir(path);
}

static bool forget(struct keep *k, struct store *s, uint64_t id, const char *why)
{
    char path[PATH_SIZE];
    struct err e = {0};
    if (store_delete(s, id, &e) < 0) {
        log_error("keep.failed", "job=%llu text=\"%s\"", (unsigned long long)id, e.text);
        return false;
    }
    snprintf(path, sizeof path, "%s/jobs/%llu", k->folder, (unsigned long long)id);
    folder_remove(path);
    log_info("keep.removed", "job=%llu why=%s", (unsigned long long)id, why);
    return true;
}

// The contents that a job's keys name: "content:HASH".
static void named_add(struct keep *k, const char *spec)
{
    static const char word[] = "content:";
    for (const char *at = spec; (at = strstr(at, word));) {
        at += sizeof word - 1;
        if (strnlen(at, NAME) < NAME) return;
        if (k->n_named == k->room_named) {
            k->room_named = k->room_named ? 2 * k->room_named : 64;
            k->named = realloc(k->named, k->room_named * NAME);
            BUG_IF(!k->named, "no memory for names");
        }
        memcpy(k->named[k->n_named++], at, NAME);
    }
}

static void look_at(struct keep *k, struct store *s, const struct store_job *j, bool in_use)
{
    char path[PATH_SIZE];
    uint64_t id = j->id;
    bool old = k->limits.age_s > 0 && j->ended_s > 0 && time(NULL) - j->ended_s > k->limits.age_s;
    bool ended = !in_use && has_ended(j);
    if (ended && old && forget(k, s, id, "age")) return;
    named_add(k, j->spec);
    if (!ended || k->limits.bytes == 0) return;
    snprintf(path, sizeof path, "%s/jobs/%llu", k->folder, (unsigned long long)id);
    int64_t bytes = folder_bytes(path);
    if (k->surplus > 0 && bytes > 0 && forget(k, s, id, "size"))
        k->surplus -= bytes;
    else
        k->bytes += bytes;
}

// ---- files that clients brought

static int by_name(const void *a, const void *b) { return memcmp(a, b, NAME); }

static void brought_tidy(struct keep *k)
{
    char path[PATH_SIZE];
    if (k->n_named > 0) qsort(k->named, k->n_named, NAME, by_name);
    snprintf(path, sizeof path, "%s/media", k->folder);
    DIR *d = opendir(path);
    for (struct dirent *at; d && (at = readdir(d));) {
        struct stat st;
        size_t n = strlen(at->d_name);
        bool part = n == NAME + 5 && strcmp(at->d_name + NAME, ".part") == 0;
        if ((n != NAME && !part) || fstatat(dirfd(d), at->d_name, &st, 0) < 0) continue;
        if (time(NULL) - st.st_mtime < BROUGHT_S) continue;
        if (!part && k->n_named > 0 && bsearch(at->d_name, k->named, k->n_named, NAME, by_name)) continue;
        unlinkat(dirfd(d), at->d_name, 0);
        log_info("keep.removed", "file=%.16s", at->d_name);
    }
    if (d) closedir(d);
}

// ---- the turn

static void pass_end(struct keep *k)
{
    if (k->limits.age_s > 0 || k->limits.bytes > 0) brought_tidy(k);
    k->surplus = k->limits.bytes > 0 && k->bytes > k->limits.bytes ? k->bytes - k->limits.bytes : 0;
    k->passed_ms = k->surplus > 0 ? clock_ms() - PASS_MS : clock_ms(); // what is too much goes at once
    k->walking = false;
    free(k->named);
    k->named = NULL;
    k->n_named = k->room_named = 0;
    k->bytes = 0;
    k->at = 0;
}

// Once a minute, and more often where films do not live long.
static int64_t pass_ms(const struct keep *k)
{
    int64_t tenth = k->limits.age_s * 100;
    return tenth > 0 && tenth < PASS_MS ? tenth : PASS_MS;
}

void keep_turn(struct keep *k, struct store *s, bool (*in_use)(void *ctx, uint64_t id), void *ctx)
{
    int64_t now = clock_ms();
    if (k->limits.age_s == 0 && k->limits.bytes == 0) return;
    if (now - k->sliced_ms < SLICE_MS || (!k->walking && now - k->passed_ms < pass_ms(k))) return;
    k->sliced_ms = now;
    k->walking = true;
    for (int i = 0; i < SLICE; i++) {
        struct store_job j;
        struct err e = {0};
        int rc = store_next(s, k->at, &j, &e);
        if (rc < 0) log_error("keep.failed", "text=\"%s\"", e.text);
        if (rc <= 0) {
            pass_end(k);
            return;
        }
        k->at = j.id;
        look_at(k, s, &j, in_use(ctx, j.id));
    }
}

int keep_room(struct keep *k, struct err *e)
{
    struct statvfs v;
    int64_t now = clock_ms();
    if (k->limits.free_min == 0) return 0;
    if (now - k->asked_ms >= ROOM_MS) {
        k->asked_ms = now;
        k->free = statvfs(k->folder, &v) == 0 ? (int64_t)v.f_bavail * (int64_t)v.f_frsize : INT64_MAX;
    }
    if (k->free >= k->limits.free_min) return 0;
    return err_set(e, E_BUSY, "the disk of %s has %lld MiB left, and free-min wants %lld: segments wait; free some",
                   k->folder, (long long)(k->free >> 20), (long long)(k->limits.free_min >> 20));
}
