// Writes a PyTorch checkpoint (.pth, .bin) as a stream: what torch.save makes of a dict of CPU tensors, so that
// torch.load(path, weights_only=True) reads it.
#ifndef WORKER_WEIGHTS_WRITE_TORCHPT_H
#define WORKER_WEIGHTS_WRITE_TORCHPT_H

#include "worker/weights/outfile.h"

struct torchpt_out;

// `heads` must live until close. `root` is the folder inside the archive; `ordered` makes the dict an OrderedDict.
int torchpt_create(struct torchpt_out **out, const char *path, const char *root, bool ordered,
                   const struct tensor_head *heads, int64_t n, struct err *e);
// The next bytes of the tensors in order, in pieces of any size.
int torchpt_put(struct torchpt_out *t, const void *bytes, size_t n, struct err *e);
// Writes the directory. BUG when bytes are missing. The handle is gone in any case.
int torchpt_close(struct torchpt_out **t, struct err *e);
void torchpt_free(struct torchpt_out **t); // gives up

#endif
