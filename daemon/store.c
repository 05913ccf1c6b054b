// SQLite with a write-ahead log, every commit synced (synchronous=FULL), the file held by this process alone.
//
//   jobs      what was asked, and where it stands          spans    what a job's media gave: its plan
//   segments  what is in the film, in order, and the tail  events   what happened to a job, the last thousand
//
// The lock is a file of its own, because SQLite's is only taken with the first statement and gives no name to the other
// process. A process that died between fork and exec of a child holds it a moment longer: hence the second's patience.
//
// Traps. Rows are hostile once somebody has had the file in his hands: counts are checked when they are read. Times are
// for people and come from the wall clock; nothing here or elsewhere decides by them, so a clock may jump.
#include "daemon/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SCHEMA = 1, PATIENCE_MS = 1000, PATH_SIZE = 4096 };

static const char schema[] = "CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, "
                             "spec TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL, "
                             "code INTEGER NOT NULL DEFAULT 0, error TEXT, created_s INTEGER NOT NULL, "
                             "ended_s INTEGER NOT NULL DEFAULT 0);"
                             "CREATE TABLE spans (job INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, "
                             "number INTEGER NOT NULL, n_frames INTEGER NOT NULL, n_segments INTEGER NOT NULL, "
                             "PRIMARY KEY (job, number)) WITHOUT ROWID;"
                             "CREATE TABLE segments (job INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, "
                             "number INTEGER NOT NULL, frames INTEGER NOT NULL, media_bytes INTEGER NOT NULL, "
                             "tail BLOB, condition_ms INTEGER NOT NULL, denoise_ms INTEGER NOT NULL, "
                             "decode_ms INTEGER NOT NULL, tail_ms INTEGER NOT NULL, drift REAL NOT NULL, "
                             "PRIMARY KEY (job, number));"
                             "CREATE TABLE events (job INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, "
                             "number INTEGER NOT NULL, at_s INTEGER NOT NULL, text TEXT NOT NULL, "
                             "PRIMARY KEY (job, number)) WITHOUT ROWID;";

#define JOB_COLUMNS                                                                                                    \
    "SELECT id, key, spec, state, priority, code, error, created_s, ended_s, "                                         \
    "coalesce((SELECT n_frames FROM spans WHERE job = id AND number = 0), 0), "                                        \
    "coalesce((SELECT n_segments FROM spans WHERE job = id AND number = 0), 0), "                                      \
    "coalesce((SELECT max(number) + 1 FROM segments WHERE job = id), 0), "                                             \
    "coalesce((SELECT frames FROM segments WHERE job = id ORDER BY number DESC LIMIT 1), 0), "                         \
    "coalesce((SELECT media_bytes FROM segments WHERE job = id ORDER BY number DESC LIMIT 1), 0) FROM jobs "

enum statement {
    ADD,
    GET,
    GET_KEY,
    NEXT,
    MOVE,
    PLAN,
    DELETE,
    LAST_SEGMENT,
    COMMIT_SEGMENT,
    DROP_TAILS,
    SEGMENT,
    ADD_EVENT,
    DROP_EVENTS,
    NEXT_EVENT,
    STATEMENTS
};
static const char *const sql[STATEMENTS] = {
    [ADD] = "INSERT INTO jobs (key, spec, state, priority, created_s) VALUES (?1, ?2, ?3, ?4, ?5)",
    [GET] = JOB_COLUMNS "WHERE id = ?1",
    [GET_KEY] = JOB_COLUMNS "WHERE key = ?1",
    [NEXT] = JOB_COLUMNS "WHERE id > ?1 ORDER BY id LIMIT 1",
    [MOVE] = "UPDATE jobs SET state = ?2, code = ?3, error = ?4, ended_s = ?5 WHERE id = ?1",
    [PLAN] = "INSERT OR REPLACE INTO spans (job, number, n_frames, n_segments) VALUES (?1, 0, ?2, ?3)",
    [DELETE] = "DELETE FROM jobs WHERE id = ?1",
    [LAST_SEGMENT] = "SELECT coalesce(max(number), -1) FROM segments WHERE job = ?1",
    [COMMIT_SEGMENT] = "INSERT INTO segments (job, number, frames, media_bytes, tail, condition_ms, denoise_ms, "
                       "decode_ms, tail_ms, drift) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    [DROP_TAILS] = "UPDATE segments SET tail = NULL WHERE job = ?1 AND number = ?2 - 1",
    [SEGMENT] = "SELECT frames, media_bytes, tail, condition_ms, denoise_ms, decode_ms, tail_ms, drift FROM segments "
                "WHERE job = ?1 AND number = ?2",
    [ADD_EVENT] = "INSERT INTO events (job, number, at_s, text) VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM "
                  "events WHERE job = ?1), ?2, ?3)",
    [DROP_EVENTS] = "DELETE FROM events WHERE job = ?1 AND number <= (SELECT max(number) FROM events WHERE job = ?1) "
                    "- ?2",
    [NEXT_EVENT] = "SELECT number, at_s, text FROM events WHERE job = ?1 AND number > ?2 ORDER BY number LIMIT 1",
};

struct store {
    char folder[PATH_SIZE];
    int lock;
    bool is_new;
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENTS];
};

static int store_fail(const struct store *s, const char *what, struct err *e)
{
    int rc = sqlite3_errcode(s->db);
    if (rc == SQLITE_FULL || sqlite3_system_errno(s->db) == ENOSPC)
        return err_set(e, E_FATAL, "the store %s cannot %s: no space left on the disk; free some", s->folder, what);
    if (sqlite3_system_errno(s->db) != 0 && rc != SQLITE_CORRUPT && rc != SQLITE_CONSTRAINT)
        return err_set(e, E_FATAL, "the store %s cannot %s: %s", s->folder, what,
                       strerror(sqlite3_system_errno(s->db)));
    if (rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB)
        return err_set(e, E_FATAL, "the store %s is damaged: %s; move it away to begin anew", s->folder,
                       sqlite3_errmsg(s->db));
    return err_set(e, E_FATAL, "the store %s cannot %s: %s", s->folder, what, sqlite3_errmsg(s->db));
}

// ---- statements

// The statement, its last run forgotten. What it gave out was valid until now.
static sqlite3_stmt *prepare(struct store *s, enum statement which)
{
    for (int i = 0; i < STATEMENTS; i++)
        if (s->statement[i]) sqlite3_reset(s->statement[i]);
    sqlite3_stmt *q = s->statement[which];
    sqlite3_clear_bindings(q);
    return q;
}

static void bind_text(sqlite3_stmt *q, int i, const char *text)
{
    if (text) sqlite3_bind_text(q, i, text, -1, SQLITE_TRANSIENT);
}

static int run(struct store *s, sqlite3_stmt *q, const char *what, struct err *e)
{
    int rc = sqlite3_step(q);
    rc = rc == SQLITE_DONE ? 0 : store_fail(s, what, e);
    sqlite3_reset(q);
    return rc;
}

// 1: a row, 0: none.
static int row(struct store *s, sqlite3_stmt *q, struct err *e)
{
    int rc = sqlite3_step(q);
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : store_fail(s, "be read", e);
}

static int plain(struct store *s, const char *text, struct err *e)
{
    return sqlite3_exec(s->db, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : store_fail(s, "be written", e);
}

// Ends the transaction: for good, or, after an error, as if nothing had been.
static int settle(struct store *s, int rc, struct err *e)
{
    if (rc >= 0) rc = plain(s, "COMMIT", e);
    if (rc < 0 && !sqlite3_get_autocommit(s->db)) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

static const char *text_at(sqlite3_stmt *q, int i) { return (const char *)sqlite3_column_text(q, i); }

// ---- opening

// The name of a new folder is on disk after this. Where a file system cannot do that, nothing better is to be had.
static void folder_sync(const char *folder)
{
    char above[PATH_SIZE + 4];
    snprintf(above, sizeof above, "%s/..", folder);
    int fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

static int folder_take(struct store *s, struct err *e)
{
    char path[PATH_SIZE + 16];
    if (mkdir(s->folder, 0700) < 0 && errno != EEXIST)
        return err_set(e, E_INPUT, "cannot make the folder %s: %s; choose another place", s->folder, strerror(errno));
    snprintf(path, sizeof path, "%s/store.db", s->folder);
    s->is_new = access(path, F_OK) < 0;
    if (s->is_new) folder_sync(s->folder);
    snprintf(path, sizeof path, "%s/lock", s->folder);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock < 0)
        return err_set(e, E_INPUT, "cannot write in %s: %s; choose another place", s->folder, strerror(errno));
    for (int waited = 0; flock(s->lock, LOCK_EX | LOCK_NB) < 0; waited += 50) {
        if (waited >= PATIENCE_MS) return err_set(e, E_BUSY, "another process works in %s", s->folder);
        usleep(50000);
    }
    return 0;
}

static int schema_take(struct store *s, struct err *e)
{
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &q, NULL) != SQLITE_OK)
        return store_fail(s, "be opened", e);
    int rc = row(s, q, e), version = rc == 1 ? sqlite3_column_int(q, 0) : 0;
    sqlite3_finalize(q);
    if (rc < 0) return rc;
    if (version == SCHEMA) return 0;
    if (version != 0)
        return err_set(e, E_INPUT, "the store %s has format %d, and this program (%s) knows %d; use the later one",
                       s->folder, version, LONGTAKE_VERSION, SCHEMA);
    rc = plain(s, "BEGIN IMMEDIATE", e);
    if (rc >= 0) rc = plain(s, schema, e);
    if (rc >= 0) rc = plain(s, "PRAGMA user_version = 1", e);
    return settle(s, rc, e);
}

static int database_open(struct store *s, struct err *e)
{
    char path[PATH_SIZE + 16];
    snprintf(path, sizeof path, "%s/store.db", s->folder);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK) return store_fail(s, "be opened", e);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    static const char settings[] = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = "
                                   "FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA "
                                   "cell_size_check = ON;";
    int rc = plain(s, settings, e);
    if (rc >= 0) rc = schema_take(s, e);
    for (int i = 0; i < STATEMENTS && rc >= 0; i++)
        if (sqlite3_prepare_v3(s->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statement[i], NULL) != SQLITE_OK)
            rc = store_fail(s, "be opened", e);
    return rc;
}

int store_open(struct store **out, const char *folder, struct err *e)
{
    struct store *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for a store");
    s->lock = -1;
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    int rc = folder_take(s, e);
    if (rc >= 0) rc = database_open(s, e);
    if (rc < 0) {
        if (rc != E_BUSY && s->is_new)
            store_remove(&s);
        else
            store_close(&s);
        return rc;
    }
    *out = s;
    return 0;
}

void store_close(struct store **ps)
{
    struct store *s = *ps;
    if (!s) return;
    for (int i = 0; i < STATEMENTS; i++) sqlite3_finalize(s->statement[i]);
    sqlite3_close(s->db);
    if (s->lock >= 0) close(s->lock);
    free(s);
    *ps = NULL;
}

bool store_is_new(const struct store *s) { return s->is_new; }

void store_remove(struct store **ps)
{
    char folder[PATH_SIZE];
    snprintf(folder, sizeof folder, "%s", (*ps)->folder);
    store_close(ps);
    // The database last: whoever is killed amid this finds the job's end in it.
    for (int last = 0; last < 2; last++) {
        DIR *dir = opendir(folder);
        if (!dir) return;
        for (struct dirent *d; (d = readdir(dir));) {
            bool own = !strncmp(d->d_name, "store.db", 8) || !strcmp(d->d_name, "lock");
            if (own == last && strcmp(d->d_name, ".") && strcmp(d->d_name, "..")) unlinkat(dirfd(dir), d->d_name, 0);
        }
        closedir(dir);
    }
    rmdir(folder);
}

// ---- jobs

int store_add(struct store *s, const struct store_job *j, uint64_t *id, struct err *e)
{
    sqlite3_stmt *q = prepare(s, ADD);
    bind_text(q, 1, j->key);
    bind_text(q, 2, j->spec);
    bind_text(q, 3, j->state);
    sqlite3_bind_int(q, 4, j->priority);
    sqlite3_bind_int64(q, 5, time(NULL));
    int rc = run(s, q, "take a job", e);
    if (rc >= 0) *id = (uint64_t)sqlite3_last_insert_rowid(s->db);
    return rc;
}

static int job_read(struct store *s, sqlite3_stmt *q, struct store_job *j, struct err *e)
{
    int rc = row(s, q, e);
    if (rc <= 0) return rc;
    *j = (struct store_job){.id = (uint64_t)sqlite3_column_int64(q, 0),
                            .key = text_at(q, 1),
                            .spec = text_at(q, 2),
                            .state = text_at(q, 3),
                            .priority = sqlite3_column_int(q, 4),
                            .code = sqlite3_column_int(q, 5),
                            .error = text_at(q, 6),
                            .created_s = sqlite3_column_int64(q, 7),
                            .ended_s = sqlite3_column_int64(q, 8),
                            .n_frames = sqlite3_column_int64(q, 9),
                            .n_segments = sqlite3_column_int64(q, 10),
                            .segments = sqlite3_column_int64(q, 11),
                            .frames = sqlite3_column_int64(q, 12),
                            .media_bytes = sqlite3_column_int64(q, 13)};
    bool right = j->spec && j->state && j->segments >= 0 && j->segments <= j->n_segments && j->frames >= 0 &&
                 j->frames <= j->n_frames && j->media_bytes >= 0 && (j->segments == 0) == (j->media_bytes == 0);
    if (right) return 1;
    return err_set(e, E_FATAL, "the store %s is damaged: job %llu has %lld of %lld segments in %lld bytes", s->folder,
                   (unsigned long long)j->id, (long long)j->segments, (long long)j->n_segments,
                   (long long)j->media_bytes);
}

int store_get(struct store *s, uint64_t id, struct store_job *j, struct err *e)
{
    sqlite3_stmt *q = prepare(s, GET);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    return job_read(s, q, j, e);
}

int store_get_key(struct store *s, const char *key, struct store_job *j, struct err *e)
{
    sqlite3_stmt *q = prepare(s, GET_KEY);
    bind_text(q, 1, key);
    return job_read(s, q, j, e);
}

int store_next(struct store *s, uint64_t after, struct store_job *j, struct err *e)
{
    sqlite3_stmt *q = prepare(s, NEXT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)after);
    return job_read(s, q, j, e);
}

static int event_add(struct store *s, uint64_t job, const char *text, struct err *e)
{
    sqlite3_stmt *q = prepare(s, ADD_EVENT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, time(NULL));
    bind_text(q, 3, text);
    int rc = run(s, q, "keep an event", e);
    if (rc < 0) return rc;
    q = prepare(s, DROP_EVENTS);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int(q, 2, STORE_EVENTS_MAX);
    return run(s, q, "keep an event", e);
}

static bool ends(const char *state)
{
    return !strcmp(state, "completed") || !strcmp(state, "failed") || !strcmp(state, "cancelled");
}

int store_move(struct store *s, uint64_t id, const char *state, const struct err *error, struct err *e)
{
    char event[1200];
    snprintf(event, sizeof event, "%s%s%s", state, error ? ": " : "", error ? error->text : "");
    int rc = plain(s, "BEGIN IMMEDIATE", e);
    if (rc < 0) return rc;
    sqlite3_stmt *q = prepare(s, MOVE);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    bind_text(q, 2, state);
    sqlite3_bind_int(q, 3, error ? error->code : 0);
    bind_text(q, 4, error ? error->text : NULL);
    sqlite3_bind_int64(q, 5, ends(state) ? time(NULL) : 0);
    rc = run(s, q, "move a job", e);
    if (rc >= 0) rc = event_add(s, id, event, e);
    return settle(s, rc, e);
}

int store_plan(struct store *s, uint64_t id, int64_t n_frames, int64_t n_segments, struct err *e)
{
    sqlite3_stmt *q = prepare(s, PLAN);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    sqlite3_bind_int64(q, 2, n_frames);
    sqlite3_bind_int64(q, 3, n_segments);
    return run(s, q, "keep a plan", e);
}

int store_delete(struct store *s, uint64_t id, struct err *e)
{
    sqlite3_stmt *q = prepare(s, DELETE);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    return run(s, q, "forget a job", e);
}

// ---- segments

static int commit_in_order(struct store *s, const struct store_segment *g, struct err *e)
{
    sqlite3_stmt *q = prepare(s, LAST_SEGMENT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)g->job);
    int rc = row(s, q, e);
    if (rc < 0) return rc;
    int64_t last = sqlite3_column_int64(q, 0);
    if (g->number != last + 1)
        return err_set(e, E_FATAL, "segment %lld of job %llu cannot be committed: %lld is due", (long long)g->number,
                       (unsigned long long)g->job, (long long)last + 1);
    q = prepare(s, COMMIT_SEGMENT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)g->job);
    sqlite3_bind_int64(q, 2, g->number);
    sqlite3_bind_int64(q, 3, g->frames);
    sqlite3_bind_int64(q, 4, g->media_bytes);
    if (g->tail) sqlite3_bind_blob64(q, 5, g->tail, g->n_tail, SQLITE_STATIC);
    const int64_t ms[] = {g->condition_ms, g->denoise_ms, g->decode_ms, g->tail_ms};
    for (int i = 0; i < 4; i++) sqlite3_bind_int64(q, 6 + i, ms[i]);
    sqlite3_bind_double(q, 10, g->drift);
    rc = run(s, q, "commit a segment", e);
    if (rc < 0) return rc;
    q = prepare(s, DROP_TAILS);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)g->job);
    sqlite3_bind_int64(q, 2, g->number);
    return run(s, q, "commit a segment", e);
}

int store_commit(struct store *s, const struct store_segment *g, struct err *e)
{
    int rc = plain(s, "BEGIN IMMEDIATE", e);
    if (rc >= 0) rc = settle(s, commit_in_order(s, g, e), e);
    return rc;
}

int store_segment(struct store *s, uint64_t job, int64_t number, struct store_segment *g, struct err *e)
{
    sqlite3_stmt *q = prepare(s, SEGMENT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, number);
    int rc = row(s, q, e);
    if (rc <= 0) return rc;
    *g = (struct store_segment){.job = job,
                                .number = number,
                                .frames = sqlite3_column_int64(q, 0),
                                .media_bytes = sqlite3_column_int64(q, 1),
                                .tail = sqlite3_column_blob(q, 2),
                                .n_tail = (size_t)sqlite3_column_bytes(q, 2),
                                .condition_ms = sqlite3_column_int64(q, 3),
                                .denoise_ms = sqlite3_column_int64(q, 4),
                                .decode_ms = sqlite3_column_int64(q, 5),
                                .tail_ms = sqlite3_column_int64(q, 6),
                                .drift = sqlite3_column_double(q, 7)};
    return 1;
}

// ---- events

int store_event(struct store *s, uint64_t job, const char *text, struct err *e)
{
    int rc = plain(s, "BEGIN IMMEDIATE", e);
    if (rc >= 0) rc = settle(s, event_add(s, job, text, e), e);
    return rc;
}

int store_event_next(struct store *s, uint64_t job, int64_t *number, int64_t *at_s, const char **text, struct err *e)
{
    sqlite3_stmt *q = prepare(s, NEXT_EVENT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, *number);
    int rc = row(s, q, e);
    if (rc <= 0) return rc;
    *number = sqlite3_column_int64(q, 0);
    *at_s = sqlite3_column_int64(q, 1);
    *text = text_at(q, 2);
    return 1;
}
