// Words of a command line to rows of two tables.
//
// The flags are looked at twice: once to find them all and the job file among them, then, after the job file and the
// environment, to set them. What a job file says about the picture, the voices or the LoRAs gives way as a whole when a
// flag speaks of it: a picture on the command line replaces a video in the file.
//
// A flag of several values ("--lora-dir A B --lora-scale 1 0.5", as the published program has it) takes words until the
// next one that begins with two dashes, or -o and -n.
#include "daemon/cli/flags.h"

#include "daemon/launch.h"

#include <stdlib.h>
#include <string.h>

#define FIELD(name) offsetof(struct flags, name)

// clang-format off
static const struct opt rows[] = {
    {"input-json", OPT_TEXT, FIELD(job), 0, 0, NULL, NULL, "FILE", "a job file, the published program's JSON or YAML; also given without a flag"},
    {"json", OPT_FLAG, FIELD(json), 0, 0, NULL, NULL, NULL, "print one JSON object at the end, and progress as JSON lines on stderr"},
    {"device", OPT_NAME, FIELD(device), 0, 0, launch_devices, NULL, "auto|cpu|cuda", "where to render; auto is the CPU"},
    {"ranks", OPT_INT, FIELD(ranks), 1, 4096, NULL, NULL, "N", "processes that render together; also -n (1)"},
    {"layout", OPT_TEXT, FIELD(layout), 0, 0, NULL, NULL, "GxRxH", "how they share the work: ranks of guide x ring x heads (auto)"},
    {"shard", OPT_NAME, FIELD(shard), 0, 0, launch_shards, NULL, "off|node|all", "spread weights over them: never, on each machine, over all (auto: if they do not fit)"},
    {"weights", OPT_NAME, FIELD(weights), 0, 0, launch_weights, NULL, "resident|streamed|sharded", "the transformer's blocks: resident on each device, streamed from the host, sharded over ranks (auto: resident if they fit)"},
    {"help", OPT_FLAG, FIELD(help), 0, 0, NULL, NULL, NULL, "this list"},
    {"worker", OPT_TEXT, FIELD(worker), 0, 0, NULL, NULL, "FILE", NULL},
    {"attempts", OPT_INT, FIELD(attempts), 1, 1000, NULL, NULL, "N", NULL},
    {"stall-ms", OPT_LONG, FIELD(stall_ms), 1, 1e12, NULL, NULL, "N", NULL},
    {"hello-ms", OPT_LONG, FIELD(hello_ms), 1, 1e12, NULL, NULL, "N", NULL},
    {0},
};
// clang-format on

const struct opt *flags_table(void) { return rows; }

// A flag and one of its values.
struct word {
    const struct opt *row;
    bool own; // of the table here
    const char *from, *text;
};
struct words {
    struct word *v;
    int n;
};

static int unknown(const char *key, struct err *e)
{
    struct opt all[250];
    size_t n = 0;
    for (const struct opt *t = spec_table(); t->key && n < 200; t++) all[n++] = *t;
    for (const struct opt *t = rows; t->key && n < 249; t++)
        if (t->help) all[n++] = *t;
    all[n] = (struct opt){0};
    return opt_unknown(all, "flag", key, e);
}

static bool begins_flag(const char *word)
{
    return strncmp(word, "--", 2) == 0 || !strcmp(word, "-o") || !strcmp(word, "-n");
}

static bool takes_value(const struct opt *o) { return o->type != OPT_FLAG && o->value; }

static bool takes_several(const struct opt *o) { return o->value && strstr(o->value, "..."); }

static void word_add(struct words *w, struct word word) { w->v[w->n++] = word; }

// One flag at argv[*i]; *i ends on its last word.
static int flag_take(struct words *w, struct arena *a, int argc, char **argv, int *i, struct err *e)
{
    const char *flag = argv[*i], *value = NULL;
    char key[128];
    size_t length = strcspn(flag, "=");
    if (strcmp(flag, "-o") == 0)
        snprintf(key, sizeof key, "output");
    else if (strcmp(flag, "-n") == 0)
        snprintf(key, sizeof key, "ranks");
    else if (strcmp(flag, "-h") == 0)
        snprintf(key, sizeof key, "help");
    else {
        if (flag[length] == '=') value = flag + length + 1;
        snprintf(key, sizeof key, "%.*s", (int)(length - 2), flag + 2);
        flag = arena_printf(a, "--%s", key);
    }
    struct word word = {.row = opt_find(rows, key), .own = true, .from = flag, .text = value};
    if (!word.row) word = (struct word){.row = opt_find(spec_table(), key), .from = flag, .text = value};
    if (!word.row) return unknown(key, e);
    if (!value && !takes_value(word.row)) {
        word.text = "yes";
        word_add(w, word);
        return 0;
    }
    if (!value && (*i + 1 >= argc || begins_flag(argv[*i + 1])))
        return err_set(e, E_INPUT, "%s wants a value: %s %s", flag, flag, word.row->value);
    do {
        if (!value) word.text = argv[++*i];
        word_add(w, word);
    } while (!value && takes_several(word.row) && *i + 1 < argc && !begins_flag(argv[*i + 1]));
    return 0;
}

static bool names_job(const char *word)
{
    const char *dot = strrchr(word, '.');
    return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml") || !strcmp(dot, ".json"));
}

static int words_take(struct words *w, struct flags *f, struct arena *a, int argc, char **argv, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        int rc = 0;
        if (begins_flag(argv[i]) || strcmp(argv[i], "-h") == 0)
            rc = flag_take(w, a, argc, argv, &i, e);
        else if (argv[i][0] == '-')
            rc = unknown(argv[i] + 1, e);
        else if (names_job(argv[i]) && !f->job)
            f->job = argv[i];
        else
            rc = err_set(e, E_INPUT, "'%s' stands alone; a flag before it says what it is, as in --image %s", argv[i],
                         argv[i]);
        if (rc < 0) return rc;
    }
    return 0;
}

// ---- what gives way to a flag

static bool among(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(key, *list) == 0) return true;
    return false;
}

static void give_way(struct spec *s, const struct words *w)
{
    static const char *const pictures[] = {"image", "video", NULL}, *const voices[] = {"audio", "audio2", NULL},
                             *const loras[] = {"lora", "lora-dir", NULL}, *const scales[] = {"lora-scale", NULL};
    bool picture = false, voice = false, lora = false, scale = false;
    for (int i = 0; i < w->n; i++) {
        const char *key = w->v[i].row->key;
        picture |= among(key, pictures);
        voice |= among(key, voices);
        lora |= among(key, loras);
        scale |= among(key, scales);
    }
    if (picture) s->image = s->video = NULL;
    if (voice) {
        s->audio[0] = s->audio[1] = NULL;
        s->n_speakers = 0;
    }
    if (lora) s->n_lora = 0;
    if (lora || scale) s->n_lora_scale = 0;
}

int flags_parse(struct flags *f, struct spec *s, int argc, char **argv, struct err *e)
{
    struct words w = {.v = arena_array(&s->arena, (size_t)argc + 1, sizeof *w.v)};
    *f = (struct flags){.ranks = 1};
    int rc = opt_environment(rows, f, &s->arena, e);
    if (rc >= 0) rc = words_take(&w, f, &s->arena, argc, argv, e);
    for (int i = 0; i < w.n && rc >= 0; i++)
        if (w.v[i].own) rc = opt_set(w.v[i].row, f, &s->arena, w.v[i].from, w.v[i].text, e);
    if (rc < 0 || f->help) return rc;
    if (f->job) rc = spec_read_file(s, f->job, e);
    if (rc >= 0) rc = opt_environment(spec_table(), s, &s->arena, e);
    give_way(s, &w);
    for (int i = 0; i < w.n && rc >= 0; i++)
        if (!w.v[i].own) rc = opt_set(w.v[i].row, s, &s->arena, w.v[i].from, w.v[i].text, e);
    return rc;
}
