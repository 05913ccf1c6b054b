// The turn: jobs against groups.
//
//   queued --> preparing (media are read on a thread) --> ready <--> running --> finishing --> completed
//
// A job is running while groups have spans of it. Each turn: seats hear their groups and say what is due, let go and
// take (dispatch_seat.c); then jobs get what no group gives them (dispatch_work.c).
//
// What must outlive this process goes to the store with the move: finishing, paused, and the ends. All else is read
// back as `queued`, which is the ordinary way in.
#include "daemon/dispatch_parts.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { ATTEMPTS = 4, AHEAD = 4, AHEAD_MOST = 64, PREPARING_LEAST = 2, PREPARING_MOST = 4, SAVE_MS = 300 };

void dispatch_new(struct dispatch **out, struct loop *l, const struct dispatch_options *o)
{
    struct dispatch *d = calloc(1, sizeof *d);
    BUG_IF(!d, "no memory for the dispatcher");
    d->loop = l;
    d->o = *o;
    if (d->o.attempts < 1) d->o.attempts = ATTEMPTS;
    int cores = loop_cores();
    d->most_preparing = cores < PREPARING_LEAST ? PREPARING_LEAST : cores > PREPARING_MOST ? PREPARING_MOST : cores;
    for (int i = 0; i < d->o.groups; i++) seat_add(d, &(struct seat *){NULL});
    talk_room_new(&d->room);
    *out = d;
}

static void entry_free(struct entry *en)
{
    seats_leave(en->d, en);
    free(en->picture);
    free(en->colour);
    free(en->cut);
    free(en);
}

void dispatch_free(struct dispatch **pd)
{
    struct dispatch *d = *pd;
    if (!d) return;
    for (int i = 0; i < d->n_seats; i++) group_end(&d->seat[i]->group);
    for (int i = 0; i < d->n_entries; i++) entry_free(d->entry[i]);
    for (int i = 0; i < d->n_seats; i++) free(d->seat[i]);
    free(d->seat);
    talk_room_free(&d->room);
    free(d->entry);
    free(d->waiting);
    free(d->fitting);
    free(d->waiter);
    free(d);
    *pd = NULL;
}

void dispatch_add(struct dispatch *d, struct job *j, int64_t since_ms)
{
    struct entry *en = calloc(1, sizeof *en);
    size_t n = (size_t)d->n_entries + 1;
    d->entry = realloc(d->entry, n * sizeof *d->entry);
    d->waiting = realloc(d->waiting, n * sizeof *d->waiting);
    d->fitting = realloc(d->fitting, n * sizeof *d->fitting);
    d->waiter = realloc(d->waiter, n * sizeof *d->waiter);
    BUG_IF(!en || !d->entry || !d->waiting || !d->fitting || !d->waiter, "no memory for a job");
    const struct known_set *k = dispatch_set_of(d, j);
    *en = (struct entry){.d = d, .job = j, .waiting_since_ms = since_ms, .set = k->set, .weights = k->weights};
    d->entry[d->n_entries++] = en;
}

static struct entry *entry_of(const struct dispatch *d, const struct job *j, int *at)
{
    for (int i = 0; i < d->n_entries; i++)
        if (d->entry[i]->job == j) {
            if (at) *at = i;
            return d->entry[i];
        }
    BUG("job %llu is not the dispatcher's", (unsigned long long)j->id);
}

void dispatch_join(struct dispatch *d, struct group *g, const uint8_t set[32])
{
    struct seat *s;
    seat_add(d, &s);
    s->guest = true;
    s->group = g;
    s->set = dispatch_set_number(set, 0);
}

void dispatch_take(struct dispatch *d, struct job *j)
{
    int at = 0;
    struct entry *en = entry_of(d, j, &at);
    BUG_IF(j->n_busy > 0 || j->state == JOB_RUNNING, "job %llu is taken away while it runs", (unsigned long long)j->id);
    memmove(d->entry + at, d->entry + at + 1, (size_t)(--d->n_entries - at) * sizeof(struct entry *));
    entry_free(en);
}

void dispatch_changed(struct dispatch *d, struct job *j) { d->o.changed(d->o.ctx, j); }

static bool outlives(enum job_state s)
{
    return s == JOB_QUEUED || s == JOB_FINISHING || s == JOB_PAUSED || s == JOB_COMPLETED || s == JOB_FAILED ||
           s == JOB_CANCELLED;
}

// A store that cannot be written now (a full disk) will be: a service tries again, and lets no job go before.
static void save(struct dispatch *d, struct job *j)
{
    struct err e = {0};
    const struct err *why = j->state == JOB_FAILED ? &j->why : NULL;
    bool failed = store_move(d->o.store, j->id, job_state_name(j->state), why, &e) < 0;
    if (failed && !j->unsaved) log_error("store.failed", "job=%llu text=\"%s\"", (unsigned long long)j->id, e.text);
    j->unsaved = failed && d->o.patient;
    j->tried_ms = clock_ms();
}

bool dispatch_move(struct dispatch *d, struct job *j, enum job_event event)
{
    if (!job_move(j, event)) return false;
    if (outlives(j->state)) save(d, j);
    dispatch_changed(d, j);
    return true;
}

void dispatch_fail(struct dispatch *d, struct entry *en, const struct err *why)
{
    seats_leave(d, en);
    en->job->why = *why;
    dispatch_move(d, en->job, JOB_FAIL);
}

// One job a group is ready ahead of it, but no more than so many: groups that become free at the same moment are few,
// and each such job holds files. Those that no group here may go on with stand in nobody's way.
bool dispatch_wants(const struct dispatch *d, int priority)
{
    int n_ahead = 0, n_misplaced = 0, heaviest = INT_MIN, most = d->n_seats < AHEAD_MOST ? d->n_seats : AHEAD_MOST;
    if (d->draining) return false;
    for (int i = 0; i < d->n_entries; i++) {
        const struct job *j = d->entry[i]->job;
        if (j->state != JOB_READY && j->state != JOB_PREPARING && j->state != JOB_QUEUED) continue;
        bool aside = j->misplaced || j->unserved;
        n_misplaced += aside;
        n_ahead += !aside;
        if (!aside && j->priority > heaviest) heaviest = j->priority;
    }
    if (n_ahead <= most) return n_misplaced <= AHEAD * (most + 1);
    return n_ahead <= AHEAD * (most + 1) && priority >= heaviest + SCHED_MARGIN;
}

void dispatch_hold(struct dispatch *d, bool on) { d->holding = on; }

void dispatch_turn(struct dispatch *d)
{
    seats_turn(d);
    dispatch_prepare(d);
    for (int i = 0; i < d->n_entries; i++) {
        struct job *j = d->entry[i]->job;
        if (j->unsaved && outlives(j->state) && clock_ms() - j->tried_ms > SAVE_MS) save(d, j);
        dispatch_work(d, d->entry[i]);
    }
}

// ---- orders from outside

static int order(struct dispatch *d, struct job *j, enum job_event event, const char *what, struct err *e)
{
    struct entry *en = entry_of(d, j, NULL);
    enum job_state was = j->state;
    if (event == JOB_CANCEL || event == JOB_PAUSE) seats_leave(d, en);
    if (!dispatch_move(d, j, event))
        return err_set(e, E_BUSY, "job %llu is %s and cannot be %s", (unsigned long long)j->id, job_state_name(was),
                       what);
    en->waiting_since_ms = clock_ms();
    return 0;
}

int dispatch_cancel(struct dispatch *d, struct job *j, struct err *e)
{
    return order(d, j, JOB_CANCEL, "cancelled", e);
}
int dispatch_pause(struct dispatch *d, struct job *j, struct err *e) { return order(d, j, JOB_PAUSE, "paused", e); }
int dispatch_resume(struct dispatch *d, struct job *j, struct err *e) { return order(d, j, JOB_RESUME, "resumed", e); }

bool dispatch_drain(struct dispatch *d, bool *owes)
{
    bool gone = true;
    d->draining = true;
    *owes = seats_drain(d);
    for (int i = 0; i < d->n_entries; i++)
        if (d->entry[i]->job->n_busy > 0) gone = false;
    for (int i = 0; i < d->n_seats; i++) {
        struct seat *s = d->seat[i];
        if (!s->group || s->guest || s->entry) continue; // a guest waits for the next daemon
        talk_hear(s->group, d->room, NULL);
        if (!s->said_bye) talk_bye(s->group, d->room);
        s->said_bye = true;
        if (!group_has_ended(s->group)) gone = false;
    }
    return gone && !*owes;
}

void dispatch_groups(const struct dispatch *d, int *n_up, int *n)
{
    *n_up = 0;
    *n = d->n_seats;
    for (int i = 0; i < d->n_seats; i++) *n_up += d->seat[i]->group && group_is_up(d->seat[i]->group);
}
