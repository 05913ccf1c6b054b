// Options as a table: key, type, field, range, help. The same rows read flags, environment and files, print --help and
// answer an unknown key with the nearest one. Keys are kebab-case; an underscore in what the user writes counts as a
// dash.
#ifndef PROTO_BASE_OPT_H
#define PROTO_BASE_OPT_H

#include "proto/base/arena.h"
#include "proto/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum opt_type {
    OPT_TEXT, // const char *, copied into the arena
    OPT_INT,  // int
    OPT_LONG, // int64_t
    OPT_REAL, // double
    OPT_FLAG, // bool; needs no value; takes yes/no/true/false/1/0
    OPT_NAME, // int, the index of a word in `names`
    OPT_CALL, // anything else: `set` does it
};

struct opt {
    const char *key;
    enum opt_type type;
    size_t offset;            // of the field in the struct
    double min, max;          // inclusive; both 0: no range
    const char *const *names; // OPT_NAME, NULL-terminated
    int (*set)(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
               struct err *e); // OPT_CALL
    const char *value;         // what --help calls the value: "FILE"
    const char *help;          // NULL: an alias, not listed
};

// What a value names: by the word that --help calls it, FILE, FILE..., STEM (a file's name without its end) or DIR.
enum opt_named { OPT_NO_NAME, OPT_FILE, OPT_FOLDER };
enum opt_named opt_named(const struct opt *o);
// The row of `key`, or NULL. A table ends with a row whose key is NULL.
const struct opt *opt_find(const struct opt *table, const char *key);
// Sets one field from text. `from` names the source in messages ("--crf", "job.yaml: crf").
int opt_set(const struct opt *o, void *base, struct arena *a, const char *from, const char *text, struct err *e);
// Sets every listed row (help is not NULL) whose variable stands in the environment: LONGTAKE_SAMPLE_STEPS for
// sample-steps. An empty variable is none.
int opt_environment(const struct opt *table, void *base, struct arena *a, struct err *e);
// E_INPUT "unknown <what> 'promt'; did you mean 'prompt'?"
int opt_unknown(const struct opt *table, const char *what, const char *key, struct err *e);
void opt_help(const struct opt *table, FILE *to);

#endif
