// The command line of `render`: a job (proto/spec.h) and what concerns this run alone.
#ifndef DAEMON_CLI_FLAGS_H
#define DAEMON_CLI_FLAGS_H

#include "proto/spec.h"

#include <stdbool.h>

struct flags {
    const char *job;    // a job file, JSON or YAML
    const char *worker; // the worker program
    bool json, help;
    int device, ranks, attempts;
    const char *layout; // of the ranks
    int shard;          // of launch_shards
    int weights;        // of launch_weights
    int64_t stall_ms, hello_ms;
};

// Rows of the flags that are no keys of a job.
const struct opt *flags_table(void);

// Reads job file, environment and flags, in rising order of weight, into an initialised spec. E_INPUT.
int flags_parse(struct flags *f, struct spec *s, int argc, char **argv, struct err *e);

#endif
