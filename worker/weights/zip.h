// The directory of a zip file in memory: stored members only, as PyTorch writes them.
#ifndef WORKER_WEIGHTS_ZIP_H
#define WORKER_WEIGHTS_ZIP_H

#include "worker/weights/format.h"

struct zip_member {
    const char *name; // NUL-terminated copy in the arena
    const uint8_t *data;
    uint64_t size;
};
struct zip {
    struct zip_member *member;
    int64_t n;
};

// Reads and checks the whole directory: no compression, no encryption, no overlap, plain relative names, no name twice.
int zip_read(struct zip *z, struct arena *a, const struct weights_file *f, struct err *e);
const struct zip_member *zip_find(const struct zip *z, const char *name);

#endif
