// The simulation's memory and its faults. fibers.cpp runs the threads.
//
// Three maps of the same length: addresses that are handed out (no access), the bytes behind them, and a state for each
// byte. Fresh memory is 0xff throughout, which is NaN in every float format. Addresses are never used twice, so a
// pointer kept past its arena's reset is found as well.
#include "tests/gpusim/parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum : int64_t { SPACE = int64_t(256) << 30, SPACE_GAP = 1 << 16 };
enum { AWAY, TAKEN, WRITTEN };
enum { WATCHED = 8 };

static struct {
    char *address, *bytes;
    uint8_t *state;
    int64_t used;
    char fault[1024];
    struct sim_counts counts;
    struct {
        int64_t from, to;
    } watched[WATCHED];
    int n_watched;
} space;

static void *map(int protection)
{
    void *p = mmap(nullptr, SPACE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("gpusim: mmap");
        abort();
    }
    return p;
}

static void space_open()
{
    if (space.address) return;
    space.address = (char *)map(PROT_NONE);
    space.bytes = (char *)map(PROT_READ | PROT_WRITE);
    space.state = (uint8_t *)map(PROT_READ | PROT_WRITE);
}

// ---- faults

void sim_fault(const char *fmt, ...)
{
    if (!space.fault[0]) {
        char what[512];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(what, sizeof what, fmt, ap);
        va_end(ap);
        sim_where(space.fault, sizeof space.fault, what);
    }
    sim_thread_gives_up();
}

const char *sim_fault_text(void) { return space.fault; }
void sim_clear(void) { space.fault[0] = 0; }

// ---- device memory

void *sim_reserve(int64_t bytes)
{
    space_open();
    int64_t from = space.used;
    bytes = (bytes + SPACE_GAP - 1) / SPACE_GAP * SPACE_GAP + SPACE_GAP;
    if (from + bytes > SPACE) return nullptr;
    space.used += bytes;
    return space.address + from;
}

bool sim_is_device(const void *p)
{
    return (const char *)p >= space.address && (const char *)p < space.address + SPACE;
}

void sim_forget(const void *p, int64_t bytes)
{
    int64_t at = (const char *)p - space.address;
    memset(space.bytes + at, 0xff, (size_t)bytes);
    memset(space.state + at, TAKEN, (size_t)bytes);
}

void sim_memory_taken(const void *p, int64_t bytes) { sim_forget(p, bytes); }

void sim_memory_given_back(const void *p, int64_t bytes)
{
    memset(space.state + ((const char *)p - space.address), AWAY, (size_t)bytes);
}

int64_t sim_unwritten(const void *p, int64_t bytes)
{
    int64_t n = 0, at = (const char *)p - space.address;
    for (int64_t i = 0; i < bytes; i++) n += space.state[at + i] != WRITTEN;
    return n;
}

void sim_watch(const void *p, int64_t bytes)
{
    if (bytes == 0) {
        space.n_watched = 0;
        return;
    }
    if (space.n_watched == WATCHED) abort();
    int64_t at = (const char *)p - space.address;
    space.watched[space.n_watched++] = {at, at + bytes};
}

// The least state of n bytes; 4 at a time where possible.
static int least(const uint8_t *state, int64_t n)
{
    int64_t i = 0;
    for (uint32_t four; i + 4 <= n; i += 4) {
        memcpy(&four, state + i, 4);
        if (four != 0x02020202) break;
    }
    int low = WRITTEN;
    for (; i < n; i++) low = state[i] < low ? state[i] : low;
    return low;
}

const void *sim_device_read(const void *p, int64_t n, const char *who)
{
    int64_t at = (const char *)p - space.address;
    int low = least(space.state + at, n);
    if (low == AWAY) sim_fault("%s %lld bytes outside of any tensor", who, (long long)n);
    if (low == TAKEN) sim_fault("%s %lld bytes that nothing has written", who, (long long)n);
    space.counts.loaded += n;
    for (int i = 0; i < space.n_watched; i++)
        if (at >= space.watched[i].from && at < space.watched[i].to) space.counts.watched += n;
    return low == WRITTEN ? space.bytes + at : nullptr;
}

void *sim_device_write(void *p, int64_t n, const char *who)
{
    int64_t at = (char *)p - space.address;
    if (least(space.state + at, n) == AWAY) {
        sim_fault("%s %lld bytes outside of any tensor", who, (long long)n);
        return nullptr;
    }
    memset(space.state + at, WRITTEN, (size_t)n);
    space.counts.stored += n;
    return space.bytes + at;
}

const void *sim_host_read(const void *p, int64_t n, const char *who)
{
    if (sim_is_device(p)) return sim_device_read(p, n, who);
    sim_fault("%s %lld bytes that are not on the device", who, (long long)n);
    return nullptr;
}

void *sim_host_write(void *p, int64_t n, const char *who)
{
    if (sim_is_device(p)) return sim_device_write(p, n, who);
    sim_fault("%s %lld bytes that are not on the device", who, (long long)n);
    return nullptr;
}

struct sim_counts *sim_counting(void) { return &space.counts; }

struct sim_counts sim_take_counts(void)
{
    struct sim_counts c = space.counts;
    space.counts = {};
    return c;
}
