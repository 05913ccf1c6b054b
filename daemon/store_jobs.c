// Rows of jobs and what happened to them. A job is added, moved and forgotten; a batch is jobs with one number, added
// together or not at all.
#include "daemon/store_parts.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

int store_add(struct store *s, const struct store_job *j, uint64_t *id, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_ADD);
    store_bind_text(q, 1, j->key);
    store_bind_text(q, 2, j->spec);
    store_bind_text(q, 3, j->state);
    sqlite3_bind_int(q, 4, j->priority);
    sqlite3_bind_int64(q, 5, time(NULL));
    sqlite3_bind_int64(q, 6, (sqlite3_int64)j->batch);
    int rc = store_run(s, q, "take a job", e);
    if (rc >= 0) *id = (uint64_t)sqlite3_last_insert_rowid(s->db);
    return rc;
}

// The batch has the number of its first job, which is known once that one is added.
static int add_all(struct store *s, const struct store_job *j, int n, uint64_t *id, struct err *e)
{
    for (int i = 0; i < n; i++) {
        struct store_job one = j[i];
        one.batch = i ? id[0] : 0;
        int rc = store_add(s, &one, &id[i], e);
        if (rc < 0) return rc;
    }
    sqlite3_stmt *q = store_prepare(s, STORE_BATCH);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id[0]);
    return store_run(s, q, "take a batch", e);
}

int store_add_batch(struct store *s, const struct store_job *j, int n, uint64_t *id, struct err *e)
{
    int rc = store_begin(s, e);
    return rc < 0 ? rc : store_settle(s, add_all(s, j, n, id, e), e);
}

static int job_read(struct store *s, sqlite3_stmt *q, struct store_job *j, struct err *e)
{
    int rc = store_row(s, q, e);
    if (rc <= 0) return rc;
    *j = (struct store_job){.id = (uint64_t)sqlite3_column_int64(q, 0),
                            .key = store_text(q, 1),
                            .spec = store_text(q, 2),
                            .state = store_text(q, 3),
                            .priority = sqlite3_column_int(q, 4),
                            .code = sqlite3_column_int(q, 5),
                            .error = store_text(q, 6),
                            .created_s = sqlite3_column_int64(q, 7),
                            .ended_s = sqlite3_column_int64(q, 8),
                            .n_frames = sqlite3_column_int64(q, 9),
                            .n_segments = sqlite3_column_int64(q, 10),
                            .segments = sqlite3_column_int64(q, 11),
                            .film_segments = sqlite3_column_int64(q, 12),
                            .film_frames = sqlite3_column_int64(q, 13),
                            .film_bytes = sqlite3_column_int64(q, 14),
                            .batch = (uint64_t)sqlite3_column_int64(q, 15),
                            .layout = store_text(q, 16),
                            .mixed = sqlite3_column_int(q, 17) != 0,
                            .n_cuts = sqlite3_column_int64(q, 18)};
    bool right = j->spec && j->state && j->film_segments >= 0 && j->film_segments <= j->segments &&
                 j->segments <= j->n_segments && j->film_frames >= 0 && j->film_frames <= j->n_frames &&
                 j->film_bytes >= 0 && (j->film_segments == 0) == (j->film_bytes == 0) && j->n_cuts >= 0 &&
                 j->n_cuts <= j->n_frames;
    if (right) return 1;
    return err_set(e, E_FATAL, "the store %s is damaged: job %llu has %lld of %lld segments, %lld in %lld bytes",
                   s->folder, (unsigned long long)j->id, (long long)j->segments, (long long)j->n_segments,
                   (long long)j->film_segments, (long long)j->film_bytes);
}

int store_get(struct store *s, uint64_t id, struct store_job *j, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_GET);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    return job_read(s, q, j, e);
}

int store_get_key(struct store *s, const char *key, struct store_job *j, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_GET_KEY);
    store_bind_text(q, 1, key);
    return job_read(s, q, j, e);
}

int store_next(struct store *s, uint64_t after, struct store_job *j, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_NEXT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)after);
    return job_read(s, q, j, e);
}

int store_next_open(struct store *s, uint64_t after, struct store_job *j, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_NEXT_OPEN);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)after);
    return job_read(s, q, j, e);
}

int store_next_of_batch(struct store *s, uint64_t batch, uint64_t after, struct store_job *j, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_NEXT_OF_BATCH);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)after);
    sqlite3_bind_int64(q, 2, (sqlite3_int64)batch);
    return job_read(s, q, j, e);
}

static int event_add(struct store *s, uint64_t job, const char *text, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_ADD_EVENT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, time(NULL));
    store_bind_text(q, 3, text);
    int rc = store_run(s, q, "keep an event", e);
    if (rc < 0) return rc;
    q = store_prepare(s, STORE_DROP_EVENTS);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int(q, 2, STORE_EVENTS_MAX);
    return store_run(s, q, "keep an event", e);
}

static bool ends(const char *state)
{
    return !strcmp(state, "completed") || !strcmp(state, "failed") || !strcmp(state, "cancelled");
}

int store_move(struct store *s, uint64_t id, const char *state, const struct err *error, struct err *e)
{
    char event[1200];
    snprintf(event, sizeof event, "%s%s%s", state, error ? ": " : "", error ? error->text : "");
    int rc = store_begin(s, e);
    if (rc < 0) return rc;
    sqlite3_stmt *q = store_prepare(s, STORE_MOVE);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    store_bind_text(q, 2, state);
    sqlite3_bind_int(q, 3, error ? error->code : 0);
    store_bind_text(q, 4, error ? error->text : NULL);
    sqlite3_bind_int64(q, 5, ends(state) ? time(NULL) : 0);
    rc = store_run(s, q, "move a job", e);
    if (rc >= 0) rc = event_add(s, id, event, e);
    return store_settle(s, rc, e);
}

int store_spec(struct store *s, uint64_t id, const char *spec, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_SPEC);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    store_bind_text(q, 2, spec);
    return store_run(s, q, "change a job", e);
}

int store_delete(struct store *s, uint64_t id, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_DELETE);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    return store_run(s, q, "forget a job", e);
}

// ---- events

int store_event(struct store *s, uint64_t job, const char *text, struct err *e)
{
    int rc = store_begin(s, e);
    if (rc >= 0) rc = store_settle(s, event_add(s, job, text, e), e);
    return rc;
}

int store_event_next(struct store *s, uint64_t job, int64_t *number, int64_t *at_s, const char **text, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_NEXT_EVENT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, *number);
    int rc = store_row(s, q, e);
    if (rc <= 0) return rc;
    *number = sqlite3_column_int64(q, 0);
    *at_s = sqlite3_column_int64(q, 1);
    *text = store_text(q, 2);
    return 1;
}
