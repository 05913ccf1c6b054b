// What a daemon is told: one table for flags, a YAML file, and the sample in deploy/.
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include "proto/base/opt.h"

struct config {
    struct arena arena;
    const char *store; // folder
    const char *model; // folder; NULL: the one that ships
    const char *worker;
    int groups, attempts, ranks, device;
    const char *layout;
    int shard;   // of launch_shards
    int weights; // of launch_weights
    int64_t silence_ms, stall_ms, hello_ms, upload_max;
    const char *listen, *join;                   // where clients and groups of other machines come in; NULL: nowhere
    const char *key, *client_keys, *worker_keys; // files
    bool plain_tcp;
    int log_level, log_format;
    double keep_days, device_cost;
    int64_t keep_bytes, free_min;
    const char *file; // --config
    bool help, check;
};

// The rows of what a file may say; flags have the same and a few more.
const struct opt *config_table(void);
// Reads file and flags, in rising order of weight. E_INPUT.
int config_read(struct config *c, int argc, char **argv, struct err *e);
void config_free(struct config *c);
// The store that is used where none is given: $XDG_DATA_HOME/longtake, or ~/.local/share/longtake. Makes its parents.
int config_store(char *path, size_t n, struct err *e);
// The same, and makes nothing.
int config_store_name(char *path, size_t n, struct err *e);
void config_print(const struct config *c);

#endif
