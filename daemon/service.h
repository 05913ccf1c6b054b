// All jobs of a daemon: those under way as the dispatcher's, the rest as rows of the store.
//
// Life: service_open takes up what the store says was not finished; service_submit and service_control change it;
// service_turn once per turn of the loop; service_close. Everything happens on the loop's thread.
//
// The store's folder: store.db, media/ (files by the hash of their content), jobs/ID/ (a growing film, then video.mp4).
#ifndef DAEMON_SERVICE_H
#define DAEMON_SERVICE_H

#include "daemon/dispatch.h"
#include "daemon/keep.h"
#include "proto/json.h"

struct service;

struct service_options {
    const char *folder; // of the store
    const char *self, *worker;
    const struct model *model;
    int groups, attempts;
    struct launch_ranks ranks; // of each group
    int64_t hello_ms, silence_ms, stall_ms;
    int64_t upload_max; // bytes of one file
    double device_cost; // of an hour, for reports; 0: not known
    // The job has changed.
    void (*changed)(void *ctx, uint64_t id);
    // What became of what was submitted: its number, or why it is refused.
    void (*submitted)(void *ctx, uint64_t ticket, uint64_t id, const struct err *why);
    void *ctx;
};

int service_open(struct service **out, struct loop *l, const struct service_options *o, struct err *e);
void service_close(struct service **s);
void service_turn(struct service *s);
// What stays on the disk from now on, and how much of it must stay free.
void service_keep(struct service *s, const struct keep_limits *l);
// Tells in the log where all jobs under way stand; whatever is committed is on disk at any time.
void service_tell(const struct service *s);
// A group that came by itself: the service's from now on.
void service_join(struct service *s, struct group *g, const uint8_t set[32]);
// Nothing new is begun; true when all groups have gone. *n_left: jobs that are not over; *owes: a segment is on its way
// to the disk.
bool service_drain(struct service *s, int *n_left, bool *owes);

// A job, or a batch of them (submit.h), whose media are in media/ already. `key`: "" or of the client's choice. 0: *id
// was there before; 1: `submitted` will be called with this ticket, once the media were looked at and it is durable.
int service_submit(struct service *s, uint64_t ticket, const char *key, int priority, const char *text, size_t n,
                   uint64_t *id, struct err *e);
// `verb`: cancel pause resume retry, or relax: groups of any layout class may go on with it.
int service_control(struct service *s, uint64_t id, const char *verb, struct err *e);
// The job as JSON, the caller's to free (json_decref). *over: it will not change by itself.
int service_status(struct service *s, uint64_t id, json_t **out, bool *over, struct err *e);
// At most `most` jobs with ids above `after`, of a batch or (0) all.
int service_list(struct service *s, uint64_t batch, uint64_t after, int most, json_t **out, struct err *e);
// What is on record of a job (record.h); of its events, at most `most` with numbers above `after`.
int service_report(struct service *s, uint64_t id, json_t **out, struct err *e);
int service_events(struct service *s, uint64_t id, int64_t after, int most, json_t **out, struct err *e);
// A piece of a file for media/; *have: how much of it is there. With n = 0 only asks.
int service_put(struct service *s, const uint8_t hash[32], uint64_t offset, uint64_t total, const void *data, size_t n,
                uint64_t *have, struct err *e);
// The finished film of a job: a descriptor, the caller's to close, and its length.
int service_film(struct service *s, uint64_t id, int *fd, uint64_t *total, struct err *e);

#endif
