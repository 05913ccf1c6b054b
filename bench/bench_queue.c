// The coordinator under load: a thousand groups that paint (crowd.h), ten thousand jobs that wait (customer.h), and a
// daemon that knows nothing of either being false.
//
//   queue fills -> a few groups that take no time: what the daemon does in a second at most -> all groups join within
//   one segment's time -> window: times and memory
//
// Jobs have one segment each, the hardest case: every segment is a job that has to be read, opened, committed, closed
// and delivered. In the window as many jobs come as go, so that the queue keeps its length. Dispatch latency is counted
// from the group's DONE, so it holds the end of the job before, too: its last frames encoded, its piece on disk, its
// row committed.
#include "bench/crowd.h"
#include "bench/customer.h"
#include "proto/base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    FSYNCS = 100,
    BATCH = 500,
    TELL_S = 15,
    MOST_SECONDS = 600,
    SECOND = 1000000,
    SETTLE_S = 5,
    MOST_GROWN = 2, // percent: pages that the window's first second had not touched yet
    EXIT_MISSED = 4,
    CROWD_SEED = 11,
    FAST_GROUPS = 16
};

struct bench {
    const char *store, *join, *model, *picture, *voice;
    int pid, n_groups, n_jobs, segment_s, fill_s, flat_s, patience_s, window_s;
    char saturation[256];
    struct model weights;
    struct customer *customer;
    struct crowd *crowd;
    double rss_mb[MOST_SECONDS]; // of the window
    int n_rss;
    struct crowd_times sync; // of the store's disk
    int n_missed;            // of what is wanted
};

// ---- what the machine says

static double rss_mb(const struct bench *b)
{
    char path[64];
    long pages = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", b->pid);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%ld %ld", &pages, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

// Seconds of processor time: of the daemon and the children that it has waited for.
static double daemon_cpu_s(const struct bench *b)
{
    char path[64], line[1024];
    unsigned long user = 0, kernel = 0, child_user = 0, child_kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", b->pid);
    FILE *f = fopen(path, "r");
    const char *rest = f && fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
    if (rest && sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %lu %lu", &user, &kernel,
                       &child_user, &child_kernel) != 4)
        user = kernel = child_user = child_kernel = 0;
    if (f) fclose(f);
    return (double)(user + kernel + child_user + child_kernel) / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

// What a durable word costs on this disk, without any of our code.
static int disk_measure(struct bench *b, struct err *e)
{
    char path[4096], block[4096] = {0};
    snprintf(path, sizeof path, "%s/bench-sync", b->store);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return err_set(e, E_INPUT, "cannot write %s", path);
    b->sync.us = calloc(FSYNCS, sizeof *b->sync.us);
    BUG_IF(!b->sync.us, "no memory for times");
    for (; b->sync.n < FSYNCS; b->sync.n++) {
        int64_t from = clock_us();
        if (pwrite(fd, block, sizeof block, (off_t)(b->sync.n * sizeof block)) < 0 || fdatasync(fd) < 0) break;
        b->sync.us[b->sync.n] = clock_us() - from;
    }
    close(fd);
    unlink(path);
    return b->sync.n == FSYNCS ? 0 : err_set(e, E_FATAL, "cannot write %s", path);
}

// ---- the table

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

// A wanted value of 0: none.
static void row_times(struct bench *b, const char *what, const struct crowd_times *t, double wanted_ms)
{
    char verdict[64] = "-";
    if (t->n == 0) {
        printf("%-46s none was seen\n", what);
        b->n_missed += wanted_ms > 0;
        return;
    }
    qsort(t->us, t->n, sizeof *t->us, by_size);
    double p99 = (double)t->us[t->n * 99 / 100] / 1e3;
    if (wanted_ms > 0) snprintf(verdict, sizeof verdict, "p99 < %g: %s", wanted_ms, p99 < wanted_ms ? "yes" : "NO");
    b->n_missed += wanted_ms > 0 && p99 >= wanted_ms;
    printf("%-46s %9.2f %9.2f %9.2f %8zu  %s\n", what, (double)t->us[t->n / 2] / 1e3, p99,
           (double)t->us[t->n - 1] / 1e3, t->n, verdict);
}

static void head(const struct bench *b)
{
    printf("%d groups in one process, a segment each %d s; jobs of one segment; %d wait\n\n", b->n_groups, b->segment_s,
           b->n_jobs);
    printf("%-46s %9s %9s %9s %8s  %s\n", "ms", "median", "p99", "most", "seen", "wanted");
}

// ---- phases

static void say(const char *what) { fprintf(stderr, "bench_queue: %s\n", what); }

// Jobs that were submitted, the one that brought the media among them, and not kept.
static int waiting(const struct bench *b)
{
    return (int)(customer_jobs(b->customer) + 1 - crowd_counted(b->crowd)->n_kept);
}

static int top_up(struct bench *b, struct err *e)
{
    int rc = 0;
    for (int left; rc >= 0 && (left = b->n_jobs - waiting(b)) > 0;)
        rc = customer_submit_many(b->customer, left < BATCH ? left : BATCH, e);
    return rc;
}

static int fill(struct bench *b, struct err *e)
{
    int64_t end = clock_us() + (int64_t)b->fill_s * SECOND;
    say("the queue fills");
    int rc = customer_submit(b->customer, e); // its media are looked at; no other job's are
    customer_forget(b->customer);
    while (rc >= 0 && customer_jobs(b->customer) < b->n_jobs && clock_us() < end) rc = customer_submit(b->customer, e);
    if (rc < 0) return rc;
    row_times(b, "submit, no group there", customer_times(b->customer), 50);
    return top_up(b, e);
}

static void on_second(void *ctx)
{
    struct bench *b = ctx;
    if (b->n_rss < MOST_SECONDS) b->rss_mb[b->n_rss++] = rss_mb(b);
}

static void memory_print(struct bench *b, int64_t n_jobs)
{
    int n = b->n_rss;
    if (n < 2) return;
    printf("\ndaemon's resident memory in the window, MB:");
    for (int i = 0; i < n; i += TELL_S) printf(" %.1f", b->rss_mb[i]);
    double grown = b->rss_mb[n - 1] - b->rss_mb[0];
    bool good = 100 * grown <= MOST_GROWN * b->rss_mb[0];
    b->n_missed += !good;
    printf(" %.1f\n  grown by %.1f MB (%.1f %%) over %lld jobs, wanted: at most %d %%: %s\n", b->rss_mb[n - 1], grown,
           100 * grown / b->rss_mb[0], (long long)n_jobs, MOST_GROWN, good ? "yes" : "NO");
}

// Few groups, so that few jobs are made ready ahead: what is counted is work from a job's first byte to its last.
static int saturate(struct bench *b, struct err *e)
{
    int n = b->n_groups < FAST_GROUPS ? b->n_groups : FAST_GROUPS;
    say("groups that take no time");
    crowd_join(b->crowd, n, 0);
    int rc = crowd_run(b->crowd, clock_us() + SETTLE_S * SECOND, NULL, NULL, e);
    int64_t was = crowd_counted(b->crowd)->n_kept, from = clock_us();
    double daemon_s = daemon_cpu_s(b), own_s = own_cpu_s();
    if (rc >= 0) rc = crowd_run(b->crowd, from + (int64_t)b->flat_s * SECOND, NULL, NULL, e);
    if (rc < 0) return rc;
    double took = (double)(clock_us() - from) / SECOND;
    snprintf(b->saturation, sizeof b->saturation,
             "saturation: %.1f jobs a second over %.0f s, by %d groups that take no time; daemon and its children %.2f "
             "of a core, groups %.2f",
             (double)(crowd_counted(b->crowd)->n_kept - was) / took, took, n, (daemon_cpu_s(b) - daemon_s) / took,
             (own_cpu_s() - own_s) / took);
    return top_up(b, e);
}

// Runs the crowd while the client submits as many jobs as are rendered.
static int run(struct bench *b, int64_t us, void (*each_second)(void *ctx), struct err *e)
{
    customer_forget(b->customer);
    customer_start(b->customer, (double)b->n_groups / b->segment_s);
    int rc = crowd_run(b->crowd, clock_us() + us, each_second, b, e);
    int stopped = customer_stop(b->customer, rc < 0 ? NULL : e);
    return rc < 0 ? rc : stopped;
}

// All groups join, and each has a job; a coordinator that does not manage it in time is measured as it is, and that is
// told.
static int gather(struct bench *b, struct err *e)
{
    int64_t segment_us = (int64_t)b->segment_s * SECOND,
            end = clock_us() + segment_us + (int64_t)b->patience_s * SECOND;
    say("all groups join");
    crowd_pace(b->crowd, segment_us);
    crowd_join(b->crowd, b->n_groups, segment_us);
    int rc = run(b, segment_us + SECOND, NULL, e);
    while (rc >= 0 && crowd_counted(b->crowd)->n_fed < b->n_groups && clock_us() < end) rc = run(b, SECOND, NULL, e);
    return rc;
}

static int window(struct bench *b, struct err *e)
{
    const struct crowd_counts was = *crowd_counted(b->crowd);
    double daemon_s = daemon_cpu_s(b), own_s = own_cpu_s();
    int n_waiting = waiting(b);
    int64_t from = clock_us();
    say("the window");
    crowd_record(b->crowd, true);
    int rc = run(b, (int64_t)b->window_s * SECOND, on_second, e);
    crowd_record(b->crowd, false);
    if (rc < 0) return rc;
    double took = (double)(clock_us() - from) / SECOND;
    const struct crowd_counts *now = crowd_counted(b->crowd);
    row_times(b, "submit, under load", customer_times(b->customer), 50);
    row_times(b, "dispatch: a group's DONE to its next RUN", crowd_since_done(b->crowd), 100);
    row_times(b, "  of it, the daemon's CLOSE to the next RUN", crowd_since_close(b->crowd), 0);
    row_times(b, "beside it: 4 KiB written and synced on that disk", &b->sync, 0);
    memory_print(b, now->n_kept - was.n_kept);
    printf(
        "in the window of %.0f s: %.1f segments a second kept (asked for: %.1f); %lld of %d groups had had a job when "
        "it began; jobs not kept yet: %d at its begin, %d at its end\n",
        took, (double)(now->n_kept - was.n_kept) / took, (double)b->n_groups / b->segment_s, (long long)was.n_fed,
        b->n_groups, n_waiting, waiting(b));
    printf("processor time in the window: daemon and its children %.2f of a core, groups and clients %.2f\n",
           (daemon_cpu_s(b) - daemon_s) / took, (own_cpu_s() - own_s) / took);
    return 0;
}

static void end_print(struct bench *b)
{
    const struct crowd_counts *n = crowd_counted(b->crowd);
    printf("\n%s\nin all: %lld RUN, %lld DONE, %lld kept; %lld groups or jobs were taken away%s%s\n", b->saturation,
           (long long)n->n_runs, (long long)n->n_done, (long long)n->n_kept, (long long)n->n_lost,
           n->trouble[0] ? ": " : "", n->trouble);
    b->n_missed += n->n_lost > 0;
    printf("queue: %s\n", b->n_missed ? "NOT as it should be" : "as it should be");
}

// ---- main

static int options_read(struct bench *b, int argc, char **argv)
{
    const struct {
        const char *name;
        int *to;
    } number[] = {{"--pid", &b->pid},           {"--groups", &b->n_groups},    {"--jobs", &b->n_jobs},
                  {"--segment", &b->segment_s}, {"--fill", &b->fill_s},        {"--window", &b->window_s},
                  {"--flat", &b->flat_s},       {"--patience", &b->patience_s}};
    const struct {
        const char *name;
        const char **to;
    } text[] = {{"--store", &b->store},
                {"--join", &b->join},
                {"--model", &b->model},
                {"--picture", &b->picture},
                {"--voice", &b->voice}};
    for (int i = 1; i + 1 < argc; i += 2) {
        bool known = false;
        for (size_t k = 0; k < sizeof number / sizeof *number; k++)
            if (strcmp(argv[i], number[k].name) == 0) {
                *number[k].to = atoi(argv[i + 1]);
                known = *number[k].to > 0;
            }
        for (size_t k = 0; k < sizeof text / sizeof *text; k++)
            if (strcmp(argv[i], text[k].name) == 0) {
                *text[k].to = argv[i + 1];
                known = true;
            }
        if (!known) return -1;
    }
    bool all = b->store && b->join && b->model && b->picture && b->voice && b->pid;
    return argc % 2 == 1 && all && b->window_s < MOST_SECONDS ? 0 : -1;
}

static int bench(struct bench *b, struct err *e)
{
    char endpoint[4096];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/socket", b->store);
    int rc = model_open(&b->weights, b->model, e);
    if (rc >= 0) rc = customer_open(&b->customer, endpoint, b->picture, b->voice, e);
    if (rc >= 0) rc = disk_measure(b, e);
    if (rc < 0) return rc;
    head(b);
    struct crowd_options o = {.endpoint = b->join, .model = &b->weights, .n = b->n_groups, .seed = CROWD_SEED};
    rc = crowd_new(&b->crowd, &o, e);
    if (rc >= 0) rc = fill(b, e);
    if (rc >= 0) rc = saturate(b, e);
    if (rc >= 0) rc = gather(b, e);
    if (rc >= 0) rc = window(b, e);
    if (rc >= 0) end_print(b);
    return rc;
}

int main(int argc, char **argv)
{
    static struct bench b = {.n_groups = 1000,
                             .n_jobs = 10000,
                             .segment_s = 60,
                             .fill_s = 30,
                             .flat_s = 20,
                             .patience_s = 60,
                             .window_s = 90};
    struct err e = {0};
    if (options_read(&b, argc, argv) < 0) {
        fprintf(stderr, "bench_queue --store DIR --join ENDPOINT --model DIR --picture FILE --voice FILE --pid DAEMON\n"
                        "  [--groups N] [--jobs N] [--segment SECONDS] [--fill SECONDS] [--flat SECONDS] [--patience "
                        "SECONDS] [--window SECONDS]\n");
        return 2;
    }
    int rc = bench(&b, &e);
    if (rc < 0) fprintf(stderr, "bench_queue: %s\n", e.text);
    crowd_free(&b.crowd);
    customer_close(&b.customer);
    free(b.sync.us);
    return rc < 0 ? EXIT_FAILURE : b.n_missed ? EXIT_MISSED : EXIT_SUCCESS;
}
