// From keys that a client gave to jobs on disk: parsed, compared with what its key was used for, looked at (media are
// read as far as it takes to refuse them, in children, beside the loop), then added, all of a batch together.
//
// Life: submit_new, submit_take for each message, submit_turn once per turn, submit_free.
//
// A batch is {"items": [keys, keys, ...]}, each the keys of a job; other keys beside `items` hold for all of them. Its
// items are jobs with a number in common. An item that is refused is a failed job of the batch, unless all are.
#ifndef DAEMON_SUBMIT_H
#define DAEMON_SUBMIT_H

#include "daemon/loop.h"
#include "daemon/store.h"
#include "proto/json.h"
#include "proto/spec.h"

enum { SUBMIT_ITEMS_MAX = 1000 };

struct submit;

struct submit_options {
    struct loop *loop;
    struct store *store;
    const struct model *model;
    const char *self;   // this program, for media children
    const char *folder; // for what is decoded meanwhile
    // The keys as a resolved spec; the tree is the callee's to change.
    int (*spec_of)(void *ctx, struct spec *s, json_t *tree, struct err *e);
    // A job was added and waits.
    void (*added)(void *ctx, uint64_t id, int priority);
    // What became of a message: the job's number (of a batch: the first one's), or why not.
    void (*done)(void *ctx, uint64_t ticket, uint64_t id, const struct err *why);
    void *ctx;
};

void submit_new(struct submit **out, const struct submit_options *o);
// No work may be under way.
void submit_free(struct submit **s);
// 1: `done` will be called with this ticket; 0: *id was there before; or it is refused at once.
int submit_take(struct submit *s, uint64_t ticket, const char *key, int priority, const char *text, size_t n,
                uint64_t *id, struct err *e);
void submit_turn(struct submit *s);

#endif
