// A model of random weights in the published layout: folders, file names, tensor names and shapes are those of the
// published model or of a tiny twin of it; only the values are drawn. Activations keep their scale through all
// networks, so that such a model renders a moving picture of noise: enough to try an installation, a cluster, a plan.
//
// The bytes depend on the options alone. Nothing larger than a piece of a tensor is held in memory. The folder appears
// whole or not at all: it grows as DIR.partial and takes its name at the end.
#ifndef WORKER_SYNTH_SYNTH_H
#define WORKER_SYNTH_SYNTH_H

#include "kernels/tensor.h"
#include "proto/base/err.h"

struct synth_options {
    const char *dir;
    int64_t seed;
    bool published;   // the sizes of the published 14B model; else a tiny twin
    int layers;       // of the diffusion transformer; 0: all
    enum dtype dtype; // of the diffusion transformer and the adapters; DT_NONE: F32, as published
};
struct synth_report {
    int n_files;
    int64_t n_tensors, n_values, n_bytes;
    bool interrupted; // the failure was a signal to stop
};

// E_INPUT when `dir` is there and not empty, when the disk is too small, or when SIGINT, SIGTERM or SIGHUP came.
int synth_write(const struct synth_options *o, struct synth_report *r, struct err *e);

#endif
