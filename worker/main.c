// longtake-worker: one rank of a group.
//
//   longtake-worker --connect ENDPOINT --model FOLDER [flags]     serves a coordinator that has started it
//                                                                 or that lets it in
//   longtake-worker weights synth|inspect ...                     weights as files
//   longtake-worker plan ...                                      which layout would be the fastest
//   longtake-worker --selftest [--device NAME]                    every op against the reference, on this machine
//
// It says HELLO before the weights are loaded, so that the coordinator sees it alive; what then goes wrong with the
// weights is told as FAILED (segment -1, job 0) and ends the program. It dies with its parent.
#include "proto/base/log.h"
#include "proto/base/opt.h"
#include "proto/mark.h"
#include "worker/fault.h"
#include "worker/plan_main.h"
#include "worker/selftest.h"
#include "worker/serve.h"
#include "worker/weights_main.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { LORAS_MAX = SPEC_LORAS, EXIT_INPUT = 3, EXIT_AGAIN = 75 };

struct flags {
    struct chan_call call;
    int wait;
    const char *model, *dit, *adapter, *voice, *cache, *table, *device;
    int speakers, dtype, threads, parity, parent;
    const char *lora[LORAS_MAX];
    double lora_scale[LORAS_MAX];
    int n_lora;
    bool help, version, selftest;
};

static int add_lora(void *base, struct arena *a, const struct opt *o, const char *from, const char *text, struct err *e)
{
    (void)o;
    struct flags *f = base;
    if (f->n_lora == LORAS_MAX) return err_set(e, E_INPUT, "%s: at most %d LoRA files are merged", from, LORAS_MAX);
    f->lora_scale[f->n_lora] = 1;
    f->lora[f->n_lora++] = arena_strdup(a, text);
    return 0;
}

static int scale_lora(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                      struct err *e)
{
    struct flags *f = base;
    struct opt number = *o;
    number.type = OPT_REAL;
    number.offset = 0;
    if (f->n_lora == 0) return err_set(e, E_INPUT, "%s: it belongs to the --lora before it, and there is none", from);
    return opt_set(&number, &f->lora_scale[f->n_lora - 1], a, from, text, e);
}

static const char *const dtypes[] = {"f32", "bf16", NULL}, *const parities[] = {"none", "published", NULL};

#define AT(field) offsetof(struct flags, field)
static const struct opt rows[] = {
    {"connect", OPT_TEXT, AT(call.endpoint), .value = "ENDPOINT",
     .help = "the coordinator: ipc:///PATH or tcp://HOST:PORT"},
    {"key-file", OPT_TEXT, AT(call.key_file), .value = "FILE",
     .help = "this worker's key, from longtake keygen, for tcp://"},
    {"server-key", OPT_TEXT, AT(call.server_key), .value = "FILE", .help = "the coordinator's .pub file"},
    {"plain-tcp", OPT_FLAG, AT(call.plain_tcp), .help = "connect without keys: all can be read on the way"},
    {"wait", OPT_INT, AT(wait), 1, 1e6, .value = "SECONDS", .help = "for a coordinator that is away [for ever]"},
    {"model", OPT_TEXT, AT(model), .value = "FOLDER", .help = "the model folder"},
    {"dit", OPT_TEXT, AT(dit), .value = "PATH", .help = "the diffusion transformer, elsewhere than in the folder"},
    {"adapter", OPT_TEXT, AT(adapter), .value = "PATH", .help = "the audio weights, likewise"},
    {"voice", OPT_TEXT, AT(voice), .value = "FOLDER", .help = "the wav2vec2 folder, likewise"},
    {"speakers", OPT_INT, AT(speakers), 1, SPEC_SPEAKERS, .value = "N", .help = "chooses the adapter"},
    {"dtype", OPT_NAME, AT(dtype), .names = dtypes, .value = "TYPE", .help = "f32 or bf16"},
    {"lora", OPT_CALL, .set = add_lora, .value = "FILE", .help = "merge a LoRA; may be repeated"},
    {"lora-scale", OPT_CALL, .min = -100, .max = 100, .set = scale_lora, .value = "X",
     .help = "of the --lora before it [1]"},
    {"threads", OPT_INT, AT(threads), 1, 4096, .value = "N", .help = "[all that the process may use]"},
    {"parity", OPT_NAME, AT(parity), .names = parities, .value = "WITH", .help = "published: with its quirks"},
    {"cache", OPT_TEXT, AT(cache), .value = "FOLDER",
     .help = "where voices and their features lie [$TMPDIR, /var/tmp]"},
    {"device", OPT_TEXT, AT(device), .value = "NAME",
     .help = "cpu, cuda (the card of the launcher's local rank) or cuda:N [cpu]"},
    {"table", OPT_TEXT, AT(table), .value = "NAME",
     .help = "ops on the cpu: cpu (fast), ref (plain), check (both, compared)"},
    {"parent", OPT_INT, AT(parent), 1, 1 << 30, .value = "PID", .help = NULL},
    {"selftest", OPT_FLAG, AT(selftest), .help = "try every op of the device against the reference"},
    {"help", OPT_FLAG, AT(help), .help = "this text"},
    {"version", OPT_FLAG, AT(version), .help = "name and version"},
    {.key = NULL},
};

static int read_flags(struct flags *f, struct arena *a, int argc, char **argv, struct err *e)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0)
            return err_set(e, E_INPUT, "'%s' is no flag; see longtake-worker --help", argv[i]);
        char key[64];
        const char *equals = strchr(argv[i], '='), *text = equals ? equals + 1 : NULL;
        snprintf(key, sizeof key, "%.*s", equals ? (int)(equals - argv[i] - 2) : 63, argv[i] + 2);
        const struct opt *o = opt_find(rows, key);
        if (!o) return opt_unknown(rows, "flag", key, e);
        if (!text && o->type == OPT_FLAG) text = "yes";
        if (!text && ++i < argc) text = argv[i];
        if (!text) return err_set(e, E_INPUT, "--%s wants a value", key);
        char from[80];
        snprintf(from, sizeof from, "--%s", key);
        int rc = opt_set(o, f, a, from, text, e);
        if (rc < 0) return rc;
    }
    if (f->help || f->version) return 0;
    if (strcmp(f->device, "cpu") != 0 && strncmp(f->device, "cuda", 4) != 0)
        return err_set(e, E_INPUT, "--device: there is no '%s'; there are cpu, cuda and cuda:N", f->device);
    if (strcmp(f->device, "cpu") != 0 && f->table)
        return err_set(e, E_INPUT, "--table %s: tables are chosen on the cpu; --device %s has its own", f->table,
                       f->device);
    if (f->selftest) return 0;
    if (!f->call.endpoint) return err_set(e, E_INPUT, "no coordinator; give --connect ENDPOINT");
    if (!f->model) return err_set(e, E_INPUT, "no model; give --model FOLDER");
    if (access(f->cache, W_OK | X_OK) < 0)
        return err_set(e, E_INPUT, "--cache: cannot write into the folder %s", f->cache);
    return 0;
}

// Nothing of worth is under way: a group that is refused has no job, one that was given up has lost it.
static void on_refused(const struct err *why)
{
    fprintf(stderr, "longtake-worker: %s\n", why->text);
    _exit(why->code == E_INPUT ? EXIT_INPUT : EXIT_AGAIN);
}

static void hello_mark(struct msg_hello *h, const struct set_options *o)
{
    struct model m;
    if (gethostname(h->host, sizeof h->host - 1) < 0) h->host[0] = 0;
    if (model_open(&m, o->model, NULL) < 0) return; // set_open will say why
    mark_weights(h->model, &m);
    mark_set(h->set, &m,
             &(struct mark_set){.dit = o->dit,
                                .adapter = o->adapter,
                                .voice = o->voice,
                                .n_speakers = o->n_speakers,
                                .bf16 = o->dtype == DT_BF16,
                                .published = o->published,
                                .lora = o->lora,
                                .lora_scale = o->lora_scale,
                                .n_lora = o->n_lora});
}

static void tell_failed(struct link *l, const struct err *why)
{
    struct msg m = {.kind = MSG_FAILED, .failed = {.segment = -1, .code = why->code}};
    snprintf(m.failed.text, sizeof m.failed.text, "%s", why->text);
    link_send(l, &m, NULL);
}

static int serve(const struct flags *f, struct dev *d, struct err *e)
{
    struct msg_hello hello = {.ranks = 1, .pid = (uint64_t)getpid()};
    snprintf(hello.version, sizeof hello.version, "%s", LONGTAKE_VERSION);
    snprintf(hello.device, sizeof hello.device, "%s", dev_name(d));
    snprintf(hello.layout, sizeof hello.layout, "%s, %u ranks", dev_name(d), hello.ranks);
    struct link *l = NULL;
    struct set *s = NULL;
    struct set_options o = {.model = f->model,
                            .dit = f->dit,
                            .adapter = f->adapter,
                            .voice = f->voice,
                            .n_speakers = f->speakers,
                            .dtype = f->dtype ? DT_BF16 : DT_F32,
                            .lora = f->lora,
                            .lora_scale = f->lora_scale,
                            .n_lora = f->n_lora,
                            .published = f->parity == SPEC_PARITY_PUBLISHED};
    hello_mark(&hello, &o);
    int rc = link_open(&l,
                       &(struct link_options){.call = f->call,
                                              .hello = &hello,
                                              .cache_dir = f->cache,
                                              .wait_ms = (int64_t)f->wait * 1000,
                                              .refused = on_refused},
                       e);
    if (rc < 0) return rc;
    rc = set_open(&s, d, &o, e);
    if (rc < 0)
        tell_failed(l, e);
    else
        rc = serve_run(l, s, f->cache, e);
    set_free(&s);
    link_close(&l, rc < 0 ? e->text : "the coordinator said goodbye");
    return rc;
}

// The OpenMP runtime lets idle threads spin for long before they sleep. That is right on a machine of one's own and
// ruinous beside an encoder or another rank on the same cores (a tenth of the speed was measured). It reads its
// environment before main, so the program starts itself once more with a short spin, unless the user has decided.
static void spin_briefly(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    setenv("GOMP_SPINCOUNT", "1000", 1);
    execv("/proc/self/exe", argv); // without it the program is only slower
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    if (argc > 1 && strcmp(argv[1], "weights") == 0) return weights_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "plan") == 0) return plan_main(argc - 1, argv + 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is a sentence
    fault_watch();
    log_init(LOG_INFO, "longtake-worker", 0);
    struct err e = {0};
    struct arena a = {0};
    const char *tmp = getenv("TMPDIR");
    struct flags f = {.speakers = 1, .device = "cpu", .cache = tmp && tmp[0] ? tmp : "/var/tmp"};
    struct dev *d = NULL;
    int rc = read_flags(&f, &a, argc, argv, &e);
    if (rc == 0 && (f.help || f.version)) {
        printf("longtake-worker %s\n", LONGTAKE_VERSION);
        if (f.help) {
            printf("usage: longtake-worker --connect ENDPOINT --model FOLDER [flags]\n"
                   "       longtake-worker --selftest [--device NAME]\n"
                   "       longtake-worker weights synth|inspect ...\n");
            opt_help(rows, stdout);
        }
    } else if (rc == 0 && f.parent && getppid() != f.parent) {
        // it died before its death could be asked for
        rc = err_set(&e, E_FATAL, "the process that started this worker, %d, has ended", f.parent);
    } else if (rc == 0) {
        rc = dev_open(&d, f.table ? f.table : f.device, f.threads, &e);
        if (rc == 0) rc = f.selftest ? selftest_run(d, stdout, &e) : serve(&f, d, &e);
        dev_close(&d);
    }
    if (rc < 0) fprintf(stderr, "longtake-worker: %s\n", e.text);
    arena_free(&a);
    return rc == 0 ? EXIT_SUCCESS : rc == E_INPUT ? EXIT_INPUT : EXIT_FAILURE;
}
