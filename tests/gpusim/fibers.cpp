// The threads of a launch: one fiber each, warps in an order drawn from the seed, blocks one after the other.
//
// A thread runs until it must wait. Where a warp acts as one (shuffle, matrix load, mma) each lane leaves what it
// brings and waits; when all 32 have come to the same instruction it is carried out for all. A barrier opens when every
// thread of the block stands at it. A thread that has ended never arrives: a kernel that returns early before a barrier
// is a fault here, though a card may forgive it.
//
// Shared memory: each 2 bytes know who wrote and who read them last and in which interval between barriers. Two threads
// of different warps in one interval, one of them writing, is a race; lanes of one warp are ordered by the warp's
// instructions as well. A copy under way has left NaN behind; it lands as late as the rules allow, when it is waited
// for.
#include "tests/gpusim/parts.h"

#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

enum { THREADS_MAX = 1024, LANES = 32, STACK = 128 << 10, SHARED_MAX = 227 << 10, CELL = 2 };

enum step { RUNNABLE, AT_WARP, AT_BLOCK, ENDED };
enum deed { SYNC, SHUFFLE, ANY, MATRIX, MMA };

// What a lane brings to a deed of its warp, and takes away.
struct bring {
    enum deed deed;
    uint64_t v; // SHUFFLE, ANY
    int lanes;
    unsigned *r; // MATRIX
    const void *row;
    bool turned;
    float *c; // MMA
    const unsigned *a;
    unsigned b[2];
};

struct copy {
    char *to;
    const char *from;
    int bytes, group;
};

struct thread {
    void *stack_at;
    char *stack;
    enum step step;
    struct bring bring;
    std::vector<struct copy> copies;
    int groups; // closed so far
};

// Who touched 2 bytes of shared memory last. `epoch` counts barriers, `turn` the warp's own instructions.
struct touch {
    uint32_t epoch, turn;
    int thread; // -2: several warps
};
struct cell {
    struct touch wrote, read;
};

struct sim_place sim_here;

static struct {
    uint64_t seed;
    char *shared_address, *shared_bytes;
    size_t shared;
    std::vector<struct cell> cells;
    struct thread threads[THREADS_MAX];
    uint32_t turns[THREADS_MAX / LANES];
    uint32_t epoch;
    int n, current; // threads of a block; the one that runs, or -1
    bool gave_up;
    void *scheduler_at;
    const char *kernel;
    void (*call)(void *);
    void *kernel_of;
} sim = {.seed = 1, .current = -1};

void sim_seed(uint64_t seed) { sim.seed = seed; }

static unsigned draw(unsigned n)
{
    sim.seed = sim.seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((sim.seed >> 33) % n);
}

void sim_where(char *buf, size_t n, const char *what)
{
    if (sim.current < 0)
        snprintf(buf, n, "%s", what);
    else
        snprintf(buf, n, "%s: block (%u, %u, %u) thread %d: %s", sim.kernel, sim_here.block.x, sim_here.block.y,
                 sim_here.block.z, sim.current, what);
}

// ---- fibers

#if defined(__x86_64__)
// Saves what a call must keep on the stack that is left, and takes it from the other.
asm(R"(
.text
.globl gpusim_switch
.type gpusim_switch, @function
gpusim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size gpusim_switch, .-gpusim_switch
)");
enum { SAVED = 6 };
#elif defined(__aarch64__)
asm(R"(
.text
.globl gpusim_switch
.type gpusim_switch, %function
gpusim_switch:
    stp x29, x30, [sp, #-160]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x29, x30, [sp], #160
    ret
.size gpusim_switch, .-gpusim_switch
)");
#else
#error "gpusim switches stacks by hand; this processor has no switch yet"
#endif
extern "C" void gpusim_switch(void **from, void *to);

static void to_scheduler() { gpusim_switch(&sim.threads[sim.current].stack_at, sim.scheduler_at); }

void sim_thread_gives_up()
{
    if (sim.current < 0) return;
    sim.gave_up = true;
    to_scheduler(); // and never back
    abort();
}

static void land(struct thread *t, int n_left);

extern "C" void gpusim_thread_main(void)
{
    sim.call(sim.kernel_of);
    struct thread *t = &sim.threads[sim.current];
    t->groups++;
    land(t, 0);
    t->step = ENDED;
    to_scheduler();
    abort();
}

static void thread_start(struct thread *t)
{
    if (!t->stack) {
        void *p = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) abort();
        t->stack = (char *)p;
    }
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(t->stack, STACK);
#endif
#if defined(__x86_64__)
    void **top = (void **)(t->stack + STACK - 64);
    *--top = nullptr; // a return address that is never used, and the alignment that a call leaves
    *--top = (void *)gpusim_thread_main;
    for (int i = 0; i < SAVED; i++) *--top = nullptr;
    t->stack_at = top;
#else
    void **top = (void **)(t->stack + STACK - 64 - 160);
    memset(top, 0, 160);
    top[1] = (void *)gpusim_thread_main;
    t->stack_at = top;
#endif
    t->step = RUNNABLE;
    t->copies.clear();
    t->groups = 0;
}

// ---- shared memory

static bool is_shared(const void *p)
{
    return (const char *)p >= sim.shared_address && (const char *)p < sim.shared_address + SHARED_MAX + 4096;
}

static bool same_moment(const struct touch &t, int me)
{
    if (t.epoch != sim.epoch || t.thread == me) return false;
    if (t.thread < 0 || t.thread / LANES != me / LANES) return true;
    return t.turn == sim.turns[me / LANES]; // another lane, and nothing between
}

// The bytes behind n bytes of shared memory, once they are seen to be free of races.
static char *touch_shared(const void *p, size_t n, bool write)
{
    size_t at = (size_t)((const char *)p - sim.shared_address);
    if (at + n > sim.shared)
        sim_fault("%s shared memory at %zu, and the launch has %zu bytes", write ? "writes" : "reads", at, sim.shared);
    int me = sim.current;
    struct touch now = {sim.epoch, sim.turns[me / LANES], me};
    for (size_t i = at / CELL; i <= (at + n - 1) / CELL; i++) {
        struct cell &c = sim.cells[i];
        if (same_moment(c.wrote, me))
            sim_fault("%s shared byte %zu, which thread %d wrote with no barrier between", write ? "writes" : "reads",
                      i * CELL, c.wrote.thread);
        if (write && same_moment(c.read, me))
            sim_fault("writes shared byte %zu, which another thread read with no barrier between", i * CELL);
        if (write)
            c.wrote = now;
        else {
            if (c.read.epoch == sim.epoch && c.read.thread != me && c.read.thread / LANES != me / LANES)
                now.thread = -2;
            c.read = now;
            now.thread = me;
        }
    }
    return sim.shared_bytes + at;
}

char *sim_shared(void) { return sim.shared_address; }

static void check_thread(const void *p, size_t n)
{
    size_t align = n & -n; // of a struct, that of its largest member at most
    if ((uintptr_t)p % align != 0) sim_fault("%zu bytes at an address that is no multiple of %zu", n, align);
}

const void *sim_read(const void *p, size_t n)
{
    check_thread(p, n);
    if (is_shared(p)) return touch_shared(p, n, false);
    if (!sim_is_device(p)) sim_fault("reads %p, which is no memory of the device", p);
    return sim_device_read(p, (int64_t)n, "reads");
}

void *sim_write(void *p, size_t n)
{
    check_thread(p, n);
    if (is_shared(p)) return touch_shared(p, n, true);
    if (!sim_is_device(p)) sim_fault("writes %p, which is no memory of the device", p);
    return sim_device_write(p, (int64_t)n, "writes");
}

// ---- copies under way

void sim_copy_start(void *to, const void *from, int bytes)
{
    struct thread *t = &sim.threads[sim.current];
    check_thread(to, 16);
    check_thread(from, 16);
    if (bytes < 0 || bytes > 16) sim_fault("a copy of %d bytes", bytes);
    if (!is_shared(to)) sim_fault("a copy to %p, which is not shared memory", to);
    if (bytes > 0) {
        if (!sim_is_device(from)) sim_fault("a copy from %p, which is no memory of the device", from);
        from = (const char *)sim_device_read(from, bytes, "copies");
    }
    memset(touch_shared(to, 16, true), 0xff, 16);
    t->copies.push_back({(char *)to, (const char *)from, bytes, t->groups});
}

// Lets the copies land that belong to all but the last n_left closed groups.
static void land(struct thread *t, int n_left)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->copies.size(); i++) {
        struct copy c = t->copies[i];
        if (c.group < t->groups - n_left) {
            char bytes[16] = {};
            if (c.bytes > 0) memcpy(bytes, c.from, (size_t)c.bytes);
            memcpy(touch_shared(c.to, 16, true), bytes, 16);
        } else
            t->copies[kept++] = c;
    }
    t->copies.resize(kept);
}

void sim_copy_commit(void) { sim.threads[sim.current].groups++; }
void sim_copy_wait(int n_left) { land(&sim.threads[sim.current], n_left); }

// ---- waiting

static void wait_at(enum step step)
{
    sim.threads[sim.current].step = step;
    to_scheduler();
}

void sim_sync_block(void) { wait_at(AT_BLOCK); }

static struct bring *brought(enum deed deed)
{
    struct bring *b = &sim.threads[sim.current].bring;
    *b = {};
    b->deed = deed;
    return b;
}

void sim_sync_warp(void)
{
    brought(SYNC);
    wait_at(AT_WARP);
}

uint64_t sim_shuffle_xor(uint64_t v, int lanes)
{
    struct bring *b = brought(SHUFFLE);
    b->v = v;
    b->lanes = lanes;
    wait_at(AT_WARP);
    return b->v;
}

bool sim_any_lane(bool v)
{
    struct bring *b = brought(ANY);
    b->v = v;
    wait_at(AT_WARP);
    return b->v != 0;
}

void sim_matrix_load4(unsigned r[4], const void *row, bool turned)
{
    struct bring *b = brought(MATRIX);
    b->r = r;
    b->row = sim_read(row, 16);
    b->turned = turned;
    if (!is_shared(row)) sim_fault("a matrix load from %p, which is not shared memory", row);
    wait_at(AT_WARP);
}

void sim_mma_bf16(float c[4], const unsigned a[4], unsigned b0, unsigned b1)
{
    struct bring *b = brought(MMA);
    b->c = c;
    b->a = a;
    b->b[0] = b0;
    b->b[1] = b1;
    wait_at(AT_WARP);
}

// ---- what a warp does as one

static float half_of(unsigned pair, int i) { return bf16_to_f32((uint16_t)(pair >> (16 * i))); }

static void do_matrix(struct thread *w)
{
    for (int lane = 0; lane < LANES; lane++)
        for (int m = 0; m < 4; m++) {
            uint16_t two[2];
            for (int i = 0; i < 2; i++) {
                int row = lane / 4, col = lane % 4 * 2 + i;
                const uint16_t *from = (const uint16_t *)w[8 * m + (w[0].bring.turned ? col : row)].bring.row;
                two[i] = from[w[0].bring.turned ? row : col];
            }
            w[lane].bring.r[m] = two[0] | (unsigned)two[1] << 16;
        }
}

static void do_mma(struct thread *w)
{
    float a[16][16], b[16][8];
    for (int lane = 0; lane < LANES; lane++) {
        int g = lane / 4, t = lane % 4 * 2;
        const struct bring &in = w[lane].bring;
        for (int i = 0; i < 2; i++) {
            a[g][t + i] = half_of(in.a[0], i);
            a[g + 8][t + i] = half_of(in.a[1], i);
            a[g][t + 8 + i] = half_of(in.a[2], i);
            a[g + 8][t + 8 + i] = half_of(in.a[3], i);
            b[t + i][g] = half_of(in.b[0], i);
            b[t + 8 + i][g] = half_of(in.b[1], i);
        }
    }
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
            float sum = w[lane].bring.c[i];
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][col];
            w[lane].bring.c[i] = sum;
        }
}

static void fault_of_nobody(const char *what)
{
    char text[256];
    snprintf(text, sizeof text, "%s: block (%u, %u, %u): %s", sim.kernel, sim_here.block.x, sim_here.block.y,
             sim_here.block.z, what);
    sim.gave_up = true;
    sim_fault("%s", text);
}

static void do_deed(struct thread *w, int warp)
{
    uint64_t v[LANES], any = 0;
    for (int i = 0; i < LANES; i++) {
        v[i] = w[i].bring.v;
        any |= v[i];
        if (w[i].bring.deed != w[0].bring.deed || w[i].bring.turned != w[0].bring.turned) {
            fault_of_nobody("lanes of one warp stand at different instructions");
            return;
        }
    }
    switch (w[0].bring.deed) {
    case SHUFFLE:
        for (int i = 0; i < LANES; i++) w[i].bring.v = v[(i ^ w[i].bring.lanes) % LANES];
        break;
    case ANY:
        for (int i = 0; i < LANES; i++) w[i].bring.v = any;
        break;
    case MATRIX:
        do_matrix(w);
        break;
    case MMA:
        do_mma(w);
        break;
    case SYNC:
        break;
    }
    for (int i = 0; i < LANES; i++) w[i].step = RUNNABLE;
    sim.turns[warp]++;
}

// ---- a block

static void thread_run(int i)
{
    sim.current = i;
    unsigned x = sim_here.threads.x, y = sim_here.threads.y;
    sim_here.thread = {(unsigned)i % x, (unsigned)i / x % y, (unsigned)i / (x * y)};
    gpusim_switch(&sim.scheduler_at, sim.threads[i].stack_at);
    sim.current = -1;
}

// Runs the lanes of a warp until each waits, forwards or backwards; then the warp's deed, when all came to one.
static void warp_run(int warp)
{
    struct thread *w = sim.threads + warp * LANES;
    bool forward = draw(2);
    for (int i = 0; i < LANES && !sim.gave_up; i++) {
        int lane = forward ? i : LANES - 1 - i;
        if (w[lane].step == RUNNABLE) thread_run(warp * LANES + lane);
    }
    int waiting = 0;
    for (int i = 0; i < LANES; i++) waiting += w[i].step == AT_WARP;
    if (!sim.gave_up && waiting == LANES) do_deed(w, warp);
}

static bool warp_can_run(int warp)
{
    for (int i = 0; i < LANES; i++)
        if (sim.threads[warp * LANES + i].step == RUNNABLE) return true;
    return false;
}

static void block_run()
{
    int n_warps = sim.n / LANES;
    memset(sim.shared_bytes, 0xff, sim.shared);
    sim.epoch++;
    for (int i = 0; i < sim.n; i++) thread_start(&sim.threads[i]);
    while (!sim.gave_up) {
        int steps[ENDED + 1] = {};
        for (int i = 0; i < sim.n; i++) steps[sim.threads[i].step]++;
        if (steps[ENDED] == sim.n) return;
        if (steps[RUNNABLE] > 0) {
            // A warp keeps its turn for a while, then another is drawn.
            int warp = (int)draw((unsigned)n_warps);
            while (!warp_can_run(warp)) warp = (warp + 1) % n_warps;
            do warp_run(warp);
            while (!sim.gave_up && warp_can_run(warp) && draw(8));
        } else if (steps[AT_BLOCK] == sim.n) {
            sim.epoch++;
            for (int i = 0; i < sim.n; i++) sim.threads[i].step = RUNNABLE;
        } else
            fault_of_nobody("threads wait for others that have ended or stand elsewhere");
    }
}

void sim_launch(const char *kernel, const dim3 &blocks, const dim3 &threads, size_t shared, void (*call)(void *),
                void *kernel_of)
{
    if (sim_fault_text()[0]) return;
    sim.n = (int)(threads.x * threads.y * threads.z);
    if (sim.n % LANES != 0 || sim.n > THREADS_MAX || sim.n == 0 || shared > SHARED_MAX || blocks.y > 65535 ||
        blocks.z > 65535) {
        sim_fault("%s: a launch of %d threads with %zu bytes shared", kernel, sim.n, shared);
        return;
    }
    if (!sim.shared_address) {
        void *p = mmap(nullptr, SHARED_MAX + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) abort();
        sim.shared_address = (char *)p;
        sim.shared_bytes = (char *)calloc(SHARED_MAX, 1);
        sim.cells.resize(SHARED_MAX / CELL);
    }
    sim.shared = shared;
    sim.kernel = kernel;
    sim.call = call;
    sim.kernel_of = kernel_of;
    sim.gave_up = false;
    sim_here.threads = threads;
    sim_here.blocks = blocks;
    sim_counting()->launches++;
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x && !sim.gave_up; x++) {
                sim_here.block = {x, y, z};
                block_run();
            }
}
