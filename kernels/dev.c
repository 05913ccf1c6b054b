// A device on the CPU: a table, a thread count, arenas of reserved address space.
//
// An arena maps its capacity with MAP_NORESERVE and hands out pages by bumping an offset, so a generous capacity costs
// nothing until it is written. In a dry run nothing is written at all and only the peak is learned.
#include "kernels/dev.h"

#include "kernels/table.h"
#include "proto/base/log.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ARENA_ALIGN = 64 };

struct dev_arena {
    struct dev *dev;
    char name[32];
    char *base;
    int64_t capacity, used, peak;
};

// ---- threads

// The cgroup's CPU limit rounded up, or 0 when there is none.
static int cgroup_cpus(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    double quota = 0, period = 0;
    if (f) {
        if (fscanf(f, "%lf %lf", &quota, &period) != 2) quota = 0;
        fclose(f);
    } else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) {
        if (fscanf(f, "%lf", &quota) != 1) quota = 0;
        fclose(f);
        f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r");
        if (f) {
            if (fscanf(f, "%lf", &period) != 1) period = 0;
            fclose(f);
        }
    }
    if (quota <= 0 || period <= 0) return 0;
    int n = (int)(quota / period + 0.999);
    return n < 1 ? 1 : n;
}

static int usable_cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int limit = cgroup_cpus();
    return limit > 0 && limit < n ? limit : n;
}

// ---- the device

static int dev_complete(const struct dev *d, struct err *e)
{
#define CHECK_SLOT(slot)                                                                                               \
    if (!d->ops.slot) return err_set(e, E_FATAL, "the table of %s lacks the op %s", d->name, #slot);
    OPS_LIST(CHECK_SLOT)
#undef CHECK_SLOT
    return d->ops.pack ? 0 : err_set(e, E_FATAL, "the table of %s lacks the op pack", d->name);
}

int dev_open(struct dev **out, const char *table, int n_threads, struct err *e)
{
    const char *most = strchr(table, ':');
    size_t n = most ? (size_t)(most - table) : strlen(table);
    int (*overlay)(struct dev *, const char *, struct err *) = n == 3 && memcmp(table, "cpu", 3) == 0     ? fast_open
                                                               : n == 5 && memcmp(table, "check", 5) == 0 ? check_open
                                                                                                          : NULL;
    if (!overlay && strcmp(table, "ref") != 0)
        return err_set(e, E_INPUT, "there is no table of ops called '%s'; there are ref, cpu and check", table);
    struct dev *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, E_FATAL, "no memory for a device");
    d->n_threads = n_threads > 0 ? n_threads : usable_cpus();
    snprintf(d->name, sizeof d->name, "%s x%d", table, d->n_threads);
    ref_slots(&d->ops);
    int rc = overlay ? overlay(d, most ? most + 1 : NULL, e) : 0;
    if (rc == 0) rc = dev_complete(d, e);
    if (rc < 0)
        dev_close(&d);
    else
        *out = d;
    return rc;
}

void dev_close(struct dev **pd)
{
    struct dev *d = *pd;
    if (!d) return;
    if (d->close) d->close(d);
    free(d);
    *pd = NULL;
}

int dev_threads(const struct dev *d) { return d->n_threads; }
const char *dev_name(const struct dev *d) { return d->name; }
void dev_set_dry(struct dev *d, bool dry) { d->dry = dry; }
bool dev_is_dry(const struct dev *d) { return d->dry; }

void dev_fault(struct dev *d, const char *fmt, ...)
{
    if (d->fault.code < 0) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->fault.text, sizeof d->fault.text, fmt, ap);
    va_end(ap);
    d->fault.code = E_FATAL;
}

int dev_sync(struct dev *d, struct err *e)
{
    if (d->fault.code == 0) return 0;
    return err_set(e, d->fault.code, "%s", d->fault.text);
}

// ---- arenas

static int64_t machine_bytes(void) { return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE); }

struct dev_arena *dev_arena_new(struct dev *d, const char *name, int64_t capacity_bytes)
{
    struct dev_arena *a = calloc(1, sizeof *a);
    BUG_IF(!a, "no memory for an arena");
    a->dev = d;
    snprintf(a->name, sizeof a->name, "%s", name);
    a->capacity = capacity_bytes > 0 ? capacity_bytes : machine_bytes();
    a->base =
        mmap(NULL, (size_t)a->capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (a->base == MAP_FAILED) {
        dev_fault(d, "arena %s: cannot reserve %lld bytes of address space", name, (long long)a->capacity);
        a->base = NULL;
        a->capacity = 0;
    }
    return a;
}

void dev_arena_free(struct dev_arena **pa)
{
    struct dev_arena *a = *pa;
    if (!a) return;
    if (a->base) munmap(a->base, (size_t)a->capacity);
    free(a);
    *pa = NULL;
}

tensor dev_tensor(struct dev_arena *a, enum dtype t, int n, const int64_t *shape)
{
    tensor r = tensor_of(NULL, t, n, shape);
    int64_t bytes = 1;
    for (int i = 0; i < n; i++) bytes *= shape[i];
    bytes = (bytes * dtype_size(t) + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (bytes > a->capacity - a->used && !a->dev->dry) { // a dry run only counts
        dev_fault(a->dev, "arena %s: needs %lld bytes of %lld", a->name, (long long)(a->used + bytes),
                  (long long)a->capacity);
        return r;
    }
    r.data = a->base + a->used;
    a->used += bytes;
    if (a->used > a->peak) a->peak = a->used;
    return r;
}

int64_t dev_arena_mark(const struct dev_arena *a) { return a->used; }

void dev_arena_reset(struct dev_arena *a, int64_t mark)
{
    BUG_IF(mark < 0 || mark > a->used, "arena %s: reset to %lld of %lld", a->name, (long long)mark, (long long)a->used);
    a->used = mark;
}

int64_t dev_arena_peak(const struct dev_arena *a) { return a->peak; }
struct dev *dev_arena_dev(const struct dev_arena *a) { return a->dev; }

// ---- what is left

// The number after `key` in a file of "key number" lines (key NULL: the file is the number), or -1.
static int64_t file_number(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    char line[256];
    int64_t v = -1;
    size_t n = key ? strlen(key) : 0;
    while (f && v < 0 && fgets(line, sizeof line, f)) {
        long long got;
        if ((!key || strncmp(line, key, n) == 0) && sscanf(line + n, "%lld", &got) == 1) v = got;
    }
    if (f) fclose(f);
    return v;
}

int64_t dev_memory_free(const struct dev *d)
{
    (void)d;
    int64_t kib = file_number("/proc/meminfo", "MemAvailable:"), has = kib >= 0 ? kib << 10 : machine_bytes();
    int64_t limit = file_number("/sys/fs/cgroup/memory.max", NULL); // "max" is no number: no limit
    int64_t used = file_number("/sys/fs/cgroup/memory.current", NULL);
    int64_t cached = file_number("/sys/fs/cgroup/memory.stat", "inactive_file "); // given back when asked for
    int64_t left = limit - used + (cached > 0 ? cached : 0);
    return limit >= 0 && used >= 0 && left < has ? left : has;
}

// ---- transfers

void dev_upload(struct dev *d, tensor dst, const void *src, enum dtype src_dtype)
{
    BUG_IF(!tensor_is_contiguous(dst), "dev_upload into a strided tensor");
    op_copy(d, dst, tensor_of((void *)src, src_dtype, dst.n, dst.shape));
}

void dev_download(struct dev *d, void *dst, enum dtype dst_dtype, tensor src)
{
    op_copy(d, tensor_of(dst, dst_dtype, src.n, src.shape), src);
}
