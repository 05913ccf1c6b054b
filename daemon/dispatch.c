// Seats and jobs. A seat is a place for one group; a group keeps its weights and takes one job after another.
//
//   queued --> preparing (media are read on a thread) --> ready --> running --> finishing --> completed
//
// Each turn: jobs whose media are not read are prepared; each seat hears its group and says what is due (talk.h); each
// free seat takes the job that sched_pick names; jobs that are rendered are finished on a thread.
//
// A group that is lost takes nothing with it: the job is ready again, and another group, or the next one on this seat,
// goes on with it, after a pause that grows. After `attempts` losses without a committed segment between them the job
// fails, and can be retried.
//
// What must outlive this process goes to the store with the move: finishing, paused, and the ends. All else is read
// back as `queued`, which is the ordinary way in.
#include "daemon/dispatch.h"

#include "daemon/sched.h"
#include "daemon/talk.h"
#include "proto/base/clock.h"
#include "proto/base/hash.h"
#include "proto/base/log.h"
#include "proto/mark.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { ATTEMPTS = 4, SETS_KNOWN = 16 };

struct entry {
    struct dispatch *d;
    struct job *job;
    int64_t waiting_since_ms;
    uint64_t set;
    // work under way
    struct err error;
    int rc;
    struct reel *reel;
    int64_t segment;
    uint8_t *picture;
};

struct seat {
    struct group *group;
    uint64_t set;        // that the group was started with
    struct entry *entry; // whose job it has, or NULL
    struct talk talk;
    bool said_bye;
    bool guest;            // goes with its group, which came by itself
    int n_losses;          // groups in a row that were lost here before they had committed a segment
    int64_t next_start_ms; // no group is started here before
};

// The mark of a set is read from its files: once for all jobs that ask for it in the same words.
struct known_set {
    uint64_t words, set;
};

struct dispatch {
    struct loop *loop;
    struct dispatch_options o;
    struct entry **entry;
    int n_entries;
    struct seat **seat; // its own, then guests'
    int n_seats;
    struct known_set known[SETS_KNOWN];
    int n_known;
    struct talk_room *room;
    struct sched_job *waiting; // scratch, [n_entries]
    struct entry **waiter;     // likewise
    bool draining;
};

static struct seat *seat_add(struct dispatch *d)
{
    struct seat *s = calloc(1, sizeof *s);
    d->seat = realloc(d->seat, ((size_t)d->n_seats + 1) * sizeof(struct seat *));
    BUG_IF(!s || !d->seat, "no memory for a group");
    return d->seat[d->n_seats++] = s;
}

void dispatch_new(struct dispatch **out, struct loop *l, const struct dispatch_options *o)
{
    struct dispatch *d = calloc(1, sizeof *d);
    BUG_IF(!d, "no memory for the dispatcher");
    d->loop = l;
    d->o = *o;
    if (d->o.attempts < 1) d->o.attempts = ATTEMPTS;
    for (int i = 0; i < d->o.groups; i++) seat_add(d);
    talk_room_new(&d->room);
    *out = d;
}

void dispatch_free(struct dispatch **pd)
{
    struct dispatch *d = *pd;
    if (!d) return;
    for (int i = 0; i < d->n_seats; i++) {
        group_end(&d->seat[i]->group);
        free(d->seat[i]);
    }
    free(d->seat);
    for (int i = 0; i < d->n_entries; i++) {
        free(d->entry[i]->picture);
        free(d->entry[i]);
    }
    talk_room_free(&d->room);
    free(d->entry);
    free(d->waiting);
    free(d->waiter);
    free(d);
    *pd = NULL;
}

// ---- jobs

static uint64_t set_number(const uint8_t mark[MARK_BYTES], int threads)
{
    uint64_t set;
    memcpy(&set, mark, sizeof set);
    return (set ^ (uint64_t)threads) | 1; // 0 is none
}

// All words that decide which weights a group loads.
static uint64_t words_of(const struct job *j)
{
    const struct spec *s = j->spec;
    struct hash h;
    uint8_t bytes[HASH_BYTES];
    uint64_t words;
    const char *const text[] = {j->model->dir, s->dit, s->adapter, s->voice};
    const int number[] = {s->n_speakers, s->dtype, s->threads, (int)s->r.parity, s->n_lora};
    hash_init(&h);
    for (int i = 0; i < 4; i++) hash_update(&h, text[i] ? text[i] : "", text[i] ? strlen(text[i]) + 1 : 1);
    hash_update(&h, number, sizeof number);
    for (int i = 0; i < s->n_lora; i++) {
        hash_update(&h, s->lora[i], strlen(s->lora[i]) + 1);
        hash_update(&h, &s->lora_scale[i], sizeof s->lora_scale[i]);
    }
    hash_final(&h, bytes);
    memcpy(&words, bytes, sizeof words);
    return words;
}

static uint64_t set_of(struct dispatch *d, const struct job *j)
{
    const struct spec *s = j->spec;
    uint64_t words = words_of(j);
    uint8_t mark[MARK_BYTES];
    for (int i = 0; i < d->n_known && i < SETS_KNOWN; i++)
        if (d->known[i].words == words) return d->known[i].set;
    mark_set(mark, j->model,
             &(struct mark_set){.dit = s->dit,
                                .adapter = s->adapter,
                                .voice = s->voice,
                                .n_speakers = s->n_speakers,
                                .bf16 = s->dtype != 0,
                                .published = s->r.parity == SPEC_PARITY_PUBLISHED,
                                .lora = s->lora,
                                .lora_scale = s->lora_scale,
                                .n_lora = s->n_lora});
    struct known_set *k = &d->known[d->n_known++ % SETS_KNOWN];
    *k = (struct known_set){words, set_number(mark, s->threads)};
    return k->set;
}

void dispatch_join(struct dispatch *d, struct group *g, const uint8_t set[32])
{
    struct seat *s = seat_add(d);
    s->guest = true;
    s->group = g;
    s->set = set_number(set, 0);
}

void dispatch_add(struct dispatch *d, struct job *j)
{
    struct entry *en = calloc(1, sizeof *en);
    size_t n = (size_t)d->n_entries + 1;
    d->entry = realloc(d->entry, n * sizeof *d->entry);
    d->waiting = realloc(d->waiting, n * sizeof *d->waiting);
    d->waiter = realloc(d->waiter, n * sizeof *d->waiter);
    BUG_IF(!en || !d->entry || !d->waiting || !d->waiter, "no memory for a job");
    *en = (struct entry){.d = d, .job = j, .waiting_since_ms = clock_ms(), .set = set_of(d, j)};
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

void dispatch_take(struct dispatch *d, struct job *j)
{
    int at = 0;
    struct entry *en = entry_of(d, j, &at);
    BUG_IF(j->busy || j->state == JOB_RUNNING, "job %llu is taken away while it runs", (unsigned long long)j->id);
    memmove(d->entry + at, d->entry + at + 1, (size_t)(--d->n_entries - at) * sizeof(struct entry *));
    free(en);
}

static void changed(struct dispatch *d, struct job *j) { d->o.changed(d->o.ctx, j); }

static bool outlives(enum job_state s)
{
    return s == JOB_QUEUED || s == JOB_FINISHING || s == JOB_PAUSED || s == JOB_COMPLETED || s == JOB_FAILED ||
           s == JOB_CANCELLED;
}

// False: there is no such move.
static bool move(struct dispatch *d, struct job *j, enum job_event event)
{
    struct err e = {0};
    if (!job_move(j, event)) return false;
    const struct err *why = j->state == JOB_FAILED ? &j->why : NULL;
    if (outlives(j->state) && store_move(d->o.store, j->id, job_state_name(j->state), why, &e) < 0)
        log_error("store.failed", "job=%llu text=\"%s\"", (unsigned long long)j->id, e.text);
    changed(d, j);
    return true;
}

static struct seat *seat_of(struct dispatch *d, const struct entry *en)
{
    for (int i = 0; i < d->n_seats; i++)
        if (d->seat[i]->entry == en) return d->seat[i];
    return NULL;
}

// The job leaves its group, which stays.
static void seat_leave(struct dispatch *d, struct entry *en)
{
    struct seat *s = seat_of(d, en);
    if (!s) return;
    talk_end(&s->talk, s->group, d->room);
    s->entry = NULL;
}

static void fail(struct dispatch *d, struct entry *en, const struct err *why)
{
    seat_leave(d, en);
    en->job->why = *why;
    move(d, en->job, JOB_FAIL);
}

// ---- work beside the loop

static void prepare_work(void *ctx)
{
    struct entry *en = ctx;
    const struct job *j = en->job;
    struct reel_options o = {.self = en->d->o.self, .folder = j->folder, .frames = j->frames, .bytes = j->bytes};
    en->rc = reel_open(&en->reel, j->spec, j->model, &o, &en->error);
}

// The plan that the media give must be the one by which segments were committed.
static int plan_keep(struct dispatch *d, struct job *j, struct err *e)
{
    const struct reel_info *i = reel_info(j->reel);
    if (j->committed == 0) {
        j->n_frames = i->n_frames;
        j->n_segments = i->n_segments;
        return store_plan(d->o.store, j->id, i->n_frames, i->n_segments, e);
    }
    if (j->n_frames == i->n_frames && j->n_segments == i->n_segments) return 0;
    return err_set(e, E_INPUT, "the inputs give %lld frames in %lld segments now, and gave %lld in %lld when it began",
                   (long long)i->n_frames, (long long)i->n_segments, (long long)j->n_frames, (long long)j->n_segments);
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
    j->busy = false;
    j->reel = en->reel;
    en->reel = NULL;
    if (j->state != JOB_PREPARING || en->d->draining) return; // it was cancelled or paused meanwhile
    if (en->rc >= 0) en->rc = plan_keep(en->d, j, &en->error);
    if (en->rc < 0) {
        fail(en->d, en, &en->error);
        return;
    }
    notices_keep(en->d, j, reel_info(j->reel)->notices);
    move(en->d, j, JOB_PREPARED);
    if (j->committed == j->n_segments) move(en->d, j, JOB_RENDERED);
}

static void picture_work(void *ctx)
{
    struct entry *en = ctx;
    en->rc = reel_picture(en->job->reel, en->segment, en->picture, &en->error);
}

static void picture_done(void *ctx)
{
    struct entry *en = ctx;
    struct job *j = en->job;
    j->busy = false;
    if (en->rc < 0) {
        free(en->picture);
        en->picture = NULL;
        fail(en->d, en, &en->error);
        return;
    }
    free(j->picture);
    j->picture = en->picture;
    j->picture_of = en->segment;
    en->picture = NULL;
    const char *notice = reel_notice(j->reel);
    notices_keep(en->d, j, notice);
    if (notice) changed(en->d, j);
}

static void finish_work(void *ctx)
{
    struct entry *en = ctx;
    en->rc = reel_finish(en->job->reel, &en->error);
}

static void finish_done(void *ctx)
{
    struct entry *en = ctx;
    en->job->busy = false;
    if (en->rc < 0) {
        fail(en->d, en, &en->error);
        return;
    }
    en->job->percent = 100;
    move(en->d, en->job, JOB_FINISHED);
}

static void work(struct entry *en, void (*run)(void *ctx), void (*done)(void *ctx))
{
    en->job->busy = true;
    en->error = (struct err){0};
    loop_work(en->d->loop, run, done, en);
}

static void picture_fetch(struct entry *en)
{
    const struct job *j = en->job;
    en->picture = malloc((size_t)j->spec->r.h * (size_t)j->spec->r.w * 3);
    BUG_IF(!en->picture, "no memory for a picture");
    en->segment = j->picture_wanted;
    work(en, picture_work, picture_done);
}

// What a job needs that is no group's business.
static void entry_turn(struct dispatch *d, struct entry *en)
{
    struct job *j = en->job;
    if (j->busy || d->draining) return;
    if (j->state == JOB_FINISHING)
        work(en, finish_work, finish_done);
    else if (j->state == JOB_RUNNING && j->picture_wanted != j->picture_of && j->picture_wanted >= j->committed)
        picture_fetch(en);
}

// ---- seats

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

// A group is lost: another one takes its job, or the job fails with what is known.
static void group_lost(struct dispatch *d, struct seat *s, const struct err *why)
{
    struct err e = *why;
    struct entry *en = s->entry;
    bool came_up = group_is_known(s->group);
    char name[256];
    snprintf(name, sizeof name, "%s", group_name(s->group));
    group_end(&s->group);
    s->entry = NULL;
    s->next_start_ms = clock_ms() + sched_pause_ms(++s->n_losses);
    if (!en) {
        log_warn("group.lost", "group=\"%s\" text=\"%s\"", name, e.text);
        return;
    }
    struct job *j = en->job;
    tell_place(j, &e);
    j->attempts++;
    if (j->attempts >= d->o.attempts && (came_up || !d->o.patient)) {
        j->why = e;
        move(d, j, JOB_FAIL);
        return;
    }
    log_warn("group.lost", "job=%llu group=\"%s\" text=\"%s\"", (unsigned long long)j->id, name, e.text);
    j->next_start_ms = clock_ms() + sched_pause_ms(j->attempts);
    en->waiting_since_ms = clock_ms();
    move(d, j, JOB_LOSE_GROUP);
}

static void rendered(struct dispatch *d, struct entry *en)
{
    seat_leave(d, en);
    move(d, en->job, JOB_RENDERED);
}

// Who is in `state` and has no work under way, into the scratch.
static int gather(struct dispatch *d, enum job_state state)
{
    int n = 0;
    for (int i = 0; i < d->n_entries; i++) {
        struct entry *en = d->entry[i];
        if (en->job->state != state || en->job->busy || (state == JOB_QUEUED && en->job->reel)) continue;
        d->waiter[n] = en;
        d->waiting[n++] = (struct sched_job){.id = en->job->id,
                                             .priority = en->job->priority,
                                             .waiting_since_ms = en->waiting_since_ms,
                                             .not_before_ms = en->job->next_start_ms,
                                             .set = en->set};
    }
    return n;
}

static bool has_free_seat(const struct dispatch *d)
{
    for (int i = 0; i < d->n_seats; i++)
        if (!d->seat[i]->entry) return true;
    return false;
}

static void seat_turn(struct dispatch *d, struct seat *s)
{
    struct err e = {0};
    struct entry *en = s->entry;
    if (!en) {
        if (!d->draining && talk_hear(s->group, d->room, &e) < 0) group_lost(d, s, &e);
        return;
    }
    struct job *j = en->job;
    bool yields = !has_free_seat(d) && sched_yields(j->priority, d->waiting, gather(d, JOB_READY), clock_ms());
    int rc = talk_turn(&s->talk, s->group, d->o.store, d->room, yields || d->draining, &e);
    if (s->talk.changed) changed(d, j);
    s->talk.changed = false;
    if (j->attempts == 0) s->n_losses = 0;
    if (rc == E_LOST)
        group_lost(d, s, &e);
    else if (rc < 0)
        fail(d, en, &e);
    else if (talk_is_done(&s->talk))
        rendered(d, en);
    else if (yields && talk_is_idle(&s->talk) && s->talk.opened) {
        seat_leave(d, en);
        en->waiting_since_ms = clock_ms();
        move(d, j, JOB_LOSE_GROUP);
    }
}

static int group_for(struct dispatch *d, struct seat *s, const struct job *j, struct err *e)
{
    char log[4200];
    int number = 1;
    while (d->seat[number - 1] != s) number++;
    if (number == 1)
        snprintf(log, sizeof log, "%s/worker.log", d->o.folder);
    else
        snprintf(log, sizeof log, "%s/worker-%d.log", d->o.folder, number);
    struct group_options o = {.worker = d->o.worker,
                              .spec = j->spec,
                              .model = j->model->dir,
                              .log = log,
                              .cache = d->o.folder,
                              .hello_ms = d->o.hello_ms,
                              .silence_ms = d->o.silence_ms,
                              .stall_ms = d->o.stall_ms};
    group_end(&s->group);
    return group_start(&s->group, d->loop, &o, e);
}

// A guest keeps to what it has loaded.
static int only_set(struct dispatch *d, int n, uint64_t set)
{
    int n_left = 0;
    for (int i = 0; i < n; i++) {
        if (d->waiting[i].set != set) continue;
        d->waiter[n_left] = d->waiter[i];
        d->waiting[n_left++] = d->waiting[i];
    }
    return n_left;
}

static void seat_fill(struct dispatch *d, struct seat *s)
{
    struct err e = {0};
    int n = gather(d, JOB_READY);
    if (s->guest) n = only_set(d, n, s->set);
    int at = sched_pick(d->waiting, n, s->set, clock_ms());
    if (at < 0) return;
    struct entry *en = d->waiter[at];
    bool fits = s->group && s->set == en->set;
    if (!fits && clock_ms() < s->next_start_ms) return;
    if (!fits && group_for(d, s, en->job, &e) < 0) {
        fail(d, en, &e);
        return;
    }
    s->set = en->set;
    s->entry = en;
    s->said_bye = false;
    talk_begin(&s->talk, en->job, d->room);
    move(d, en->job, JOB_START);
}

// Media are read for a few jobs ahead of the groups, in the order in which groups will take them; a job that outweighs
// all who wait is read at once.
static void prepare_next(struct dispatch *d)
{
    int n_ahead = 0, heaviest = INT_MIN;
    for (int i = 0; i < d->n_entries; i++) {
        const struct job *j = d->entry[i]->job;
        if (j->state != JOB_READY && j->state != JOB_PREPARING) continue;
        n_ahead++;
        if (j->priority > heaviest) heaviest = j->priority;
    }
    int n = gather(d, JOB_QUEUED), at = sched_pick(d->waiting, n, 0, clock_ms());
    if (at < 0 || n_ahead > 4 * (d->n_seats + 1)) return;
    if (n_ahead > d->n_seats && !sched_yields(heaviest, &d->waiting[at], 1, clock_ms())) return;
    move(d, d->waiter[at]->job, JOB_PREPARE);
    work(d->waiter[at], prepare_work, prepare_done);
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

void dispatch_turn(struct dispatch *d)
{
    if (!d->draining) prepare_next(d);
    for (int i = 0; i < d->n_seats; i++)
        if (d->seat[i]->group) seat_turn(d, d->seat[i]);
    seats_tidy(d);
    for (int i = 0; i < d->n_seats && !d->draining; i++)
        if (!d->seat[i]->entry) seat_fill(d, d->seat[i]);
    for (int i = 0; i < d->n_entries; i++) entry_turn(d, d->entry[i]); // what the seats have changed
}

// ---- orders from outside

static int order(struct dispatch *d, struct job *j, enum job_event event, const char *what, struct err *e)
{
    struct entry *en = entry_of(d, j, NULL);
    enum job_state was = j->state;
    if (event == JOB_CANCEL || event == JOB_PAUSE) seat_leave(d, en);
    if (!move(d, j, event))
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

int dispatch_retry(struct dispatch *d, struct job *j, struct err *e)
{
    int rc = order(d, j, JOB_RETRY, "retried", e);
    if (rc < 0) return rc;
    j->attempts = 0;
    j->next_start_ms = 0;
    j->why = (struct err){0};
    return 0;
}

bool dispatch_drain(struct dispatch *d)
{
    bool gone = true;
    d->draining = true;
    for (int i = 0; i < d->n_entries; i++) {
        struct entry *en = d->entry[i];
        seat_leave(d, en);
        if (en->job->busy) gone = false;
    }
    for (int i = 0; i < d->n_seats; i++) {
        struct seat *s = d->seat[i];
        if (!s->group || s->guest) continue; // a guest waits for the next daemon
        talk_hear(s->group, d->room, NULL);
        if (!s->said_bye) talk_bye(s->group, d->room);
        s->said_bye = true;
        if (!group_has_ended(s->group)) gone = false;
    }
    return gone;
}

void dispatch_groups(const struct dispatch *d, int *n_up, int *n)
{
    *n_up = 0;
    *n = d->n_seats;
    for (int i = 0; i < d->n_seats; i++) *n_up += d->seat[i]->group && group_is_up(d->seat[i]->group);
}
