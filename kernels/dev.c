// A device: a table of ops, the memory that its tensors live in, a thread count, and the first fault.
//
// An arena reserves address space and hands out tensors by bumping an offset; where the pages come from is the affair
// of the device's memory (host.c, cuda.cu). In a dry run nothing is taken and only the peak is learned.
#include "kernels/dev.h"

#include "kernels/host.h"
#include "kernels/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dev_arena {
    struct dev *dev;
    char name[32];
    struct extent extent;
    int64_t used, peak;
};

// ---- the device

static int dev_complete(const struct dev *d, struct err *e)
{
#define CHECK_SLOT(slot)                                                                                               \
    if (!d->ops.slot) return err_set(e, E_FATAL, "the table of %s lacks the op %s", d->name, #slot);
    OPS_LIST(CHECK_SLOT)
#undef CHECK_SLOT
    return d->ops.pack ? 0 : err_set(e, E_FATAL, "the table of %s lacks the op pack", d->name);
}

// "cuda" or "cuda:3": the number, or -1; false for any other name.
static bool is_cuda(const char *table, int *which)
{
    char end;
    *which = -1;
    return strcmp(table, "cuda") == 0 || (sscanf(table, "cuda:%d%c", which, &end) == 1 && *which >= 0);
}

static int dev_fill(struct dev *d, const char *table, struct err *e)
{
    int which;
    if (is_cuda(table, &which)) return cuda_open(d, which, e);
    const char *most = strchr(table, ':');
    size_t n = most ? (size_t)(most - table) : strlen(table);
    int (*overlay)(struct dev *, const char *, struct err *) = n == 3 && memcmp(table, "cpu", 3) == 0     ? fast_open
                                                               : n == 5 && memcmp(table, "check", 5) == 0 ? check_open
                                                                                                          : NULL;
    if (!overlay && strcmp(table, "ref") != 0)
        return err_set(e, E_INPUT, "there is no table of ops called '%s'; there are ref, cpu, check and cuda", table);
    ref_slots(&d->ops);
    d->memory = &host_memory;
    return overlay ? overlay(d, most ? most + 1 : NULL, e) : 0;
}

void dev_choose(const char *table)
{
    int which;
    if (is_cuda(table, &which)) cuda_choose(which);
}

int dev_open(struct dev **out, const char *table, int n_threads, struct err *e)
{
    struct dev *d = calloc(1, sizeof *d);
    if (!d) return err_set(e, E_FATAL, "no memory for a device");
    d->n_threads = n_threads > 0 ? n_threads : host_cpus();
    snprintf(d->name, sizeof d->name, "%s x%d", table, d->n_threads);
    int rc = dev_fill(d, table, e);
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
void dev_tell(const struct dev *d, FILE *to)
{
    if (d->tell) d->tell(d, to);
}
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
    if (!d->dry) d->memory->sync(d);
    if (d->fault.code == 0) return 0;
    return err_set(e, d->fault.code, "%s", d->fault.text);
}

// ---- arenas

struct dev_arena *dev_arena_new(struct dev *d, const char *name, int64_t capacity_bytes)
{
    struct dev_arena *a = calloc(1, sizeof *a);
    BUG_IF(!a, "no memory for an arena");
    a->dev = d;
    snprintf(a->name, sizeof a->name, "%s", name);
    if (!d->memory->reserve(d, &a->extent, capacity_bytes)) {
        char size[40] = "what the machine has"; // of capacity 0
        if (capacity_bytes) snprintf(size, sizeof size, "%lld bytes", (long long)capacity_bytes);
        dev_fault(d, "arena %s: cannot reserve %s of address space; lift the limit of the process (ulimit -v)", name,
                  size);
        a->extent = (struct extent){0};
    }
    return a;
}

void dev_arena_free(struct dev_arena **pa)
{
    struct dev_arena *a = *pa;
    if (!a) return;
    a->dev->held -= a->used;
    if (a->extent.base) a->dev->memory->release(a->dev, &a->extent);
    free(a);
    *pa = NULL;
}

// Bytes of a contiguous tensor; one element where there are no axes.
static int64_t tensor_room(enum dtype t, int n, const int64_t *shape)
{
    int64_t bytes = dtype_size(t);
    for (int i = 0; i < n; i++) bytes *= shape[i];
    return bytes;
}

tensor dev_tensor(struct dev_arena *a, enum dtype t, int n, const int64_t *shape)
{
    const struct memory *m = a->dev->memory;
    tensor r = tensor_of(NULL, t, n, shape);
    int64_t own = tensor_room(t, n, shape), bytes = (own + m->align - 1) / m->align * m->align + m->gap;
    if (!a->dev->dry) { // a dry run only counts
        if (bytes > a->extent.bytes - a->used) {
            dev_fault(a->dev, "arena %s: needs %lld bytes of %lld", a->name, (long long)(a->used + bytes),
                      (long long)a->extent.bytes);
            return r;
        }
        if (!m->take(a->dev, &a->extent, a->used, own)) {
            dev_fault(a->dev, "arena %s: the device has no memory left behind %lld bytes", a->name, (long long)a->used);
            return r;
        }
    }
    r.data = a->extent.base + a->used;
    a->used += bytes;
    a->dev->held += bytes;
    if (a->used > a->peak) a->peak = a->used;
    return r;
}

int64_t dev_arena_mark(const struct dev_arena *a) { return a->used; }

void dev_arena_reset(struct dev_arena *a, int64_t mark)
{
    BUG_IF(mark < 0 || mark > a->used, "arena %s: reset to %lld of %lld", a->name, (long long)mark, (long long)a->used);
    if (!a->dev->dry && a->extent.base) a->dev->memory->give_back(a->dev, &a->extent, mark, a->used - mark);
    a->dev->held -= a->used - mark;
    a->used = mark;
}

int64_t dev_arena_peak(const struct dev_arena *a) { return a->peak; }

void *dev_arena_hold(struct dev_arena *a, int64_t bytes)
{
    const struct memory *m = a->dev->memory;
    if (!m->hold || a->dev->dry || a->dev->fault.code < 0 || bytes == 0) return NULL;
    if (bytes <= a->extent.bytes && m->hold(a->dev, &a->extent, bytes)) return a->extent.base;
    dev_fault(a->dev, "arena %s: the device has not the %lld bytes that it needs", a->name, (long long)bytes);
    return NULL;
}

struct dev *dev_arena_dev(const struct dev_arena *a) { return a->dev; }
int64_t dev_memory_held(const struct dev *d) { return d->held; }
int64_t dev_memory_free(const struct dev *d) { return d->memory->left(d); }

// ---- transfers

void dev_upload(struct dev *d, tensor dst, const void *src, enum dtype src_dtype)
{
    BUG_IF(!tensor_is_contiguous(dst), "dev_upload into a strided tensor");
    if (!d->dry && d->fault.code == 0 && tensor_count(dst) > 0) d->memory->upload(d, dst, src, src_dtype);
}

bool dev_shares_host(const struct dev *d) { return d->memory->shared; }

void dev_put(struct dev *d, tensor dst, tensor host)
{
    if (d->memory->shared) {
        op_copy(d, dst, host);
        return;
    }
    if (d->dry || d->fault.code < 0 || tensor_count(host) == 0) return;
    char *dense = tensor_is_contiguous(host) ? NULL : malloc((size_t)tensor_bytes(host));
    BUG_IF(!dense && !tensor_is_contiguous(host), "no memory to put a tensor on the device");
    int64_t size = dtype_size(host.dtype);
    for (int64_t i = 0; dense && i < tensor_count(host); i++) {
        int64_t at = 0, rest = i;
        for (int k = host.n - 1; k >= 0; k--) {
            at += rest % host.shape[k] * host.stride[k];
            rest /= host.shape[k];
        }
        memcpy(dense + i * size, (const char *)host.data + at * size, (size_t)size);
    }
    dev_upload(d, dst, dense ? dense : host.data, host.dtype);
    free(dense);
}

void dev_download(struct dev *d, void *dst, enum dtype dst_dtype, tensor src)
{
    if (!d->dry && d->fault.code == 0 && tensor_count(src) > 0) d->memory->download(d, dst, dst_dtype, src);
}

// ---- fetches

void *dev_pin(struct dev *d, int64_t bytes) { return d->memory->pin ? d->memory->pin(d, bytes) : NULL; }

void dev_unpin(struct dev *d, void **p)
{
    if (*p) d->memory->unpin(d, *p);
    *p = NULL;
}

void dev_fetch(struct dev *d, int slot, tensor dst, const void *pinned)
{
    BUG_IF(slot < 0 || slot >= FETCH_SLOTS || !d->memory->fetch, "a fetch into slot %d of %s", slot, d->name);
    if (!d->dry && d->fault.code == 0) d->memory->fetch(d, slot, dst, pinned);
}

void dev_fetched(struct dev *d, int slot)
{
    if (!d->dry && d->fault.code == 0) d->memory->fetched(d, slot);
}

// ---- records

struct dev_record {
    struct dev *dev;
    void *held;
};

bool dev_records(const struct dev *d) { return d->recorder && !d->no_records && !d->dry && d->fault.code == 0; }
void dev_set_records(struct dev *d, bool on) { d->no_records = !on; }

bool dev_records_trusted(const struct dev *d) { return d->trusted; }
void dev_records_trust(struct dev *d) { d->trusted = true; }

void dev_record_begin(struct dev *d)
{
    BUG_IF(!dev_records(d), "%s has no records", d->name);
    d->recorder->begin(d);
}

struct dev_record *dev_record_end(struct dev *d)
{
    void *held = d->recorder->end(d);
    d->no_records = d->no_records || !held;
    if (!held) return NULL;
    struct dev_record *r = calloc(1, sizeof *r);
    BUG_IF(!r, "no memory for a record");
    *r = (struct dev_record){d, held};
    return r;
}

bool dev_repeat(struct dev *d, struct dev_record *r)
{
    BUG_IF(r->dev != d, "a record of another device");
    return dev_records(d) && d->recorder->repeat(d, r->held);
}

void dev_record_free(struct dev_record **pr)
{
    struct dev_record *r = *pr;
    if (!r) return;
    r->dev->recorder->free(r->dev, r->held);
    free(r);
    *pr = NULL;
}

void *dev_stream(const struct dev *d) { return d->stream; }
