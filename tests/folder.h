// A folder of a test program's own, gone with all that is in it when the program ends; files as bytes; and OK() for
// calls that must succeed, whose sentence is the failure's. Include below cmocka.
#ifndef TESTS_FOLDER_H
#define TESTS_FOLDER_H

#include "proto/base/err.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static char top[64];

// Makes /tmp/<program>_XXXXXX. 0 or -1, as cmocka wants it.
static inline int top_make(const char *program)
{
    snprintf(top, sizeof top, "/tmp/%s_XXXXXX", program);
    return mkdtemp(top) ? 0 : -1;
}

static inline int top_remove(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", top);
    return system(command);
}

// A path in that folder, good for the next fifteen calls.
static inline const char *in_top(const char *name)
{
    static char path[16][256];
    static int turn;
    char *p = path[turn++ % 16];
    snprintf(p, sizeof path[0], "%s/%s", top, name);
    return p;
}

// All of a file, one byte more than it has so that none is nothing; to be freed.
static inline uint8_t *file_bytes(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("no file %s", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*n + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, f), *n);
    fclose(f);
    return bytes;
}

static inline void file_put(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

// The call passes `ep` for its struct err.
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        struct err e = {0};                                                                                            \
        struct err *ep = &e;                                                                                           \
        if ((call) < 0) fail_msg("%s", e.text);                                                                        \
    } while (0)

#endif
