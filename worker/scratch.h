// Files without a name for what is too long for memory: gone with the process, whatever happens to it.
#ifndef WORKER_SCRATCH_H
#define WORKER_SCRATCH_H

#include "proto/base/err.h"

// A descriptor to read and write, on the disk of folder `dir`; negative E_FATAL: "cannot keep <what> in <dir>: ...".
int scratch_open(const char *dir, const char *what, struct err *e);

#endif
