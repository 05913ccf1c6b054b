// Work beside the loop: media are read, pictures looked up, pieces put into the film, the film delivered. At most one
// of each kind is under way for a job; pictures, pieces and frames (intake.h) do not wait for each other.
//
// Reading media takes long and is never urgent, while frames and pieces are waited for by groups, and all share the
// same threads: so only a few jobs are read at the same time, however many wait for it.
#include "daemon/dispatch_parts.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RESTLESS = 32 }; // so many jobs keep their media children

static void begin(struct entry *en, struct errand *errand, void (*run)(void *ctx), void (*done)(void *ctx))
{
    en->job->n_busy++;
    errand->error = (struct err){0};
    loop_work(en->d->loop, run, done, en);
}

// ---- media

static void prepare_run(void *ctx)
{
    struct entry *en = ctx;
    const struct job *j = en->job;
    en->prepare.rc = reel_open(&en->reel, j->spec, j->model, &en->reel_options, &en->prepare.error);
    if (en->prepare.rc >= 0 && en->rests) reel_rest(en->reel);
}

static void notices_keep(struct dispatch *d, struct job *j, const char *lines)
{
    struct err e = {0};
    if (!lines) return;
    char *text = strdup(lines), *rest = text;
    BUG_IF(!text, "no memory for notices");
    for (char *line; (line = strsep(&rest, "\n"));)
        if (job_note(j, d->o.store, line, &e) < 0)
            log_error("store.failed", "job=%llu text=\"%s\"", (unsigned long long)j->id, e.text);
    free(text);
}

static void prepare_done(void *ctx)
{
    struct entry *en = ctx;
    struct job *j = en->job;
    int rc = en->prepare.rc;
    j->n_busy--;
    en->d->n_preparing--;
    j->reel = en->reel;
    en->reel = NULL;
    free(en->cut);
    en->cut = NULL;
    if (j->state != JOB_PREPARING || en->d->draining) return; // it was cancelled or paused meanwhile
    if (rc >= 0) rc = job_plan(j, en->d->o.store, &en->prepare.error);
    if (rc < 0) {
        dispatch_fail(en->d, en, &en->prepare.error);
        return;
    }
    notices_keep(en->d, j, reel_info(j->reel)->notices);
    dispatch_move(en->d, j, JOB_PREPARED);
    if (j->committed == j->n_segments) dispatch_move(en->d, j, JOB_RENDERED);
}

// The plan that was kept, if one was, holds.
static void prepare(struct dispatch *d, struct entry *en)
{
    struct job *j = en->job;
    struct store_job row;
    job_let_go(j); // of what it had before it was paused
    en->reel_options =
        (struct reel_options){.self = d->o.self, .folder = j->folder, .frames = j->film_frames, .bytes = j->film_bytes};
    int rc = store_get(d->o.store, j->id, &row, &en->prepare.error);
    if (rc >= 0 && j->n_segments > 0) {
        en->reel_options.planned = true;
        en->reel_options.n_cuts = (int)row.n_cuts;
        rc = store_cuts(d->o.store, &row, &en->cut, &en->prepare.error);
        en->reel_options.cut = en->cut;
    }
    dispatch_move(d, j, JOB_PREPARE);
    if (rc < 0)
        dispatch_fail(d, en, &en->prepare.error);
    else {
        d->n_preparing++;
        en->rests = d->n_entries > RESTLESS;
        begin(en, &en->prepare, prepare_run, prepare_done);
    }
}

void dispatch_prepare(struct dispatch *d)
{
    if (d->draining || d->n_preparing >= d->most_preparing) return;
    int n = 0;
    for (int i = 0; i < d->n_entries; i++) {
        struct entry *en = d->entry[i];
        const struct job *j = en->job;
        if (j->state != JOB_QUEUED || j->n_busy > 0) continue;
        d->waiter[n] = en;
        d->fitting[n++] =
            (struct sched_job){.id = j->id, .priority = j->priority, .waiting_since_ms = en->waiting_since_ms};
    }
    for (int at; d->n_preparing < d->most_preparing && (at = sched_pick(d->fitting, n, 0, clock_ms())) >= 0;) {
        d->fitting[at].not_before_ms = INT64_MAX; // seen
        prepare(d, d->waiter[at]);
    }
}

// ---- pictures

static void look_run(void *ctx)
{
    struct entry *en = ctx;
    struct reel *r = en->job->reel;
    en->look.rc = en->colour ? reel_colour_picture(r, en->span->number, en->colour, &en->look.error) : 0;
    if (en->look.rc >= 0) en->look.rc = reel_picture(r, en->segment, en->picture, &en->look.error);
    if (en->rests) reel_rest(r);
}

static void look_done(void *ctx)
{
    struct entry *en = ctx;
    struct job *j = en->job;
    struct span *s = en->span;
    j->n_busy--;
    j->picture_busy = false;
    bool wanted = j->n_spans > 0 && s->taken && s->picture_wanted == en->segment;
    if (en->look.rc < 0 || !wanted) {
        free(en->picture);
        free(en->colour);
    } else {
        free(s->picture);
        s->picture = en->picture;
        s->picture_of = en->segment;
        if (en->colour) {
            free(s->colour);
            s->colour = en->colour;
        }
        seats_wake(en->d, s);
        const char *notice = reel_notice(j->reel);
        notices_keep(en->d, j, notice);
        if (notice) dispatch_changed(en->d, j);
    }
    en->picture = en->colour = NULL;
    en->span = NULL;
    if (en->look.rc < 0) dispatch_fail(en->d, en, &en->look.error);
}

static void look(struct entry *en, struct span *s)
{
    size_t n = (size_t)en->job->spec->r.h * (size_t)en->job->spec->r.w * 3;
    en->picture = malloc(n);
    en->colour = s->colour ? NULL : malloc(n);
    BUG_IF(!en->picture || (!s->colour && !en->colour), "no memory for a picture");
    en->span = s;
    en->segment = s->picture_wanted;
    en->job->picture_busy = true;
    en->rests = en->d->n_entries > RESTLESS;
    begin(en, &en->look, look_run, look_done);
}

static struct span *who_looks(const struct job *j)
{
    for (int i = 0; i < j->n_spans; i++) {
        struct span *s = &j->span[i];
        if (s->taken && s->picture_wanted != s->picture_of && s->picture_wanted >= s->committed) return s;
    }
    return NULL;
}

// ---- the film

static void add_run(void *ctx)
{
    struct entry *en = ctx;
    const struct job *j = en->job;
    char path[4200];
    intake_path(path, sizeof path, j->folder, j->film_segments);
    en->film.rc = reel_add(j->reel, path, j->film_segments, &en->film_bytes, &en->film.error);
}

static void add_done(void *ctx)
{
    struct entry *en = ctx;
    struct job *j = en->job;
    char path[4200];
    j->n_busy--;
    j->film_busy = false;
    int rc = en->film.rc;
    int64_t frames = j->reel ? reel_frames(j->reel) : 0;
    if (rc >= 0) rc = store_film(en->d->o.store, j->id, j->film_segments + 1, frames, en->film_bytes, &en->film.error);
    j->film_failed = rc < 0;
    if (rc < 0) {
        if (!job_is_over(j)) dispatch_fail(en->d, en, &en->film.error);
        return;
    }
    intake_path(path, sizeof path, j->folder, j->film_segments);
    unlink(path);
    j->film_segments++;
    j->film_frames = frames;
    j->film_bytes = en->film_bytes;
    dispatch_changed(en->d, j);
}

// Pieces whose removal was cut short by an end of this program.
static void pieces_remove(const char *folder)
{
    DIR *dir = opendir(folder);
    if (!dir) return;
    for (struct dirent *f; (f = readdir(dir));)
        if (strncmp(f->d_name, "piece-", 6) == 0) unlinkat(dirfd(dir), f->d_name, 0);
    closedir(dir);
}

static void finish_run(void *ctx)
{
    struct entry *en = ctx;
    en->film.rc = reel_finish(en->job->reel, &en->film.error);
    if (en->film.rc >= 0) pieces_remove(en->job->folder);
}

static void finish_done(void *ctx)
{
    struct entry *en = ctx;
    en->job->n_busy--;
    en->job->film_busy = false;
    if (en->film.rc < 0) {
        dispatch_fail(en->d, en, &en->film.error);
        return;
    }
    en->job->percent = 100;
    dispatch_move(en->d, en->job, JOB_FINISHED);
}

static void film(struct entry *en)
{
    struct job *j = en->job;
    bool whole = j->state == JOB_FINISHING && j->film_segments == j->n_segments;
    if (!whole && !job_feeds_film(j)) return;
    j->film_busy = true;
    if (whole)
        begin(en, &en->film, finish_run, finish_done);
    else
        begin(en, &en->film, add_run, add_done);
}

void dispatch_work(struct dispatch *d, struct entry *en)
{
    struct job *j = en->job;
    bool renders = j->state == JOB_RUNNING || j->state == JOB_READY;
    if (d->draining) return;
    if (!j->reel || j->state == JOB_PREPARING || j->state == JOB_COMPLETED) return;
    struct span *s = renders && !j->picture_busy ? who_looks(j) : NULL;
    if (s) look(en, s);
    if (!j->film_busy && !j->film_failed) film(en);
}
