// The tail of a segment as bytes: what the next segment needs of this one, for any worker of the same model.
//
// Layout, little endian: "LTTL", version, the four lengths [channels, t, h, w], a checksum of the rest, then the
// latents as F32. Everyone but a worker treats it as opaque.
#ifndef WORKER_TAIL_H
#define WORKER_TAIL_H

#include "kernels/dev.h"

// Bytes that latents of this shape take.
size_t tail_size(tensor z);
// Writes latents z [c, t, h, w] F32, dense, from the device to `bytes` (tail_size of them).
void tail_pack(struct dev *d, void *bytes, tensor z);
// Reads them into z, whose shape is the one expected. E_INPUT when the bytes are not such a tail or are damaged.
int tail_unpack(struct dev *d, tensor z, const void *bytes, size_t n, struct err *e);

#endif
