// Writing a model folder.
//
// The plan is a table of files: tensors for the large ones, a function for the documents. Sizes are known before the
// first byte, so a disk that is too small is refused at once.
//
// Signals to stop are blocked while the folder grows and looked for between pieces (sigpending), so no handler and no
// flag is needed, and the partial folder can be removed in peace. Left pending, the signal is taken when the mask is
// restored; so it is consumed first and reported as an interruption.
#include "worker/synth/synth.h"

#include "proto/base/log.h"
#include "worker/synth/docs.h"
#include "worker/synth/folder.h"
#include "worker/weights/write_safetensors.h"
#include "worker/weights/write_torchpt.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { PIECE = 1 << 18, SHARDS = 7, PATH_BYTES = 4096 };

static const char stem[] = "diffusion_pytorch_model";

const struct synth_sizes synth_tiny = {
    .dim = 128,
    .ffn = 256,
    .freq = 64,
    .text_len = 64,
    .text_dim = 64,
    .clip_dim = 32,
    .clip_tokens = 257,
    .heads = 4,
    .layers = 2,
    .audio_inner = 32,
    .audio_dim = 32,
    .audio_tokens = 8,
    .vocabulary = 512,
    .text_inner = 64,
    .text_ffn = 128,
    .text_buckets = 32,
    .text_layers = 2,
    .text_heads = 4,
    .clip_ffn = 64,
    .clip_out = 16,
    .clip_image = 224,
    .clip_layers = 3,
    .clip_heads = 2,
    .vae_dim = 4,
    .vae_z = 16,
    .voice_conv = 32,
    .voice_dim = 32,
    .voice_ffn = 64,
    .voice_kernel = 128,
    .voice_groups = 16,
    .voice_code = 16,
    .voice_codes = 40,
    .voice_layers = 2,
    .voice_heads = 4,
};
const struct synth_sizes synth_published = {
    .dim = 5120,
    .ffn = 13824,
    .freq = 256,
    .text_len = 512,
    .text_dim = 4096,
    .clip_dim = 1280,
    .clip_tokens = 257,
    .heads = 40,
    .layers = 40,
    .audio_inner = 512,
    .audio_dim = 768,
    .audio_tokens = 32,
    .vocabulary = 256384,
    .text_inner = 4096,
    .text_ffn = 10240,
    .text_buckets = 32,
    .text_layers = 24,
    .text_heads = 64,
    .clip_ffn = 5120,
    .clip_out = 1024,
    .clip_image = 224,
    .clip_layers = 32,
    .clip_heads = 16,
    .vae_dim = 96,
    .vae_z = 16,
    .voice_conv = 512,
    .voice_dim = 768,
    .voice_ffn = 3072,
    .voice_kernel = 128,
    .voice_groups = 16,
    .voice_code = 256,
    .voice_codes = 640,
    .voice_layers = 12,
    .voice_heads = 12,
};

// ---- the plan

enum form { SHARDED, SAFETENSORS, CHECKPOINT, ORDERED };

struct part {
    const char *path; // below the folder; SHARDED: of the index
    const char *root; // inside of a checkpoint
    void (*list)(struct synth_list *l, const struct synth_sizes *s);
    enum form form;
    enum dtype dtype; // DT_NONE: the one asked for
};
static const struct part parts[] = {
    {"diffusion_pytorch_model.safetensors.index.json", NULL, list_dit, SHARDED, DT_NONE},
    {"InfiniteTalk/single/infinitetalk.safetensors", NULL, list_adapter, SAFETENSORS, DT_NONE},
    {"InfiniteTalk/multi/infinitetalk.safetensors", NULL, list_adapter, SAFETENSORS, DT_NONE},
    {"models_t5_umt5-xxl-enc-bf16.pth", "umt5-xxl-enc-bf16", list_text, CHECKPOINT, DT_BF16},
    {"models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", "clip", list_clip, ORDERED, DT_F32},
    {"Wan2.1_VAE.pth", "wanx_vae", list_vae, ORDERED, DT_F32},
    {"chinese-wav2vec2-base/pytorch_model.bin", "pytorch_model", list_voice, ORDERED, DT_F32},
};
enum { N_PARTS = sizeof parts / sizeof *parts };

static const struct {
    const char *path;
    int (*write)(const char *path, const struct synth_sizes *s, struct err *e);
} docs[] = {
    {"config.json", docs_config},
    {"google/umt5-xxl/tokenizer.json", docs_tokenizer},
    {"chinese-wav2vec2-base/config.json", docs_voice},
    {"chinese-wav2vec2-base/preprocessor_config.json", docs_extractor},
    {"model.yaml", docs_model},
};
enum { N_DOCS = sizeof docs / sizeof *docs };

static const char *const folders[] = {"InfiniteTalk", "InfiniteTalk/single", "InfiniteTalk/multi",
                                      "google",       "google/umt5-xxl",     "chinese-wav2vec2-base"};

struct synth {
    const struct synth_options *o;
    struct synth_sizes size;
    struct synth_list list[N_PARTS];
    struct folder folder;
    sigset_t stop;
    struct synth_report *report;
    void *piece; // PIECE values of up to 4 bytes
};

static void at(char *buf, size_t n, const struct synth *s, const char *path)
{
    snprintf(buf, n, "%s/%s", s->folder.partial, path);
}

static void plan(struct synth *s)
{
    s->size = s->o->published ? synth_published : synth_tiny;
    if (s->o->layers > 0) s->size.layers = s->o->layers;
    for (int i = 0; i < N_PARTS; i++) {
        enum dtype asked = s->o->dtype == DT_NONE ? DT_F32 : s->o->dtype;
        s->list[i] = (struct synth_list){.label = parts[i].path,
                                         .seed = (uint64_t)s->o->seed,
                                         .dtype = parts[i].dtype == DT_NONE ? asked : parts[i].dtype};
        parts[i].list(&s->list[i], &s->size);
        s->report->n_tensors += s->list[i].n;
        s->report->n_values += list_values(&s->list[i]);
        s->report->n_bytes += list_bytes(&s->list[i]);
    }
}

// ---- values

typedef int put_fn(void *to, const void *bytes, size_t n, struct err *e);
static int put_safetensors(void *to, const void *p, size_t n, struct err *e) { return safetensors_put(to, p, n, e); }
static int put_checkpoint(void *to, const void *p, size_t n, struct err *e) { return torchpt_put(to, p, n, e); }

// Signals to stop, but those that are ignored (nohup): blocked, these would be pending too.
static void stop_signals(sigset_t *set)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    sigemptyset(set);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction now;
        if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN) sigaddset(set, signals[i]);
    }
}

static int check_stop(struct synth *s, struct err *e)
{
    sigset_t now;
    sigpending(&now);
    sigandset(&now, &now, &s->stop);
    if (sigisemptyset(&now)) return 0;
    sigwaitinfo(&now, NULL);
    s->report->interrupted = true;
    return err_set(e, E_INPUT, "interrupted; nothing is left at %s", s->folder.dir);
}

static int put_tensors(struct synth *s, const struct synth_list *l, int64_t from, int64_t to, put_fn *put, void *file,
                       struct err *e)
{
    int64_t size = dtype_size(l->dtype);
    for (int64_t i = from; i < to; i++) {
        int64_t n = head_bytes(&l->head[i]) / size;
        for (int64_t k = 0; k < n; k += PIECE) {
            int64_t m = n - k < PIECE ? n - k : PIECE;
            list_fill(l, i, k, m, s->piece);
            int rc = check_stop(s, e);
            if (rc == 0) rc = put(file, s->piece, (size_t)(m * size), e);
            if (rc < 0) return rc;
        }
    }
    return 0;
}

static int write_safetensors(struct synth *s, const char *path, const struct synth_list *l, int64_t from, int64_t to,
                             struct err *e)
{
    static const char *const meta[] = {"format", "pt", NULL};
    struct safetensors_out *f = NULL;
    int rc = safetensors_create(&f, path, l->head + from, to - from, meta, e);
    if (rc == 0) rc = put_tensors(s, l, from, to, put_safetensors, f, e);
    if (rc == 0) rc = safetensors_close(&f, e);
    safetensors_free(&f);
    s->report->n_files++;
    return rc;
}

static int write_checkpoint(struct synth *s, const char *path, const struct part *p, const struct synth_list *l,
                            struct err *e)
{
    struct torchpt_out *f = NULL;
    int rc = torchpt_create(&f, path, p->root, p->form == ORDERED, l->head, l->n, e);
    if (rc == 0) rc = put_tensors(s, l, 0, l->n, put_checkpoint, f, e);
    if (rc == 0) rc = torchpt_close(&f, e);
    torchpt_free(&f);
    s->report->n_files++;
    return rc;
}

// As many of the published seven shards as no huge tensor leaves empty.
static int assign_shards(int *shard, const struct synth_list *l)
{
    for (int n = SHARDS; n > 1; n--) {
        int filled = 1;
        shards_assign(shard, l->head, l->n, n);
        for (int64_t i = 1; i < l->n; i++) filled += shard[i] != shard[i - 1];
        if (filled == n) return n;
    }
    shards_assign(shard, l->head, l->n, 1);
    return 1;
}

static int write_shards(struct synth *s, const char *index, const struct synth_list *l, struct err *e)
{
    int *shard = calloc((size_t)l->n, sizeof *shard), rc = 0;
    BUG_IF(!shard, "no memory for the shards of %lld tensors", (long long)l->n);
    int n = assign_shards(shard, l);
    int64_t from = 0;
    for (int i = 0; i < n && rc == 0; i++) {
        char name[256], path[PATH_BYTES];
        int64_t to = from;
        while (to < l->n && shard[to] == i) to++;
        shard_file_name(name, sizeof name, stem, i, n);
        at(path, sizeof path, s, name);
        rc = write_safetensors(s, path, l, from, to, e);
        from = to;
    }
    if (rc == 0) rc = shards_write_index(index, stem, l->head, shard, l->n, n, e);
    s->report->n_files++;
    free(shard);
    return rc;
}

static int write_part(struct synth *s, int i, struct err *e)
{
    char path[PATH_BYTES];
    const struct part *p = &parts[i];
    const struct synth_list *l = &s->list[i];
    at(path, sizeof path, s, p->path);
    log_debug("synth.part", "file=%s tensors=%lld bytes=%lld", p->path, (long long)l->n, (long long)list_bytes(l));
    switch (p->form) {
    case SHARDED:
        return write_shards(s, path, l, e);
    case SAFETENSORS:
        return write_safetensors(s, path, l, 0, l->n, e);
    default:
        return write_checkpoint(s, path, p, l, e);
    }
}

// ---- all of it

static int make_folders(const struct synth *s, struct err *e)
{
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        at(path, sizeof path, s, folders[i]);
        if (mkdir(path, 0777) < 0)
            return err_set(e, E_INPUT, "cannot make the folder %s: %s; choose another place with -o", path,
                           strerror(errno));
    }
    return 0;
}

static int check_space(const struct synth *s, struct err *e)
{
    struct statvfs v;
    if (statvfs(s->folder.partial, &v) < 0) return 0; // writing will tell
    double want = (double)s->report->n_bytes + 1e6, have = (double)v.f_bavail * (double)v.f_frsize;
    if (want <= have) return 0;
    return err_set(e, E_INPUT,
                   "the model takes %.1f MB and %s has room for %.1f MB; name a folder on another disk, or write less "
                   "with --layers N or --dtype bf16",
                   want / 1e6, s->folder.dir, have / 1e6);
}

static int write_all(struct synth *s, struct err *e)
{
    int rc = check_space(s, e);
    if (rc == 0) rc = make_folders(s, e);
    for (int i = 0; i < N_PARTS && rc == 0; i++) rc = write_part(s, i, e);
    for (int i = 0; i < N_DOCS && rc == 0; i++) {
        char path[PATH_BYTES];
        at(path, sizeof path, s, docs[i].path);
        rc = docs[i].write(path, &s->size, e);
        s->report->n_files++;
    }
    if (rc == 0) rc = check_stop(s, e);
    return rc < 0 ? rc : folder_finish(&s->folder, e);
}

int synth_write(const struct synth_options *o, struct synth_report *r, struct err *e)
{
    struct synth *s = calloc(1, sizeof *s);
    sigset_t before;
    BUG_IF(!s, "no memory for a plan");
    *r = (struct synth_report){0};
    s->o = o;
    s->report = r;
    s->piece = malloc((size_t)PIECE * sizeof(float));
    BUG_IF(!s->piece, "no memory for a piece of a tensor");
    stop_signals(&s->stop);
    pthread_sigmask(SIG_BLOCK, &s->stop, &before);
    plan(s);
    int rc = folder_begin(&s->folder, o->dir, e);
    if (rc == 0 && (rc = write_all(s, e)) < 0) folder_drop(&s->folder);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (int i = 0; i < N_PARTS; i++) list_free(&s->list[i]);
    free(s->piece);
    free(s);
    return rc;
}
