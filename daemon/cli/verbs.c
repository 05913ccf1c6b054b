// The verbs that ask a daemon about one job, or for one.
#include "daemon/cli/cli.h"
#include "daemon/cli/client.h"
#include "daemon/cli/flags.h"
#include "proto/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ASK_AGAIN_MS = 2000, AWAY_MS = 60000 };

static int submit(struct client *c, int argc, char **argv, struct err *e)
{
    struct flags f;
    struct spec s;
    const char *status;
    spec_init(&s);
    int rc = flags_parse(&f, &s, argc, argv, e);
    if (rc >= 0 && f.help) {
        printf("longtake submit: hand a job to the daemon. Flags:\n");
        opt_help(client_table(), stdout);
        opt_help(spec_table(), stdout);
        spec_free(&s);
        return 0;
    }
    json_t *tree = spec_write(&s);
    json_object_del(tree, "overwrite");
    if (rc >= 0) rc = client_connect(c, e);
    if (rc >= 0) rc = client_bring(c, tree, e);
    char *text = json_dumps(tree, JSON_COMPACT);
    if (rc >= 0) {
        struct msg *m = client_message(c, MSG_SUBMIT);
        snprintf(m->submit.key, sizeof m->submit.key, "%s", c->key ? c->key : "");
        m->submit.priority = c->priority;
        m->bulk[0] = (struct msg_bulk){text, strlen(text)};
        m->n_bulk = 1;
        rc = client_ask(c, e);
    }
    if (rc >= 0) rc = client_show(c, &status, e);
    free(text);
    json_decref(tree);
    spec_free(&s);
    return rc;
}

int cli_submit(int argc, char **argv)
{
    struct client *c = client_new();
    struct err e = {0};
    int rc = client_flags(c, false, &argc, argv, &e);
    if (rc >= 0) rc = submit(c, argc, argv, &e);
    rc = client_code(rc, &e);
    client_free(&c);
    return rc;
}

// One question about one job, and its answer shown.
static int question(int argc, char **argv, enum msg_kind kind, const char *verb)
{
    struct client *c = client_new();
    struct err e = {0};
    const char *status = "";
    int rc = client_flags(c, true, &argc, argv, &e);
    if (rc >= 0) rc = client_connect(c, &e);
    if (rc >= 0 && c->relax && kind == MSG_CONTROL) {
        snprintf(client_message(c, kind)->control, sizeof c->out.control, "relax");
        rc = client_ask(c, &e);
    }
    if (rc >= 0) {
        struct msg *m = client_message(c, kind);
        if (verb) snprintf(m->control, sizeof m->control, "%s", verb);
        rc = client_ask(c, &e);
    }
    if (rc >= 0) rc = client_show(c, &status, &e);
    rc = client_code(rc, &e);
    client_free(&c);
    return rc;
}

int cli_status(int argc, char **argv) { return question(argc, argv, MSG_STATUS, NULL); }
int cli_cancel(int argc, char **argv) { return question(argc, argv, MSG_CONTROL, "cancel"); }
int cli_pause(int argc, char **argv) { return question(argc, argv, MSG_CONTROL, "pause"); }
int cli_resume(int argc, char **argv) { return question(argc, argv, MSG_CONTROL, "resume"); }
int cli_retry(int argc, char **argv) { return question(argc, argv, MSG_CONTROL, "retry"); }

int cli_list(int argc, char **argv)
{
    struct client *c = client_new();
    struct err e = {0};
    const char *status;
    int rc = client_flags(c, false, &argc, argv, &e);
    if (rc >= 0 && argc > 0) rc = err_set(&e, E_INPUT, "longtake list takes no '%s'", argv[0]);
    if (rc >= 0) rc = client_connect(c, &e);
    while (rc >= 0 && c->id != UINT64_MAX) {
        client_message(c, MSG_LIST);
        rc = client_ask(c, &e);
        if (rc >= 0) rc = client_show(c, &status, &e);
    }
    rc = client_code(rc, &e);
    client_free(&c);
    return rc;
}

int cli_watch(int argc, char **argv)
{
    struct client *c = client_new();
    struct err e = {0};
    const char *status = "";
    int rc = client_flags(c, true, &argc, argv, &e);
    if (rc >= 0) rc = client_connect(c, &e);
    if (rc >= 0) {
        client_message(c, MSG_WATCH);
        rc = client_ask(c, &e);
    }
    while (rc >= 0) {
        rc = client_show(c, &status, &e);
        if (rc < 0 || client_is_over(status)) break;
        int64_t quiet_ms = clock_ms();
        while ((rc = client_wait(c, ASK_AGAIN_MS, &e)) == E_LOST && clock_ms() - quiet_ms < AWAY_MS) {
            client_message(
                c, MSG_WATCH); // nothing has changed; or the daemon has been started anew, and knows of no watcher
            chan_send(c->chan, NULL, &c->out, NULL);
        }
    }
    bool failed = rc >= 0 && strcmp(status, "completed") != 0;
    rc = failed ? EXIT_JOB_FAILED : client_code(rc, &e);
    client_free(&c);
    return rc;
}

int cli_fetch(int argc, char **argv)
{
    struct client *c = client_new();
    struct err e = {0};
    struct stat st;
    int rc = client_flags(c, true, &argc, argv, &e);
    if (rc >= 0 && !c->output) rc = err_set(&e, E_INPUT, "no output; give -o FILE.mp4");
    if (rc >= 0 && lstat(c->output, &st) == 0)
        rc = err_set(&e, E_INPUT, "-o %s exists; choose another name", c->output);
    if (rc >= 0) rc = client_fetch(c, &e);
    rc = client_code(rc, &e);
    client_free(&c);
    return rc;
}
