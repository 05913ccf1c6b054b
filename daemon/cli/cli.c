// The verbs as a table: help, main and the answer to a misspelt one read the same rows.
#include "daemon/cli/cli.h"

#include "proto/base/near.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct verb cli_verbs[] = {
    {"render", cli_render, "render one video: longtake render --image FILE --audio FILE -o FILE.mp4", true},
    {"serve", cli_serve, "the daemon: takes jobs and renders them; a killed one goes on where it was", true},
    {"submit", cli_submit, "hand a job to the daemon: longtake submit --image FILE --audio FILE", true},
    {"batch", cli_batch, "many jobs at once: longtake batch --audio FILE --videos FILE... -o FOLDER", true},
    {"status", cli_status, "how a job stands: longtake status ID"},
    {"watch", cli_watch, "the same, until it is over"},
    {"report", cli_report, "what it took: times of stages, device seconds, drift and seams: longtake report ID"},
    {"events", cli_events, "what has happened to a job: longtake events ID"},
    {"list", cli_list, "all jobs"},
    {"fetch", cli_fetch, "the finished film: longtake fetch ID -o FILE.mp4"},
    {"cancel", cli_cancel, "end a job: longtake cancel ID"},
    {"pause", cli_pause, "let a job rest; what is made stays"},
    {"resume", cli_resume, "go on with a paused job; --relax-layout: on other processors, too"},
    {"retry", cli_retry, "go on with a failed or cancelled job from where it stands"},
    {"doctor", cli_doctor, "is this machine ready? a line for each thing, with the way out", true},
    {"keygen", cli_keygen, "make keys for daemon, clients and workers on other machines: longtake keygen -o FILE",
     true},
    {"plan", cli_plan, "which layout of ranks would be the fastest, and whether it fits: longtake plan -n 4", true},
    {"weights", cli_weights, "make, check and convert model files", true},
    {"version", cli_version, "print the version"},
    {"help", cli_help, "this list, or the flags of a verb: longtake help render"},
    {0},
};

const struct verb *cli_verb(const char *name, struct err *e)
{
    const char *names[32];
    int n = 0;
    for (const struct verb *v = cli_verbs; v->name; v++) {
        if (strcmp(name, v->name) == 0) return v;
        if (n < 31) names[n++] = v->name;
    }
    names[n] = NULL;
    const char *near = near_word(name, names);
    if (near)
        err_set(e, E_INPUT, "there is no verb '%s'; did you mean %s?", name, near);
    else
        err_set(e, E_INPUT, "there is no verb '%s'; longtake help lists them", name);
    return NULL;
}

void cli_complain(const struct err *e) { fprintf(stderr, "longtake: %s\n", e->text); }

int cli_model(char *path, size_t n, const char *given, struct err *e)
{
    static const char *const places[] = {"../model", "../../deploy/model",
                                         "../share/longtake/model"}; // the second: in a clone
    if (given) {
        snprintf(path, n, "%s", given);
        return 0;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        cli_sibling(path, n, places[i]);
        if (access(path, F_OK) == 0) return 0;
    }
    return err_set(e, E_INPUT,
                   "no model; give --model FOLDER, or make a small one to try: longtake weights synth "
                   "--seed 1 -o FOLDER");
}

void cli_sibling(char *path, size_t n, const char *name)
{
    char self[4096];
    ssize_t got = readlink("/proc/self/exe", self, sizeof self - 1);
    self[got < 0 ? 0 : got] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    snprintf(path, n, "%s/%s", self, name);
}
