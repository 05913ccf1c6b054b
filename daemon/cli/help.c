// `longtake help`, and what is printed when no verb is given.
#include "daemon/cli/cli.h"
#include "daemon/cli/flags.h"
#include "proto/spec.h"

#include <stdio.h>
#include <string.h>

static void render_help(void)
{
    printf("longtake render: a picture or a video, and a voice, become a talking video.\n\n"
           "  longtake render --image FILE --audio FILE [--prompt TEXT] [-o FILE.mp4]\n"
           "  longtake render JOB.yaml [-o FILE.mp4]\n\n"
           "Flags (also keys of a job file; an underscore counts as a dash; LONGTAKE_CRF=20 in the environment sets\n"
           "--crf, and a flag outweighs it, as it outweighs the job file):\n");
    opt_help(flags_table(), stdout);
    opt_help(spec_table(), stdout);
    printf("\nExit codes: 0 done, 1 failed, 2 refused, 3 the model is not in order, 75 interrupted, 130 Ctrl-C.\n");
}

static int refuse(const struct err *e)
{
    cli_complain(e);
    return EXIT_USAGE;
}

int cli_help(int argc, char **argv)
{
    struct err e = {0};
    if (argc > 1) {
        err_set(&e, E_INPUT, "help takes one verb, and not also '%s'", argv[1]);
        return refuse(&e);
    }
    if (argc > 0) {
        const struct verb *v = cli_verb(argv[0], &e);
        if (!v) return refuse(&e);
        if (strcmp(v->name, "render") == 0)
            render_help();
        else if (v->helps)
            return v->run(1, (char *[]){"--help", NULL});
        else
            printf("longtake %s: %s\n", v->name, v->help);
        return EXIT_DONE;
    }
    printf("longtake turns a picture or a video and a voice into a talking video.\n\nVerbs:\n");
    for (const struct verb *v = cli_verbs; v->name; v++) printf("  %-10s %s\n", v->name, v->help);
    return EXIT_DONE;
}
