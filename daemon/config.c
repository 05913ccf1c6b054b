// Flags are read twice: once to find --config, then, after the file and the environment, to outweigh them.
#include "daemon/config.h"

#include "daemon/launch.h"
#include "proto/file.h"
#include "proto/yaml.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define AT(name) offsetof(struct config, name)

// clang-format off
static const char *const levels[] = {"debug", "info", "warn", "error", NULL}, *const formats[] = {"text", "json", NULL};

static const struct opt rows[] = {
    {"store", OPT_TEXT, AT(store), 0, 0, NULL, NULL, "DIR", "where jobs and films are kept, on a local disk ($XDG_DATA_HOME/longtake)"},
    {"model", OPT_TEXT, AT(model), 0, 0, NULL, NULL, "DIR", "model folder (the one that stands beside the programs)"},
    {"groups", OPT_INT, AT(groups), 0, 64, NULL, NULL, "N", "jobs that render at the same time on this machine, each on a worker of its own (1); 0: only groups that join"},
    {"listen", OPT_TEXT, AT(listen), 0, 0, NULL, NULL, "ENDPOINT", "where clients of other machines come in: tcp://ADDRESS:PORT (nowhere)"},
    {"join", OPT_TEXT, AT(join), 0, 0, NULL, NULL, "ENDPOINT", "where groups come in that were started elsewhere: tcp://ADDRESS:PORT or ipc://PATH (nowhere)"},
    {"key-file", OPT_TEXT, AT(key), 0, 0, NULL, NULL, "FILE", "this daemon's key, from longtake keygen"},
    {"client-keys", OPT_TEXT, AT(client_keys), 0, 0, NULL, NULL, "FILE", "the clients that may come in, their .pub files one below the other"},
    {"worker-keys", OPT_TEXT, AT(worker_keys), 0, 0, NULL, NULL, "FILE", "the groups that may join, likewise"},
    {"plain-tcp", OPT_FLAG, AT(plain_tcp), 0, 0, NULL, NULL, NULL, "listen and join without keys: whoever reaches the port reads and does everything (no)"},
    {"ranks", OPT_INT, AT(ranks), 1, 4096, NULL, NULL, "N", "processes of each worker, started by mpirun (1)"},
    {"device", OPT_NAME, AT(device), 0, 0, launch_devices, NULL, "auto|cpu|cuda", "what workers compute on (auto, which is the CPU)"},
    {"layout", OPT_TEXT, AT(layout), 0, 0, NULL, NULL, "GxRxH", "how they share a job: ranks of guide x ring x heads (auto)"},
    {"shard", OPT_NAME, AT(shard), 0, 0, launch_shards, NULL, "off|node|all", "spread weights over them: never, on each machine, over all (auto: if they do not fit)"},
    {"weights", OPT_NAME, AT(weights), 0, 0, launch_weights, NULL, "resident|streamed|sharded", "the transformer's blocks: resident on each device, streamed from the host, sharded over ranks (auto: resident if they fit)"},
    {"attempts", OPT_INT, AT(attempts), 1, 1000, NULL, NULL, "N", "workers in a row that a job may lose without getting on (4)"},
    {"hello-ms", OPT_LONG, AT(hello_ms), 1, 1e9, NULL, NULL, "MS", "patience until a worker calls (60000)"},
    {"silence-ms", OPT_LONG, AT(silence_ms), 100, 1e9, NULL, NULL, "MS", "a silent worker is given up after (3000)"},
    {"stall-ms", OPT_LONG, AT(stall_ms), 100, 1e12, NULL, NULL, "MS", "a worker that does not get on is given up after (3600000)"},
    {"upload-max", OPT_LONG, AT(upload_max), 1, 9e18, NULL, NULL, "BYTES", "the largest file a client may bring (17179869184)"},
    {"keep-days", OPT_REAL, AT(keep_days), 0, 1e6, NULL, NULL, "DAYS", "jobs that ended longer ago go, with their films (0: never)"},
    {"keep-bytes", OPT_LONG, AT(keep_bytes), 0, 9e18, NULL, NULL, "BYTES", "the oldest films of ended jobs go when all have more (0: any)"},
    {"free-min", OPT_LONG, AT(free_min), 0, 9e18, NULL, NULL, "BYTES", "segments wait, and files are refused, while the store's disk has less left (1073741824)"},
    {"device-cost", OPT_REAL, AT(device_cost), 0, 1e9, NULL, NULL, "MONEY", "what an hour of one device costs; reports then tell what a minute of film did (0: they do not)"},
    {"log-level", OPT_NAME, AT(log_level), 0, 0, levels, NULL, "LEVEL", "debug, info, warn or error (info)"},
    {"log-format", OPT_NAME, AT(log_format), 0, 0, formats, NULL, "FORMAT", "text or json (text)"},
    {"worker", OPT_TEXT, AT(worker), 0, 0, NULL, NULL, "FILE", "the worker program (the one beside this program)"},
    {0},
};
static const struct opt flags[] = {
    {"config", OPT_TEXT, AT(file), 0, 0, NULL, NULL, "FILE", "a YAML file of these keys"},
    {"check", OPT_FLAG, AT(check), 0, 0, NULL, NULL, NULL, "print what holds, and start nothing"},
    {"help", OPT_FLAG, AT(help), 0, 0, NULL, NULL, NULL, "this list"},
    {0},
};
// clang-format on

const struct opt *config_table(void) { return rows; }

static int file_read(struct config *c, struct err *e)
{
    json_t *tree = NULL, *value;
    const char *key;
    int rc = yaml_read(&tree, c->file, e);
    if (rc >= 0 && !json_is_object(tree) && !json_is_null(tree))
        rc = err_set(e, E_INPUT, "%s is not a list of keys and values", c->file);
    if (rc == E_INPUT) file_way(c->file, e);
    json_object_foreach(tree, key, value)
    {
        char from[300], number[64];
        const char *text = number;
        const struct opt *o = opt_find(rows, key);
        if (rc < 0) break;
        if (json_is_string(value))
            text = json_string_value(value);
        else if (json_is_boolean(value))
            text = json_is_true(value) ? "yes" : "no";
        else if (json_is_real(value))
            snprintf(number, sizeof number, "%.17g", json_real_value(value));
        else if (json_is_integer(value))
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        else
            snprintf(number, sizeof number, "?");
        snprintf(from, sizeof from, "%s: %s", c->file, key);
        rc = o ? opt_set(o, c, &c->arena, from, text, e) : opt_unknown(rows, "key", key, e);
        if (!o) err_wrap(e, "%s", c->file);
    }
    json_decref(tree);
    return rc;
}

static int unknown(const char *key, struct err *e)
{
    struct opt all[64];
    int n = 0;
    for (const struct opt *o = rows; o->key; o++) all[n++] = *o;
    for (const struct opt *o = flags; o->key; o++) all[n++] = *o;
    all[n] = (struct opt){0};
    return opt_unknown(all, "flag", key, e);
}

static int flags_read(struct config *c, int argc, char **argv, bool own, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        char key[64];
        if (strncmp(argv[i], "--", 2) != 0)
            return err_set(e, E_INPUT, "'%s' stands alone; settings are --key VALUE", argv[i]);
        size_t n = strcspn(argv[i], "=");
        const char *text = argv[i][n] ? argv[i] + n + 1 : NULL, *from = argv[i];
        snprintf(key, sizeof key, "%.*s", (int)n - 2, argv[i] + 2);
        const struct opt *o = opt_find(flags, key);
        bool is_own = o != NULL;
        if (!o) o = opt_find(rows, key);
        if (!o) return unknown(key, e);
        if (o->type == OPT_FLAG && !text) text = "yes";
        if (!text && i + 1 == argc) return err_set(e, E_INPUT, "%s wants a value: %s %s", from, from, o->value);
        if (!text) text = argv[++i];
        int rc = is_own == own ? opt_set(o, c, &c->arena, from, text, e) : 0;
        if (rc < 0) return rc;
    }
    return 0;
}

int config_read(struct config *c, int argc, char **argv, struct err *e)
{
    *c = (struct config){
        .groups = 1, .ranks = 1, .attempts = 4, .upload_max = (int64_t)16 << 30, .free_min = 1 << 30, .log_level = 1};
    int rc = flags_read(c, argc, argv, true, e);
    if (rc >= 0 && c->file) rc = file_read(c, e);
    if (rc >= 0) rc = opt_environment(rows, c, &c->arena, e);
    return rc < 0 ? rc : flags_read(c, argc, argv, false, e);
}

void config_free(struct config *c) { arena_free(&c->arena); }

static int folder_make(char *path, struct err *e)
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        int rc = mkdir(path, 0700);
        if (rc < 0 && errno != EEXIST)
            return err_set(e, E_INPUT, "cannot make the folder %s: %s; give --store DIR", path, strerror(errno));
        *slash = '/';
    }
    return 0;
}

int config_store_name(char *path, size_t n, struct err *e)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && data[0] == '/')
        snprintf(path, n, "%s/longtake", data);
    else if (home && home[0] == '/')
        snprintf(path, n, "%s/.local/share/longtake", home);
    else
        return err_set(e, E_INPUT, "neither XDG_DATA_HOME nor HOME is set; give --store DIR");
    return 0;
}

int config_store(char *path, size_t n, struct err *e)
{
    int rc = config_store_name(path, n, e);
    return rc < 0 ? rc : folder_make(path, e);
}

void config_print(const struct config *c)
{
    for (const struct opt *o = rows; o->key; o++) {
        const void *at = (const char *)c + o->offset;
        if (o->type == OPT_TEXT)
            printf("%s: %s\n", o->key, *(const char *const *)at ? *(const char *const *)at : "~");
        else if (o->type == OPT_FLAG)
            printf("%s: %s\n", o->key, *(const bool *)at ? "yes" : "no");
        else if (o->type == OPT_NAME)
            printf("%s: %s\n", o->key, o->names[*(const int *)at]);
        else if (o->type == OPT_REAL)
            printf("%s: %g\n", o->key, *(const double *)at);
        else if (o->type == OPT_INT)
            printf("%s: %d\n", o->key, *(const int *)at);
        else
            printf("%s: %lld\n", o->key, (long long)*(const int64_t *)at);
    }
}
