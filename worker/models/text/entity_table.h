// The named character references of HTML.
#ifndef WORKER_MODELS_TEXT_ENTITY_TABLE_H
#define WORKER_MODELS_TEXT_ENTITY_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct entity {
    const char *name; // without & and ;
    uint32_t c[2];    // what it stands for; the second is mostly 0
    bool bare;        // also read without the semicolon
};

// By name, or NULL.
const struct entity *entity_find(const char *name, size_t n);

#endif
