// A folder that appears whole or not at all: it grows as DIR.partial and takes its name at the end.
#ifndef WORKER_SYNTH_FOLDER_H
#define WORKER_SYNTH_FOLDER_H

#include "proto/base/err.h"

enum { FOLDER_PATH = 2048 };

struct folder {
    char dir[FOLDER_PATH];
    char partial[FOLDER_PATH + 16]; // where to write
    int lock;
};

// Makes the partial folder. E_INPUT when `dir` is there and not empty, or when another run is at it; what a killed run
// left is removed.
int folder_begin(struct folder *f, const char *dir, struct err *e);
// Gives it its name. On failure the folder is still partial.
int folder_finish(struct folder *f, struct err *e);
// Removes it.
void folder_drop(struct folder *f);

#endif
