// The CUDA device: the table, the card, the stream, and the memory that arenas live in.
//
// One device is one card and one stream; ops are launches on it, in order, and nothing waits for them but dev_sync and
// downloads. Uploads go through two pinned stages and return when the bytes are in a stage; only one that finds both
// still under way waits. Fetches have a stream of their own: it waits for what the ops before read, and the ops behind
// wait for it, both by events. Arenas reserve addresses and let the driver map memory behind them in chunks as they are
// first taken, so an arena without a known size costs nothing and a chunk stays once mapped: after the first segment
// nothing is mapped any more. The driver's calls are asked of the runtime by name, so that the program starts on a
// machine without a driver.
//
// The trap: errors stick to the card's context. What a kernel did wrong shows at the next call, whichever that is, and
// every call after it fails too; the first text is kept and the process is done (E_FATAL).
#include "kernels/cuda/common.cuh"

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef LONGTAKE_CUDA_ARCHS
#define LONGTAKE_CUDA_ARCHS "none"
#endif

enum { DRIVER_VERSION = 12000 };
enum : int64_t { CHUNK = int64_t(64) << 20, TENSOR_ALIGN = 256, STAGE = int64_t(16) << 20 };

struct driver {
    decltype(&cuMemAddressReserve) reserve;
    decltype(&cuMemAddressFree) free;
    decltype(&cuMemCreate) create;
    decltype(&cuMemRelease) release;
    decltype(&cuMemMap) map;
    decltype(&cuMemUnmap) unmap;
    decltype(&cuMemSetAccess) set_access;
};

// What stands behind an extent.
struct chunks {
    struct driver driver;
    CUmemGenericAllocationHandle *handles;
    int64_t n;
};

// ---- faults

bool cuda_check(struct dev *d, cudaError_t code, const char *what)
{
    if (code == cudaSuccess) return true;
    if (cuda_of(d)->recording) {
        cuda_unrecordable(d, cudaGetErrorString(code));
        return false;
    }
    dev_fault(d, "%s: %s: %s", d->name, what, cudaGetErrorString(code));
    return false;
}

void cuda_launched(struct dev *d, const char *kernel)
{
    cuda_of(d)->launches++;
    cuda_of(d)->n_enqueued++;
    cuda_check(d, cudaGetLastError(), kernel);
}

void cuda_wait(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    if (c->recording) {
        cuda_unrecordable(d, "the host waits in the middle of it");
        return;
    }
    if (d->fault.code < 0 || c->n_waited == c->n_enqueued) return;
    if (cuda_check(d, cudaStreamSynchronize(c->stream), "while it worked")) c->n_waited = c->n_enqueued;
}

// ---- scratch

void *cuda_scratch_of(struct dev *d, enum cuda_scratch slot, int64_t bytes)
{
    struct cuda *c = cuda_of(d);
    if (c->scratch[slot].bytes >= bytes && c->scratch[slot].data) return c->scratch[slot].data;
    bytes = (bytes + (1 << 20)) >> 20 << 20;
    if (c->recording) {
        cuda_unrecordable(d, "scratch memory would grow");
        return NULL;
    }
    cuda_wait(d);
    if (d->fault.code < 0) return NULL;
    cuda_check(d, cudaFree(c->scratch[slot].data), "scratch memory");
    c->scratch[slot].data = NULL;
    if (!cuda_check(d, cudaMalloc(&c->scratch[slot].data, (size_t)bytes), "scratch memory")) return NULL;
    c->scratch[slot].bytes = bytes;
    return c->scratch[slot].data;
}

void *cuda_dense(struct dev *d, tensor x, enum dtype t, enum cuda_scratch slot)
{
    if (x.dtype == t && tensor_is_contiguous(x)) return x.data;
    void *dense = cuda_scratch_of(d, slot, tensor_count(x) * dtype_size(t));
    if (dense && tensor_count(x) > 0) d->ops.copy(d, tensor_of(dense, t, x.n, x.shape), x);
    return dense;
}

const float *cuda_vector(struct dev *d, tensor v, int which)
{
    if (tensor_is_none(v)) return NULL;
    if (v.dtype == DT_F32 && tensor_is_contiguous(v) && (uintptr_t)v.data % 16 == 0) return (const float *)v.data;
    int64_t each = (tensor_count(v) + 3) / 4 * 4;
    float *dense = (float *)cuda_scratch_of(d, SCRATCH_BIAS, VECTORS * each * (int64_t)sizeof *dense);
    if (!dense) return NULL;
    dense += which * each;
    d->ops.copy(d, tensor_of(dense, DT_F32, v.n, v.shape), v);
    return dense;
}

// ---- views

rows rows_of(tensor t, int n_inner)
{
    rows r = {};
    r.p = (char *)t.data;
    r.count = 1;
    int64_t size = dtype_size(t.dtype);
    for (int k = 0; k < t.n - n_inner; k++) {
        r.count *= t.shape[k];
        if (t.shape[k] == 1) continue;
        if (r.n > 0 && r.step[r.n - 1] == t.shape[k] * t.stride[k] * size) {
            r.shape[r.n - 1] *= t.shape[k];
            r.step[r.n - 1] = t.stride[k] * size;
        } else {
            r.shape[r.n] = t.shape[k];
            r.step[r.n++] = t.stride[k] * size;
        }
    }
    return r;
}

bool rows_aligned(const rows &r, int64_t width, enum dtype t)
{
    bool fits = (uintptr_t)r.p % 16 == 0 && width * dtype_size(t) % 16 == 0;
    for (int k = 0; k < r.n; k++) fits = fits && r.step[k] % 16 == 0;
    return fits;
}

// ---- memory

static struct driver driver_of()
{
    struct driver v = {};
    cudaDriverEntryPointQueryResult found;
#define ASK(field, name)                                                                                               \
    if (cudaGetDriverEntryPointByVersion(name, (void **)&v.field, DRIVER_VERSION, cudaEnableDefault, &found) !=        \
        cudaSuccess)                                                                                                   \
        v.field = NULL;
    ASK(reserve, "cuMemAddressReserve")
    ASK(free, "cuMemAddressFree")
    ASK(create, "cuMemCreate")
    ASK(release, "cuMemRelease")
    ASK(map, "cuMemMap")
    ASK(unmap, "cuMemUnmap")
    ASK(set_access, "cuMemSetAccess")
#undef ASK
    return v;
}

static bool cuda_reserve(struct dev *d, struct extent *x, int64_t bytes)
{
    size_t left = 0, total = 0;
    if (bytes <= 0 && !cuda_check(d, cudaMemGetInfo(&left, &total), "memory of the card")) return false;
    bytes = ((bytes > 0 ? bytes : (int64_t)total) + CHUNK - 1) / CHUNK * CHUNK;
    struct chunks *c = (struct chunks *)calloc(1, sizeof *c);
    CUdeviceptr p = 0;
    BUG_IF(!c, "no memory for an arena");
    c->driver = driver_of();
    c->handles = (CUmemGenericAllocationHandle *)calloc((size_t)(bytes / CHUNK), sizeof *c->handles);
    BUG_IF(!c->handles, "no memory for an arena");
    if (!c->driver.set_access || c->driver.reserve(&p, (size_t)bytes, 0, 0, 0) != CUDA_SUCCESS) {
        free(c->handles);
        free(c);
        return false;
    }
    *x = {.base = (char *)p, .bytes = bytes, .held = c};
    return true;
}

static void cuda_release(struct dev *d, struct extent *x)
{
    struct chunks *c = (struct chunks *)x->held;
    cudaStreamSynchronize(cuda_of(d)->stream); // a fault is kept elsewhere
    for (int64_t i = 0; i < c->n; i++) {
        c->driver.unmap((CUdeviceptr)x->base + i * CHUNK, CHUNK);
        c->driver.release(c->handles[i]);
    }
    c->driver.free((CUdeviceptr)x->base, (size_t)x->bytes);
    free(c->handles);
    free(c);
    *x = {};
}

static bool chunk_map(struct dev *d, struct extent *x)
{
    struct chunks *c = (struct chunks *)x->held;
    CUmemLocation here = {};
    here.type = CU_MEM_LOCATION_TYPE_DEVICE;
    here.id = cuda_of(d)->card;
    CUmemAllocationProp prop = {};
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location = here;
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR; // messages go from it without a copy
    CUmemAccessDesc access = {};
    access.location = here;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    CUdeviceptr at = (CUdeviceptr)x->base + c->n * CHUNK;
    if (c->driver.create(&c->handles[c->n], CHUNK, &prop, 0) != CUDA_SUCCESS) return false;
    if (c->driver.map(at, CHUNK, 0, c->handles[c->n], 0) != CUDA_SUCCESS) {
        c->driver.release(c->handles[c->n]);
        return false;
    }
    c->n++;
    return c->driver.set_access(at, CHUNK, &access, 1) == CUDA_SUCCESS;
}

// Memory behind the first bytes of an extent, ahead of the tensors.
static bool cuda_hold(struct dev *d, struct extent *x, int64_t bytes)
{
    struct chunks *c = (struct chunks *)x->held;
    if (c->n * CHUNK < bytes && cuda_of(d)->recording) cuda_unrecordable(d, "an arena would grow");
    while (c->n * CHUNK < bytes)
        if (!chunk_map(d, x)) return false;
    return true;
}

static bool cuda_take(struct dev *d, struct extent *x, int64_t from, int64_t bytes)
{
    if (!cuda_hold(d, x, from + bytes)) return false;
    memory_taken(x->base + from, bytes);
    return true;
}

static void cuda_give_back(struct dev *d, struct extent *x, int64_t from, int64_t bytes)
{
    if (bytes > 0) memory_given_back(d, x->base + from, bytes);
}

static int64_t cuda_left(const struct dev *)
{
    size_t left = 0, total = 0;
    return cudaMemGetInfo(&left, &total) == cudaSuccess ? (int64_t)left : 0;
}

// ---- transfers

static bool crosses(struct dev *d)
{
    if (cuda_of(d)->recording) cuda_unrecordable(d, "bytes cross between host and card");
    return cuda_of(d)->recording;
}

// The stage whose turn it is, once its last bytes have left.
static struct cuda_stage *stage_next(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    struct cuda_stage *s = &c->stage[c->i_stage++ % CARRIERS];
    return cuda_check(d, cudaEventSynchronize(s->left), "a stage") ? s : NULL;
}

// Bytes to the card by way of a stage: `src` is the caller's again when this returns.
static bool send(struct dev *d, void *to, const void *src, int64_t bytes)
{
    cudaStream_t stream = cuda_of(d)->stream;
    for (int64_t i = 0, m; i < bytes; i += m) {
        m = bytes - i < STAGE ? bytes - i : STAGE;
        struct cuda_stage *s = stage_next(d);
        if (!s) return false;
        memcpy(s->at, (const char *)src + i, (size_t)m);
        cudaError_t code = cudaMemcpyAsync((char *)to + i, s->at, (size_t)m, cudaMemcpyHostToDevice, stream);
        if (code == cudaSuccess) code = cudaEventRecord(s->left, stream);
        cuda_of(d)->n_enqueued++;
        if (!cuda_check(d, code, "upload")) return false;
    }
    return true;
}

// Bytes of another dtype cross as they are, a stage at a time, and are cast on the card.
static void cuda_upload(struct dev *d, tensor dst, const void *src, enum dtype src_dtype)
{
    int64_t n = tensor_count(dst), to = dtype_size(dst.dtype), from = dtype_size(src_dtype), step = STAGE / from;
    if (crosses(d)) return;
    if (dst.dtype == src_dtype) {
        send(d, dst.data, src, n * to);
        return;
    }
    for (int64_t i = 0; i < n; i += step) {
        int64_t m = n - i < step ? n - i : step;
        void *raw = cuda_scratch_of(d, SCRATCH_PART, STAGE);
        if (!raw || !send(d, raw, (const char *)src + i * from, m * from)) return;
        d->ops.copy(d, tensor_of((char *)dst.data + i * to, dst.dtype, 1, &m), tensor_of(raw, src_dtype, 1, &m));
    }
}

static void cuda_download(struct dev *d, void *dst, enum dtype dst_dtype, tensor src)
{
    if (crosses(d)) return;
    const char *dense = (const char *)cuda_dense(d, src, dst_dtype, SCRATCH_PART);
    int64_t bytes = tensor_count(src) * dtype_size(dst_dtype);
    for (int64_t i = 0, m; dense && d->fault.code == 0 && i < bytes; i += m) {
        m = bytes - i < STAGE ? bytes - i : STAGE;
        struct cuda_stage *s = stage_next(d);
        if (!s) return;
        cudaError_t code = cudaMemcpyAsync(s->at, dense + i, (size_t)m, cudaMemcpyDeviceToHost, cuda_of(d)->stream);
        cuda_of(d)->n_enqueued++;
        if (!cuda_check(d, code, "download")) return;
        cuda_wait(d);
        if (d->fault.code == 0) memcpy((char *)dst + i, s->at, (size_t)m);
    }
}

// ---- fetches

static void *cuda_pin(struct dev *d, int64_t bytes)
{
    void *p = NULL;
    return cuda_check(d, cudaHostAlloc(&p, (size_t)bytes, cudaHostAllocDefault), "pinned memory") ? p : NULL;
}

static void cuda_unpin(struct dev *d, void *p)
{
    cudaStreamSynchronize(cuda_of(d)->fetch); // a fault is kept elsewhere
    cuda_check(d, cudaFreeHost(p), "pinned memory");
}

static void cuda_fetch(struct dev *d, int slot, tensor dst, const void *pinned)
{
    struct cuda *c = cuda_of(d);
    if (crosses(d)) return;
    cudaError_t code = cudaEventRecord(c->used, c->stream);
    if (code == cudaSuccess) code = cudaStreamWaitEvent(c->fetch, c->used, 0);
    if (code == cudaSuccess)
        code = cudaMemcpyAsync(dst.data, pinned, (size_t)tensor_bytes(dst), cudaMemcpyHostToDevice, c->fetch);
    if (code == cudaSuccess) code = cudaEventRecord(c->here[slot], c->fetch);
    cuda_check(d, code, "fetching weights");
}

static void cuda_fetched(struct dev *d, int slot)
{
    if (crosses(d)) return;
    cuda_of(d)->n_enqueued++;
    cuda_check(d, cudaStreamWaitEvent(cuda_of(d)->stream, cuda_of(d)->here[slot], 0), "fetching weights");
}

static const struct memory cuda_memory = {
    .align = TENSOR_ALIGN,
    .gap = MEMORY_GAP,
    .reserve = cuda_reserve,
    .release = cuda_release,
    .take = cuda_take,
    .give_back = cuda_give_back,
    .left = cuda_left,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_wait,
    .hold = cuda_hold,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .fetch = cuda_fetch,
    .fetched = cuda_fetched,
};

// ---- opening

// The launcher's number of this rank on its machine, as the common launchers say it; 0 without one.
static int local_rank()
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"};
    for (const char *name : names) {
        const char *text = getenv(name);
        if (text && text[0] >= '0' && text[0] <= '9') return atoi(text);
    }
    return 0;
}

static int card_of(int which, int cards) { return which >= 0 ? which : local_rank() % cards; }

extern "C" void cuda_choose(int which)
{
    int cards = 0;
    if (cudaGetDeviceCount(&cards) == cudaSuccess && cards > 0 && which < cards) cudaSetDevice(card_of(which, cards));
    cudaGetLastError(); // what is wrong is told when the device is opened
}

static __global__ void probe_kernel() {}

static cudaError_t streams_open(struct cuda *c)
{
    cudaError_t code = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    if (code == cudaSuccess) code = cudaStreamCreateWithFlags(&c->fetch, cudaStreamNonBlocking);
    if (code == cudaSuccess) code = cudaEventCreateWithFlags(&c->used, cudaEventDisableTiming);
    for (int i = 0; i < FETCH_SLOTS && code == cudaSuccess; i++)
        code = cudaEventCreateWithFlags(&c->here[i], cudaEventDisableTiming);
    for (int i = 0; i < CARRIERS && code == cudaSuccess; i++) {
        code = cudaHostAlloc((void **)&c->stage[i].at, STAGE, cudaHostAllocDefault);
        if (code == cudaSuccess) code = cudaEventCreateWithFlags(&c->stage[i].left, cudaEventDisableTiming);
    }
    return code;
}

static void streams_close(struct cuda *c)
{
    if (c->stream) cudaStreamSynchronize(c->stream);
    if (c->fetch) cudaStreamSynchronize(c->fetch);
    for (int i = 0; i < CARRIERS; i++) {
        if (c->stage[i].left) cudaEventDestroy(c->stage[i].left);
        cudaFreeHost(c->stage[i].at);
    }
    for (int i = 0; i < FETCH_SLOTS; i++)
        if (c->here[i]) cudaEventDestroy(c->here[i]);
    if (c->used) cudaEventDestroy(c->used);
    if (c->fetch) cudaStreamDestroy(c->fetch);
    if (c->stream) cudaStreamDestroy(c->stream);
}

// Why there is no card, said so that the user knows what to do: the runtime's own words for a machine without a driver
// are "CUDA driver version is insufficient".
static int no_card(cudaError_t code, struct err *e)
{
    int driver = 0, built = 0;
    cudaRuntimeGetVersion(&built);
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        return err_set(e, E_INPUT,
                       "this machine has no NVIDIA driver: --device cuda needs one; install it, or use --device cpu");
    if (driver / 1000 < built / 1000)
        return err_set(e, E_INPUT,
                       "the NVIDIA driver of this machine is for CUDA %d.%d, and this build wants %d.%d; install a "
                       "newer driver, or use --device cpu",
                       driver / 1000, driver % 1000 / 10, built / 1000, built % 1000 / 10);
    return err_set(
        e, E_INPUT,
        "this machine has an NVIDIA driver and no card that it shows to this program (%s); look at nvidia-smi "
        "and CUDA_VISIBLE_DEVICES, or use --device cpu",
        code != cudaSuccess ? cudaGetErrorString(code) : "0 cards");
}

static int card_open(struct cuda *c, char *name, size_t n, int which, struct err *e)
{
    int cards = 0;
    cudaGetLastError(); // what an earlier try left is not this one's
    cudaError_t code = cudaGetDeviceCount(&cards);
    if (code != cudaSuccess || cards == 0) return no_card(code, e);
    if (which >= cards)
        return err_set(e, E_INPUT, "there is no card %d: this machine has %d, counted from 0", which, cards);
    c->card = card_of(which, cards);
    cudaDeviceProp p;
    code = cudaSetDevice(c->card);
    if (code == cudaSuccess) code = cudaGetDeviceProperties(&p, c->card);
    if (code != cudaSuccess)
        return err_set(e, E_FATAL, "card %d cannot be opened: %s; look at nvidia-smi, or use --device cpu", c->card,
                       cudaGetErrorString(code));
    cudaFuncAttributes a;
    code = cudaFuncGetAttributes(&a, (const void *)probe_kernel);
    if (code == cudaErrorNoKernelImageForDevice)
        return err_set(e, E_INPUT,
                       "card %d, %s, is of architecture sm_%d%d, and this build has %s; configure with "
                       "-DLONGTAKE_CUDA=ON (sm_80 is the oldest that is supported)",
                       c->card, p.name, p.major, p.minor, LONGTAKE_CUDA_ARCHS);
    if (code == cudaSuccess) code = streams_open(c);
    if (code != cudaSuccess)
        return err_set(e, E_FATAL, "card %d, %s, does not work: %s; look at nvidia-smi, or use --device cpu", c->card,
                       p.name, cudaGetErrorString(code));
    c->arch = 10 * p.major + p.minor;
    snprintf(name, n, "cuda sm_%d%d %s", p.major, p.minor, p.name); // not its number: a class, not a place
    return 0;
}

// Ops with several ways take theirs.
static int settle(struct dev *d, int arch, struct err *e)
{
    const struct {
        const struct op_variant *list;
        int n;
    } lists[] = {{cuda_linear_variants, n_cuda_linear_variants},
                 {cuda_scaled_variants, n_cuda_scaled_variants},
                 {cuda_attention_variants, n_cuda_attention_variants},
                 {cuda_conv_variants, n_cuda_conv_variants}};
    for (const auto &l : lists) {
        int rc = variants_settle(d, arch, l.list, l.n, e);
        if (rc < 0) return rc;
    }
    return 0;
}

static void cuda_close(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    if (c->stream) cudaStreamSynchronize(c->stream);
    cuda_linear_close(d);
    for (int i = 0; i < SCRATCH_COUNT; i++) cudaFree(c->scratch[i].data);
    streams_close(c);
    free(c);
    d->backend = NULL;
}

extern "C" int cuda_open(struct dev *d, int which, struct err *e)
{
    struct cuda *c = (struct cuda *)calloc(1, sizeof *c);
    BUG_IF(!c, "no memory for a device");
    d->backend = c;
    d->close = cuda_close;
    d->memory = &cuda_memory;
    int rc = card_open(c, d->name, sizeof d->name, which, e);
    if (rc < 0) return rc;
    d->stream = c->stream;
    cuda_attention_slots(&d->ops);
    cuda_norm_slots(&d->ops);
    cuda_rope_slots(&d->ops);
    cuda_conv_slots(&d->ops);
    cuda_layout_slots(&d->ops);
    cuda_pointwise_slots(&d->ops);
    cuda_pixels_slots(&d->ops);
    d->quantised = true;
    d->tell = cuda_linear_tell;
    rc = settle(d, c->arch, e);
    if (rc == 0) d->recorder = &cuda_recorder;
    return rc;
}
