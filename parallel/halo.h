// A picture split into bands over ranks, along its height or its width, with exact edges.
//
// A band is stored with spare lines before and after it; a trade writes the neighbours' lines there, and zeros at the
// picture's border, which is what a convolution's padding would be. So a convolution without padding on that axis gives
// what it would give on the whole picture, bit for bit. Bands are cut at `lines` (the latent's); at a finer level of k
// times the lines, a band is k times as long. With fewer lines than ranks the last ranks have none and take no part.
#ifndef PARALLEL_HALO_H
#define PARALLEL_HALO_H

#include "kernels/ops.h"
#include "parallel/comm.h"
#include "parallel/split.h"

struct halo {
    struct dev *dev;
    struct comm *comm;
    int axis; // of a tensor [t, h, w, c]: 1 or 2
    int64_t lines;
    struct span own; // at the level of `lines`
};

// `wide` splits the width. The communicator is not owned.
struct halo halo_make(struct dev *d, struct comm *c, bool wide, int64_t lines);
// The lines of a rank's band where the picture has `total` lines, a multiple of halo.lines.
struct span halo_span(const struct halo *h, int rank, int64_t total);

// x [t, h, w, c] dense: this rank's band with `before` and `after` spare lines on the split axis, 0 or 1 (or more where
// every band is as long). Fills the spare lines; `scratch` is given back. All ranks that have lines call it together.
void halo_trade(const struct halo *h, struct dev_arena *scratch, tensor x, int64_t before, int64_t after);

// The whole picture on every rank: whole [t, H, W, c] from this rank's band, dense. All ranks call it together.
void halo_gather(const struct halo *h, struct dev_arena *scratch, tensor whole, tensor band);
// The same on rank `root` alone; elsewhere `whole` stays as it is.
void halo_gather_to(const struct halo *h, int root, struct dev_arena *scratch, tensor whole, tensor band);

#endif
