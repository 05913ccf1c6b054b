// What the verbs of the command line share.
#ifndef DAEMON_CLI_CLI_H
#define DAEMON_CLI_CLI_H

#include "proto/base/err.h"

#include <stdbool.h>
#include <stddef.h>

// Exit codes (the same for every verb).
enum {
    EXIT_DONE = 0,
    EXIT_JOB_FAILED = 1,
    EXIT_USAGE = 2,       // refused before anything was rendered
    EXIT_CONFIG = 3,      // the model or a configuration is not in order
    EXIT_UNREACHABLE = 4, // no daemon answers
    EXIT_INTERRUPTED = 75,
    EXIT_SIGINT = 130,
};

// A verb: its arguments are argv[0..argc), the verb itself not among them.
struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
    bool helps; // says more of itself when it is given --help
};
extern const struct verb cli_verbs[]; // ends with a NULL name
// The verb called so, or NULL and a sentence with the nearest one.
const struct verb *cli_verb(const char *name, struct err *e);

int cli_render(int argc, char **argv);
int cli_serve(int argc, char **argv);
int cli_submit(int argc, char **argv);
int cli_batch(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_report(int argc, char **argv);
int cli_events(int argc, char **argv);
int cli_watch(int argc, char **argv);
int cli_list(int argc, char **argv);
int cli_fetch(int argc, char **argv);
int cli_cancel(int argc, char **argv);
int cli_pause(int argc, char **argv);
int cli_resume(int argc, char **argv);
int cli_retry(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_keygen(int argc, char **argv);
int cli_plan(int argc, char **argv);
int cli_weights(int argc, char **argv);
int cli_version(int argc, char **argv);
int cli_help(int argc, char **argv);

// "longtake: <sentence>" on stderr.
void cli_complain(const struct err *e);
// The model that was given, or the one that stands beside the programs: build/model, share/longtake/model.
int cli_model(char *path, size_t n, const char *given, struct err *e);
// The program `name` in the folder of this one.
void cli_sibling(char *path, size_t n, const char *name);

#endif
