// Asking, bringing and fetching: each is one message and its answer, piece by piece where the bytes are many.
//
// What is wrong with a job is found twice, with the same words: here where it needs no model, there where it does.
#include "daemon/cli/client.h"

#include "daemon/cli/cli.h"
#include "daemon/config.h"
#include "daemon/desk.h"
#include "daemon/inputs.h"
#include "proto/base/clock.h"
#include "proto/json.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000, LOOK_MS = 600000, NOBODY_MS = 4000 };

#define AT(name) offsetof(struct client, name)
// clang-format off
static const struct opt rows[] = {
    {"store", OPT_TEXT, AT(store), 0, 0, NULL, NULL, "DIR", "the daemon's store, on this machine"},
    {"connect", OPT_TEXT, AT(call.endpoint), 0, 0, NULL, NULL, "ENDPOINT", "the daemon on another machine: tcp://HOST:PORT ($LONGTAKE_CONNECT)"},
    {"key-file", OPT_TEXT, AT(call.key_file), 0, 0, NULL, NULL, "FILE", "this client's key, from longtake keygen ($LONGTAKE_KEY_FILE)"},
    {"server-key", OPT_TEXT, AT(call.server_key), 0, 0, NULL, NULL, "FILE", "the daemon's public key, its .pub file ($LONGTAKE_SERVER_KEY)"},
    {"plain-tcp", OPT_FLAG, AT(call.plain_tcp), 0, 0, NULL, NULL, NULL, "connect without keys: all can be read on the way"},
    {"key", OPT_TEXT, AT(key), 0, 0, NULL, NULL, "TEXT", "of your choice: submitted twice, it is one job"},
    {"priority", OPT_INT, AT(priority), 0, 100, NULL, NULL, "N", "the higher comes first (50)"},
    {"json", OPT_FLAG, AT(json), 0, 0, NULL, NULL, NULL, "print JSON"},
    {0},
};
// clang-format on

// ---- asking

struct msg *client_message(struct client *c, enum msg_kind kind)
{
    memset(&c->out, 0, sizeof c->out);
    c->out.kind = kind;
    c->out.job = c->id;
    return &c->out;
}

int client_connect(struct client *c, struct err *e)
{
    char folder[4000], endpoint[256];
    if (!c->call.endpoint && !c->store) c->call.endpoint = getenv("LONGTAKE_CONNECT");
    if (!c->call.key_file) c->call.key_file = getenv("LONGTAKE_KEY_FILE");
    if (!c->call.server_key) c->call.server_key = getenv("LONGTAKE_SERVER_KEY");
    if (c->call.endpoint) return chan_call(&c->chan, &c->call, 2 * MSG_BLOB_MAX, e);
    int rc = c->store ? 0 : config_store(folder, sizeof folder, e);
    if (rc >= 0) rc = desk_endpoint(endpoint, sizeof endpoint, c->store ? c->store : folder, e);
    if (rc < 0) return rc;
    if (access(endpoint + strlen("ipc://"), F_OK) < 0)
        return err_set(e, E_LOST, "no daemon works in %s; start one: longtake serve", c->store ? c->store : folder);
    return chan_connect(&c->chan, endpoint, e);
}

int client_wait(struct client *c, int64_t patience_ms, struct err *e)
{
    int64_t end = clock_ms() + patience_ms;
    struct err nobody = {0};
    for (;;) {
        int rc = chan_recv(c->chan, &c->in, NULL, e);
        if (rc < 0) return rc;
        if (rc == 0 && chan_trouble(c->chan, &nobody) == E_INPUT) return err_set(e, E_INPUT, "%s", nobody.text);
        if (rc > 0 && c->in.kind == MSG_ANSWER) {
            const struct msg_answer *a = &c->in.answer;
            return a->code < 0 ? err_set(e, a->code == E_LOST ? E_FATAL : a->code, "%s", a->text) : 0;
        }
        if (nobody.code && clock_ms() > end - patience_ms + NOBODY_MS)
            return err_set(e, E_LOST, "%s; is the daemon running there?", nobody.text);
        if (clock_ms() > end)
            return err_set(e, E_LOST, "the daemon does not answer; see what it says (its log), or start it again");
        struct pollfd p = {.fd = chan_fd(c->chan), .events = POLLIN};
        poll(&p, 1, 100);
    }
}

int client_ask(struct client *c, struct err *e)
{
    int rc = chan_send(c->chan, NULL, &c->out, e);
    bool looks = c->out.kind == MSG_SUBMIT; // media are read before the answer
    return rc < 0 ? rc : client_wait(c, looks ? LOOK_MS : PATIENCE_MS, e);
}

// ---- showing

int64_t client_number(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }

static void show_job(const json_t *o)
{
    const char *status = json_string_value(json_object_get(o, "status"));
    printf("job %lld: %s", (long long)client_number(o, "id"), status ? status : "?");
    if (client_number(o, "segments_total"))
        printf(", segment %lld/%lld", (long long)client_number(o, "segments"),
               (long long)client_number(o, "segments_total"));
    if (json_object_get(o, "percent")) printf(", %.1f %%", json_number_value(json_object_get(o, "percent")));
    const json_t *waits = json_object_get(o, "waits_for"), *set = json_object_get(waits, "set");
    const char *layout = json_string_value(json_object_get(waits, "layout"));
    if (layout) printf(", waits for a group of class \"%s\"", layout);
    if (set)
        printf(", waits for a group with %lld speaker%s, %s, %lld LoRAs", (long long)client_number(set, "speakers"),
               client_number(set, "speakers") == 1 ? "" : "s", json_string_value(json_object_get(set, "dtype")),
               (long long)client_number(set, "loras"));
    const char *why = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
    printf(why ? ": %s\n" : "\n", why);
}

// Those that were not shown before.
static void show_notices(struct client *c, const json_t *o)
{
    const json_t *all = json_object_get(o, "notices");
    for (; c->n_notices < json_array_size(all); c->n_notices++)
        printf("note: %s\n", json_string_value(json_array_get(all, c->n_notices)));
}

int client_tree(const struct client *c, json_t **o, struct err *e)
{
    if (c->in.n_bulk < 1)
        return err_set(e, E_FATAL, "the daemon gave an empty answer; install the same version of both");
    return json_parse(o, "the answer", c->in.bulk[0].data, c->in.bulk[0].n, e);
}

// The answer's JSON, shown. *status: a copy of the job's, the arena's.
int client_show(struct client *c, const char **status, struct err *e)
{
    json_t *o = NULL;
    int rc = client_tree(c, &o, e);
    if (rc < 0) return rc;
    if (c->json)
        printf("%.*s\n", (int)c->in.bulk[0].n, (const char *)c->in.bulk[0].data);
    else if (json_is_array(o))
        for (size_t i = 0; i < json_array_size(o); i++) show_job(json_array_get(o, i));
    else {
        show_job(o);
        show_notices(c, o);
    }
    fflush(stdout);
    const char *s = json_string_value(json_object_get(o, "status"));
    *status = arena_strdup(&c->arena, s ? s : "");
    if (json_is_array(o) && json_array_size(o))
        c->id = (uint64_t)client_number(json_array_get(o, json_array_size(o) - 1), "id");
    else
        c->id = json_is_array(o) ? UINT64_MAX : c->id;
    json_decref(o);
    return 0;
}

// ---- bringing files

static int bring(struct client *c, const char *path, const char *hex, struct err *e)
{
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        rc = err_set(e, E_INPUT, "cannot read %s: %s; check the file", path, strerror(errno));
    uint64_t total = rc < 0 ? 0 : (uint64_t)st.st_size, have = 0;
    for (ssize_t n = 0; rc >= 0; n = pread(fd, c->piece, sizeof c->piece, (off_t)have)) {
        if (n < 0) rc = err_set(e, E_INPUT, "cannot read %s: %s; check the file", path, strerror(errno));
        if (n < 0) break;
        struct msg *m = client_message(c, MSG_PUT);
        for (int i = 0; i < 32; i++) sscanf(hex + 2 * i, "%2hhx", &m->put.hash[i]);
        m->put.offset = have;
        m->put.total = total;
        m->bulk[0] = (struct msg_bulk){c->piece, (size_t)n};
        m->n_bulk = n > 0;
        rc = client_ask(c, e); // the first one only asks what is there
        if (rc < 0 || c->in.answer.offset == total) break;
        have = c->in.answer.offset;
    }
    if (fd >= 0) close(fd);
    return rc;
}

int client_bring(struct client *c, json_t *tree, struct err *e)
{
    static const char *const media[] = {"image", "video", "audio", "audio2", "mask1", "mask2"};
    for (size_t i = 0; i < sizeof media / sizeof *media; i++) {
        char hex[65];
        struct stat st;
        const char *path = json_string_value(json_object_get(tree, media[i]));
        if (!path || strcmp(path, "None") == 0) continue;
        if (stat(path, &st) < 0)
            return err_set(e, E_INPUT, "--%s: there is no file %s; check the name", media[i], path);
        if (!S_ISREG(st.st_mode)) return err_set(e, E_INPUT, "--%s: %s is no file; name a file", media[i], path);
        if (st.st_size == 0)
            return err_set(e, E_INPUT, "--%s: %s is empty (0 bytes); make or copy it again", media[i], path);
        int rc = inputs_hash(hex, path, e);
        if (rc < 0) err_wrap(e, "%s", path);
        if (rc >= 0) rc = bring(c, path, hex, e);
        if (rc < 0) return rc;
        json_object_set_new(tree, media[i], json_string(arena_printf(&c->arena, "content:%s", hex)));
    }
    return 0;
}

// What is neither a flag nor its value is the job's number.
static int take_number(struct client *c, const char *word, struct err *e)
{
    char *end;
    if (strncmp(word, "--", 2) == 0 && word[2]) return opt_unknown(rows, "flag", word + 2, e);
    if (c->id > 0) return err_set(e, E_INPUT, "one job at a time, and not also '%s'; ask again for that one", word);
    errno = 0;
    c->id = strtoull(word, &end, 10);
    if (c->id > 0 && *end == 0 && errno == 0 && word[0] != '-') return 0;
    return err_set(e, E_INPUT, "'%s' is no number of a job; longtake list shows them", word);
}

// Takes the client's own flags out of argv, and with `id` the job's number and -o.
int client_flags(struct client *c, bool id, int *argc, char **argv, struct err *e)
{
    int n = 0;
    c->priority = 50;
    for (int i = 0; i < *argc; i++) {
        const struct opt *o = strncmp(argv[i], "--", 2) == 0 ? opt_find(rows, argv[i] + 2) : NULL;
        if (id && strcmp(argv[i], "--relax-layout") == 0) {
            c->relax = true;
            continue;
        }
        bool output = id && strcmp(argv[i], "-o") == 0;
        if ((output || (o && o->type != OPT_FLAG)) && i + 1 == *argc)
            return err_set(e, E_INPUT, "%s wants a value", argv[i]);
        if (output)
            c->output = argv[++i];
        else if (o) {
            const char *from = argv[i];
            int rc = opt_set(o, c, &c->arena, from, o->type == OPT_FLAG ? "yes" : argv[++i], e);
            if (rc < 0) return rc;
        } else if (id) {
            int rc = take_number(c, argv[i], e);
            if (rc < 0) return rc;
        } else
            argv[n++] = argv[i];
    }
    *argc = n;
    return id && c->id == 0 ? err_set(e, E_INPUT, "which job? give its number, as longtake list shows it") : 0;
}

int client_code(int rc, const struct err *e)
{
    if (rc >= 0) return EXIT_DONE;
    cli_complain(e);
    return e->code == E_LOST ? EXIT_UNREACHABLE : e->code == E_FATAL ? EXIT_JOB_FAILED : EXIT_USAGE;
}

void client_free(struct client **c)
{
    chan_close(&(*c)->chan);
    arena_free(&(*c)->arena);
    free(*c);
}

struct client *client_new(void)
{
    struct client *c = calloc(1, sizeof *c); // large
    BUG_IF(!c, "no memory for a client");
    return c;
}

// ---- films

bool client_is_over(const char *status)
{
    return !strcmp(status, "completed") || !strcmp(status, "failed") || !strcmp(status, "cancelled");
}

// The film beside its name until it is whole.
int client_fetch(struct client *c, struct err *e)
{
    char part[4200];
    snprintf(part, sizeof part, "%s.part", c->output);
    int rc = c->chan ? 0 : client_connect(c, e), fd = -1;
    for (uint64_t at = 0, total = 1; rc >= 0 && at < total;) {
        struct msg *m = client_message(c, MSG_FETCH);
        m->fetch_offset = at;
        rc = client_ask(c, e);
        if (rc < 0) break;
        total = c->in.answer.total;
        size_t n = c->in.n_bulk ? c->in.bulk[0].n : 0;
        if (fd < 0) fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0 || pwrite(fd, n ? c->in.bulk[0].data : "", n, (off_t)at) != (ssize_t)n)
            rc = err_set(e, E_FATAL, "cannot write %s: %s; choose another place with -o", part, strerror(errno));
        else if (n == 0 && at < total)
            rc = err_set(e, E_FATAL, "the film ends at byte %llu of %llu; fetch it again", (unsigned long long)at,
                         (unsigned long long)total);
        at += n;
    }
    if (rc >= 0 && (fsync(fd) < 0 || rename(part, c->output) < 0))
        rc = err_set(e, E_FATAL, "cannot write %s: %s; choose another place with -o", c->output, strerror(errno));
    if (fd >= 0) close(fd);
    if (rc < 0) unlink(part);
    return rc;
}

const struct opt *client_table(void) { return rows; }
