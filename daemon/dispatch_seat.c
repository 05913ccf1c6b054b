// Seats. A seat is a place for one group; a group keeps its weights and takes one span after another, of one job as
// long as nobody else outweighs it.
//
// Who takes what: sched.h decides, by weight and by how many groups a job has already. A job goes on only on groups of
// the layout class that began it; where groups of another class are all there is, it waits, and says so (`misplaced`).
//
// Who lets go: a seat whose job is outweighed begins no further segment and leaves its job when the one under way is
// kept. As many seats yield as there are jobs that wait for one.
//
// A group that is lost takes nothing with it: the span is free again, and another group, or the next one on this seat,
// goes on with it, after a pause that grows. After `attempts` losses without a committed segment between them the job
// fails, and can be retried.
#include "daemon/dispatch_parts.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SWEEP_MS = 50 }; // all seats are looked at this often, whatever woke the loop

void seat_add(struct dispatch *d, struct seat **out)
{
    struct seat *s = calloc(1, sizeof *s);
    d->seat = realloc(d->seat, ((size_t)d->n_seats + 1) * sizeof(struct seat *));
    BUG_IF(!s || !d->seat, "no memory for a group");
    *out = d->seat[d->n_seats++] = s;
}

// Seats of guests that are lost.
static void seats_tidy(struct dispatch *d)
{
    int n = 0;
    for (int i = 0; i < d->n_seats; i++)
        if (d->seat[i]->guest && !d->seat[i]->group)
            free(d->seat[i]);
        else
            d->seat[n++] = d->seat[i];
    d->n_seats = n;
}

// ---- leaving

// Its group stays. The job is nobody's when no other seat has it.
static void seat_leave(struct dispatch *d, struct seat *s)
{
    struct entry *en = s->entry;
    talk_end(&s->talk, s->group, d->room);
    s->entry = NULL;
    s->yields = false;
    if (en->job->n_taken > 0) return;
    en->waiting_since_ms = clock_ms();
    dispatch_move(d, en->job, en->job->committed == en->job->n_segments ? JOB_RENDERED : JOB_LOSE_GROUP);
}

void seats_leave(struct dispatch *d, struct entry *en)
{
    for (int i = 0; i < d->n_seats; i++) {
        struct seat *s = d->seat[i];
        if (s->entry != en) continue;
        talk_end(&s->talk, s->group, d->room);
        s->entry = NULL;
        s->yields = false;
    }
}

bool seats_drain(struct dispatch *d)
{
    bool owes = false;
    for (int i = 0; i < d->n_seats; i++) {
        struct seat *s = d->seat[i];
        if (!s->entry) continue;
        bool waits = intake_owes(s->talk.span->intake);
        owes |= waits;
        if (waits) continue;
        talk_end(&s->talk, s->group, d->room);
        s->entry = NULL;
        s->yields = false;
    }
    return owes;
}

void seats_wake(struct dispatch *d, const struct span *span)
{
    for (int i = 0; i < d->n_seats; i++)
        if (d->seat[i]->entry && d->seat[i]->talk.span == span) d->seat[i]->due = true;
}

static void tell_place(const struct job *j, struct err *e)
{
    char at[96] = "";
    if (j->stage_segment >= 0)
        snprintf(at, sizeof at, "%s, segment %lld of %lld", j->stage, (long long)j->stage_segment + 1,
                 (long long)j->n_segments);
    else if (j->stage[0])
        snprintf(at, sizeof at, "%s", j->stage);
    if (j->n_steps && j->stage_segment >= 0) {
        size_t n = strlen(at);
        snprintf(at + n, sizeof at - n, ", step %u of %u", j->step, j->n_steps);
    }
    struct err was = *e;
    if (at[0]) err_set(e, was.code, "%s (it was at: %s)", was.text, at);
}

// A group is lost: another one takes its span, or the job fails with what is known.
static void group_lost(struct dispatch *d, struct seat *s, const struct err *why)
{
    struct err e = *why;
    struct entry *en = s->entry;
    bool came_up = group_is_known(s->group);
    char name[256];
    snprintf(name, sizeof name, "%s", group_name(s->group));
    group_end(&s->group);
    s->next_start_ms = clock_ms() + sched_pause_ms(++s->n_losses);
    if (!en) {
        log_warn("group.lost", "group=\"%s\" text=\"%s\"", name, e.text);
        return;
    }
    struct job *j = en->job;
    tell_place(j, &e);
    j->attempts++;
    bool whole = j->committed == j->n_segments; // it died of nothing that the job needs
    if (!whole && j->attempts >= d->o.attempts && (came_up || !d->o.patient)) {
        dispatch_fail(d, en, &e);
        return;
    }
    log_warn("group.lost", "job=%llu group=\"%s\" text=\"%s\"", (unsigned long long)j->id, name, e.text);
    j->next_start_ms = clock_ms() + sched_pause_ms(j->attempts);
    seat_leave(d, s);
}

// ---- who waits

static bool fits(const struct dispatch *d, const struct seat *s, const struct job *j)
{
    const char *has = s->group && group_is_known(s->group) ? group_layout(s->group) : d->layout;
    return j->spec->relax_layout || !j->layout[0] || !has[0] || strcmp(has, j->layout) == 0;
}

// A guest keeps to what it has loaded, and to its threads: a job that asks for others waits for a group of the daemon's
// own, if there is to be one.
static bool seat_serves(const struct dispatch *d, const struct seat *s, const struct entry *en)
{
    return !s->guest || s->set == en->set || (d->o.groups == 0 && s->set == en->weights);
}

// Jobs that wait for a group that has not joined.
static void unserved_mark(struct dispatch *d)
{
    for (int i = 0; i < d->n_waiting; i++) {
        struct entry *en = d->waiter[i];
        bool served = false;
        for (int k = 0; k < d->n_seats && !served; k++) served = seat_serves(d, d->seat[k], en);
        if (!served && !en->job->unserved) log_warn("job.unserved", "job=%llu", (unsigned long long)en->job->id);
        en->job->unserved = !served;
    }
}

// Jobs with a span that a group could take.
static void gather(struct dispatch *d)
{
    d->n_waiting = 0;
    for (int i = 0; i < d->n_entries; i++) {
        struct entry *en = d->entry[i];
        struct job *j = en->job;
        if ((j->state != JOB_READY && j->state != JOB_RUNNING) || !job_span_next(j)) continue;
        d->waiter[d->n_waiting] = en;
        d->waiting[d->n_waiting++] = (struct sched_job){.id = j->id,
                                                        .priority = j->priority,
                                                        .waiting_since_ms = en->waiting_since_ms,
                                                        .not_before_ms = j->next_start_ms,
                                                        .n_groups = j->n_taken,
                                                        .set = en->set};
    }
}

// The job that this seat takes now, or NULL.
static struct entry *pick(struct dispatch *d, const struct seat *s)
{
    int n = d->n_waiting;
    memcpy(d->fitting, d->waiting, (size_t)n * sizeof *d->waiting);
    for (int i = 0; i < n; i++) {
        struct job *j = d->waiter[i]->job;
        bool loaded = seat_serves(d, s, d->waiter[i]);
        bool right = fits(d, s, j);
        if (!loaded) d->fitting[i].not_before_ms = INT64_MAX;
        if (!loaded) continue;
        if (!right) d->fitting[i].not_before_ms = INT64_MAX;
        if (!right && !j->misplaced)
            log_warn("job.misplaced", "job=%llu made_on=\"%s\"", (unsigned long long)j->id, j->layout);
        j->misplaced = !right;
    }
    int at = sched_pick(d->fitting, n, s->set, clock_ms());
    if (at < 0) return NULL;
    struct entry *en = d->waiter[at];
    return en;
}

// The waiting list after one of its jobs has taken a group.
static void waiting_update(struct dispatch *d, struct entry *en)
{
    for (int i = 0; i < d->n_waiting; i++) {
        if (d->waiter[i] != en) continue;
        d->waiting[i].n_groups = en->job->n_taken;
        if (job_span_next(en->job)) return;
        d->waiter[i] = d->waiter[--d->n_waiting];
        d->waiting[i] = d->waiting[d->n_waiting];
        return;
    }
}

// ---- yielding

static struct seat *weakest(struct dispatch *d)
{
    struct seat *best = NULL;
    for (int i = 0; i < d->n_seats; i++) {
        struct seat *s = d->seat[i];
        if (!s->entry || s->yields) continue;
        const struct job *a = s->entry->job, *b = best ? best->entry->job : NULL;
        if (!b || a->priority < b->priority || (a->priority == b->priority && a->n_taken > b->n_taken)) best = s;
    }
    return best;
}

static void yields_mark(struct dispatch *d)
{
    int n_free = 0, n = d->n_waiting;
    for (int i = 0; i < d->n_seats; i++) {
        struct seat *s = d->seat[i];
        n_free += !s->entry;
        s->yields = false;
    }
    if (n == 0) return;
    memcpy(d->fitting, d->waiting, (size_t)n * sizeof *d->waiting);
    for (;;) {
        int at = sched_pick(d->fitting, n, 0, clock_ms());
        if (at < 0 || d->fitting[at].n_groups > 0) return; // those who have a group are no reason
        struct sched_job who = d->fitting[at];
        d->fitting[at].not_before_ms = INT64_MAX; // seen
        if (n_free-- > 0) continue;
        struct seat *s = weakest(d);
        const struct job *j = s ? s->entry->job : NULL;
        if (!s || !sched_yields(j->priority, j->n_taken, &who, 1, clock_ms())) return;
        s->yields = true;
    }
}

// ---- the turn of a seat

static void rendered(struct dispatch *d, struct seat *s)
{
    struct job *j = s->entry->job;
    struct span *next = j->committed < j->n_segments && !s->yields && !d->draining ? job_span_next(j) : NULL;
    if (next && next != s->talk.span) {
        struct intake_options o = {
            .loop = d->loop, .picture = reel_piece_options(j->reel), .folder = j->folder, .n_busy = &j->n_busy};
        span_take(next, &o);
        talk_next(&s->talk, next);
        s->due = true;
        return;
    }
    seat_leave(d, s);
}

// Its class is known once it has called.
static bool is_misplaced(struct dispatch *d, const struct seat *s, struct err *e)
{
    struct job *j = s->entry->job;
    if (!group_is_known(s->group)) return false;
    if (!d->layout[0] && !s->guest) snprintf(d->layout, sizeof d->layout, "%s", group_layout(s->group));
    if (fits(d, s, j)) return false;
    err_set(e, E_INPUT,
            "it was begun on processors of class \"%s\" and would go on on \"%s\", with other last bits; give "
            "--relax-layout to allow that",
            j->layout, group_layout(s->group));
    j->misplaced = true;
    return true;
}

// Jobs of one set go from group to group, and must not change on the way: the first one decides. Guests were held
// against each other before they came (fleet.c).
static int meet(struct dispatch *d, struct seat *s, struct err *e)
{
    if (s->met || !group_is_known(s->group)) return 0;
    s->met = true;
    int rc = s->guest ? 0 : group_version(s->group, e);
    for (int i = 0; i < d->n_seats && rc >= 0; i++) {
        const struct seat *t = d->seat[i];
        bool other = t != s && t->met && t->group && t->set == s->set && !(s->guest && t->guest);
        if (other) rc = group_differs(s->group, t->group, e);
    }
    if (rc >= 0 || !s->guest) return rc;
    group_refuse(s->group, e);
    return 0;
}

static void seat_turn(struct dispatch *d, struct seat *s)
{
    struct err e = {0};
    struct entry *en = s->entry;
    s->due = false;
    if (meet(d, s, &e) < 0) {
        group_lost(d, s, &e);
        return;
    }
    if (!en) {
        if (!d->draining && talk_hear(s->group, d->room, &e) < 0) group_lost(d, s, &e);
        return;
    }
    struct job *j = en->job;
    bool hold = s->yields || d->draining || d->holding;
    int rc = talk_turn(&s->talk, s->group, d->o.store, d->room, hold || is_misplaced(d, s, &e), &e);
    if (s->talk.changed) dispatch_changed(d, j);
    s->talk.changed = false;
    if (j->attempts == 0) s->n_losses = 0;
    if (rc == E_LOST)
        group_lost(d, s, &e);
    else if (rc < 0)
        dispatch_fail(d, en, &e);
    else if (j->misplaced && !d->o.patient)
        dispatch_fail(d, en, &e);
    else if (j->misplaced)
        seat_leave(d, s);
    else if (talk_is_done(&s->talk))
        rendered(d, s);
    else if (s->yields && talk_is_idle(&s->talk) && s->talk.opened)
        seat_leave(d, s);
}

// ---- filling

static int group_for(struct dispatch *d, struct seat *s, const struct job *j, struct err *e)
{
    char log[4200];
    int number = 1;
    while (d->seat[number - 1] != s) number++;
    if (number == 1)
        snprintf(log, sizeof log, "%s/worker.log", d->o.folder);
    else
        snprintf(log, sizeof log, "%s/worker-%d.log", d->o.folder, number);
    struct group_options o = {.self = d->o.self,
                              .worker = d->o.worker,
                              .ranks = d->o.ranks,
                              .spec = j->spec,
                              .model = j->model->dir,
                              .log = log,
                              .cache = d->o.folder,
                              .hello_ms = d->o.hello_ms,
                              .silence_ms = d->o.silence_ms,
                              .stall_ms = d->o.stall_ms};
    group_end(&s->group);
    s->met = false;
    return group_start(&s->group, d->loop, &o, e);
}

static void threads_tell(struct dispatch *d, struct job *j)
{
    char note[128];
    struct err e = {0};
    snprintf(note, sizeof note,
             "--threads %d has no effect: the group that renders it was started elsewhere, with its own",
             j->spec->threads);
    if (job_note(j, d->o.store, note, &e) < 0)
        log_error("store.failed", "job=%llu text=\"%s\"", (unsigned long long)j->id, e.text);
}

static void seat_fill(struct dispatch *d, struct seat *s)
{
    struct err e = {0};
    struct entry *en = pick(d, s);
    if (!en) return;
    struct job *j = en->job;
    bool loaded = s->group && (s->guest || s->set == en->set);
    if (!loaded && clock_ms() < s->next_start_ms) return;
    if (!loaded && group_for(d, s, j, &e) < 0) {
        dispatch_fail(d, en, &e);
        return;
    }
    struct span *span = job_span_next(j);
    struct intake_options o = {
        .loop = d->loop, .picture = reel_piece_options(j->reel), .folder = j->folder, .n_busy = &j->n_busy};
    if (s->guest && s->set != en->set) threads_tell(d, j);
    if (!s->guest) s->set = en->set;
    s->entry = en;
    s->said_bye = false;
    s->due = true;
    span_take(span, &o);
    talk_begin(&s->talk, j, span, d->room);
    if (j->state == JOB_READY) dispatch_move(d, j, JOB_START);
    waiting_update(d, en);
}

void seats_turn(struct dispatch *d)
{
    int64_t now = clock_ms();
    bool sweep = now - d->swept_ms >= SWEEP_MS || d->draining;
    if (sweep) d->swept_ms = now;
    for (int i = 0; i < d->n_seats; i++) {
        struct seat *s = d->seat[i];
        if (!s->group) continue;
        bool woken = group_woke(s->group),
             news = s->entry && s->talk.span->intake && intake_has_news(s->talk.span->intake);
        if (sweep || woken || news || s->due) seat_turn(d, s);
    }
    seats_tidy(d);
    if (d->draining || d->holding) return;
    gather(d);
    if (sweep) unserved_mark(d);
    yields_mark(d);
    if (d->n_waiting == 0) return;
    for (int i = 0; i < d->n_seats; i++)
        if (!d->seat[i]->entry) seat_fill(d, d->seat[i]);
}
