// Plans, segments and the film. A segment is committed when its pictures lie in a file of their own (its piece); the
// film goes on behind, in order. Of each span the last tail is kept: it is what the next segment begins with; and the
// last picture's brightness, with which its first picture is compared.
#include "daemon/store_parts.h"

#include <stdlib.h>

// ---- the plan

static int plan(struct store *s, uint64_t id, const struct store_plan *p, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_PLAN);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    sqlite3_bind_int64(q, 2, p->n_frames);
    sqlite3_bind_int64(q, 3, p->n_segments);
    sqlite3_bind_int64(q, 4, p->n_cuts);
    int rc = store_run(s, q, "keep a plan", e);
    for (int i = 0; i < p->n_cuts && rc >= 0; i++) {
        q = store_prepare(s, STORE_ADD_CUT);
        sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
        sqlite3_bind_int64(q, 2, i);
        sqlite3_bind_int64(q, 3, p->cut[i]);
        rc = store_run(s, q, "keep a plan", e);
    }
    return rc;
}

int store_plan(struct store *s, uint64_t id, const struct store_plan *p, struct err *e)
{
    int rc = store_begin(s, e);
    return rc < 0 ? rc : store_settle(s, plan(s, id, p, e), e);
}

int store_cuts(struct store *s, const struct store_job *j, int64_t **cut, struct err *e)
{
    int64_t n = 0, last = 0, n_cuts = j->n_cuts, n_frames = j->n_frames;
    uint64_t id = j->id;
    sqlite3_stmt *q = store_prepare(s, STORE_CUTS);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    int64_t *to = calloc((size_t)n_cuts + 1, sizeof *to);
    BUG_IF(!to, "no memory for cuts");
    int rc;
    while ((rc = store_row(s, q, e)) == 1 && n < n_cuts) {
        to[n] = sqlite3_column_int64(q, 0);
        if (to[n] <= last || to[n] >= n_frames) break;
        last = to[n++];
    }
    sqlite3_reset(q);
    if (rc >= 0 && n != n_cuts)
        rc = err_set(e, E_FATAL, "the store %s is damaged: job %llu has %lld of %lld cuts in order", s->folder,
                     (unsigned long long)id, (long long)n, (long long)n_cuts);
    if (rc < 0)
        free(to);
    else
        *cut = to;
    return rc < 0 ? rc : 0;
}

// ---- segments

static int drop_tail(struct store *s, const struct store_segment *g, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_DROP_TAIL);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)g->job);
    sqlite3_bind_int64(q, 2, g->number - 1);
    int rc = store_run(s, q, "commit a segment", e);
    if (rc >= 0 && sqlite3_changes(s->db) != 1)
        rc = err_set(e, E_FATAL, "segment %lld of job %llu cannot be committed: %lld is due", (long long)g->number,
                     (unsigned long long)g->job, (long long)g->number - 1);
    return rc;
}

static int commit(struct store *s, const struct store_segment *g, struct err *e)
{
    int rc = g->first ? 0 : drop_tail(s, g, e);
    if (rc < 0) return rc;
    sqlite3_stmt *q = store_prepare(s, STORE_COMMIT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)g->job);
    sqlite3_bind_int64(q, 2, g->number);
    if (g->tail) sqlite3_bind_blob64(q, 3, g->tail, g->n_tail, SQLITE_STATIC);
    const int64_t ms[] = {g->condition_ms, g->denoise_ms, g->decode_ms, g->tail_ms};
    for (int i = 0; i < 4; i++) sqlite3_bind_int64(q, 4 + i, ms[i]);
    sqlite3_bind_double(q, 8, g->drift);
    sqlite3_bind_int(q, 9, g->ranks > 1 ? g->ranks : 1);
    if (g->seam >= 0) sqlite3_bind_double(q, 10, g->seam);
    if (g->last) sqlite3_bind_blob64(q, 11, g->last, g->n_last, SQLITE_STATIC);
    rc = store_run(s, q, "commit a segment", e);
    if (rc < 0) return rc;
    q = store_prepare(s, STORE_COUNT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)g->job);
    store_bind_text(q, 2, g->layout);
    return store_run(s, q, "commit a segment", e);
}

int store_commit(struct store *s, const struct store_segment *g, struct err *e)
{
    int rc = store_begin(s, e);
    return rc < 0 ? rc : store_settle(s, commit(s, g, e), e);
}

int store_segment(struct store *s, uint64_t job, int64_t from, struct store_segment *g, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_SEGMENT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, from);
    int rc = store_row(s, q, e);
    if (rc <= 0) return rc;
    *g = (struct store_segment){.job = job,
                                .number = sqlite3_column_int64(q, 0),
                                .tail = sqlite3_column_blob(q, 1),
                                .n_tail = (size_t)sqlite3_column_bytes(q, 1),
                                .condition_ms = sqlite3_column_int64(q, 2),
                                .denoise_ms = sqlite3_column_int64(q, 3),
                                .decode_ms = sqlite3_column_int64(q, 4),
                                .tail_ms = sqlite3_column_int64(q, 5),
                                .drift = sqlite3_column_double(q, 6),
                                .last = sqlite3_column_blob(q, 7),
                                .n_last = (size_t)sqlite3_column_bytes(q, 7)};
    return 1;
}

int store_report(struct store *s, uint64_t job, struct store_report *r, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_REPORT);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    int rc = store_row(s, q, e);
    if (rc <= 0) return rc;
    int64_t n = sqlite3_column_int64(q, 0), n_seams = sqlite3_column_int64(q, 8);
    *r = (struct store_report){.n = n,
                               .condition_ms = sqlite3_column_int64(q, 1),
                               .denoise_ms = sqlite3_column_int64(q, 2),
                               .decode_ms = sqlite3_column_int64(q, 3),
                               .tail_ms = sqlite3_column_int64(q, 4),
                               .device_ms = sqlite3_column_int64(q, 5),
                               .drift_mean = n > 0 ? sqlite3_column_double(q, 6) / (double)n : 0,
                               .drift_most = sqlite3_column_double(q, 7),
                               .n_seams = n_seams,
                               .seam_mean = n_seams > 0 ? sqlite3_column_double(q, 9) / (double)n_seams : 0,
                               .seam_most = sqlite3_column_double(q, 10)};
    return 1;
}

int store_film(struct store *s, uint64_t job, int64_t segments, int64_t frames, int64_t bytes, struct err *e)
{
    sqlite3_stmt *q = store_prepare(s, STORE_FILM);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(q, 2, segments);
    sqlite3_bind_int64(q, 3, frames);
    sqlite3_bind_int64(q, 4, bytes);
    return store_run(s, q, "keep how far a film goes", e);
}
