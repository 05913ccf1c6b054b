// libuv, narrowed to what the daemon asks for.
//
// `turn` hangs on a prepare handle: libuv calls it once per iteration, before it waits for events. Handles are freed in
// their close callbacks, so whoever owns one only says that he is done with it.
//
// A child gets its own session (UV_PROCESS_DETACHED is setsid), so that ending it ends whatever it started; it watches
// for its parent's death by itself.
#include "daemon/loop.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define THREADS "16"

struct loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_timer_t tick;
    uv_idle_t again;
    void (*turn)(void *ctx);
    void *ctx;
    int n_work;
};

struct loop_watch {
    uv_poll_t poll;
    bool woke;
};

struct loop_child {
    uv_process_t process;
    struct loop_child_end end;
    bool dropped; // by its owner; the exit callback frees it
};

struct loop_signal {
    uv_signal_t handle;
    void (*on)(void *ctx, int signum);
    void *ctx;
};

struct loop_job {
    uv_work_t work;
    struct loop *loop;
    void (*run)(void *ctx), (*done)(void *ctx);
    void *ctx;
};

static void handle_free(uv_handle_t *h) { free(h); }

static void on_prepare(uv_prepare_t *p)
{
    struct loop *l = p->data;
    l->turn(l->ctx);
}

int loop_new(struct loop **out, void (*turn)(void *ctx), void *ctx, struct err *e)
{
    struct loop *l = calloc(1, sizeof *l);
    BUG_IF(!l, "no memory for a loop");
    // a heap for each thread would keep what an encoder took there once, and grow until all threads had had one
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 1 << 18);
    setenv("UV_THREADPOOL_SIZE", THREADS, 0); // libuv has 4: media, encoders and films would wait for each other
    int rc = uv_loop_init(&l->uv);
    if (rc < 0) {
        free(l);
        return err_set(e, E_FATAL, "cannot make an event loop: %s; raise the limit of open files (ulimit -n)",
                       uv_strerror(rc));
    }
    l->turn = turn;
    l->ctx = ctx;
    uv_prepare_init(&l->uv, &l->prepare);
    l->prepare.data = l;
    uv_prepare_start(&l->prepare, on_prepare);
    uv_timer_init(&l->uv, &l->tick);
    uv_idle_init(&l->uv, &l->again);
    *out = l;
    return 0;
}

// Handles inside other structs are not freed on their own.
static void close_rest(uv_handle_t *h, void *ctx)
{
    const struct loop *l = ctx;
    if (uv_is_closing(h)) return;
    bool inside = h == (const uv_handle_t *)&l->prepare || h == (const uv_handle_t *)&l->tick ||
                  h == (const uv_handle_t *)&l->again;
    uv_close(h, inside ? NULL : handle_free);
}

void loop_free(struct loop **pl)
{
    struct loop *l = *pl;
    if (!l) return;
    loop_settle(l); // their memory is their owner's
    uv_walk(&l->uv, close_rest, l);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&l->uv);
    BUG_IF(rc < 0, "the event loop does not close: %s", uv_strerror(rc));
    free(l);
    *pl = NULL;
}

void loop_settle(struct loop *l)
{
    uv_prepare_stop(&l->prepare); // no more turns
    while (l->n_work > 0) uv_run(&l->uv, UV_RUN_ONCE);
}

void loop_run(struct loop *l) { uv_run(&l->uv, UV_RUN_DEFAULT); }

void loop_stop(struct loop *l) { uv_stop(&l->uv); }

static void on_tick(uv_timer_t *t) { (void)t; }

void loop_tick(struct loop *l, int ms) { uv_timer_start(&l->tick, on_tick, (uint64_t)ms, (uint64_t)ms); }

static void on_again(uv_idle_t *i) { uv_idle_stop(i); }

// An idle handle keeps the loop from sleeping.
void loop_again(struct loop *l) { uv_idle_start(&l->again, on_again); }

static void on_readable(uv_poll_t *p, int status, int events)
{
    (void)status, (void)events;
    ((struct loop_watch *)p)->woke = true;
}

bool loop_woke(struct loop_watch *w)
{
    bool woke = w->woke;
    w->woke = false;
    return woke;
}

struct loop_watch *loop_watch(struct loop *l, int fd)
{
    struct loop_watch *w = calloc(1, sizeof *w);
    BUG_IF(!w || uv_poll_init(&l->uv, &w->poll, fd) < 0, "descriptor %d cannot be watched", fd);
    uv_poll_start(&w->poll, UV_READABLE, on_readable);
    return w;
}

void loop_unwatch(struct loop_watch **w)
{
    if (!*w) return;
    uv_close((uv_handle_t *)&(*w)->poll, handle_free);
    *w = NULL;
}

static void on_signal(uv_signal_t *h, int signum)
{
    struct loop_signal *s = (struct loop_signal *)h;
    s->on(s->ctx, signum);
}

void loop_signal(struct loop *l, int signum, void (*on)(void *ctx, int signum), void *ctx)
{
    struct loop_signal *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for a signal");
    s->on = on;
    s->ctx = ctx;
    uv_signal_init(&l->uv, &s->handle);
    uv_signal_start(&s->handle, on_signal, signum);
}

// ---- children

static void on_exit_seen(uv_process_t *p, int64_t status, int signum)
{
    struct loop_child *c = (struct loop_child *)p;
    c->end = (struct loop_child_end){.ended = true, .status = (int)status, .signal = signum};
    if (c->dropped) uv_close((uv_handle_t *)p, handle_free);
}

int loop_spawn(struct loop_child **out, struct loop *l, char *const *argv, int log_fd, struct err *e)
{
    struct loop_child *c = calloc(1, sizeof *c);
    BUG_IF(!c, "no memory for a child");
    uv_stdio_container_t io[3] = {
        {.flags = UV_IGNORE}, {.flags = UV_INHERIT_FD, .data.fd = log_fd}, {.flags = UV_INHERIT_FD, .data.fd = log_fd}};
    uv_process_options_t o = {.exit_cb = on_exit_seen,
                              .file = argv[0],
                              .args = (char **)argv,
                              .flags = UV_PROCESS_DETACHED,
                              .stdio_count = 3,
                              .stdio = io};
    int rc = uv_spawn(&l->uv, &c->process, &o);
    if (rc < 0) {
        uv_close((uv_handle_t *)&c->process, handle_free);
        return err_set(e, E_FATAL, "cannot start %s: %s; try again when the machine has less to do", argv[0],
                       uv_strerror(rc));
    }
    *out = c;
    return 0;
}

pid_t loop_child_pid(const struct loop_child *c) { return (pid_t)c->process.pid; }

struct loop_child_end loop_child_end(const struct loop_child *c) { return c->end; }

void loop_child_kill(struct loop_child **pc)
{
    struct loop_child *c = *pc;
    if (!c) return;
    c->dropped = true;
    kill(-(pid_t)c->process.pid, SIGKILL); // what it left in its session, too
    if (c->end.ended) uv_close((uv_handle_t *)&c->process, handle_free);
    *pc = NULL;
}

// ---- work

int loop_cores(void) { return (int)uv_available_parallelism(); }

static void on_work(uv_work_t *w)
{
    struct loop_job *j = w->data;
    j->run(j->ctx);
}

static void on_worked(uv_work_t *w, int status)
{
    struct loop_job *j = w->data;
    BUG_IF(status < 0, "work was cancelled");
    j->loop->n_work--;
    j->done(j->ctx);
    free(j);
}

void loop_work(struct loop *l, void (*work)(void *ctx), void (*done)(void *ctx), void *ctx)
{
    struct loop_job *j = calloc(1, sizeof *j);
    BUG_IF(!j, "no memory for work");
    *j = (struct loop_job){.loop = l, .run = work, .done = done, .ctx = ctx};
    j->work.data = j;
    l->n_work++;
    int rc = uv_queue_work(&l->uv, &j->work, on_work, on_worked);
    BUG_IF(rc < 0, "no thread for work: %s", uv_strerror(rc));
}
