// longtake-worker plan: predicting every layout before anything is rendered.
//
//   longtake-worker plan --model FOLDER                          this machine, measured
//   mpirun -n 4 longtake-worker plan --model FOLDER              four ranks of it, measured together
//   longtake-worker plan --like 14b --device h100 --gpus 8       devices that are not at hand, by stated figures
//
// The sizes come from the folder's shapes or from a published name; what a job wants, from the model's defaults and the
// flags that `render` has. Figures of a device can be put right one by one; what is put right is said in the report.
#include "worker/plan_main.h"

#include "proto/base/log.h"
#include "proto/base/opt.h"
#include "worker/guide.h"
#include "worker/plan/choice.h"
#include "worker/plan/print.h"
#include "worker/plan/rates.h"
#include "worker/plan/sizes.h"
#include "worker/ranks.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2, EXIT_NOT_IN_ORDER = 3, ROWS = 512, GPUS_MAX = 4096 };
enum { LIKE_NONE, LIKE_TINY, LIKE_14B };

struct flags {
    const char *model, *size, *device, *layout;
    int like, layers, dtype, speakers, frame_num, motion_frame, steps, gpus, node, threads;
    double text_scale, audio_scale;
    double linear, attention, wire, between, memory; // in T, T, G, G and GB
    bool json, help;
};

static const char *const likes[] = {"none", "tiny", "14b", NULL}, *const dtypes[] = {"auto", "f32", "bf16", NULL};

#define AT(field) offsetof(struct flags, field)
static const struct opt rows[] = {
    {"model", OPT_TEXT, AT(model), .value = "FOLDER", .help = "the model folder"},
    {"like", OPT_NAME, AT(like), .names = likes, .value = "WORD", .help = "tiny or 14b: the sizes of that model"},
    {"layers", OPT_INT, AT(layers), 1, 1000, .value = "N", .help = "with --like: blocks of the transformer"},
    {"dtype", OPT_NAME, AT(dtype), .names = dtypes, .value = "TYPE", .help = "f32 or bf16 [f32; stated devices: bf16]"},
    {"speakers", OPT_INT, AT(speakers), 1, SPEC_SPEAKERS, .value = "N", .help = "[1]"},
    {"size", OPT_TEXT, AT(size), .value = "HxW", .help = "the picture, or a size class [the model's, at 16:9]"},
    {"frame-num", OPT_INT, AT(frame_num), 5, 1001, .value = "N", .help = "frames of a segment, 4n+1"},
    {"motion-frame", OPT_INT, AT(motion_frame), 1, 1001, .value = "N", .help = "of them carried over"},
    {"sample-steps", OPT_INT, AT(steps), 1, 1000, .value = "N", .help = "steps of a segment"},
    {"steps", OPT_INT, AT(steps), 1, 1000},
    {"sample-text-guide-scale", OPT_REAL, AT(text_scale), 0, 100, .value = "X", .help = "1: no branch for words"},
    {"sample-audio-guide-scale", OPT_REAL, AT(audio_scale), 0, 100, .value = "X", .help = "1: none for the voice"},
    {"text-scale", OPT_REAL, AT(text_scale), 0, 100},
    {"audio-scale", OPT_REAL, AT(audio_scale), 0, 100},
    {"layout", OPT_TEXT, AT(layout), .value = "GxRxH", .help = "only this one: guide x ring x heads [all]"},
    {"device", OPT_TEXT, AT(device), .value = "NAME",
     .help = "cpu, cuda: measured here; h100, h200, a100, 4090: stated [cpu]"},
    {"gpus", OPT_INT, AT(gpus), 1, GPUS_MAX, .value = "N", .help = "with a stated device: how many [1]"},
    {"node", OPT_INT, AT(node), 1, GPUS_MAX, .value = "N", .help = "with a stated device: how many in a node [8]"},
    {"linear", OPT_REAL, AT(linear), 1e-6, 1e6, .value = "T", .help = "FLOP/s of products, in 10^12"},
    {"attention", OPT_REAL, AT(attention), 1e-6, 1e6, .value = "T", .help = "FLOP/s of attention, in 10^12"},
    {"wire", OPT_REAL, AT(wire), 1e-6, 1e6, .value = "G", .help = "bytes/s that a rank sends in its node, in 10^9"},
    {"between", OPT_REAL, AT(between), 1e-6, 1e6, .value = "G", .help = "bytes/s between nodes, in 10^9"},
    {"memory", OPT_REAL, AT(memory), 1e-6, 1e6, .value = "GB", .help = "that a rank may use"},
    {"threads", OPT_INT, AT(threads), 1, 4096, .value = "N", .help = "of each rank, when measured"},
    {"json", OPT_FLAG, AT(json), .help = "for machines"},
    {"help", OPT_FLAG, AT(help), .help = "this"},
    {.key = NULL},
};

static int read_flags(struct flags *f, struct arena *a, int argc, char **argv, struct err *e)
{
    for (int i = 1; i < argc; i++) {
        const char *equals = strchr(argv[i], '='), *text = equals ? equals + 1 : NULL;
        char key[64], from[80];
        if (strncmp(argv[i], "--", 2) != 0)
            return err_set(e, E_INPUT, "'%s' is no flag; see longtake plan --help", argv[i]);
        snprintf(key, sizeof key, "%.*s", equals ? (int)(equals - argv[i] - 2) : 63, argv[i] + 2);
        snprintf(from, sizeof from, "--%s", key);
        const struct opt *o = opt_find(rows, key);
        if (!o) return opt_unknown(rows, "flag", key, e);
        if (!text && o->type == OPT_FLAG) text = "yes";
        if (!text && ++i < argc) text = argv[i];
        if (!text) return err_set(e, E_INPUT, "--%s wants a value", key);
        int rc = opt_set(o, f, a, from, text, e);
        if (rc < 0) return rc;
    }
    if (f->help) return 0;
    if (!f->model && f->like == LIKE_NONE)
        return err_set(e, E_INPUT, "no model; give --model FOLDER, or --like 14b for the published sizes");
    if (f->model && f->like != LIKE_NONE)
        return err_set(e, E_INPUT, "--model and --like: one of the two says what the sizes are");
    return 0;
}

// ---- what is to be rendered

struct wish {
    struct plan_model net;
    struct plan_job job, usual; // what is asked for; what the model does by itself, in as many branches
    const char *name;
    int h, w;
    enum dtype dtype;
};

// What a model declares, or the published one's twin would.
struct defaults {
    int frame_num, motion_frame, steps, h, w;
    double text_scale, audio_scale;
};

static int size_of(struct defaults *d, const struct model *m, const char *size, struct err *e)
{
    const struct bucket_table *t = NULL;
    int end = 0, h = 0, w = 0;
    if (size && sscanf(size, "%4dx%4d%n", &h, &w, &end) == 2 && !size[end]) {
        if (h < 16 || w < 16 || h % 16 || w % 16)
            return err_set(e, E_INPUT, "--size %s: height and width are multiples of 16", size);
        d->h = h, d->w = w;
        return 0;
    }
    if (!m && size) return err_set(e, E_INPUT, "--size %s: give height x width, as in 448x896", size);
    if (!m || (!size && d->h)) return 0;
    int rc = model_size(m, size ? size : m->size[0].name, &t, e);
    if (rc < 0) return rc;
    const struct bucket *b = model_bucket(t, 9, 16);
    d->h = b->h, d->w = b->w;
    return 0;
}

static int job_of(struct plan_job *y, const struct flags *f, const struct defaults *d, struct err *e)
{
    struct spec_render *s = calloc(1, sizeof *s); // large
    struct guide g;
    BUG_IF(!s, "no memory for a job");
    int frames = f->frame_num ? f->frame_num : d->frame_num,
        motion = f->motion_frame ? f->motion_frame : d->motion_frame;
    s->text_scale = f->text_scale >= 0 ? f->text_scale : d->text_scale;
    s->audio_scale = f->audio_scale >= 0 ? f->audio_scale : d->audio_scale;
    guide_plan(&g, s);
    *y = (struct plan_job){.frames = 1 + (frames - 1) / 4,
                           .gh = d->h / 16,
                           .gw = d->w / 16,
                           .pictures = frames,
                           .motion = motion,
                           .branches = g.n,
                           .texts = guide_wants_negative(&g) ? 2 : 1,
                           .speakers = f->speakers,
                           .steps = f->steps ? f->steps : d->steps,
                           .silence = guide_wants_silence(&g)};
    free(s);
    if (frames % 4 != 1) return err_set(e, E_INPUT, "--frame-num %d: a segment has 4n+1 frames", frames);
    if (motion >= frames)
        return err_set(e, E_INPUT, "--motion-frame %d: a segment of %d frames carries over fewer", motion, frames);
    return 0;
}

static int wish_of(struct wish *y, const struct flags *f, struct err *e)
{
    static const struct defaults by_name[] = {
        [LIKE_TINY] = {81, 9, 2, 48, 64, 1, 1}, [LIKE_14B] = {81, 9, 40, 448, 896, 5, 4}};
    struct model *m = calloc(1, sizeof *m); // large
    struct defaults d = by_name[f->like];
    int size = dtype_size(y->dtype), rc = 0;
    BUG_IF(!m, "no memory for a model's declaration");
    if (f->model) {
        rc = model_open(m, f->model, e);
        if (rc == 0) rc = sizes_of_folder(&y->net, m, f->speakers, size, e);
        d = (struct defaults){m->frame_num, m->motion_frame, m->steps, 0, 0, m->text_scale, m->audio_scale};
    } else {
        struct synth_sizes s = f->like == LIKE_14B ? synth_published : synth_tiny;
        if (f->layers) s.layers = f->layers;
        sizes_of_list(&y->net, &s, size);
    }
    y->name = f->model ? f->model : likes[f->like];
    struct flags silent = {.speakers = f->speakers, .text_scale = -1, .audio_scale = -1};
    if (rc == 0) rc = size_of(&d, f->model ? m : NULL, NULL, e);
    if (rc == 0) rc = job_of(&y->usual, &silent, &d, e);
    if (rc == 0) rc = size_of(&d, f->model ? m : NULL, f->size, e);
    if (rc == 0) rc = job_of(&y->job, f, &d, e);
    y->h = d.h, y->w = d.w;
    free(m);
    return rc;
}

// ---- rates

static bool is_measured(const struct flags *f)
{
    return strcmp(f->device, "cpu") == 0 || strncmp(f->device, "cuda", 4) == 0;
}

static int measure(struct plan_rates *y, const struct flags *f, const struct wish *w, struct ranks *r, struct err *e)
{
    struct dev *d = NULL;
    int threads = ranks_tie(r, f->threads);
    int rc = ranks_agree(r, dev_open(&d, f->device, threads, e), e);
    if (rc == 0) rc = ranks_use(r, d, e);
    struct comm *world = ranks_card(r) ? ranks_card(r) : ranks_comm(r);
    if (rc == 0) rc = rates_probe(y, d, world, &w->net, w->job.frames * w->job.gh * w->job.gw / ranks_count(r), e);
    dev_close(&d);
    return rc;
}

// What the user knows better.
static void put_right(struct plan_rates *r, const struct flags *f)
{
    if (f->linear > 0) r->linear = f->linear * 1e12;
    if (f->attention > 0) r->attention = f->attention * 1e12;
    if (f->wire > 0) r->near = f->wire * 1e9;
    if (f->between > 0) r->far = f->between * 1e9;
    if (f->memory > 0) r->memory = (int64_t)(f->memory * 1e9);
    if (f->node > 0) r->node = f->node;
}

// ---- the plan

static bool is_wished(int wish, int is) { return wish == 0 || wish == is; }

// Keeps the rows of the layout asked for; of none, says why there is none.
static int keep_layout(struct plan_row *all, int *count, struct mesh_shape wish, int n, struct mesh_for shared,
                       struct err *e)
{
    int kept = 0;
    for (int i = 0; i < *count; i++) {
        struct mesh_shape s = all[i].shape;
        if (is_wished(wish.guide, s.guide) && is_wished(wish.ring, s.ring) && is_wished(wish.heads, s.heads))
            all[kept++] = all[i];
    }
    *count = kept;
    if (kept > 0) return 0;
    int rc = mesh_plan(&wish, n, wish, shared, e);
    return rc < 0 ? rc : err_set(e, E_INPUT, "no layout of %d ranks is legal", n);
}

// What a group takes of itself for a job of so many branches. Guide 0: nothing.
static struct mesh_shape automatic(const struct wish *y, int n, const struct plan_rates *r)
{
    struct choice_for f = {.n = n, .net = y->net, .job = y->usual};
    struct choice c;
    struct err ignored;
    int b = y->job.branches;
    bool known = b <= CHOICE_BRANCHES && choice_make(&c, &f, r, &ignored) == 0;
    return known ? c.of[b - 1] : (struct mesh_shape){0};
}

static int plan(const struct flags *f, struct ranks *r, struct err *e)
{
    const struct rates_device *stated = NULL;
    struct wish y = {0};
    struct mesh_shape wish = {0};
    struct plan_report report = {0};
    struct plan_row *all = calloc(ROWS, sizeof *all);
    BUG_IF(!all, "no memory for layouts");
    int rc = is_measured(f) ? 0 : rates_stated(&stated, f->device, e), count = 0;
    y.dtype = f->dtype == 2 || (f->dtype == 0 && stated) ? DT_BF16 : DT_F32;
    if (rc == 0 && f->layout) rc = ranks_read_layout(&wish, f->layout, e);
    if (rc == 0) rc = wish_of(&y, f, e);
    rc = ranks_agree(r, rc, e);
    int n = stated ? (f->gpus ? f->gpus : 1) : ranks_count(r);
    if (rc == 0 && stated)
        report.rates = stated->rates;
    else if (rc == 0)
        rc = measure(&report.rates, f, &y, r, e);
    put_right(&report.rates, f);
    if (rc == 0 && ranks_number(r) == 0) {
        count = plan_list(all, ROWS, n, &y.net, &y.job, &report.rates);
        struct mesh_for shared = {.n_heads = (int)y.net.heads, .n_branches = y.job.branches};
        rc = keep_layout(all, &count, wish, n, shared, e);
        report.model = y.name, report.dtype = dtype_table[y.dtype].name;
        report.from = stated ? stated->from : "measured";
        report.height = y.h, report.width = y.w, report.n = n;
        report.net = y.net, report.job = y.job, report.rows = all, report.n_rows = count;
        if (!f->layout) report.automatic = automatic(&y, n, &report.rates);
        report.has_fewer = plan_fewer(&report.fewer, n, &y.net, &y.job, &report.rates);
        if (rc == 0) (f->json ? plan_print_json : plan_print)(&report, stdout);
        if (rc == 0) rc = plan_check(all, count, &report.rates, e);
    }
    free(all);
    return ranks_agree(r, rc, e);
}

int plan_main(int argc, char **argv)
{
    struct flags f = {.speakers = 1, .device = "cpu", .text_scale = -1, .audio_scale = -1};
    struct arena a = {0};
    struct err e = {0};
    struct ranks *r = NULL;
    log_init(LOG_WARN, "longtake-worker", 0);
    int rc = ranks_open(&r, &e), status = EXIT_FAILURE;
    bool first = rc == 0 && ranks_number(r) == 0;
    if (rc == 0) rc = read_flags(&f, &a, argc, argv, &e);
    if (rc < 0)
        status = r ? EXIT_USAGE : EXIT_FAILURE;
    else if (f.help) {
        if (first) printf("longtake plan --model FOLDER | --like 14b --device h100 --gpus 8 [flags]: every layout\n");
        if (first) opt_help(rows, stdout);
        status = EXIT_SUCCESS;
    } else {
        rc = plan(&f, r, &e);
        status = rc == 0 ? EXIT_SUCCESS : rc == E_INPUT ? EXIT_NOT_IN_ORDER : EXIT_FAILURE;
    }
    if (rc < 0 && (first || !r)) fprintf(stderr, "longtake plan: %s\n", e.text);
    ranks_close(&r);
    arena_free(&a);
    return status;
}
