// Writes a zip of stored members as a stream, laid out as PyTorch does: each payload begins on a multiple of 64.
#ifndef WORKER_WEIGHTS_ZIP_OUT_H
#define WORKER_WEIGHTS_ZIP_OUT_H

#include "worker/weights/outfile.h"

struct zip_out;

int zip_create(struct zip_out **out, const char *path, struct err *e);
// A member of exactly `size` bytes, put in any pieces. BUG when another is not full yet.
int zip_begin(struct zip_out *z, const char *name, int64_t size, struct err *e);
int zip_put(struct zip_out *z, const void *bytes, size_t n, struct err *e);
int64_t zip_left(const struct zip_out *z); // bytes that the open member still wants
int zip_end(struct zip_out *z, struct err *e);
int zip_member_put(struct zip_out *z, const char *name, const void *bytes, size_t n, struct err *e); // all at once
int zip_close(struct zip_out **z, struct err *e); // writes the directory; the handle is gone in any case
void zip_out_free(struct zip_out **z);            // gives up

#endif
