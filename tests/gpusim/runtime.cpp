// Stand-in for the CUDA runtime and the driver's virtual memory, as far as we call them.
//
// Work is done when it is asked for, so a stream is only a name; what the real calls would refuse is refused here.
#include "tests/gpusim/parts.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <map>
#include <stdio.h>
#include <string.h>

enum : int64_t { PAGE = 2 << 20 };

struct sim_stream {
    int flags;
};
struct sim_event {
    bool recorded;
};

static struct {
    int cards, major, chosen;
    int64_t total, mapped;
    cudaError_t last;
    std::map<void *, int64_t> blocks;                       // of cudaMalloc
    std::map<CUmemGenericAllocationHandle, int64_t> chunks; // of cuMemCreate
    CUmemGenericAllocationHandle next;
} driver = {.cards = 1, .major = 8, .total = int64_t(16) << 30, .next = 1};

void sim_cards(int n, int major)
{
    driver.cards = n;
    driver.major = major;
}

void sim_card_bytes(int64_t n) { driver.total = n; }

static cudaError_t said(cudaError_t code)
{
    if (sim_fault_text()[0]) code = cudaErrorLaunchFailure;
    if (code != cudaSuccess) driver.last = code;
    return code;
}

cudaError_t cudaGetDeviceCount(int *n)
{
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
    p->major = driver.major;
    p->multiProcessorCount = 4;
    p->totalGlobalMem = (size_t)driver.total;
    return said(cudaSuccess);
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *kernel)
{
    if (!kernel) return said(cudaErrorInvalidValue);
    if (driver.major < 8) return said(cudaErrorNoKernelImageForDevice);
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
    *p = nullptr;
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
    if (!p) return said(cudaSuccess);
    auto at = driver.blocks.find(p);
    if (at == driver.blocks.end()) return said(cudaErrorInvalidValue);
    sim_memory_given_back(p, at->second);
    driver.mapped -= at->second;
    driver.blocks.erase(at);
    return said(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s)
{
    if (!s) return said(cudaErrorInvalidValue);
    if (bytes == 0 || sim_fault_text()[0]) return said(cudaSuccess);
    bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
    if (to_device != sim_is_device(to) || from_device != sim_is_device(from)) return said(cudaErrorInvalidValue);
    if (from_device) from = sim_host_read(from, (int64_t)bytes, "cudaMemcpyAsync reads");
    if (to_device) to = sim_host_write(to, (int64_t)bytes, "cudaMemcpyAsync writes");
    if (from && to) memmove(to, from, bytes);
    return said(cudaSuccess);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    if (!s) return said(cudaErrorInvalidValue);
    if (bytes == 0 || sim_fault_text()[0]) return said(cudaSuccess);
    void *at = sim_host_write(p, (int64_t)bytes, "cudaMemsetAsync writes");
    if (at) memset(at, value, bytes);
    return said(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    *s = new sim_stream{(int)flags};
    return said(cudaSuccess);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    delete s;
    return said(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) { return said(s ? cudaSuccess : cudaErrorInvalidValue); }

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
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice:
        return "no kernel image is available for execution on the device";
    case cudaErrorLaunchFailure:
        break;
    }
    return sim_fault_text();
}

// ---- events: time does not pass, so the first of several candidates is as good as any

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = new sim_event{};
    return said(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return said(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    e->recorded = s != nullptr;
    return said(s ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) { return said(e->recorded ? cudaSuccess : cudaErrorInvalidValue); }

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = 1;
    return said(from->recorded && to->recorded ? cudaSuccess : cudaErrorInvalidValue);
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
