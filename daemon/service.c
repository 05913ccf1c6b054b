// Rows, a queue of numbers, and the few jobs that are under way. A job is taken up (its row read, its struct held) when
// the dispatcher wants one more; one that waits is a number in the queue; one that is paused or over has only its row.
//
// A job's row holds its keys with media named by content, so that nothing outside the store's folder is needed to go on
// with it, but for the model. A client may name no path of this machine: keys that would are refused.
#include "daemon/service.h"

#include "daemon/media_store.h"
#include "daemon/queue.h"
#include "daemon/record.h"
#include "daemon/submit.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 4096, NAME_ROOM = 64 };

struct held {
    struct job job;
    struct spec spec;
    struct held *next;
};

struct service {
    struct service_options o;
    char folder[PATH_SIZE - NAME_ROOM];
    struct store *store;
    struct media_store *media;
    struct dispatch *dispatch;
    struct queue *queue;
    struct keep *keep;
    bool full; // the disk was, when it was last looked at
    struct submit *submit;
    struct held *held; // under way, by rising id
};

static void on_change(void *ctx, struct job *j)
{
    struct service *s = ctx;
    s->o.changed(s->o.ctx, j->id);
}

static struct held *find(const struct service *s, uint64_t id)
{
    for (struct held *h = s->held; h; h = h->next)
        if (h->job.id == id) return h;
    return NULL;
}

// ---- keys of a job

static int keys_check(const json_t *tree, struct err *e)
{
    static const char *const paths[] = {"model", "ckpt-dir", "infinitetalk-dir", "wav2vec-dir", "dit-path",
                                        "lora",  "lora-dir", "output",           "save-file",   "overwrite"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)tree, key, value)
    {
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
            if (strcmp(key, paths[i]) == 0)
                return err_set(e, E_INPUT, "%s cannot be chosen by a client; the daemon has its own", key);
    }
    return 0;
}

// "content:HASH" in place of each file becomes its path in the store.
static int media_resolve(const struct service *s, json_t *tree, struct err *e)
{
    static const char *const media[] = {"image", "video", "audio", "audio2", "mask1", "mask2"};
    for (size_t i = 0; i < sizeof media / sizeof *media; i++) {
        char path[PATH_SIZE];
        const char *name = json_string_value(json_object_get(tree, media[i]));
        if (!name || strcmp(name, "None") == 0) continue;
        int rc = media_store_path(s->media, name, path, sizeof path, e);
        if (rc < 0) return err_wrap(e, "%s", media[i]);
        json_object_set_new(tree, media[i], json_string(path));
    }
    return 0;
}

static int spec_of_tree(const struct service *s, struct spec *spec, json_t *tree, const char *output, struct err *e)
{
    spec_init(spec);
    int rc = keys_check(tree, e);
    if (rc >= 0) rc = media_resolve(s, tree, e);
    if (rc >= 0) rc = spec_read_tree(spec, "the job", tree, e);
    spec->output = arena_strdup(&spec->arena, output);
    return rc < 0 ? rc : spec_resolve(spec, s->o.model, e);
}

static int spec_of(const struct service *s, struct spec *spec, const char *text, size_t n, const char *output,
                   struct err *e)
{
    json_t *tree = NULL;
    spec_init(spec);
    int rc = json_parse(&tree, "the job", text, n, e);
    if (rc >= 0) rc = spec_of_tree(s, spec, tree, output, e);
    json_decref(tree);
    return rc;
}

// For submit: the film's place is not known before the job has its number.
static int spec_of_submitted(void *ctx, struct spec *spec, json_t *tree, struct err *e)
{
    const struct service *s = ctx;
    char output[PATH_SIZE];
    snprintf(output, sizeof output, "%s/video.mp4", s->folder);
    return spec_of_tree(s, spec, tree, output, e);
}

static void job_folder(const struct service *s, uint64_t id, char *path, size_t n)
{
    snprintf(path, n, "%s/jobs/%llu", s->folder, (unsigned long long)id);
}

static void film_path(const struct service *s, uint64_t id, char *path, size_t n)
{
    snprintf(path, n, "%s/jobs/%llu/video.mp4", s->folder, (unsigned long long)id);
}

// ---- taking jobs up

static void held_free(struct held *h)
{
    job_release(&h->job);
    spec_free(&h->spec);
    free(h);
}

// The names in a folder are on disk after this. Where a file system cannot do that, nothing better is to be had.
static void names_sync(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

static int take_up(struct service *s, uint64_t id, int64_t since_ms, struct err *e)
{
    struct store_job row;
    char folder[PATH_SIZE], film[PATH_SIZE];
    int rc = store_get(s->store, id, &row, e);
    if (rc <= 0) return rc;
    job_folder(s, id, folder, sizeof folder);
    film_path(s, id, film, sizeof film);
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return err_set(e, E_FATAL, "cannot make the folder %s: %s; choose another place", folder, strerror(errno));
    char jobs[PATH_SIZE];
    snprintf(jobs, sizeof jobs, "%s/jobs", s->folder);
    names_sync(jobs); // or a piece in the folder could be lost with it
    struct held *h = calloc(1, sizeof *h);
    BUG_IF(!h, "no memory for a job");
    rc = spec_of(s, &h->spec, row.spec, strlen(row.spec), film, e);
    job_init(&h->job, id, &h->spec, s->o.model, folder);
    h->job.priority = row.priority;
    if (rc >= 0) rc = job_load(&h->job, s->store, e);
    if (rc < 0) {
        held_free(h);
        return rc;
    }
    struct held **at = &s->held;
    while (*at && (*at)->job.id < id) at = &(*at)->next;
    h->next = *at;
    *at = h;
    dispatch_add(s->dispatch, &h->job, since_ms);
    return 0;
}

static bool row_is_over(const struct store_job *row)
{
    static const enum job_state ends[] = {JOB_COMPLETED, JOB_FAILED, JOB_CANCELLED};
    for (int i = 0; i < 3; i++)
        if (strcmp(row->state, job_state_name(ends[i])) == 0) return true;
    return false;
}

static void enqueue(struct service *s, uint64_t id, int priority)
{
    queue_add(s->queue, (struct queue_item){.id = id, .priority = priority, .since_ms = clock_ms()});
}

static void on_added(void *ctx, uint64_t id, int priority) { enqueue(ctx, id, priority); }

static void on_submitted(void *ctx, uint64_t ticket, uint64_t id, const struct err *why)
{
    struct service *s = ctx;
    s->o.submitted(s->o.ctx, ticket, id, why);
}

// What an earlier daemon left.
static int take_up_all(struct service *s, struct err *e)
{
    struct store_job row;
    int rc;
    for (uint64_t id = 0; (rc = store_next_open(s->store, id, &row, e)) == 1;) {
        char folder[PATH_SIZE], film[PATH_SIZE];
        id = row.id;
        job_folder(s, id, folder, sizeof folder);
        film_path(s, id, film, sizeof film);
        bool finishing = strcmp(row.state, job_state_name(JOB_FINISHING)) == 0;
        if (finishing && reel_is_delivered(folder, film))
            rc = store_move(s->store, id, job_state_name(JOB_COMPLETED), NULL, e);
        else if (strcmp(row.state, job_state_name(JOB_PAUSED)) != 0)
            enqueue(s, id, row.priority);
        if (rc < 0) return rc;
    }
    return rc;
}

// ---- life

static int folders_make(struct service *s, struct err *e)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/jobs", s->folder);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_set(e, E_FATAL, "cannot make the folder %s: %s; choose another place", path, strerror(errno));
    int rc = media_store_open(&s->media, s->folder, s->o.upload_max, e);
    names_sync(s->folder);
    return rc;
}

int service_open(struct service **out, struct loop *l, const struct service_options *o, struct err *e)
{
    struct service *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for the service");
    s->o = *o;
    snprintf(s->folder, sizeof s->folder, "%s", o->folder);
    queue_new(&s->queue);
    keep_open(&s->keep, s->folder);
    int rc = store_open(&s->store, s->folder, e);
    if (rc >= 0) rc = folders_make(s, e);
    if (rc < 0) {
        service_close(&s);
        return rc;
    }
    struct dispatch_options d = {.self = o->self,
                                 .worker = o->worker,
                                 .store = s->store,
                                 .folder = s->folder,
                                 .groups = o->groups,
                                 .ranks = o->ranks,
                                 .attempts = o->attempts,
                                 .patient = true,
                                 .hello_ms = o->hello_ms,
                                 .silence_ms = o->silence_ms,
                                 .stall_ms = o->stall_ms,
                                 .changed = on_change,
                                 .ctx = s};
    dispatch_new(&s->dispatch, l, &d);
    struct submit_options u = {.loop = l,
                               .store = s->store,
                               .model = o->model,
                               .self = o->self,
                               .folder = s->folder,
                               .spec_of = spec_of_submitted,
                               .added = on_added,
                               .done = on_submitted,
                               .ctx = s};
    submit_new(&s->submit, &u);
    rc = take_up_all(s, e);
    if (rc < 0) {
        service_close(&s);
        return rc;
    }
    *out = s;
    return 0;
}

void service_close(struct service **ps)
{
    struct service *s = *ps;
    if (!s) return;
    dispatch_free(&s->dispatch);
    while (s->held) {
        struct held *h = s->held;
        s->held = h->next;
        job_let_go(&h->job);
        held_free(h);
    }
    submit_free(&s->submit);
    queue_free(&s->queue);
    keep_close(&s->keep);
    media_store_close(&s->media);
    store_close(&s->store);
    free(s);
    *ps = NULL;
}

// Jobs that are over or paused go, and leave what they held.
static void tidy(struct service *s)
{
    for (struct held **at = &s->held; *at;) {
        struct held *h = *at;
        struct job *j = &h->job;
        bool over = job_is_over(j);
        if (job_settles(j) || (!over && j->state != JOB_PAUSED)) {
            at = &h->next;
            continue;
        }
        job_let_go(j);
        if (over) log_info("job.over", "job=%llu state=%s", (unsigned long long)j->id, job_state_name(j->state));
        *at = h->next;
        dispatch_take(s->dispatch, j);
        held_free(h);
    }
}

// A job that can no longer be read fails alone.
static void take_up_more(struct service *s)
{
    struct queue_item next;
    while (queue_top(s->queue, &next) && dispatch_wants(s->dispatch, next.priority)) {
        struct err why = {0}, e = {0};
        queue_remove(s->queue, next.id);
        if (take_up(s, next.id, next.since_ms, &why) >= 0) continue;
        log_error("job.lost", "job=%llu text=\"%s\"", (unsigned long long)next.id, why.text);
        if (store_move(s->store, next.id, job_state_name(JOB_FAILED), &why, &e) < 0)
            log_error("store.failed", "job=%llu text=\"%s\"", (unsigned long long)next.id, e.text);
        s->o.changed(s->o.ctx, next.id);
    }
}

static bool in_use(void *ctx, uint64_t id) { return find(ctx, id) != NULL; }

// Below the floor segments wait: a film that could not be written to its end would be worse.
static void room_look(struct service *s)
{
    struct err e = {0};
    bool full = keep_room(s->keep, &e) < 0;
    if (full && !s->full) log_warn("disk.full", "text=\"%s\"", e.text);
    if (!full && s->full) log_info("disk.free", "text=\"segments go on\"");
    s->full = full;
    dispatch_hold(s->dispatch, full);
}

void service_keep(struct service *s, const struct keep_limits *l) { keep_limit(s->keep, l); }

void service_tell(const struct service *s)
{
    for (const struct held *h = s->held; h; h = h->next)
        log_info("job.committed", "job=%llu state=%s segments=%lld of=%lld", (unsigned long long)h->job.id,
                 job_state_name(h->job.state), (long long)h->job.committed, (long long)h->job.n_segments);
}

void service_turn(struct service *s)
{
    tidy(s);
    keep_turn(s->keep, s->store, in_use, s);
    room_look(s);
    submit_turn(s->submit);
    take_up_more(s);
    dispatch_turn(s->dispatch);
}

void service_join(struct service *s, struct group *g, const uint8_t set[32]) { dispatch_join(s->dispatch, g, set); }

bool service_drain(struct service *s, int *n_left, bool *owes)
{
    *n_left = (int)queue_length(s->queue);
    for (const struct held *h = s->held; h; h = h->next) *n_left += !job_is_over(&h->job);
    return dispatch_drain(s->dispatch, owes);
}

// ---- what is asked for

int service_submit(struct service *s, uint64_t ticket, const char *key, int priority, const char *text, size_t n,
                   uint64_t *id, struct err *e)
{
    return submit_take(s->submit, ticket, key, priority, text, n, id, e);
}

static int none(uint64_t id, struct err *e)
{
    return err_set(e, E_INPUT, "there is no job %llu; longtake list shows them", (unsigned long long)id);
}

// An order about a job that is not under way: its row says where it stands.
static int row_order(struct service *s, uint64_t id, const char *verb, struct err *e)
{
    static const struct {
        const char *verb;
        enum job_state from, to;
    } moves[] = {{"cancel", JOB_PAUSED, JOB_CANCELLED}, {"pause", JOB_QUEUED, JOB_PAUSED},
                 {"resume", JOB_PAUSED, JOB_QUEUED},    {"retry", JOB_FAILED, JOB_QUEUED},
                 {"retry", JOB_CANCELLED, JOB_QUEUED},  {"cancel", JOB_QUEUED, JOB_CANCELLED}};
    struct store_job row;
    int rc = store_get(s->store, id, &row, e);
    if (rc <= 0) return rc < 0 ? rc : none(id, e);
    int priority = row.priority;
    // what was under way when the last daemon ended waits like the rest
    bool waits = queue_position(s->queue, id) >= 0;
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        bool here = moves[i].from == JOB_QUEUED ? waits : strcmp(row.state, job_state_name(moves[i].from)) == 0;
        if (strcmp(verb, moves[i].verb) != 0 || !here) continue;
        rc = store_move(s->store, id, job_state_name(moves[i].to), NULL, e);
        if (rc < 0) return rc;
        queue_remove(s->queue, id);
        if (moves[i].to == JOB_QUEUED) enqueue(s, id, priority);
        s->o.changed(s->o.ctx, id);
        return 0;
    }
    return err_set(e, E_BUSY, "job %llu is %s: there is nothing to %s", (unsigned long long)id, row.state, verb);
}

// From now on groups of any layout class may go on with it.
static int relax(struct service *s, uint64_t id, struct err *e)
{
    struct store_job row;
    json_t *tree = NULL;
    struct held *h = find(s, id);
    int rc = store_get(s->store, id, &row, e);
    if (rc <= 0) return rc < 0 ? rc : none(id, e);
    rc = json_parse(&tree, "the store", row.spec, strlen(row.spec), e);
    if (rc < 0) return rc;
    json_object_set_new(tree, "relax-layout", json_true());
    char *text = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS);
    rc = store_spec(s->store, id, text, e);
    if (rc >= 0 && h) h->spec.relax_layout = true;
    free(text);
    json_decref(tree);
    return rc;
}

int service_control(struct service *s, uint64_t id, const char *verb, struct err *e)
{
    static const struct {
        const char *verb;
        int (*order)(struct dispatch *d, struct job *j, struct err *e);
    } orders[] = {{"cancel", dispatch_cancel}, {"pause", dispatch_pause}, {"resume", dispatch_resume}};
    if (strcmp(verb, "relax") == 0) return relax(s, id, e);
    tidy(s);
    struct held *h = find(s, id);
    if (!h) return row_order(s, id, verb, e);
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++)
        if (strcmp(verb, orders[i].verb) == 0) return orders[i].order(s->dispatch, &h->job, e);
    return err_set(e, E_BUSY, "job %llu is under way: there is nothing to %s", (unsigned long long)id, verb);
}

// Sentences about the job: it has them while it is held; later only the events do.
static json_t *notices_json(struct service *s, uint64_t id, const struct held *h)
{
    static const char mark[] = "note: ";
    json_t *all = json_array();
    const char *text = h ? h->job.notices : NULL;
    for (const char *at = text ? text : ""; *at;) {
        size_t n = strcspn(at, "\n");
        json_array_append_new(all, json_stringn(at, n));
        at += n + (at[n] != 0);
    }
    int64_t number = 0, at_s;
    while (!h && store_event_next(s->store, id, &number, &at_s, &text, NULL) == 1)
        if (strncmp(text, mark, sizeof mark - 1) == 0) json_array_append_new(all, json_string(text + sizeof mark - 1));
    return all;
}

static json_t *row_json(const struct store_job *row)
{
    json_t *o = json_pack("{sIssss*sisI}", "id", (json_int_t)row->id, "status", row->state, "key", row->key, "priority",
                          row->priority, "created_at", (json_int_t)row->created_s);
    if (row->ended_s) json_object_set_new(o, "ended_at", json_integer(row->ended_s));
    if (row->batch) json_object_set_new(o, "batch", json_integer((json_int_t)row->batch));
    if (row->layout) json_object_set_new(o, "layout", json_string(row->layout));
    if (row->mixed) json_object_set_new(o, "mixed_layouts", json_true());
    json_object_update_new(o, json_pack("{sIsIsIsI}", "frames", (json_int_t)row->film_frames, "frames_total",
                                        (json_int_t)row->n_frames, "segments", (json_int_t)row->segments,
                                        "segments_total", (json_int_t)row->n_segments));
    if (row->error)
        json_object_set_new(o, "error", json_pack("{ssss}", "code", err_name(row->code), "message", row->error));
    return o;
}

// What the row cannot know.
static void live_json(json_t *o, const struct job *j)
{
    json_object_set_new(o, "status", json_string(job_state_name(j->state)));
    json_object_set_new(o, "percent", json_real(j->percent));
    json_object_set_new(o, "groups", json_integer(j->n_taken));
    // device seconds are of groups; a group's ranks work at the same time
    json_object_set_new(o, "stage_seconds",
                        json_pack("{sfsfsfsf}", "condition", (double)j->condition_ms / 1000, "denoise",
                                  (double)j->denoise_ms / 1000, "decode", (double)j->decode_ms / 1000, "tail",
                                  (double)j->tail_ms / 1000));
    json_object_set_new(o, "color_drift", json_real(j->drift));
    if (j->misplaced) json_object_set_new(o, "waits_for", json_pack("{ss}", "layout", j->layout));
    if (j->unserved && j->state == JOB_READY) {
        const struct spec *s = j->spec;
        json_t *set = json_pack("{sisssisb}", "speakers", s->n_speakers, "dtype", s->dtype ? "bf16" : "f32", "loras",
                                s->n_lora, "published", s->r.parity == SPEC_PARITY_PUBLISHED);
        json_object_set_new(o, "waits_for", json_pack("{so}", "set", set));
    }
    if (j->state == JOB_FAILED)
        json_object_set_new(o, "error", json_pack("{ssss}", "code", err_name(j->why.code), "message", j->why.text));
    if (j->state != JOB_RUNNING) return;
    double left = job_seconds_left(j);
    json_object_set_new(o, "stage", json_string(j->stage));
    json_object_set_new(o, "step", json_integer(j->step));
    json_object_set_new(o, "seconds_left", left < 0 ? json_null() : json_real(left));
}

int service_status(struct service *s, uint64_t id, json_t **out, bool *over, struct err *e)
{
    struct store_job row;
    int rc = store_get(s->store, id, &row, e);
    if (rc <= 0) return rc < 0 ? rc : none(id, e);
    const struct held *h = find(s, id);
    *out = row_json(&row);
    *over = row_is_over(&row);
    if (h && !*over) live_json(*out, &h->job);
    int64_t position = queue_position(s->queue, id);
    if (position >= 0) json_object_set_new(*out, "position", json_integer(position + 1));
    json_object_set_new(*out, "notices", notices_json(s, id, h));
    return 0;
}

int service_list(struct service *s, uint64_t batch, uint64_t after, int most, json_t **out, struct err *e)
{
    struct store_job row;
    int rc = 1;
    *out = json_array();
    while (most-- > 0 && (rc = batch ? store_next_of_batch(s->store, batch, after, &row, e)
                                     : store_next(s->store, after, &row, e)) == 1) {
        json_t *o = row_json(&row);
        after = row.id;
        const struct held *h = find(s, after);
        if (h && !row_is_over(&row)) live_json(o, &h->job);
        json_array_append_new(*out, o);
    }
    if (rc < 0) json_decref(*out);
    return rc < 0 ? rc : 0;
}

int service_report(struct service *s, uint64_t id, json_t **out, struct err *e)
{
    int rc = record_report(s->store, id, s->o.device_cost, out, e);
    const struct held *h = find(s, id);
    if (rc == 1 && h) json_object_set_new(*out, "status", json_string(job_state_name(h->job.state)));
    return rc == 0 ? none(id, e) : rc;
}

int service_events(struct service *s, uint64_t id, int64_t after, int most, json_t **out, struct err *e)
{
    int rc = record_events(s->store, id, after, most, out, e);
    return rc == 0 ? none(id, e) : rc;
}

int service_put(struct service *s, const uint8_t hash[32], uint64_t offset, uint64_t total, const void *data, size_t n,
                uint64_t *have, struct err *e)
{
    int rc = n > 0 ? keep_room(s->keep, e) : 0;
    return rc < 0 ? rc : media_store_put(s->media, hash, offset, total, data, n, have, e);
}

int service_film(struct service *s, uint64_t id, int *fd, uint64_t *total, struct err *e)
{
    struct store_job row;
    struct stat st;
    char film[PATH_SIZE];
    int rc = store_get(s->store, id, &row, e);
    if (rc <= 0) return rc < 0 ? rc : none(id, e);
    if (strcmp(row.state, job_state_name(JOB_COMPLETED)) != 0)
        return err_set(e, E_BUSY, "job %llu is %s: there is no finished film yet", (unsigned long long)id, row.state);
    film_path(s, id, film, sizeof film);
    *fd = open(film, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st) < 0)
        return err_set(e, E_FATAL, "cannot read the film %s: %s; look at that disk, and retry the job if it is gone",
                       film, strerror(errno));
    *total = (uint64_t)st.st_size;
    return 0;
}
