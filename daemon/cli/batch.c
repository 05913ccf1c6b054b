// `longtake batch`: many films of one message. One voice over many videos, many voices over one picture, pairs, or a
// file of items; the daemon keeps the items together, reads what they share once, and one that is refused or fails
// stops no other.
//
// Each item becomes the keys of a job of its own: what the batch file says for all, what it says for the item, flags,
// then the item's place in the lists --images, --videos, --audios.
#include "daemon/cli/cli.h"
#include "daemon/cli/client.h"
#include "daemon/cli/flags.h"
#include "proto/file.h"
#include "proto/yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LISTS = 3, WORDS_MAX = 1000, POLL_MS = 500 };
static const char *const list_flags[LISTS] = {"--images", "--videos", "--audios"};
static const char *const list_keys[LISTS] = {"image", "video", "audio"};

struct batch {
    char **word[LISTS];
    int n[LISTS];
    bool wait, help;
    const char *file, *folder;
    json_t *common, *items;
    int argc; // what is left for all items
    char *argv[WORDS_MAX + 1];
    int n_items;
};

// ---- words

static bool ends_list(const char *word) { return strncmp(word, "--", 2) == 0 || strcmp(word, "-o") == 0; }

static bool is_file(const char *word)
{
    const char *dot = strrchr(word, '.');
    return word[0] != '-' && dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml") || !strcmp(dot, ".json"));
}

static int list_take(struct batch *b, int argc, char **argv, int *i)
{
    for (int k = 0; k < LISTS; k++) {
        if (strcmp(argv[*i], list_flags[k]) != 0) continue;
        b->word[k] = argv + *i + 1;
        while (*i + 1 < argc && !ends_list(argv[*i + 1])) ++*i, b->n[k]++;
        return 1;
    }
    return 0;
}

static int words_take(struct batch *b, int argc, char **argv, struct err *e)
{
    if (argc > WORDS_MAX) return err_set(e, E_INPUT, "%d words are too many; put the items in a file", argc);
    for (int i = 0; i < argc; i++) {
        if (list_take(b, argc, argv, &i)) continue;
        if (strcmp(argv[i], "--wait") == 0)
            b->wait = true;
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            b->help = true;
        else if (strcmp(argv[i], "-o") == 0 && i + 1 < argc)
            b->folder = argv[++i];
        else if (is_file(argv[i]) && !b->file && (i == 0 || !ends_list(argv[i - 1])))
            b->file = argv[i];
        else
            b->argv[b->argc++] = argv[i];
    }
    if (b->folder) b->wait = true;
    return 0;
}

static int file_read(struct batch *b, struct err *e)
{
    const char *dot = b->file ? strrchr(b->file, '.') : NULL;
    if (!b->file) return 0;
    int rc = strcmp(dot, ".json") == 0 ? json_read(&b->common, b->file, e) : yaml_read(&b->common, b->file, e);
    if (rc < 0) return rc == E_INPUT ? file_way(b->file, e) : rc;
    b->items = json_incref(json_object_get(b->common, "items"));
    if (!json_is_array(b->items) || json_array_size(b->items) == 0)
        return err_set(e, E_INPUT, "%s has no list `items`; each of its entries is a job, and other keys hold for all",
                       b->file);
    json_object_del(b->common, "items");
    return 0;
}

// How many items; lists of several must be of one length.
static int count(struct batch *b, struct err *e)
{
    const char *first = b->items ? "items" : NULL;
    b->n_items = b->items ? (int)json_array_size(b->items) : 1;
    for (int k = 0; k < LISTS; k++) {
        if (b->word[k] && b->n[k] == 0)
            return err_set(e, E_INPUT, "%s wants files: %s FILE...", list_flags[k], list_flags[k]);
        if (b->n[k] <= 1) continue;
        if (first && b->n[k] != b->n_items)
            return err_set(e, E_INPUT, "%s has %d entries and %s %d: give as many of each, or one", list_flags[k],
                           b->n[k], first, b->n_items);
        b->n_items = b->n[k];
        first = list_flags[k];
    }
    if (first) return 0;
    return err_set(e, E_INPUT,
                   "nothing to make several films of; give --videos A B.., --audios A B.., or a file of items");
}

// ---- items

static int item_read(struct spec *s, const struct batch *b, int i, struct err *e)
{
    struct flags f;
    char what[128];
    snprintf(what, sizeof what, "%s, item %d", b->file ? b->file : "batch", i + 1);
    int rc = b->common ? spec_read_tree(s, b->file, b->common, e) : 0;
    if (rc >= 0 && b->items) rc = spec_read_tree(s, what, json_array_get(b->items, (size_t)i), e);
    if (rc >= 0) rc = flags_parse(&f, s, b->argc, (char **)b->argv, e);
    for (int k = 0; k < LISTS && rc >= 0; k++)
        if (b->n[k]) rc = spec_set(s, "flag", list_flags[k], list_keys[k], b->word[k][b->n[k] > 1 ? i : 0], e);
    return rc;
}

// The film's name in the folder: the item's own, or that of the file in which items differ.
static const char *item_name(struct client *c, const struct spec *s, const struct batch *b, int i)
{
    const char *from = s->output;
    for (int k = 0; k < LISTS && !from; k++)
        if (b->n[k] > 1) from = b->word[k][i];
    const char *slash = from ? strrchr(from, '/') : NULL, *name = slash ? slash + 1 : from;
    if (!name) return arena_printf(&c->arena, "item-%d", i + 1);
    const char *dot = strrchr(name, '.');
    return arena_printf(&c->arena, "%.*s", dot ? (int)(dot - name) : (int)strlen(name), name);
}

static const char *film_path(struct client *c, const struct batch *b, const char *name)
{
    return arena_printf(&c->arena, "%s/%s.mp4", b->folder, name);
}

// A film that could not be brought is not rendered first. With a key the batch may be one that was begun before.
static int place_check(struct client *c, const struct batch *b, const char *name, struct err *e)
{
    struct stat st;
    const char *path = b->folder && !c->key ? film_path(c, b, name) : NULL;
    if (!path || lstat(path, &st) < 0) return 0;
    return err_set(e, E_INPUT, "%s exists; move it away, or choose another folder with -o", path);
}

static int items_make(struct client *c, const struct batch *b, json_t *list, const char **name, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < b->n_items && rc >= 0; i++) {
        struct spec s;
        spec_init(&s);
        rc = item_read(&s, b, i, e);
        name[i] = item_name(c, &s, b, i);
        for (int k = 0; k < i; k++) {
            if (strcmp(name[k], name[i]) != 0) continue;
            name[i] = arena_printf(&c->arena, "%s-%d", name[i], i + 1);
            k = -1; // the longer name may be that of any
        }
        if (rc >= 0) rc = place_check(c, b, name[i], e);
        json_t *tree = spec_write(&s);
        json_object_del(tree, "overwrite");
        json_object_del(tree, "output");
        if (rc >= 0) rc = client_bring(c, tree, e);
        if (rc < 0) err_wrap(e, "item %d", i + 1);
        json_array_append_new(list, tree);
        spec_free(&s);
    }
    return rc;
}

// ---- until all are over

struct told {
    uint64_t id;
    char status[16];
    bool unfetched;
};

// A film that cannot be brought here is said, and stops no other. A batch of a key finds those it has brought before.
static int fetch_one(struct client *c, const struct batch *b, const char *name, struct told *told, struct err *e)
{
    struct err why = {0};
    struct stat st;
    c->output = film_path(c, b, name);
    if (c->key && lstat(c->output, &st) == 0) {
        if (!c->json) printf("%s: %s is there already, and stays\n", name, c->output);
        return 0;
    }
    int rc = lstat(c->output, &st) == 0
                 ? err_set(&why, E_INPUT, "%s exists; move it away, then longtake fetch %llu -o FILE", c->output,
                           (unsigned long long)c->id)
                 : client_fetch(c, &why);
    if (rc == E_LOST) return err_set(e, E_LOST, "%s", why.text); // nor will the next one be
    told->unfetched = rc < 0;
    if (rc < 0) cli_complain(&why);
    return 0;
}

// One question about all items; those that changed are shown, those that are done fetched. *n_open: not over.
static int look(struct client *c, const struct batch *b, uint64_t batch, struct told *told, const char *const *name,
                int *n_open, int *n_failed, struct err *e)
{
    uint64_t after = batch - 1;
    *n_open = *n_failed = 0;
    for (int i = 0; i < b->n_items;) {
        json_t *page = NULL;
        c->id = after;
        client_message(c, MSG_LIST)->list_batch = batch;
        int rc = client_ask(c, e);
        if (rc >= 0) rc = client_tree(c, &page, e);
        if (rc >= 0 && json_array_size(page) == 0)
            rc = err_set(e, E_FATAL, "the daemon has lost items of the batch; look at longtake list");
        for (size_t k = 0; rc >= 0 && k < json_array_size(page) && i < b->n_items; k++, i++) {
            const json_t *o = json_array_get(page, k);
            const char *status = json_string_value(json_object_get(o, "status"));
            bool done = status && strcmp(status, "completed") == 0;
            c->id = after = (uint64_t)client_number(o, "id");
            *n_open += !status || !client_is_over(status);
            *n_failed += (status && client_is_over(status) && !done) || told[i].unfetched;
            if (!status || strcmp(status, told[i].status) == 0) continue;
            snprintf(told[i].status, sizeof told[i].status, "%s", status);
            const char *why = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
            if (c->json)
                json_dumpf(o, stdout, JSON_COMPACT);
            else
                printf("%s: job %llu %s%s%s", name[i], (unsigned long long)c->id, status, why ? ": " : "",
                       why ? why : "");
            printf("\n");
            if (done && b->folder) rc = fetch_one(c, b, name[i], &told[i], e);
            *n_failed += told[i].unfetched;
        }
        json_decref(page);
        if (rc < 0) return rc;
    }
    fflush(stdout);
    return 0;
}

static int follow(struct client *c, const struct batch *b, uint64_t batch, const char *const *name, int *n_failed,
                  struct err *e)
{
    struct told *told = calloc((size_t)b->n_items, sizeof *told);
    int n_open = 1, rc = 0;
    BUG_IF(!told, "no memory for items");
    while (rc >= 0 && n_open > 0) {
        rc = look(c, b, batch, told, name, &n_open, n_failed, e);
        if (rc >= 0 && !b->wait) break;
        if (rc >= 0 && n_open > 0) usleep(POLL_MS * 1000);
    }
    free(told);
    return rc;
}

// ---- the verb

static int folder_check(const struct batch *b, struct err *e)
{
    struct stat st;
    if (!b->folder || (stat(b->folder, &st) == 0 && S_ISDIR(st.st_mode))) return 0;
    return err_set(e, E_INPUT, "-o %s: there is no such folder; make it first", b->folder);
}

static int send(struct client *c, json_t *list, uint64_t *batch, struct err *e)
{
    json_t *tree = json_pack("{sO}", "items", list), *answer = NULL;
    char *text = json_dumps(tree, JSON_COMPACT);
    json_decref(tree);
    c->id = 0;
    struct msg *m = client_message(c, MSG_SUBMIT);
    snprintf(m->submit.key, sizeof m->submit.key, "%s", c->key ? c->key : "");
    m->submit.priority = c->priority;
    m->bulk[0] = (struct msg_bulk){text, strlen(text)};
    m->n_bulk = 1;
    int rc = strlen(text) > MSG_BLOB_MAX
                 ? err_set(e, E_INPUT, "the batch's keys take more than a MiB; make several batches of it")
                 : client_ask(c, e);
    if (rc >= 0) rc = json_parse(&answer, "the answer", c->in.bulk[0].data, c->in.bulk[0].n, e);
    *batch = (uint64_t)client_number(answer, "batch");
    json_decref(answer);
    free(text);
    return rc;
}

static int run(struct client *c, struct batch *b, int *n_failed, struct err *e)
{
    uint64_t batch = 0;
    json_t *list = json_array();
    int rc = file_read(b, e);
    if (rc >= 0) rc = count(b, e);
    if (rc >= 0) rc = folder_check(b, e);
    const char **name = calloc((size_t)b->n_items + 1, sizeof *name);
    BUG_IF(!name, "no memory for items");
    if (rc >= 0) rc = client_connect(c, e);
    if (rc >= 0) rc = items_make(c, b, list, name, e);
    if (rc >= 0) rc = send(c, list, &batch, e);
    if (rc >= 0) rc = follow(c, b, batch, name, n_failed, e);
    free(name);
    json_decref(list);
    json_decref(b->common);
    json_decref(b->items);
    return rc;
}

static void help(void)
{
    printf("longtake batch: many films of one message to the daemon.\n\n"
           "  longtake batch --audio FILE --videos FILE... [-o FOLDER]     one voice, many videos\n"
           "  longtake batch --image FILE --audios FILE... [-o FOLDER]     one picture, many voices\n"
           "  longtake batch BATCH.yaml [-o FOLDER]                        keys for all, and a list `items` of jobs\n\n"
           "  --wait                       say how items end, and end with 1 if one failed\n"
           "  -o FOLDER                    the same, and bring their films there\n"
           "  --images, --videos, --audios FILE...   one an item, in order\n\nFlags:\n");
    opt_help(client_table(), stdout);
    opt_help(spec_table(), stdout);
}

int cli_batch(int argc, char **argv)
{
    struct client *c = client_new();
    struct batch *b = calloc(1, sizeof *b); // large
    struct err e = {0};
    int n_failed = 0;
    BUG_IF(!b, "no memory for a batch");
    int rc = client_flags(c, false, &argc, argv, &e);
    if (rc >= 0) rc = words_take(b, argc, argv, &e);
    if (rc >= 0 && b->help)
        help();
    else if (rc >= 0)
        rc = run(c, b, &n_failed, &e);
    rc = client_code(rc, &e);
    if (rc == EXIT_DONE && b->wait && n_failed > 0) rc = EXIT_JOB_FAILED;
    free(b);
    client_free(&c);
    return rc;
}
