// `longtake render`: the daemon for one job, in this process.
//
// Everything that can be refused without reading media is refused here, in the order in which a person would look:
// flags, model, names. The rest is the dispatcher's, as it is for a service.
//
// The store lies beside the output, in OUTPUT.longtake, until the film is delivered: so the same command goes on where
// it was interrupted, by whatever. Another command for the same output is refused as long as something is committed
// there.
//
// An interrupt ends the worker at once and closes the film where it is. A second one ends this program the hard way;
// its children notice and end too.
#include "daemon/cli/cli.h"
#include "daemon/cli/flags.h"
#include "daemon/cli/name.h"
#include "daemon/cli/report.h"
#include "daemon/dispatch.h"
#include "daemon/inputs.h"
#include "proto/base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 100, GOODBYE_MS = 3000 };

struct run {
    struct flags flags;
    struct spec spec;
    struct model model;
    struct job job;
    struct store *store;
    struct loop *loop;
    struct dispatch *dispatch;
    struct report report;
    char model_dir[4200], worker[4200], folder[4096];
    bool any_seed;      // by chance: an earlier run's will do
    bool delivered;     // by an earlier run, which could not say so
    int signum;         // that interrupted
    int64_t goodbye_ms; // until then groups may leave by themselves
};

// ---- before anything is read

static void part_take(char *part, const char *given)
{
    if (given) snprintf(part, MODEL_PATH_MAX, "%s", given);
}

static int model_check(struct run *r, struct err *e)
{
    int rc = cli_model(r->model_dir, sizeof r->model_dir, r->spec.model, e);
    if (rc >= 0) rc = model_open(&r->model, r->model_dir, e);
    if (rc < 0) return rc;
    struct model m = r->model; // as the worker will see it
    part_take(m.dit, r->spec.dit);
    part_take(m.voice, r->spec.voice);
    part_take(m.adapter, r->spec.adapter ? r->spec.adapter : r->spec.dit);
    return model_missing(&m, e);
}

// A film that was given no name has one; it is told, because going on after an interruption needs it.
static int output_name(struct run *r, struct err *e)
{
    struct spec *s = &r->spec;
    struct name_of o = {.size = s->size ? s->size : r->model.size[0].name,
                        .prompt = s->prompt ? s->prompt : "",
                        .ulysses = s->ulysses ? s->ulysses : 1,
                        .ring = s->ring ? s->ring : 1,
                        .when = time(NULL)};
    char path[NAME_BYTES + 1], why[2 * NAME_BYTES + 80];
    if (s->output) return 0;
    int rc = name_choose(path, sizeof path, "", &o, e);
    if (rc < 0) return rc;
    s->output = arena_printf(&s->arena, "%s", path);
    snprintf(why, sizeof why, "none is given, so the film is %s; after an interruption, go on with -o %s", path, path);
    spec_notice(s, "-o", why);
    return 0;
}

static int output_check(const struct spec *s, struct err *e)
{
    struct stat st;
    if (s->overwrite || lstat(s->output, &st) < 0) return 0;
    return err_set(e, E_INPUT, "-o %s exists; choose another name, or give --overwrite to replace it", s->output);
}

// ---- the store beside the output

static int open_beside(struct run *r, struct err *e)
{
    struct err why = {0};
    const char *output = r->spec.output;
    if (mkdir(r->folder, 0700) < 0 && errno != EEXIST)
        return err_set(e, E_INPUT, "-o %s: cannot write there: %s; choose another folder", output, strerror(errno));
    int rc = store_open(&r->store, r->folder, &why);
    if (rc == E_BUSY)
        return err_set(e, rc, "-o %s: another render is writing it; wait for that one or choose another name", output);
    if (rc == E_INPUT) return err_set(e, rc, "-o %s: cannot write there: %s", output, why.text);
    return rc < 0 ? err_set(e, rc, "%s", why.text) : 0;
}

// What an earlier run has left: 1: this very job, 0: nothing, or nothing to keep.
static int earlier_run(struct run *r, json_t *name, uint64_t *id, struct err *e)
{
    struct store_job row;
    json_t *was = NULL;
    int rc = store_next(r->store, 0, &row, e);
    if (rc <= 0) return rc;
    *id = row.id;
    rc = json_parse(&was, r->folder, row.spec, strlen(row.spec), e);
    if (rc < 0) return rc;
    if (r->any_seed && json_is_integer(json_object_get(was, "seed"))) {
        r->spec.r.seed = json_integer_value(json_object_get(was, "seed"));
        json_object_set(name, "seed", json_object_get(was, "seed"));
    }
    const char *key = inputs_differ(name, was);
    rc = key == NULL;
    if (key && row.segments > 0 && !r->spec.overwrite)
        rc = err_set(e, E_INPUT,
                     "-o %s: an interrupted render of it has %lld segments, and its %s was another; give the same "
                     "command to go on, or --overwrite to begin anew",
                     r->spec.output, (long long)row.segments, key);
    else if (key)
        rc = store_delete(r->store, row.id, e);
    else
        r->delivered = (!strcmp(row.state, "finishing") || !strcmp(row.state, "completed")) &&
                       reel_is_delivered(r->folder, r->spec.output);
    json_decref(was);
    return rc;
}

static int job_take(struct run *r, json_t *name, struct err *e)
{
    struct store_job row = {.state = job_state_name(JOB_QUEUED)};
    uint64_t id = 0;
    int rc = earlier_run(r, name, &id, e);
    if (rc == 0) {
        char *text = json_dumps(name, JSON_COMPACT | JSON_SORT_KEYS);
        row.spec = text;
        rc = output_check(&r->spec, e);
        if (rc >= 0) rc = store_add(r->store, &row, &id, e);
        free(text);
    }
    if (rc < 0) return rc;
    job_init(&r->job, id, &r->spec, &r->model, r->folder);
    return job_load(&r->job, r->store, e);
}

static int store_take(struct run *r, struct err *e)
{
    json_t *name = NULL;
    snprintf(r->folder, sizeof r->folder, "%s.longtake", r->spec.output);
    int rc = access(r->folder, F_OK) < 0 ? output_check(&r->spec, e) : 0;
    if (rc >= 0) rc = inputs_name(&name, &r->spec, &r->model, e);
    if (rc >= 0) rc = open_beside(r, e);
    if (rc >= 0) rc = job_take(r, name, e);
    json_decref(name);
    if (rc < 0 && r->store && store_is_new(r->store)) store_remove(&r->store);
    return rc;
}

// ---- refusals

// 0, or the exit code.
static int refuse(struct run *r, int rc, int code, const struct err *e)
{
    if (rc >= 0) return 0;
    report_refused(&r->report, e);
    return code;
}

// The published program's ways to share the work are ours by other names. What -n, --layout and --shard say goes first.
// Weights are spread all or none: the text encoder's share lies beside the transformer's.
static void ranks_take(struct run *r)
{
    struct spec *s = &r->spec;
    struct flags *f = &r->flags;
    int heads = s->ulysses ? s->ulysses : 1, ring = s->ring ? s->ring : 1;
    char why[96];
    bool split = heads * ring > 1 && f->ranks <= 1 && !f->layout;
    if (split) {
        f->ranks = heads * ring;
        f->layout = arena_printf(&s->arena, "1x%dx%d", ring, heads);
    }
    bool spread = (s->fsdp || s->text_fsdp) && f->ranks > 1 && f->shard == 0;
    if (spread) f->shard = 3; // all
    if (split) {
        snprintf(why, sizeof why, "taken as -n %d --layout %s%s", f->ranks, f->layout, spread ? " --shard all" : "");
        spec_notice(s, "--ulysses_size, --ring_size", why);
    }
    if (s->text_fsdp && f->ranks <= 1)
        spec_notice(s, "--t5_fsdp", "has no effect here; there is one rank, and it has all weights");
    else if (spread && s->text_fsdp && !s->fsdp)
        spec_notice(s, "--t5_fsdp",
                    "taken as --shard all: the transformer's blocks are spread beside the text encoder's");
    else if (spread && !split)
        spec_notice(s, s->text_fsdp ? "--dit_fsdp, --t5_fsdp" : "--dit_fsdp", "taken as --shard all");
}

static int check(struct run *r, int argc, char **argv)
{
    struct err e = {0};
    int rc = flags_parse(&r->flags, &r->spec, argc, argv, &e);
    report_init(&r->report, r->flags.json);
    int code = refuse(r, rc, EXIT_USAGE, &e);
    if (code || r->flags.help) return code;
    code = refuse(r, model_check(r, &e), EXIT_CONFIG, &e);
    if (code) return code;
    r->any_seed = r->spec.r.seed < 0;
    ranks_take(r);
    rc = output_name(r, &e);
    if (rc >= 0) rc = spec_resolve(&r->spec, &r->model, &e);
    if (rc >= 0) rc = store_take(r, &e);
    return refuse(r, rc, rc == E_FATAL ? EXIT_JOB_FAILED : EXIT_USAGE, &e);
}

// ---- the run

static void on_change(void *ctx, struct job *j)
{
    struct run *r = ctx;
    report_job(&r->report, j);
}

static void on_turn(void *ctx)
{
    struct run *r = ctx;
    if (r->signum) { // groups end with the dispatcher
        if (r->job.n_busy == 0) loop_stop(r->loop);
        return;
    }
    dispatch_turn(r->dispatch);
    if (!job_is_over(&r->job) || job_settles(&r->job)) return;
    if (r->goodbye_ms == 0) r->goodbye_ms = clock_ms() + GOODBYE_MS;
    bool owes, gone = dispatch_drain(r->dispatch, &owes);
    if (gone || (clock_ms() > r->goodbye_ms && r->job.n_busy == 0)) loop_stop(r->loop);
}

static void on_interrupt(void *ctx, int signum)
{
    struct run *r = ctx;
    if (r->signum || r->job.state == JOB_PREPARING) { // inputs are being decoded and cannot be called back
        if (r->job.committed == 0 && r->job.state == JOB_PREPARING) store_remove(&r->store);
        fprintf(stderr, "\nlongtake: interrupted\n");
        _exit(signum == SIGINT ? EXIT_SIGINT : EXIT_INTERRUPTED);
    }
    r->signum = signum;
}

static int render(struct run *r)
{
    struct err e = {0};
    char self[] = "/proc/self/exe";
    cli_sibling(r->worker, sizeof r->worker, "longtake-worker");
    struct dispatch_options o = {.self = self,
                                 .worker = r->flags.worker ? r->flags.worker : r->worker,
                                 .store = r->store,
                                 .folder = r->folder,
                                 .groups = 1,
                                 .ranks = {.n = r->flags.ranks,
                                           .layout = r->flags.layout,
                                           .shard = r->flags.shard,
                                           .weights = r->flags.weights,
                                           .device = r->flags.device},
                                 .attempts = r->flags.attempts,
                                 .hello_ms = r->flags.hello_ms,
                                 .stall_ms = r->flags.stall_ms,
                                 .changed = on_change,
                                 .ctx = r};
    int rc = loop_new(&r->loop, on_turn, r, &e);
    if (rc < 0) return refuse(r, rc, EXIT_JOB_FAILED, &e);
    dispatch_new(&r->dispatch, r->loop, &o);
    loop_tick(r->loop, TICK_MS);
    loop_signal(r->loop, SIGINT, on_interrupt, r);
    loop_signal(r->loop, SIGTERM, on_interrupt, r);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is a sentence
    dispatch_add(r->dispatch, &r->job, clock_ms());
    loop_run(r->loop);
    dispatch_free(&r->dispatch);
    loop_free(&r->loop);
    return 0;
}

// The folder stays as long as something in it is worth going on from.
static int conclude(struct run *r)
{
    struct job *j = &r->job;
    bool completed = j->state == JOB_COMPLETED, failed = j->state == JOB_FAILED;
    bool kept = !completed && j->reel && reel_abandon(j->reel);
    bool refused = failed && !j->reel && j->why.code == E_INPUT;
    if (refused)
        report_refused(&r->report, &j->why);
    else
        report_end(&r->report, j, kept ? reel_info(j->reel)->growing : NULL);
    if (completed || (!kept && j->committed == 0)) store_remove(&r->store);
    if (completed) return EXIT_DONE;
    if (!failed) return r->signum == SIGINT ? EXIT_SIGINT : EXIT_INTERRUPTED;
    if (refused) return EXIT_USAGE;
    if (j->bad_model) return EXIT_CONFIG;
    return j->why.code == E_LOST ? EXIT_INTERRUPTED : EXIT_JOB_FAILED;
}

int cli_render(int argc, char **argv)
{
    struct run *r = calloc(1, sizeof *r); // large
    BUG_IF(!r, "no memory for a run");
    spec_init(&r->spec);
    int code = check(r, argc, argv);
    if (r->flags.help)
        code = cli_help(1, (char *[]){"render", NULL});
    else if (code == 0 && r->delivered) {
        report_delivered(&r->report, r->spec.output);
        store_remove(&r->store);
    } else if (code == 0) {
        code = render(r);
        if (code == 0) code = conclude(r);
    }
    job_release(&r->job);
    store_close(&r->store);
    spec_free(&r->spec);
    free(r);
    return code;
}
