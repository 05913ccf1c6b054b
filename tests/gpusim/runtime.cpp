// Stand-in for the CUDA runtime and the driver's virtual memory, as far as we call them.
//
// Kernels run when they are asked for. What reads or writes memory beside them, copies out of pinned memory and
// messages, is done as late as the rules allow, so that a missing wait shows: the bytes are not there yet, or no longer
// those that were meant. What the real calls would refuse is refused here.
//
// A stream that is captured keeps its work, tensors' coming and going with it, and a graph does it as often as it is
// launched. To wait, to allocate, to cross pageable memory or to tie other streams to it breaks the capture; the real
// runtime forgives some of the last.
#include "tests/gpusim/parts.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <deque>
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

enum : int64_t { PAGE = 2 << 20 };
enum { RUNTIME = 13000 };

struct sim_stream {
    int flags, priority;
    std::deque<std::function<bool()>> work; // not done yet
    int64_t n_done;
};
struct sim_graph {
    std::vector<std::function<void()>> nodes;
};
struct sim_event {
    bool recorded, timed;
    sim_stream *stream;
    int64_t behind; // pieces of work of the stream
    double at;      // milliseconds
};

static struct {
    int cards, arch, chosen, version;
    int64_t total, mapped;
    double clock; // milliseconds
    cudaError_t last;
    std::map<void *, int64_t> blocks;                       // of cudaMalloc
    std::map<void *, int64_t> pinned;                       // of cudaHostAlloc
    std::map<CUmemGenericAllocationHandle, int64_t> chunks; // of cuMemCreate
    CUmemGenericAllocationHandle next;
} driver = {.cards = 1, .arch = 80, .version = RUNTIME, .total = int64_t(16) << 30, .next = 1};

void sim_cards(int n, int arch)
{
    driver.cards = n;
    driver.arch = arch;
}

int sim_card_arch(void) { return driver.arch; }
int sim_card_chosen(void) { return driver.chosen; }
void sim_driver(int version) { driver.version = version; }
void sim_card_bytes(int64_t n) { driver.total = n; }

static struct {
    cudaStream_t stream; // NULL: none is captured
    struct sim_graph *graph;
    const char *broken;
    const char *last_broken;
} capture;

const char *sim_capture_broken_by(void) { return capture.last_broken ? capture.last_broken : ""; }

bool sim_breaks_capture(const char *what)
{
    if (capture.stream && !capture.broken) capture.broken = capture.last_broken = what;
    return capture.stream != nullptr;
}

bool sim_note(cudaStream_t s, std::function<void()> work)
{
    if (!capture.stream || s != capture.stream) return false;
    capture.graph->nodes.push_back(std::move(work));
    return true;
}

static cudaError_t said(cudaError_t code)
{
    if (sim_fault_text()[0]) code = cudaErrorLaunchFailure;
    if (code != cudaSuccess) driver.last = code;
    return code;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = driver.version;
    return said(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = RUNTIME;
    return said(cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 0;
    if (driver.version < RUNTIME) return said(cudaErrorInsufficientDriver);
    *n = driver.cards;
    return driver.cards > 0 ? cudaSuccess : said(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int card)
{
    if (card < 0 || card >= driver.cards) return said(cudaErrorInvalidDevice);
    driver.chosen = card;
    return said(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int card)
{
    if (card < 0 || card >= driver.cards) return said(cudaErrorInvalidDevice);
    *p = {};
    snprintf(p->name, sizeof p->name, "gpusim");
    p->major = driver.arch / 10;
    p->minor = driver.arch % 10;
    p->multiProcessorCount = 4;
    p->totalGlobalMem = (size_t)driver.total;
    return said(cudaSuccess);
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *kernel)
{
    if (!kernel) return said(cudaErrorInvalidValue);
    if (driver.arch < 80) return said(cudaErrorNoKernelImageForDevice);
    a->maxThreadsPerBlock = 1024;
    return said(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total)
{
    *total = (size_t)driver.total;
    *left = (size_t)(driver.total - driver.mapped);
    return said(cudaSuccess);
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    if (sim_breaks_capture("cudaMalloc")) return said(cudaErrorStreamCaptureUnsupported);
    *p = nullptr;
    sim_counting()->allocations++;
    if (sim_fault_text()[0]) return said(cudaSuccess);
    if (driver.mapped + (int64_t)bytes > driver.total) return said(cudaErrorMemoryAllocation);
    *p = sim_reserve((int64_t)bytes);
    if (!*p) return said(cudaErrorMemoryAllocation);
    sim_memory_taken(*p, (int64_t)bytes);
    driver.blocks[*p] = (int64_t)bytes;
    driver.mapped += (int64_t)bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (sim_breaks_capture("cudaFree")) return said(cudaErrorStreamCaptureUnsupported);
    if (!p) return said(cudaSuccess);
    auto at = driver.blocks.find(p);
    if (at == driver.blocks.end()) return said(cudaErrorInvalidValue);
    sim_memory_given_back(p, at->second);
    driver.mapped -= at->second;
    driver.blocks.erase(at);
    return said(cudaSuccess);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    if (sim_breaks_capture("cudaHostAlloc")) return said(cudaErrorStreamCaptureUnsupported);
    sim_counting()->allocations++;
    *p = malloc(bytes ? bytes : 1);
    if (!*p) return said(cudaErrorMemoryAllocation);
    driver.pinned[*p] = (int64_t)bytes;
    return said(cudaSuccess);
}

cudaError_t cudaFreeHost(void *p)
{
    if (!p) return said(cudaSuccess);
    auto at = driver.pinned.find(p);
    if (at == driver.pinned.end()) return said(cudaErrorInvalidValue);
    driver.pinned.erase(at);
    free(p);
    return said(cudaSuccess);
}

static bool is_pinned(const void *p, size_t bytes)
{
    auto at = driver.pinned.upper_bound((void *)p);
    if (at == driver.pinned.begin()) return false;
    --at;
    return (const char *)p + bytes <= (const char *)at->first + at->second;
}

// ---- streams: what is not done yet

void sim_later(cudaStream_t s, std::function<bool()> work) { s->work.push_back(std::move(work)); }

// One try for what stands before piece `end` of the stream.
static bool advance(cudaStream_t s, int64_t end)
{
    while (s->n_done < end && s->work.front()()) {
        s->work.pop_front();
        s->n_done++;
    }
    return s->n_done >= end;
}

static int64_t end_of(cudaStream_t s) { return s->n_done + (int64_t)s->work.size(); }
void sim_catch_up(cudaStream_t s)
{
    for (int64_t end = end_of(s); !advance(s, end);) {}
}

// ---- graphs

void sim_tensor_taken(const void *p, int64_t bytes)
{
    if (!sim_note(capture.stream, [=] { sim_memory_taken(p, bytes); })) sim_memory_taken(p, bytes);
}

void sim_tensor_given_back(cudaStream_t s, const void *p, int64_t bytes)
{
    if (sim_note(s, [=] { sim_memory_given_back(p, bytes); })) return;
    sim_catch_up(s);
    sim_memory_given_back(p, bytes);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    if (!s || capture.stream || mode != cudaStreamCaptureModeThreadLocal) return said(cudaErrorInvalidValue);
    capture.stream = s;
    capture.graph = new sim_graph;
    capture.broken = nullptr;
    return said(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    *g = nullptr;
    if (!s || capture.stream != s) return said(cudaErrorInvalidValue);
    capture.stream = nullptr;
    if (capture.broken) {
        delete capture.graph;
        return said(cudaErrorStreamCaptureInvalidated);
    }
    *g = capture.graph;
    return said(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *run, cudaGraph_t g, unsigned long long flags)
{
    if (!g || flags != 0) return said(cudaErrorInvalidValue);
    *run = new sim_graph(*g);
    return said(cudaSuccess);
}

static bool graphs_fail;
void sim_graphs_fail(bool they_do) { graphs_fail = they_do; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t run, cudaStream_t s)
{
    if (!run || !s || sim_breaks_capture("cudaGraphLaunch")) return said(cudaErrorInvalidValue);
    sim_catch_up(s);
    sim_counting()->graphs++;
    for (const auto &node : run->nodes)
        if (!graphs_fail) node();
    return said(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t run)
{
    delete run;
    return said(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return said(cudaSuccess);
}

// ---- transfers

static cudaError_t copy_now(void *to, const void *from, size_t bytes)
{
    if (sim_is_device(from)) from = sim_host_read(from, (int64_t)bytes, "cudaMemcpyAsync reads");
    if (sim_is_device(to)) to = sim_host_write(to, (int64_t)bytes, "cudaMemcpyAsync writes");
    if (from && to) memmove(to, from, bytes);
    return said(cudaSuccess);
}

// Beside the host's; the card works for it as for a kernel.
static cudaError_t copy_inside(void *to, const void *from, size_t bytes)
{
    sim_counting()->launches++;
    return copy_now(to, from, bytes);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s)
{
    if (!s) return said(cudaErrorInvalidValue);
    if (bytes == 0 || sim_fault_text()[0]) return said(cudaSuccess);
    bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
    if (to_device != sim_is_device(to) || from_device != sim_is_device(from)) return said(cudaErrorInvalidValue);
    if (from_device && to_device) {
        if (sim_note(s, [=] { copy_inside(to, from, bytes); })) return said(cudaSuccess);
        sim_catch_up(s);
        return copy_inside(to, from, bytes);
    }
    if (is_pinned(from_device ? to : from, bytes)) {
        if (sim_note(s, [=] { copy_now(to, from, bytes); })) return said(cudaSuccess);
        sim_later(s, [=] {
            copy_now(to, from, bytes);
            return true;
        });
        return said(cudaSuccess);
    }
    if (s == capture.stream && sim_breaks_capture("cudaMemcpyAsync of pageable memory"))
        return said(cudaErrorStreamCaptureUnsupported);
    sim_catch_up(s);
    sim_counting()->syncs++; // pageable memory: the call returns when it is done
    return copy_now(to, from, bytes);
}

static cudaError_t set_now(void *p, int value, size_t bytes)
{
    void *at = sim_host_write(p, (int64_t)bytes, "cudaMemsetAsync writes");
    if (at) memset(at, value, bytes);
    return said(cudaSuccess);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    if (!s) return said(cudaErrorInvalidValue);
    if (bytes == 0 || sim_fault_text()[0]) return said(cudaSuccess);
    if (sim_note(s, [=] { set_now(p, value, bytes); })) return said(cudaSuccess);
    sim_catch_up(s);
    return set_now(p, value, bytes);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority)
{
    if (priority > 0 || priority < -5) return said(cudaErrorInvalidValue);
    *s = new sim_stream{(int)flags, priority, {}, 0};
    return said(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    return cudaStreamCreateWithPriority(s, flags, 0);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return said(cudaSuccess);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    sim_catch_up(s);
    delete s;
    return said(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (sim_breaks_capture("cudaStreamSynchronize")) return said(cudaErrorStreamCaptureUnsupported);
    if (!s) return said(cudaErrorInvalidValue);
    sim_counting()->syncs++;
    sim_catch_up(s);
    return said(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    if (s == capture.stream && sim_breaks_capture("cudaStreamQuery")) return said(cudaErrorStreamCaptureUnsupported);
    if (!s) return said(cudaErrorInvalidValue);
    return advance(s, end_of(s)) ? said(cudaSuccess) : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    if (s == capture.stream && sim_breaks_capture("cudaStreamWaitEvent"))
        return said(cudaErrorStreamCaptureUnsupported);
    if (!s) return said(cudaErrorInvalidValue);
    while (e->recorded && e->stream != s && !advance(e->stream, e->behind)) {}
    return said(cudaSuccess);
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t code = said(cudaSuccess) == cudaSuccess ? driver.last : cudaErrorLaunchFailure;
    driver.last = cudaSuccess;
    return code;
}

const char *cudaGetErrorString(cudaError_t code)
{
    switch (code) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorNoKernelImageForDevice:
        return "no kernel image is available for execution on the device";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    case cudaErrorLaunchFailure:
        break;
    }
    return sim_fault_text();
}

// ---- events: time passes where the stand-in of a library says so

void sim_time_passes(float ms) { driver.clock += ms; }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    *e = new sim_event{false, !(flags & cudaEventDisableTiming), nullptr, 0, 0};
    return said(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return said(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    if (s == capture.stream && sim_breaks_capture("cudaEventRecord")) return said(cudaErrorStreamCaptureUnsupported);
    if (!s) return said(cudaErrorInvalidValue);
    e->recorded = true;
    e->stream = s;
    e->behind = end_of(s);
    e->at = driver.clock;
    return said(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (sim_breaks_capture("cudaEventSynchronize")) return said(cudaErrorStreamCaptureUnsupported);
    while (e->recorded && !advance(e->stream, e->behind)) {}
    return said(cudaSuccess); // of an event that was never recorded too
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = (float)(to->at - from->at);
    return said(from->recorded && to->recorded && from->timed && to->timed ? cudaSuccess : cudaErrorInvalidValue);
}

// ---- virtual memory

CUresult cuMemAddressReserve(CUdeviceptr *p, size_t bytes, size_t, CUdeviceptr, unsigned long long)
{
    *p = bytes % PAGE == 0 ? (CUdeviceptr)sim_reserve((int64_t)bytes) : 0;
    return *p ? CUDA_SUCCESS : 1;
}

CUresult cuMemAddressFree(CUdeviceptr, size_t) { return CUDA_SUCCESS; }

CUresult cuMemCreate(CUmemGenericAllocationHandle *h, size_t bytes, const CUmemAllocationProp *prop, unsigned long long)
{
    sim_breaks_capture("cuMemCreate");
    sim_counting()->allocations++;
    if (bytes % PAGE != 0 || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED || prop->location.id != driver.chosen)
        return 1;
    if (driver.mapped + (int64_t)bytes > driver.total) return 2;
    *h = driver.next++;
    driver.chunks[*h] = (int64_t)bytes;
    driver.mapped += (int64_t)bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle h)
{
    auto at = driver.chunks.find(h);
    if (at == driver.chunks.end()) return 1;
    driver.mapped -= at->second;
    driver.chunks.erase(at);
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr p, size_t bytes, size_t offset, CUmemGenericAllocationHandle h, unsigned long long)
{
    auto at = driver.chunks.find(h);
    return at != driver.chunks.end() && (int64_t)bytes == at->second && offset == 0 && sim_is_device((void *)p)
               ? CUDA_SUCCESS
               : 1;
}

CUresult cuMemUnmap(CUdeviceptr p, size_t) { return sim_is_device((void *)p) ? CUDA_SUCCESS : 1; }

CUresult cuMemSetAccess(CUdeviceptr p, size_t, const CUmemAccessDesc *desc, size_t n)
{
    return sim_is_device((void *)p) && n == 1 && desc->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? CUDA_SUCCESS : 1;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned, unsigned long long,
                                             enum cudaDriverEntryPointQueryResult *found)
{
    static const struct {
        const char *name;
        void *f;
    } calls[] = {
        {"cuMemAddressReserve", (void *)cuMemAddressReserve},
        {"cuMemAddressFree", (void *)cuMemAddressFree},
        {"cuMemCreate", (void *)cuMemCreate},
        {"cuMemRelease", (void *)cuMemRelease},
        {"cuMemMap", (void *)cuMemMap},
        {"cuMemUnmap", (void *)cuMemUnmap},
        {"cuMemSetAccess", (void *)cuMemSetAccess},
    };
    *found = cudaDriverEntryPointSuccess;
    for (auto &c : calls)
        if (strcmp(c.name, name) == 0) {
            *f = c.f;
            return cudaSuccess;
        }
    return said(cudaErrorInvalidValue);
}
