// SQLite with a write-ahead log, every commit synced (synchronous=FULL), the file held by this process alone.
//
//   jobs      what was asked, where it stands, its plan and how far its film goes      cuts    where spans begin
//   segments  what is rendered and kept as a piece, and how each span ends for now     events  the last thousand of a
//   job
//
// The lock is a file of its own, because SQLite's is only taken with the first statement and gives no name to the other
// process. A process that died between fork and exec of a child holds it a moment longer: hence the second's patience.
//
// Traps. Rows are hostile once somebody has had the file in his hands: counts are checked when they are read. Times are
// for people and come from the wall clock; nothing here or elsewhere decides by them, so a clock may jump.
#include "daemon/store.h"

#include "daemon/store_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BEFORE = 2, SCHEMA = 4, PATIENCE_MS = 1000 };

static const char schema[] =
    "CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, "
    "spec TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL, batch INTEGER NOT NULL DEFAULT 0, "
    "code INTEGER NOT NULL DEFAULT 0, error TEXT, created_s INTEGER NOT NULL, ended_s INTEGER NOT NULL DEFAULT 0, "
    "layout TEXT, mixed INTEGER NOT NULL DEFAULT 0, "
    "n_frames INTEGER NOT NULL DEFAULT 0, n_segments INTEGER NOT NULL DEFAULT 0, n_cuts INTEGER NOT NULL DEFAULT 0, "
    "segments INTEGER NOT NULL DEFAULT 0, "
    "film_segments INTEGER NOT NULL DEFAULT 0, film_frames INTEGER NOT NULL DEFAULT 0, "
    "film_bytes INTEGER NOT NULL DEFAULT 0);"
    "CREATE INDEX jobs_open ON jobs (id) WHERE ended_s = 0;"
    "CREATE INDEX jobs_batch ON jobs (batch, id) WHERE batch > 0;"
    "CREATE TABLE cuts (job INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, number INTEGER NOT NULL, "
    "frame INTEGER NOT NULL, PRIMARY KEY (job, number)) WITHOUT ROWID;"
    "CREATE TABLE segments (job INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, "
    "number INTEGER NOT NULL, tail BLOB, condition_ms INTEGER NOT NULL, denoise_ms INTEGER NOT NULL, "
    "decode_ms INTEGER NOT NULL, tail_ms INTEGER NOT NULL, drift REAL NOT NULL, ranks INTEGER NOT NULL DEFAULT 1, "
    "seam REAL, last BLOB, PRIMARY KEY (job, number));"
    "CREATE TABLE events (job INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, "
    "number INTEGER NOT NULL, at_s INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job, number)) WITHOUT ROWID;";

#define JOB_COLUMNS                                                                                                    \
    "SELECT id, key, spec, state, priority, code, error, created_s, ended_s, n_frames, n_segments, segments, "         \
    "film_segments, film_frames, film_bytes, batch, layout, mixed, n_cuts FROM jobs "

static const char *const sql[STORE_STATEMENTS] = {
    [STORE_ADD] = "INSERT INTO jobs (key, spec, state, priority, created_s, batch) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [STORE_BATCH] = "UPDATE jobs SET batch = ?1 WHERE id = ?1",
    [STORE_GET] = JOB_COLUMNS "WHERE id = ?1",
    [STORE_GET_KEY] = JOB_COLUMNS "WHERE key = ?1",
    [STORE_NEXT] = JOB_COLUMNS "WHERE id > ?1 ORDER BY id LIMIT 1",
    [STORE_NEXT_OPEN] = JOB_COLUMNS "WHERE id > ?1 AND ended_s = 0 ORDER BY id LIMIT 1",
    [STORE_NEXT_OF_BATCH] = JOB_COLUMNS "WHERE batch > 0 AND batch = ?2 AND id > ?1 ORDER BY id LIMIT 1",
    [STORE_MOVE] = "UPDATE jobs SET state = ?2, code = ?3, error = ?4, ended_s = ?5 WHERE id = ?1",
    [STORE_SPEC] = "UPDATE jobs SET spec = ?2 WHERE id = ?1",
    [STORE_PLAN] = "UPDATE jobs SET n_frames = ?2, n_segments = ?3, n_cuts = ?4 WHERE id = ?1",
    [STORE_DELETE] = "DELETE FROM jobs WHERE id = ?1",
    [STORE_ADD_CUT] = "INSERT OR REPLACE INTO cuts (job, number, frame) VALUES (?1, ?2, ?3)",
    [STORE_CUTS] = "SELECT frame FROM cuts WHERE job = ?1 ORDER BY number",
    [STORE_COMMIT] = "INSERT INTO segments (job, number, tail, condition_ms, denoise_ms, decode_ms, tail_ms, drift, "
                     "ranks, seam, last) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    [STORE_COUNT] = "UPDATE jobs SET segments = segments + 1, mixed = mixed OR coalesce(layout <> ?2, 0), "
                    "layout = coalesce(layout, ?2) WHERE id = ?1",
    [STORE_DROP_TAIL] = "UPDATE segments SET tail = NULL, last = NULL WHERE job = ?1 AND number = ?2",
    [STORE_SEGMENT] = "SELECT number, tail, condition_ms, denoise_ms, decode_ms, tail_ms, drift, last FROM segments "
                      "WHERE job = ?1 AND number >= ?2 ORDER BY number LIMIT 1",
    [STORE_REPORT] = "SELECT count(*), total(condition_ms), total(denoise_ms), total(decode_ms), total(tail_ms), "
                     "total((condition_ms + denoise_ms + decode_ms + tail_ms) * ranks), total(drift), max(drift), "
                     "count(seam), total(seam), max(seam) FROM segments WHERE job = ?1",
    [STORE_FILM] = "UPDATE jobs SET film_segments = ?2, film_frames = ?3, film_bytes = ?4 WHERE id = ?1",
    [STORE_ADD_EVENT] = "INSERT INTO events (job, number, at_s, text) VALUES (?1, (SELECT coalesce(max(number), 0) + 1 "
                        "FROM events WHERE job = ?1), ?2, ?3)",
    [STORE_DROP_EVENTS] = "DELETE FROM events WHERE job = ?1 AND number <= (SELECT max(number) FROM events WHERE job = "
                          "?1) - ?2",
    [STORE_NEXT_EVENT] = "SELECT number, at_s, text FROM events WHERE job = ?1 AND number > ?2 ORDER BY number LIMIT 1",
};

int store_fail(const struct store *s, const char *what, struct err *e)
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

sqlite3_stmt *store_prepare(struct store *s, enum store_statement which)
{
    for (int i = 0; i < STORE_STATEMENTS; i++)
        if (s->statement[i]) sqlite3_reset(s->statement[i]);
    sqlite3_stmt *q = s->statement[which];
    sqlite3_clear_bindings(q);
    return q;
}

void store_bind_text(sqlite3_stmt *q, int i, const char *text)
{
    if (text) sqlite3_bind_text(q, i, text, -1, SQLITE_TRANSIENT);
}

int store_run(struct store *s, sqlite3_stmt *q, const char *what, struct err *e)
{
    int rc = sqlite3_step(q);
    rc = rc == SQLITE_DONE ? 0 : store_fail(s, what, e);
    sqlite3_reset(q);
    return rc;
}

int store_row(struct store *s, sqlite3_stmt *q, struct err *e)
{
    int rc = sqlite3_step(q);
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : store_fail(s, "be read", e);
}

static int plain(struct store *s, const char *text, struct err *e)
{
    return sqlite3_exec(s->db, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : store_fail(s, "be written", e);
}

int store_begin(struct store *s, struct err *e) { return plain(s, "BEGIN IMMEDIATE", e); }

int store_settle(struct store *s, int rc, struct err *e)
{
    if (rc >= 0) rc = plain(s, "COMMIT", e);
    if (rc < 0 && !sqlite3_get_autocommit(s->db)) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

const char *store_text(sqlite3_stmt *q, int i) { return (const char *)sqlite3_column_text(q, i); }

// ---- opening

// The name of a new folder is on disk after this. Where a file system cannot do that, nothing better is to be had.
static void folder_sync(const char *folder)
{
    char above[STORE_PATH_SIZE + 4];
    snprintf(above, sizeof above, "%s/..", folder);
    int fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

static int folder_take(struct store *s, struct err *e)
{
    char path[STORE_PATH_SIZE + 16];
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
        if (waited >= PATIENCE_MS)
            return err_set(e, E_BUSY, "another process works in %s; wait for its end, or take another folder",
                           s->folder);
        usleep(50000);
    }
    return 0;
}

static int version_write(struct store *s, struct err *e)
{
    char text[48];
    snprintf(text, sizeof text, "PRAGMA user_version = %d", SCHEMA);
    return plain(s, text, e);
}

// Of format 2, whose segments do not tell of ranks and seams, or of 3, which forgets a span's last picture.
static int schema_renew(struct store *s, int version, struct err *e)
{
    int rc = store_begin(s, e);
    if (rc >= 0 && version < 3) rc = plain(s, "ALTER TABLE segments ADD COLUMN ranks INTEGER NOT NULL DEFAULT 1", e);
    if (rc >= 0 && version < 3) rc = plain(s, "ALTER TABLE segments ADD COLUMN seam REAL", e);
    if (rc >= 0) rc = plain(s, "ALTER TABLE segments ADD COLUMN last BLOB", e);
    if (rc >= 0) rc = version_write(s, e);
    return store_settle(s, rc, e);
}

static int schema_take(struct store *s, struct err *e)
{
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &q, NULL) != SQLITE_OK)
        return store_fail(s, "be opened", e);
    int rc = store_row(s, q, e), version = rc == 1 ? sqlite3_column_int(q, 0) : 0;
    sqlite3_finalize(q);
    if (rc < 0) return rc;
    if (version == SCHEMA) return 0;
    if (version >= BEFORE && version < SCHEMA) return schema_renew(s, version, e);
    if (version != 0)
        return err_set(e, E_INPUT,
                       "the store %s has format %d, and this program (%s) knows %d; use the %s one, or move it away",
                       s->folder, version, LONGTAKE_VERSION, SCHEMA, version > SCHEMA ? "later" : "earlier");
    rc = store_begin(s, e);
    if (rc >= 0) rc = plain(s, schema, e);
    if (rc >= 0) rc = version_write(s, e);
    return store_settle(s, rc, e);
}

static int database_open(struct store *s, struct err *e)
{
    char path[STORE_PATH_SIZE + 16];
    snprintf(path, sizeof path, "%s/store.db", s->folder);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK) return store_fail(s, "be opened", e);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    static const char settings[] = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = "
                                   "FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA "
                                   "cell_size_check = ON;";
    int rc = plain(s, settings, e);
    if (rc >= 0) rc = schema_take(s, e);
    for (int i = 0; i < STORE_STATEMENTS && rc >= 0; i++)
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
    for (int i = 0; i < STORE_STATEMENTS; i++) sqlite3_finalize(s->statement[i]);
    sqlite3_close(s->db);
    if (s->lock >= 0) close(s->lock);
    free(s);
    *ps = NULL;
}

bool store_is_new(const struct store *s) { return s->is_new; }

void store_remove(struct store **ps)
{
    char folder[STORE_PATH_SIZE];
    snprintf(folder, sizeof folder, "%s", (*ps)->folder);
    store_close(ps);
    // The database last: whoever is killed amid this finds the job's end in it.
    for (int last = 0; last < 2; last++) {
        DIR *dir = opendir(folder);
        if (!dir) return;
        for (struct dirent *d; (d = readdir(dir));) {
            bool own = strncmp(d->d_name, "store.db", 8) == 0 || strcmp(d->d_name, "lock") == 0;
            if (own == last && strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
                unlinkat(dirfd(dir), d->d_name, 0);
        }
        closedir(dir);
    }
    rmdir(folder);
}
