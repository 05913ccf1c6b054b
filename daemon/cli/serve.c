// `longtake serve`: the loop around service and desk.
//
// SIGTERM and SIGINT drain: nothing new is begun, workers leave at their next step, what is committed stays and what
// has come whole is committed. With work left the exit code is 75: started again, the daemon goes on with it. SIGHUP
// reads the configuration again and takes what may change under way; SIGUSR1 tells what is committed.
#include "daemon/cli/cli.h"
#include "daemon/config.h"
#include "daemon/desk.h"
#include "daemon/doors.h"
#include "daemon/fleet.h"
#include "daemon/notify.h"
#include "daemon/service.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/mark.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { TICK_MS = 100, GOODBYE_MS = 5000, KEEP_MS = 20000, FILES = 1 << 16 };

struct daemon {
    struct config config;
    struct model model;
    char store[4000], worker[4200];
    struct loop *loop;
    struct service *service;
    struct desk *desk;
    struct doors doors;
    struct fleet *fleet; // or NULL
    int argc;
    char **argv; // read again on SIGHUP
    int signum;
    int64_t goodbye_ms, watchdog_ms, barked_ms;
    int n_left;
};

static void on_change(void *ctx, uint64_t id)
{
    struct daemon *d = ctx;
    if (d->desk) desk_changed(d->desk, id);
}

static void on_submitted(void *ctx, uint64_t ticket, uint64_t id, const struct err *why)
{
    struct daemon *d = ctx;
    desk_submitted(d->desk, d->service, ticket, id, why);
}

static void on_turn(void *ctx)
{
    struct daemon *d = ctx;
    if (!d->service || !d->desk) return;
    desk_turn(d->desk, d->service);
    bool more = d->fleet && fleet_turn(d->fleet);
    service_turn(d->service);
    if (more || (d->fleet && fleet_ready(d->fleet))) loop_again(d->loop);
    if (d->watchdog_ms > 0 && clock_ms() - d->barked_ms >= d->watchdog_ms) { // the loop is alive
        notify_say("WATCHDOG=1");
        d->barked_ms = clock_ms();
    }
    if (!d->signum) return;
    bool owes, gone = service_drain(d->service, &d->n_left, &owes);
    if (gone || clock_ms() > d->goodbye_ms + (owes ? KEEP_MS : 0)) loop_stop(d->loop);
}

static void on_join(void *ctx, struct group *g, const uint8_t set[32])
{
    struct daemon *d = ctx;
    service_join(d->service, g, set);
}

static void on_stop(void *ctx, int signum)
{
    struct daemon *d = ctx;
    if (d->signum) _exit(EXIT_INTERRUPTED);
    log_info("daemon.drain", "signal=%d", signum);
    notify_say("STOPPING=1");
    d->signum = signum;
    d->goodbye_ms = clock_ms() + GOODBYE_MS;
}

// ---- what may change while it runs

static void apply(struct daemon *d)
{
    const struct config *c = &d->config;
    log_init((enum log_level)c->log_level, "longtake", 0);
    log_json(c->log_format);
    struct keep_limits l = {.age_s = (int64_t)(c->keep_days * 86400), .bytes = c->keep_bytes, .free_min = c->free_min};
    if (d->service) service_keep(d->service, &l);
    if (d->desk) desk_allow(d->desk, &d->doors.clients);
    if (d->fleet) fleet_allow(d->fleet, &d->doors.workers);
}

static bool is_same(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

// All keys that are read once: told, where the file has another value now.
static void tell_kept(const struct config *was, const struct config *now)
{
    static const char *const safe[] = {"keep-days",  "keep-bytes",  "free-min",   "log-level",
                                       "log-format", "client-keys", "worker-keys"};
    for (const struct opt *o = config_table(); o->key; o++) {
        const char *a = (const char *)was + o->offset, *b = (const char *)now + o->offset;
        bool reloads = false;
        for (size_t i = 0; i < sizeof safe / sizeof *safe; i++) reloads |= strcmp(o->key, safe[i]) == 0;
        size_t n = o->type == OPT_LONG   ? sizeof(int64_t)
                   : o->type == OPT_REAL ? sizeof(double)
                   : o->type == OPT_FLAG ? sizeof(bool)
                                         : sizeof(int);
        bool same =
            o->type == OPT_TEXT ? is_same(*(const char *const *)a, *(const char *const *)b) : memcmp(a, b, n) == 0;
        if (!reloads && !same) log_warn("config.kept", "key=%s text=\"it is read at the start; restart\"", o->key);
    }
}

static void on_reload(void *ctx, int signum)
{
    (void)signum;
    struct daemon *d = ctx;
    struct config now;
    struct doors doors = {0};
    struct err e = {0};
    int rc = config_read(&now, d->argc, d->argv, &e);
    if (rc >= 0) rc = doors_read(&doors, &now, &e);
    if (rc < 0) {
        log_error("config.refused", "text=\"%s\"", e.text);
        doors_free(&doors);
        config_free(&now);
        return;
    }
    tell_kept(&d->config, &now);
    d->config.keep_days = now.keep_days;
    d->config.keep_bytes = now.keep_bytes;
    d->config.free_min = now.free_min;
    d->config.log_level = now.log_level;
    d->config.log_format = now.log_format;
    free(d->doors.clients.v);
    free(d->doors.workers.v);
    d->doors.clients = doors.clients;
    d->doors.workers = doors.workers;
    config_free(&now);
    apply(d);
    log_info("config.reloaded", "file=\"%s\"", d->config.file ? d->config.file : "");
}

// What is committed is on disk at any time; a scheduler that warns before it ends the job finds in the log what stays.
static void on_commit(void *ctx, int signum)
{
    (void)signum;
    struct daemon *d = ctx;
    service_tell(d->service);
}

// 0, or the exit code.
static int prepare(struct daemon *d, int argc, char **argv)
{
    struct err e = {0};
    char folder[4200];
    int rc = config_read(&d->config, argc, argv, &e), code = EXIT_USAGE;
    if (rc < 0 || d->config.help) goto out;
    code = EXIT_CONFIG;
    rc = doors_read(&d->doors, &d->config, &e);
    if (rc < 0) goto out;
    rc = cli_model(folder, sizeof folder, d->config.model, &e);
    if (rc >= 0) rc = model_open(&d->model, folder, &e);
    if (rc >= 0) rc = model_missing(&d->model, &e);
    if (rc >= 0 && d->config.store)
        snprintf(d->store, sizeof d->store, "%s", d->config.store);
    else if (rc >= 0)
        rc = config_store(d->store, sizeof d->store, &e);
    cli_sibling(d->worker, sizeof d->worker, "longtake-worker");
out:
    if (rc < 0) cli_complain(&e);
    return rc < 0 ? code : 0;
}

static int doors_open(struct daemon *d, struct err *e)
{
    uint8_t mark[MARK_BYTES];
    struct chan_options clients = doors_client_options(&d->doors);
    struct fleet_options o = {.endpoint = d->doors.join,
                              .chan = doors_worker_options(&d->doors),
                              .model = mark,
                              .silence_ms = d->config.silence_ms,
                              .stall_ms = d->config.stall_ms,
                              .joined = on_join,
                              .ctx = d};
    int rc = d->doors.listen ? desk_listen(d->desk, d->doors.listen, &clients, e) : 0;
    if (rc < 0 || !d->doors.join) return rc;
    mark_weights(mark, &d->model);
    return fleet_open(&d->fleet, d->loop, &o, e);
}

// Each job under way holds a few files, and each group a socket: a thousand of each are more than shells allow.
static void files_allow(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= FILES) return;
    files.rlim_cur = files.rlim_max < FILES ? files.rlim_max : FILES;
    setrlimit(RLIMIT_NOFILE, &files);
}

static int run(struct daemon *d)
{
    struct err e = {0};
    char self[] = "/proc/self/exe";
    const struct config *c = &d->config;
    struct service_options o = {
        .folder = d->store,
        .self = self,
        .worker = c->worker ? c->worker : d->worker,
        .model = &d->model,
        .groups = c->groups,
        .ranks = {.n = c->ranks, .layout = c->layout, .shard = c->shard, .weights = c->weights, .device = c->device},
        .attempts = c->attempts,
        .hello_ms = c->hello_ms,
        .silence_ms = c->silence_ms,
        .stall_ms = c->stall_ms,
        .upload_max = c->upload_max,
        .device_cost = c->device_cost,
        .changed = on_change,
        .submitted = on_submitted,
        .ctx = d};
    files_allow();
    int rc = loop_new(&d->loop, on_turn, d, &e);
    if (rc >= 0) rc = service_open(&d->service, d->loop, &o, &e);
    if (rc >= 0) rc = desk_open(&d->desk, d->loop, d->store, &e);
    if (rc >= 0) rc = doors_open(d, &e);
    if (rc < 0) {
        cli_complain(&e);
        return EXIT_CONFIG;
    }
    loop_tick(d->loop, TICK_MS);
    loop_signal(d->loop, SIGINT, on_stop, d);
    loop_signal(d->loop, SIGTERM, on_stop, d);
    loop_signal(d->loop, SIGHUP, on_reload, d);
    loop_signal(d->loop, SIGUSR1, on_commit, d);
    apply(d);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    log_info("daemon.ready", "store=%s model=%s groups=%d", d->store, d->model.name, c->groups);
    d->watchdog_ms = notify_watchdog_ms();
    notify_say("READY=1\nSTATUS=takes jobs");
    loop_run(d->loop);
    log_info("daemon.end", "jobs_left=%d", d->n_left);
    return d->n_left > 0 ? EXIT_INTERRUPTED : EXIT_DONE;
}

static void help(void)
{
    static const struct opt none[] = {{0}};
    printf("longtake serve: takes jobs from longtake submit and renders them.\n\nKeys of --config FILE, and flags:\n");
    opt_help(config_table(), stdout);
    opt_help(none, stdout);
    printf("  --config FILE, --check (print what holds, and start nothing)\n");
}

int cli_serve(int argc, char **argv)
{
    struct daemon *d = calloc(1, sizeof *d); // large
    BUG_IF(!d, "no memory for a daemon");
    d->argc = argc;
    d->argv = argv;
    int code = prepare(d, argc, argv);
    if (code == 0 && d->config.help)
        help();
    else if (code == 0 && d->config.check)
        config_print(&d->config);
    else if (code == 0)
        code = run(d);
    desk_close(&d->desk);
    if (d->service) {
        struct loop *l = d->loop; // work may still be under way: it ends before its jobs do
        loop_settle(l);
        service_close(&d->service);
    }
    fleet_close(&d->fleet);
    doors_free(&d->doors);
    loop_free(&d->loop);
    config_free(&d->config);
    free(d);
    return code;
}
