// The shared half of the fuzz targets. A file lives in memory (memfd), so a run leaves nothing on disk.
#include "tests/fuzz/fuzz.h"

#include "proto/base/log.h"
#include "worker/weights/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int file = -1;

void fuzz_refused(int rc, const struct err *e)
{
    BUG_IF(rc >= 0 || rc < E_FATAL, "an error code of %d", rc);
    BUG_IF(e->code != rc, "code %d, but the sentence has %d", rc, e->code);
    BUG_IF(!e->text[0], "a refusal without a sentence");
    BUG_IF(strchr(e->text, '\n'), "a sentence of several lines: %s", e->text);
}

const char *fuzz_file(const uint8_t *data, size_t n)
{
    static char path[64];
    log_init(LOG_OFF, "fuzz", 0);
    file = memfd_create("fuzz", MFD_CLOEXEC);
    BUG_IF(file < 0 || write(file, data, n) != (ssize_t)n, "no file in memory");
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return path;
}

void fuzz_file_end(void)
{
    close(file);
    file = -1;
}

// Every byte through volatile, so that the reads are not optimised away.
static void touch(tensor t)
{
    static volatile uint8_t sink;
    int64_t count = tensor_count(t), size = dtype_size(t.dtype);
    if (count > 1 << 20) count = 1 << 20; // strides of 0 can make a small file look huge
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0, rest = i;
        for (int a = t.n - 1; a >= 0; a--) {
            at += rest % t.shape[a] * t.stride[a];
            rest /= t.shape[a];
        }
        const uint8_t *p = (const uint8_t *)t.data + at * size;
        for (int64_t b = 0; b < size; b++) sink = (uint8_t)(sink ^ p[b]);
    }
}

void fuzz_weights(const uint8_t *data, size_t n)
{
    struct weights *w = NULL;
    struct err e = {0};
    int rc = weights_open(&w, fuzz_file(data, n), &e);
    if (rc < 0) fuzz_refused(rc, &e);
    for (int64_t i = 0; rc == 0 && i < weights_count(w); i++) {
        tensor t;
        struct err why = {0};
        int got = weights_get(w, weights_name(w, i), &t, &why);
        if (got < 0)
            fuzz_refused(got, &why);
        else
            touch(t);
    }
    weights_free(&w);
    fuzz_file_end();
}
