// longtake weights synth | inspect.
//
// Flags are rows of a table, one table a verb. A flag takes its value from the next word or after '='. Words that are
// no flags are the verb's one argument.
#include "worker/weights_main.h"

#include "proto/base/opt.h"
#include "worker/inspect/inspect.h"
#include "worker/synth/synth.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOT_WHOLE = 3, EXIT_INTERRUPTED = 130 };

// ---- flags

static int take_word(const struct opt *table, void *base, struct arena *a, const char **word, const char *text,
                     struct err *e)
{
    if (*word) return err_set(e, E_INPUT, "'%s' is one word too many after '%s'", text, *word);
    const struct opt *o = opt_find(table, "");
    if (!o) return err_set(e, E_INPUT, "'%s' is no flag", text);
    *word = text;
    return opt_set(o, base, a, text, text, e);
}

// Sets the fields of `base` from argv[1..]. The row with the empty key takes the one word that is no flag.
static int take_flags(const struct opt *table, void *base, struct arena *a, int argc, char **argv, struct err *e)
{
    const char *word = NULL;
    int rc = 0;
    for (int i = 1; i < argc && rc == 0; i++) {
        const char *arg = argv[i];
        if (arg[0] != '-' || !arg[1]) {
            rc = take_word(table, base, a, &word, arg, e);
            continue;
        }
        char key[64], from[80];
        const char *name = arg + (arg[1] == '-' ? 2 : 1), *value = strchr(name, '=');
        snprintf(key, sizeof key, "%.*s", (int)(value ? value - name : (long)strlen(name)), name);
        snprintf(from, sizeof from, "%s%s", arg[1] == '-' ? "--" : "-", key);
        const struct opt *o = key[0] ? opt_find(table, key) : NULL;
        if (!o) return opt_unknown(table, "flag", key, e);
        if (value)
            value++;
        else if (o->type == OPT_FLAG)
            value = "yes";
        else if (i + 1 < argc)
            value = argv[++i];
        else
            return err_set(e, E_INPUT, "%s wants a value", from);
        rc = opt_set(o, base, a, from, value, e);
    }
    return rc;
}

static int usage(const struct err *e, const char *verb)
{
    fprintf(stderr, "longtake weights%s%s: %s\n", *verb ? " " : "", verb, e->text);
    return EXIT_USAGE;
}

// ---- synth

struct synth_flags {
    int64_t seed;
    const char *out;
    int like, layers, dtype;
    bool help;
};
static const char *const likes[] = {"tiny", "14b", NULL}, *const dtypes[] = {"f32", "bf16", "f16", NULL};

#define AT(field) offsetof(struct synth_flags, field)
static const struct opt synth_table[] = {
    {"out", OPT_TEXT, AT(out), .value = "DIR", .help = "the folder to make; also -o"},
    {"o", OPT_TEXT, AT(out)},
    {"seed", OPT_LONG, AT(seed), .value = "N", .help = "other numbers, other values [0]"},
    {"like", OPT_NAME, AT(like), .names = likes, .value = "WORD", .help = "tiny or 14b, the published sizes [tiny]"},
    {"layers", OPT_INT, AT(layers), .min = 1, .max = 1000, .value = "N", .help = "of the diffusion transformer"},
    {"dtype", OPT_NAME, AT(dtype), .names = dtypes, .value = "TYPE",
     .help = "f32, bf16 or f16: of the transformer and its adapters [f32]"},
    {"help", OPT_FLAG, AT(help), .help = "this"},
    {"h", OPT_FLAG, AT(help)},
    {.key = NULL},
};
#undef AT

static int synth_run(const struct synth_flags *f, struct err *e)
{
    static const enum dtype types[] = {DT_F32, DT_BF16, DT_F16};
    struct synth_options o = {
        .dir = f->out, .seed = f->seed, .published = f->like == 1, .layers = f->layers, .dtype = types[f->dtype]};
    struct synth_report r;
    if (synth_write(&o, &r, e) < 0) {
        fprintf(stderr, "longtake weights synth: %s\n", e->text);
        return r.interrupted ? EXIT_INTERRUPTED : EXIT_FAILED;
    }
    printf("%s: %d files, %lld tensors, %lld parameters, %lld bytes\n", f->out, r.n_files, (long long)r.n_tensors,
           (long long)r.n_values, (long long)r.n_bytes);
    return 0;
}

static int synth_main(int argc, char **argv)
{
    struct synth_flags f = {0};
    struct arena a = {0};
    struct err e = {0};
    int rc = take_flags(synth_table, &f, &a, argc, argv, &e), status = 0;
    if (rc == 0 && !f.out && !f.help) rc = err_set(&e, E_INPUT, "name the folder to make: -o DIR");
    if (rc < 0)
        status = usage(&e, "synth");
    else if (f.help) {
        printf("longtake weights synth -o DIR [flags]: a model of random weights in the published layout\n");
        opt_help(synth_table, stdout);
    } else
        status = synth_run(&f, &e);
    arena_free(&a);
    return status;
}

// ---- inspect

struct inspect_flags {
    const char *path;
    bool json, tensors, help;
};

#define AT(field) offsetof(struct inspect_flags, field)
static const struct opt inspect_table[] = {
    {"", OPT_TEXT, AT(path)},
    {"json", OPT_FLAG, AT(json), .help = "for machines"},
    {"tensors", OPT_FLAG, AT(tensors), .help = "every tensor's name, shape and dtype"},
    {"help", OPT_FLAG, AT(help), .help = "this"},
    {"h", OPT_FLAG, AT(help)},
    {.key = NULL},
};
#undef AT

static int inspect_run(const struct inspect_flags *f)
{
    json_t *tree = inspect_path(f->path, f->tensors);
    bool whole = json_is_true(json_object_get(tree, "whole"));
    if (f->json) {
        json_dumpf(tree, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
    } else
        inspect_print(tree, stdout);
    json_decref(tree);
    return whole ? 0 : EXIT_NOT_WHOLE;
}

static int inspect_main(int argc, char **argv)
{
    struct inspect_flags f = {0};
    struct arena a = {0};
    struct err e = {0};
    int rc = take_flags(inspect_table, &f, &a, argc, argv, &e), status = 0;
    if (rc == 0 && !f.path && !f.help) rc = err_set(&e, E_INPUT, "name a file or a folder");
    if (rc < 0)
        status = usage(&e, "inspect");
    else if (f.help) {
        printf("longtake weights inspect PATH [flags]: what a file or a model folder holds, and what it lacks\n");
        opt_help(inspect_table, stdout);
    } else
        status = inspect_run(&f);
    arena_free(&a);
    return status;
}

// ---- verbs

static void weights_help(void)
{
    printf("longtake weights VERB ...: model files\n\n"
           "  synth -o DIR   make a model of random weights, to try an installation\n"
           "  inspect PATH   what a file or a model folder holds, and what it lacks\n\n"
           "longtake weights VERB --help lists a verb's flags.\n");
}

int weights_main(int argc, char **argv)
{
    static const struct opt verbs[] = {{.key = "synth"}, {.key = "inspect"}, {.key = NULL}};
    const char *verb = argc > 1 ? argv[1] : "";
    struct err e = {0};
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0 || strcmp(verb, "help") == 0) {
        weights_help();
        return 0;
    }
    if (strcmp(verb, "synth") == 0) return synth_main(argc - 1, argv + 1);
    if (strcmp(verb, "inspect") == 0) return inspect_main(argc - 1, argv + 1);
    if (*verb)
        opt_unknown(verbs, "verb", verb, &e);
    else
        err_set(&e, E_INPUT, "name a verb: synth or inspect");
    return usage(&e, "");
}
