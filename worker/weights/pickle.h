// The restricted pickle machine: reads a state dict's structure, executes nothing.
#ifndef WORKER_WEIGHTS_PICKLE_H
#define WORKER_WEIGHTS_PICKLE_H

#include "worker/weights/format.h"

enum pickle_kind {
    PK_MARK,
    PK_NONE,
    PK_BOOL,
    PK_INT,
    PK_FLOAT,
    PK_STR,
    PK_BYTES,
    PK_TUPLE,
    PK_LIST,
    PK_DICT,
    PK_GLOBAL,
    PK_STORAGE,
    PK_TENSOR
};

struct pickle {
    enum pickle_kind kind;
    int64_t number;       // BOOL, INT; GLOBAL: which one
    const char *text;     // STR, NUL-terminated; STORAGE: its key
    enum dtype dtype;     // GLOBAL: of a storage class or dtype; STORAGE, TENSOR
    int64_t count;        // STORAGE: elements
    struct pickle **item; // TUPLE, LIST: values; DICT: key, value, key, value
    size_t n, capacity;
    struct pickle *storage;       // TENSOR
    int64_t offset;               // TENSOR, elements
    struct pickle *size, *stride; // TENSOR: tuples of INT
    bool entered, walked;         // of a container, while the machine makes sure that none holds itself
};

// Runs the program of `n` bytes; the result and all it holds live in `a`. No container of it holds itself. `what` names
// the file in messages.
int pickle_run(struct pickle **out, struct arena *a, const char *what, const uint8_t *bytes, size_t n, struct err *e);

#endif
