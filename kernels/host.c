// The machine: cores and memory as this process may use them.
//
// An extent is mapped whole with MAP_NORESERVE, so a generous capacity costs nothing until it is written and taking a
// tensor needs no call. Both limits have a trap in containers: the machine shows all cores and all memory, while the
// cgroup grants less.
#include "kernels/host.h"

#include "kernels/table.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// ---- cores

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

int host_cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int limit = cgroup_cpus();
    return limit > 0 && limit < n ? limit : n;
}

// ---- memory

static int64_t machine_bytes(void) { return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE); }

static bool host_reserve(struct dev *d, struct extent *x, int64_t bytes)
{
    (void)d;
    x->bytes = bytes > 0 ? bytes : machine_bytes();
    void *p = mmap(NULL, (size_t)x->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    x->base = p == MAP_FAILED ? NULL : p;
    return x->base;
}

static void host_release(struct dev *d, struct extent *x)
{
    (void)d;
    munmap(x->base, (size_t)x->bytes);
    *x = (struct extent){0};
}

static bool host_take(struct dev *d, struct extent *x, int64_t from, int64_t bytes)
{
    (void)d, (void)x, (void)from, (void)bytes;
    return true;
}

static void host_give_back(struct dev *d, struct extent *x, int64_t from, int64_t bytes)
{
    (void)d, (void)x, (void)from, (void)bytes;
}

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

static int64_t host_left(const struct dev *d)
{
    (void)d;
    int64_t kib = file_number("/proc/meminfo", "MemAvailable:"), has = kib >= 0 ? kib << 10 : machine_bytes();
    int64_t limit = file_number("/sys/fs/cgroup/memory.max", NULL); // "max" is no number: no limit
    int64_t used = file_number("/sys/fs/cgroup/memory.current", NULL);
    int64_t cached = file_number("/sys/fs/cgroup/memory.stat", "inactive_file "); // given back when asked for
    int64_t left = limit - used + (cached > 0 ? cached : 0);
    return limit >= 0 && used >= 0 && left < has ? left : has;
}

// ---- transfers: the memory is the same, so they are copies

static void host_upload(struct dev *d, tensor dst, const void *src, enum dtype src_dtype)
{
    op_copy(d, dst, tensor_of((void *)src, src_dtype, dst.n, dst.shape));
}

static void host_download(struct dev *d, void *dst, enum dtype dst_dtype, tensor src)
{
    op_copy(d, tensor_of(dst, dst_dtype, src.n, src.shape), src);
}

static void host_sync(struct dev *d) { (void)d; } // every op ends before it returns

const struct memory host_memory = {
    .align = 64,
    .shared = true,
    .reserve = host_reserve,
    .release = host_release,
    .take = host_take,
    .give_back = host_give_back,
    .left = host_left,
    .upload = host_upload,
    .download = host_download,
    .sync = host_sync,
};
