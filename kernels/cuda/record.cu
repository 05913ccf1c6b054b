// Ops recorded once and repeated as one launch: a CUDA graph, captured from the device's stream.
//
//   begin: the stream is captured, launches become nodes      end: the graph is instantiated      repeat: one launch
//
// What a node was given by value stays as it was: sizes, scalars, addresses. So all that differs from one repeat to the
// next must lie in memory, at the same place. Of the addresses only those of scratch memory are not the caller's; the
// record keeps them, and is void once one has moved.
//
// While the stream is captured nothing may wait, allocate, cross to the host, or be timed. Where an op would have to,
// it says so to cuda_unrecordable instead, and there is no record then: the same ops run plainly, and none is recorded
// on this device again. The stand-in of the tests refuses what the runtime refuses.
//
// The trap: an error of a capture is not the device's fault. Until the end of it cuda_check notes what went wrong and
// leaves the device as it is.
#include "kernels/cuda/common.cuh"

extern "C" {
#include "proto/base/log.h"
}

#include <stdlib.h>
#include <string.h>

struct cuda_record {
    cudaGraphExec_t run;
    void *scratch[SCRATCH_COUNT]; // where it was
};

void cuda_unrecordable(struct dev *d, const char *why)
{
    struct cuda *c = cuda_of(d);
    if (!c->unrecordable[0]) snprintf(c->unrecordable, sizeof c->unrecordable, "%s", why);
}

static void record_free(struct dev *d, void *record)
{
    struct cuda_record *r = (struct cuda_record *)record;
    cudaStreamSynchronize(cuda_stream(d)); // a fault is kept elsewhere
    if (r->run) cudaGraphExecDestroy(r->run);
    free(r);
}

static void record_begin(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    c->unrecordable[0] = 0;
    c->recording = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess;
    if (c->recording) return;
    cuda_unrecordable(d, cudaGetErrorString(cudaGetLastError()));
    c->recording = true; // nothing is done until the end
}

static void *record_end(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    cudaGraph_t graph = NULL;
    struct cuda_record *r = (struct cuda_record *)calloc(1, sizeof *r);
    BUG_IF(!r, "no memory for a record");
    cudaError_t code = cudaStreamEndCapture(c->stream, &graph);
    if (code == cudaSuccess && !c->unrecordable[0]) code = cudaGraphInstantiate(&r->run, graph, 0);
    c->recording = false;
    if (graph) cudaGraphDestroy(graph);
    if (code != cudaSuccess) cuda_unrecordable(d, cudaGetErrorString(code));
    cudaGetLastError(); // of the capture alone; what the card cannot forget comes again
    for (int i = 0; i < SCRATCH_COUNT; i++) r->scratch[i] = c->scratch[i].data;
    if (!c->unrecordable[0]) return r;
    log_warn("device.unrecorded", "device=\"%s\" why=\"%s\" text=\"ops are launched one by one\"", d->name,
             c->unrecordable);
    r->run = NULL;
    free(r);
    return NULL;
}

static bool record_repeat(struct dev *d, void *record)
{
    struct cuda *c = cuda_of(d);
    const struct cuda_record *r = (const struct cuda_record *)record;
    for (int i = 0; i < SCRATCH_COUNT; i++)
        if (r->scratch[i] != c->scratch[i].data) return false;
    c->n_enqueued++;
    c->launches++;
    cuda_check(d, cudaGraphLaunch(r->run, c->stream), "repeating what was recorded");
    return true;
}

const struct recorder cuda_recorder = {record_begin, record_end, record_repeat, record_free};
