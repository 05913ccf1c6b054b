// One end of a talk with the daemon, for the verbs that have one.
//
// Life: client_new, client_flags, client_connect, then questions, client_free.
#ifndef DAEMON_CLI_CLIENT_H
#define DAEMON_CLI_CLIENT_H

#include "proto/base/arena.h"
#include "proto/base/opt.h"
#include "proto/chan_call.h"
#include "proto/json.h"
#include "proto/msg.h"

struct client {
    struct arena arena;
    struct chan *chan;
    struct msg in, out;
    bool json;
    // flags that are the client's own
    const char *store, *key, *output;
    struct chan_call call;
    int priority;
    bool relax;
    uint64_t id;
    size_t n_notices; // shown
    uint8_t piece[MSG_BLOB_MAX];
};

struct client *client_new(void);
void client_free(struct client **c);
const struct opt *client_table(void);
// Takes the client's own flags out of argv, and with `id` the job's number and -o.
int client_flags(struct client *c, bool id, int *argc, char **argv, struct err *e);
int client_connect(struct client *c, struct err *e);
// A message to be filled and asked. What comes back lies in c->in.
struct msg *client_message(struct client *c, enum msg_kind kind);
int client_ask(struct client *c, struct err *e);
int client_wait(struct client *c, int64_t patience_ms, struct err *e);
// The answer as a tree, which the caller owns; E_FATAL: it is empty or no JSON.
int client_tree(const struct client *c, json_t **o, struct err *e);
// The answer's JSON, shown. *status: a copy of the job's, the arena's.
int client_show(struct client *c, const char **status, struct err *e);
// The files that a job's keys name go to the daemon, where it lacks them; the keys name their content then.
int client_bring(struct client *c, json_t *tree, struct err *e);
// The film of job c->id to c->output, beside its name until it is whole.
int client_fetch(struct client *c, struct err *e);
int64_t client_number(const json_t *o, const char *key);
bool client_is_over(const char *status);
// The exit code; what is wrong is said.
int client_code(int rc, const struct err *e);

#endif
