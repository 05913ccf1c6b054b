// `longtake render`: the daemon for one job, in this process.
//
// Everything that can be refused without reading media is refused here, in the order in which a person would look:
// flags, model, names. The rest is the dispatcher's, as it is for a service.
//
// An interrupt ends the worker at once and closes the film where it is. A second one ends this program the hard way;
// its children notice and end too.
#include "daemon/cli/cli.h"
#include "daemon/cli/flags.h"
#include "daemon/cli/report.h"
#include "daemon/dispatch.h"
#include "proto/base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TICK_MS = 100, GOODBYE_MS = 3000 };

struct run {
    struct flags flags;
    struct spec spec;
    struct model model;
    struct job job;
    struct loop *loop;
    struct dispatch *dispatch;
    struct report report;
    char model_dir[4200], worker[4200];
    int signum;         // that interrupted
    int64_t goodbye_ms; // until then groups may leave by themselves
};

// ---- before anything is read

// The model that was given, or the one that stands beside the programs: build/model, share/longtake/model.
static int model_find(struct run *r, struct err *e)
{
    static const char *const places[] = {"../model", "../share/longtake/model"};
    if (r->spec.model) {
        snprintf(r->model_dir, sizeof r->model_dir, "%s", r->spec.model);
        return 0;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        cli_sibling(r->model_dir, sizeof r->model_dir, places[i]);
        if (access(r->model_dir, F_OK) == 0) return 0;
    }
    return err_set(e, E_INPUT,
                   "no model; give --model FOLDER, or make a small one to try: longtake weights synth "
                   "--seed 1 -o FOLDER");
}

static void part_take(char *part, const char *given)
{
    if (given) snprintf(part, MODEL_PATH_MAX, "%s", given);
}

static int model_check(struct run *r, struct err *e)
{
    int rc = model_find(r, e);
    if (rc >= 0) rc = model_open(&r->model, r->model_dir, e);
    if (rc < 0) return rc;
    struct model m = r->model; // as the worker will see it
    part_take(m.dit, r->spec.dit);
    part_take(m.voice, r->spec.voice);
    part_take(m.adapter, r->spec.adapter ? r->spec.adapter : r->spec.dit);
    return model_missing(&m, e);
}

static int output_check(const struct spec *s, struct err *e)
{
    struct stat st;
    if (s->overwrite || lstat(s->output, &st) < 0) return 0;
    return err_set(e, E_INPUT, "-o %s exists; choose another name, or give --overwrite to replace it", s->output);
}

// 0, or the exit code.
static int refuse(struct run *r, int rc, int code, const struct err *e)
{
    if (rc >= 0) return 0;
    report_refused(&r->report, e);
    return code;
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
    rc = spec_resolve(&r->spec, &r->model, &e);
    if (rc >= 0) rc = output_check(&r->spec, &e);
    return refuse(r, rc, EXIT_USAGE, &e);
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
    dispatch_turn(r->dispatch);
    if (!job_is_over(&r->job)) return;
    if (r->goodbye_ms == 0) r->goodbye_ms = clock_ms() + GOODBYE_MS;
    bool gone = dispatch_drain(r->dispatch);
    if (gone || (clock_ms() > r->goodbye_ms && !r->job.busy)) loop_stop(r->loop);
}

static void on_interrupt(void *ctx, int signum)
{
    struct run *r = ctx;
    if (r->signum || r->job.state == JOB_PREPARING) { // inputs are being decoded and cannot be called back
        if (r->job.state == JOB_PREPARING) reel_remove_folder(r->spec.output);
        fprintf(stderr, "\nlongtake: interrupted\n");
        _exit(signum == SIGINT ? EXIT_SIGINT : EXIT_INTERRUPTED);
    }
    r->signum = signum;
    dispatch_cancel(r->dispatch, &r->job);
}

static int render(struct run *r)
{
    struct err e = {0};
    char self[] = "/proc/self/exe";
    cli_sibling(r->worker, sizeof r->worker, "longtake-worker");
    struct dispatch_options o = {.self = self,
                                 .worker = r->flags.worker ? r->flags.worker : r->worker,
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
    job_init(&r->job, 1, &r->spec, &r->model);
    dispatch_add(r->dispatch, &r->job);
    loop_run(r->loop);
    dispatch_free(&r->dispatch);
    loop_free(&r->loop);
    return 0;
}

static int conclude(struct run *r)
{
    struct job *j = &r->job;
    bool kept = j->state != JOB_COMPLETED && j->reel && reel_abandon(j->reel);
    bool refused = j->state == JOB_FAILED && !j->reel && j->why.code == E_INPUT;
    if (refused)
        report_refused(&r->report, &j->why);
    else
        report_end(&r->report, j, kept ? reel_info(j->reel)->growing : NULL);
    if (j->state == JOB_COMPLETED) return EXIT_DONE;
    if (j->state == JOB_CANCELLED) return r->signum == SIGINT ? EXIT_SIGINT : EXIT_INTERRUPTED;
    return refused ? EXIT_USAGE : EXIT_JOB_FAILED;
}

int cli_render(int argc, char **argv)
{
    struct run *r = calloc(1, sizeof *r); // large
    BUG_IF(!r, "no memory for a run");
    spec_init(&r->spec);
    int code = check(r, argc, argv);
    if (r->flags.help)
        code = cli_help(1, (char *[]){"render", NULL});
    else if (code == 0) {
        code = render(r);
        if (code == 0) code = conclude(r);
        job_release(&r->job);
    }
    spec_free(&r->spec);
    free(r);
    return code;
}
