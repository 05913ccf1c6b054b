// longtake-worker: one rank of a group.
//
//   longtake-worker --connect ENDPOINT --model FOLDER [flags]     serves a coordinator that has started it
//                                                                 or that lets it in
//   mpirun --bind-to none -n N longtake-worker ...                the same, by N ranks together
//   longtake-worker weights synth|inspect ...                     weights as files
//   longtake-worker plan ...                                      which layout would be the fastest
//   longtake-worker --selftest [--device NAME]                    every op against the reference, on this machine;
//                                                                 by mpirun, their messages too
//
// It says HELLO before the weights are loaded, so that the coordinator sees it alive; what then goes wrong with the
// weights is told as FAILED (segment -1, job 0) and ends the program. It dies with its parent.
//
// Of several ranks, number 0 has the socket and speaks, on stderr too. All are given the same flags; that these, the
// programs and the weights are the same is checked before anything is loaded.
#include "proto/base/log.h"
#include "proto/base/opt.h"
#include "proto/mark.h"
#include "worker/fault.h"
#include "worker/fingerprint.h"
#include "worker/kin.h"
#include "worker/plan/choice.h"
#include "worker/plan_main.h"
#include "worker/ranks.h"
#include "worker/selftest.h"
#include "worker/selftest_ranks.h"
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
    const char *model, *dit, *adapter, *voice, *cache, *table, *device, *layout;
    int speakers, dtype, threads, parity, parent, shard, weights, guide, ring, heads;
    const char *lora[LORAS_MAX];
    double lora_scale[LORAS_MAX];
    int n_lora;
    bool help, version, selftest, no_graphs;
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

enum shard { SHARD_AUTO, SHARD_OFF, SHARD_NODE, SHARD_ALL };
static const char *const shards[] = {"auto", "off", "node", "all", NULL};
enum weights_where { WEIGHTS_AUTO, WEIGHTS_RESIDENT, WEIGHTS_STREAMED, WEIGHTS_SHARDED };
static const char *const wheres[] = {"auto", "resident", "streamed", "sharded", NULL};
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
    {"threads", OPT_INT, AT(threads), 1, 4096, .value = "N", .help = "of each rank [its part of the cores]"},
    {"layout", OPT_TEXT, AT(layout), .value = "GxRxH", .help = "how ranks share a job: guide x ring x heads [auto]"},
    {"guide", OPT_INT, AT(guide), 1, 3, .value = "N", .help = "ranks for branches of guidance [auto]"},
    {"ring", OPT_INT, AT(ring), 1, 4096, .value = "N", .help = "ranks of the ring [auto]"},
    {"heads", OPT_INT, AT(heads), 1, 4096, .value = "N", .help = "ranks that share attention heads [auto]"},
    {"shard", OPT_NAME, AT(shard), .names = shards, .value = "HOW",
     .help = "weights spread over ranks: off, node (each machine has them once), all, auto (node if they do not fit)"},
    {"weights", OPT_NAME, AT(weights), .names = wheres, .value = "WHERE",
     .help = "the transformer's blocks: resident on each device, streamed from the host's memory, sharded over ranks, "
             "auto (resident if they fit)"},
    {"parity", OPT_NAME, AT(parity), .names = parities, .value = "WITH", .help = "published: with its quirks"},
    {"cache", OPT_TEXT, AT(cache), .value = "FOLDER",
     .help = "where voices and their features lie [$TMPDIR, /var/tmp]"},
    {"device", OPT_TEXT, AT(device), .value = "NAME",
     .help = "cpu, cuda (the card of the launcher's local rank) or cuda:N [cpu]"},
    {"table", OPT_TEXT, AT(table), .value = "NAME",
     .help = "ops on the cpu: cpu (fast), ref (plain), check (both, compared)"},
    {"no-graphs", OPT_FLAG, AT(no_graphs),
     .help = "launch a card's ops one by one in every step; LONGTAKE_NO_GRAPHS=yes in the environment says the same"},
    {"parent", OPT_INT, AT(parent), 1, 1 << 30, .value = "PID", .help = NULL},
    {"selftest", OPT_FLAG, AT(selftest), .help = "try every op of the device against the reference"},
    {"help", OPT_FLAG, AT(help), .help = "this text"},
    {"version", OPT_FLAG, AT(version), .help = "name and version"},
    {.key = NULL},
};

// What nobody who starts workers passes on comes to them by the environment.
static int read_environment(struct flags *f, struct arena *a, struct err *e)
{
    const struct opt of_workers[] = {*opt_find(rows, "no-graphs"), {0}};
    return opt_environment(of_workers, f, a, e);
}

static int read_flags(struct flags *f, struct arena *a, int argc, char **argv, struct err *e)
{
    int rc = read_environment(f, a, e);
    if (rc < 0) return rc;
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
        rc = opt_set(o, f, a, from, text, e);
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

// Whoever started the ranks has the words of the one that ended, if it had any; these are for who reads this one's.
static void on_bereft(const struct err *why)
{
    log_warn("ranks.ended", "text=\"%s\"", why->text);
    _exit(EXIT_AGAIN);
}

static struct kin *watch_kin(const struct ranks *r)
{
    struct kin *k;
    int32_t *pid = calloc((size_t)ranks_count(r), sizeof *pid);
    BUG_IF(!pid, "no memory for the processes of %d ranks", ranks_count(r));
    ranks_processes(r, pid);
    kin_open(&k, pid, ranks_count(r), ranks_number(r));
    free(pid);
    return k;
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

// What the ranks must have been given alike, beside the weights.
static void hash_flags(const struct flags *f, uint8_t out[HASH_BYTES])
{
    const int numbers[] = {f->speakers, f->dtype, f->parity, f->shard, f->weights,
                           f->guide,    f->ring,  f->heads,  f->n_lora};
    const char *const texts[] = {f->table, f->layout};
    struct hash h;
    hash_init(&h);
    hash_update(&h, numbers, sizeof numbers);
    for (int i = 0; i < 2; i++) hash_update(&h, texts[i] ? texts[i] : "", texts[i] ? strlen(texts[i]) + 1 : 1);
    hash_final(&h, out);
}

static int layout_of(const struct flags *f, struct mesh_shape *s, struct err *e)
{
    *s = (struct mesh_shape){0};
    int rc = f->layout ? ranks_read_layout(s, f->layout, e) : 0;
    if (f->guide) s->guide = f->guide;
    if (f->ring) s->ring = f->ring;
    if (f->heads) s->heads = f->heads;
    return rc;
}

// Whether what a rank would keep is more than what it has.
static int weigh(bool *too_much, const struct ranks *r, const struct dev *d, const struct set_options *o, struct err *e)
{
    int64_t needs = 0, has = dev_memory_free(d) / (dev_shares_host(d) ? ranks_here(r) : 1);
    int rc = ranks_agree(r, set_weigh(&needs, o, e), e);
    if (rc < 0) return rc;
    int32_t any = needs > has / 10 * 8;
    comm_all_reduce(ranks_comm(r), &any, 1, DT_I32, COMM_MAX);
    *too_much = any;
    if (any)
        log_info("ranks.weights", "weights_mb=%lld free_mb=%lld", (long long)(needs >> 20), (long long)(has >> 20));
    return 0;
}

// Blocks that stay with the host: each crosses the bus once for all branches.
static void stream(struct set_options *o)
{
    o->stream_weights = true;
    o->together = true;
}

// What is asked of the blocks must be possible, and asked once.
static int check_place(const struct flags *f, const struct ranks *r, const struct dev *d, struct err *e)
{
    bool sharded = f->weights == WEIGHTS_SHARDED;
    if (f->weights == WEIGHTS_STREAMED && dev_shares_host(d))
        return err_set(e, E_INPUT,
                       "--weights streamed: on the cpu weights are in the host's memory anyway; leave it out, or take "
                       "--device cuda");
    if (sharded && ranks_count(r) == 1)
        return err_set(e, E_INPUT,
                       "--weights sharded: there is one rank to keep them; start more with -n, or leave it out");
    if (sharded ? f->shard == SHARD_OFF : f->weights != WEIGHTS_AUTO && f->shard > SHARD_OFF)
        return err_set(e, E_INPUT, "--weights %s and --shard %s contradict each other; give one of them",
                       wheres[f->weights], shards[f->shard]);
    return 0;
}

// Where the blocks are to be: on each rank, with the host, or spread over ranks.
static int place_weights(const struct flags *f, const struct ranks *r, const struct dev *d, struct set_options *o,
                         bool *spread, struct err *e)
{
    int how = f->shard, rc = check_place(f, r, d, e);
    bool too_much = true, alone = ranks_count(r) == 1;
    if (rc < 0) return rc;
    if (f->weights == WEIGHTS_STREAMED) stream(o);
    if (f->weights == WEIGHTS_STREAMED || f->weights == WEIGHTS_RESIDENT || how == SHARD_OFF) return 0;
    if (alone && dev_shares_host(d)) return 0;
    if (how == SHARD_AUTO && f->weights == WEIGHTS_AUTO) rc = weigh(&too_much, r, d, o, e);
    if (rc < 0 || !too_much) return rc;
    if (alone) stream(o);
    *spread = !alone;
    return 0;
}

// How the ranks are to share jobs: as they were told, the rest as they foretell it best.
static int lay_out(const struct flags *f, struct ranks *r, struct dev *d, struct set_options *o, int n_heads,
                   bool *spread, struct choice *c, struct msg_hello *hello, struct err *e)
{
    struct mesh_shape wish = {0};
    char text[64];
    size_t used = strlen(hello->layout);
    int rc = ranks_agree(r, layout_of(f, &wish, e), e);
    if (rc == 0) rc = place_weights(f, r, d, o, spread, e);
    struct comm *world = ranks_card(r) ? ranks_card(r) : ranks_comm(r);
    if (rc == 0) rc = choice_decide(c, o, (struct plan_wish){wish, *spread}, d, world, f->cache, e);
    if (rc == 0) ranks_prefer(r, c->of, CHOICE_BRANCHES);
    if (rc == 0) rc = ranks_wish(r, wish, n_heads, e);
    bool chosen = c->of[0].guide || c->of[1].guide || c->of[2].guide;
    if (!chosen) snprintf(text, sizeof text, "%dx%dx%d", wish.guide, wish.ring, wish.heads);
    if (ranks_count(r) > 1)
        snprintf(hello->layout + used, sizeof hello->layout - used, " %s, shard %s",
                 chosen ? choice_text(c, text, sizeof text) : text, shards[f->shard]);
    if (o->stream_weights) // branches go as one batch then, which may sum otherwise
        snprintf(hello->layout + strlen(hello->layout), sizeof hello->layout - strlen(hello->layout), ", streamed");
    return rc;
}

// All that can be found out before the coordinator is called: who the ranks are, and that they fit each other.
static int get_ready(const struct flags *f, struct ranks *r, struct dev *d, struct set_options *o, bool *spread,
                     struct choice *c, struct msg_hello *hello, struct err *e)
{
    struct model *m = calloc(1, sizeof *m); // large
    uint8_t flags[HASH_BYTES];
    BUG_IF(!m, "no memory for a model's declaration");
    int rc = ranks_agree(r, model_open(m, f->model, e), e);
    hash_flags(f, flags);
    fingerprint_build(hello->build);
    if (rc == 0) rc = ranks_same(r, "build of this program", hello->build, BUILD_TEXT, e);
    if (rc == 0) rc = ranks_same(r, "set of flags", flags, sizeof flags, e);
    if (rc == 0) rc = ranks_agree(r, fingerprint_weights(hello->weights, o, e), e);
    hello->has_weights = rc == 0;
    if (rc == 0) rc = ranks_same(r, "set of weights", hello->weights, sizeof hello->weights, e);
    if (rc == 0) rc = lay_out(f, r, d, o, m->dit_heads, spread, c, hello, e);
    free(m);
    return rc;
}

// The ranks that spread the weights.
static int choose_sharers(const struct flags *f, struct ranks *r, struct comm **out, struct set_options *o,
                          struct err *e)
{
    int rc = ranks_sharers(r, f->shard != SHARD_ALL, out, e);
    ranks_hold_guide(r);
    o->sharers = *out;
    o->together = true; // what is gathered serves all branches
    return rc;
}

static int load_and_serve(const struct flags *f, struct ranks *r, struct dev *d, struct link *l, struct set_options *o,
                          bool spread, const char *advice, struct err *e)
{
    struct comm *sharers = NULL;
    struct set *s = NULL;
    int rc = spread ? choose_sharers(f, r, &sharers, o, e) : 0;
    if (rc == 0) rc = set_open(&s, d, o, e);
    if (rc < 0 && l) tell_failed(l, e);
    if (rc == 0) rc = serve_run(l, r, s, f->cache, advice, e);
    set_free(&s);
    comm_close(&sharers);
    return rc;
}

static int serve(const struct flags *f, struct ranks *r, struct dev *d, struct err *e)
{
    struct msg_hello hello = {.ranks = (uint32_t)ranks_count(r), .pid = (uint64_t)getpid()};
    snprintf(hello.version, sizeof hello.version, "%s", LONGTAKE_VERSION);
    snprintf(hello.device, sizeof hello.device, "%s", dev_name(d));
    snprintf(hello.layout, sizeof hello.layout, "%s, %u ranks", dev_name(d), hello.ranks);
    struct link *l = NULL;
    struct set_options o = {.model = f->model,
                            .dit = f->dit,
                            .adapter = f->adapter,
                            .voice = f->voice,
                            .n_speakers = f->speakers,
                            .dtype = f->dtype ? DT_BF16 : DT_F32,
                            .lora = f->lora,
                            .lora_scale = f->lora_scale,
                            .n_lora = f->n_lora,
                            .published = f->parity == SPEC_PARITY_PUBLISHED,
                            .here = ranks_here(r)};
    struct err why = {0};
    struct choice choice = {0};
    bool spread = false;
    int ready = get_ready(f, r, d, &o, &spread, &choice, &hello, &why), rc = 0;
    hello_mark(&hello, &o);
    struct kin *kin = watch_kin(r);
    if (ranks_number(r) == 0)
        rc = link_open(&l,
                       &(struct link_options){.call = f->call,
                                              .hello = &hello,
                                              .cache_dir = f->cache,
                                              .wait_ms = (int64_t)f->wait * 1000,
                                              .refused = on_refused,
                                              .kin = kin,
                                              .bereft = on_bereft},
                       e);
    if (!ranks_lost(r)) rc = ranks_agree(r, rc, e);
    if (rc == 0 && ready < 0) {
        if (l) tell_failed(l, &why);
        rc = err_set(e, ready, "%s", why.text);
    } else if (rc == 0) {
        o.mesh = ranks_mesh(r);
        rc = load_and_serve(f, r, d, l, &o, spread, choice.advice, e);
    }
    link_close(&l, rc < 0 ? e->text : "the coordinator said goodbye");
    kin_close(&kin);
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

static void print_help(const struct flags *f)
{
    printf("longtake-worker %s\n", LONGTAKE_VERSION);
    if (!f->help) return;
    printf("usage: longtake-worker --connect ENDPOINT --model FOLDER [flags]\n"
           "       mpirun --bind-to none -n N longtake-worker --connect ENDPOINT --model FOLDER [flags]\n"
           "       longtake-worker --selftest [--device NAME]\n"
           "       longtake-worker weights synth|inspect ...\n");
    opt_help(rows, stdout);
}

// Each rank tries its own device, one after the other, then all their messages.
static int selftest(struct ranks *r, struct dev *d, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < ranks_count(r) && rc == 0; i++) {
        if (i == ranks_number(r)) rc = selftest_run(d, stdout, e);
        fflush(stdout);
        rc = ranks_agree(r, rc, e);
    }
    return rc == 0 && ranks_card(r) ? selftest_ranks(d, ranks_card(r), stdout, e) : rc;
}

static int run(const struct flags *f, struct ranks *r, struct err *e)
{
    struct dev *d = NULL;
    int threads = ranks_tie(r, f->threads);
    int rc = ranks_agree(r, dev_open(&d, f->table ? f->table : f->device, threads, e), e);
    if (rc == 0 && f->no_graphs) {
        log_info("device.no_graphs", "device=\"%s\" text=\"ops are launched one by one\"", dev_name(d));
        dev_set_records(d, false);
    }
    if (rc == 0) rc = ranks_use(r, d, e);
    if (rc == 0) rc = f->selftest ? selftest(r, d, e) : serve(f, r, d, e);
    dev_close(&d);
    return rc;
}

// The value of --device before flags are read, for which the ranks must know each other.
static const char *device_of(int argc, char **argv)
{
    static const char flag[] = "--device";
    const char *device = "cpu";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], flag, sizeof flag - 1) != 0) continue;
        const char *rest = argv[i] + sizeof flag - 1;
        if (*rest == '=') device = rest + 1;
        if (*rest == 0 && i + 1 < argc) device = argv[i + 1];
    }
    return device;
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    if (argc > 1 && strcmp(argv[1], "weights") == 0) return weights_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "plan") == 0) return plan_main(argc - 1, argv + 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is a sentence
    fault_watch(-1);
    log_init(LOG_INFO, "longtake-worker", 0);
    struct err e = {0};
    struct arena a = {0};
    const char *tmp = getenv("TMPDIR");
    struct flags f = {.speakers = 1, .device = "cpu", .cache = tmp && tmp[0] ? tmp : "/var/tmp"};
    struct ranks *r = NULL;
    dev_choose(device_of(argc, argv));
    int rc = ranks_open(&r, &e), rank = 0;
    if (rc == 0) {
        rank = ranks_number(r);
        if (ranks_count(r) > 1) fault_watch(rank);
        log_init(LOG_INFO, "longtake-worker", rank);
        rc = ranks_agree(r, read_flags(&f, &a, argc, argv, &e), &e);
    }
    if (rc == 0 && (f.help || f.version)) {
        if (rank == 0) print_help(&f);
    } else if (rc == 0 && f.parent && getppid() != f.parent) {
        // it died before its death could be asked for
        rc = err_set(&e, E_FATAL, "the process that started this worker, %d, has ended", f.parent);
    } else if (rc == 0)
        rc = run(&f, r, &e);
    if (rc < 0 && rank == 0) fprintf(stderr, "longtake-worker: %s\n", e.text);
    ranks_close(&r);
    arena_free(&a);
    return rc == 0 ? EXIT_SUCCESS : rc == E_INPUT ? EXIT_INPUT : EXIT_FAILURE;
}
