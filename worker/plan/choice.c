// Deciding on a layout, and keeping to it.
//
// The choice is made for the job that a model has by default, once for each number of branches that a job can have: so
// it stands before the first job comes, can be told in HELLO, and one class of bits holds whatever the jobs are. Which
// of the layouts is the best hardly hangs on a picture's size; that some other one is best for a size is for the user
// to say, who has `plan` to find out.
//
// The file is named by what the choice is for: the device, the ranks, the network, what was wished. Another network in
// the same folder has another file. The build is not in it: a new one that measures anew might strand the jobs of the
// old one.
//
// The traps. Several groups of one daemon begin at once: a file is written beside, under a name of its own, and linked
// into place, which fails where one stands, and then that one is taken. The folder may be one that others write into,
// where somebody else's file, link or pipe by that name is passed over. And a machine changes: what was kept is held
// against the memory that is there now.
//
// A file that nobody has read for a season goes when the next one is written.
#include "worker/plan/choice.h"

#include "proto/base/hash.h"
#include "proto/base/log.h"
#include "worker/plan/rates.h"
#include "worker/plan/sizes.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FILE_TEXT = 600, NAME_BYTES = 8, FRESH_TAIL = 7, SEASON_S = 90 * 24 * 3600 };
static const char stem[] = "layout-";

static struct plan_job with_branches(const struct plan_job *j, int branches)
{
    struct plan_job y = *j;
    y.branches = branches;
    y.texts = branches > 2 ? 2 : 1;
    y.silence = branches > 1;
    return y;
}

// ---- choosing

// What nobody can do without: blocks, and what stands outside of them. Encoders are read from their files.
static int check_weights(const struct plan_row *y, const struct plan_model *m, const struct plan_rates *r,
                         struct err *e)
{
    int64_t block = m->step_bytes + m->context_bytes;
    int64_t needs = m->layers * block / y->sharers + (y->sharers > 1 ? 2 * block : 0) + m->rest_bytes;
    char text[64];
    if (needs <= r->memory) return 0;
    return err_set(e, E_INPUT,
                   "the weights do not fit: a rank of %s needs %.1f GB for them alone and %.1f GB are there; take more "
                   "ranks%s, or bf16 instead of f32",
                   plan_text(y, text, sizeof text), (double)needs / 1e9, (double)r->memory / 1e9,
                   y->sharers > 1 ? "" : ", spread them (--shard node)");
}

static void advise(struct choice *c, const struct choice_for *f, const struct plan_rates *r, const struct plan_row *own)
{
    struct plan_row fewer;
    char text[64], less[64];
    if (!plan_fewer(&fewer, f->n, &f->net, &f->job, r) || !plan_is_faster(&fewer, own)) return;
    int n = fewer.shape.guide * fewer.shape.ring * fewer.shape.heads;
    snprintf(c->advice, sizeof c->advice,
             "fewer ranks would be faster: %d as %s, about %.3g s for a segment of the model's own size and steps, "
             "where these %d as %s take %.3g; start them with -n %d",
             n, plan_text(&fewer, less, sizeof less), fewer.segment, f->n, plan_text(own, text, sizeof text),
             own->segment, n);
}

int choice_make(struct choice *out, const struct choice_for *f, const struct plan_rates *r, struct err *e)
{
    int rc = 0;
    *out = (struct choice){0};
    for (int b = 1; b <= CHOICE_BRANCHES && rc == 0; b++) {
        struct plan_job j = with_branches(&f->job, b);
        struct plan_row y;
        struct err ignored; // such a job is refused when it comes
        if (plan_choose(&y, f->n, f->wish, &f->net, &j, r, &ignored) < 0) continue;
        out->of[b - 1] = y.shape;
        if (!f->streamed) rc = check_weights(&y, &f->net, r, e);
        if (rc == 0 && b == f->job.branches) advise(out, f, r, &y);
    }
    return rc;
}

int choice_fits(const struct choice *c, const struct choice_for *f, int node, int64_t memory, struct err *e)
{
    const struct plan_rates r = {.linear = 1,
                                 .attention = 1,
                                 .conv = 1,
                                 .copy = 1,
                                 .near = 1,
                                 .far = 1,
                                 .node = node,
                                 .memory = memory}; // times do not matter
    int rc = 0;
    for (int b = 1; b <= CHOICE_BRANCHES && rc == 0 && !f->streamed; b++) {
        struct plan_job j = with_branches(&f->job, b);
        if (c->of[b - 1].guide == 0) continue;
        struct plan_row y = plan_predict(&f->net, &j, &r, c->of[b - 1], f->wish.spread ? PLAN_NODE : PLAN_WHOLE);
        rc = check_weights(&y, &f->net, &r, e);
    }
    return rc;
}

// ---- keeping

const char *choice_text(const struct choice *c, char *text, size_t n)
{
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < CHOICE_BRANCHES && used < n; i++)
        used += (size_t)snprintf(text + used, n - used, "%s%dx%dx%d", i ? " " : "", c->of[i].guide, c->of[i].ring,
                                 c->of[i].heads);
    return text;
}

static bool is_legal(const struct choice_for *f, struct mesh_shape s, int branches)
{
    struct mesh_shape as;
    struct err ignored;
    if (s.guide == 0 && s.ring == 0 && s.heads == 0) return true;
    if (s.guide < 1 || s.ring < 1 || s.heads < 1) return false;
    return mesh_plan(&as, f->n, s, (struct mesh_for){(int)f->net.heads, branches}, &ignored) == 0;
}

bool choice_read(struct choice *out, const struct choice_for *f, const char *file)
{
    char text[FILE_TEXT] = "";
    struct choice c = {0};
    int end = 0;
    struct stat is;
    int in = open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (in < 0) return false;
    bool own = fstat(in, &is) == 0 && S_ISREG(is.st_mode) && is.st_uid == geteuid();
    ssize_t got = own ? read(in, text, sizeof text - 1) : -1;
    if (got > 0) futimens(in, NULL); // it is in use
    close(in);
    if (got < 0) return false;
    text[got] = 0;
    for (int i = 0, at = 0; i < CHOICE_BRANCHES; i++, at = end) {
        struct mesh_shape *s = &c.of[i];
        int n = 0;
        if (sscanf(text + at, "%4dx%4dx%4d%n", &s->guide, &s->ring, &s->heads, &n) != 3) return false;
        end = at + n;
        if (!is_legal(f, *s, i + 1)) return false;
    }
    if (text[end] != '\n') return false;
    snprintf(c.advice, sizeof c.advice, "%.*s", (int)strcspn(text + end + 1, "\n"), text + end + 1);
    *out = c;
    return true;
}

// Whether a name in the folder is of this file's making, finished or not.
static bool is_own_name(const char *name)
{
    size_t n = strlen(stem), hex = 2 * NAME_BYTES;
    if (strncmp(name, stem, n) != 0 || strspn(name + n, "0123456789abcdef") != hex) return false;
    const char *rest = name + n + hex;
    return !rest[0] || (rest[0] == '.' && strlen(rest) == FRESH_TAIL);
}

// Lets go what nobody has used for a season, of the folder of `file`.
static void sweep(const char *file)
{
    char folder[4096];
    struct stat s;
    const char *slash = strrchr(file, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - file) + 1 : 1, slash ? file : ".");
    DIR *d = opendir(folder);
    for (struct dirent *en; d && (en = readdir(d));) {
        if (!is_own_name(en->d_name) || fstatat(dirfd(d), en->d_name, &s, AT_SYMLINK_NOFOLLOW) < 0) continue;
        if (S_ISREG(s.st_mode) && s.st_uid == geteuid() && time(NULL) - s.st_mtime > SEASON_S)
            unlinkat(dirfd(d), en->d_name, 0);
    }
    if (d) closedir(d);
}

void choice_keep(struct choice *c, const struct choice_for *f, const char *file)
{
    char fresh[4200], layouts[64];
    snprintf(fresh, sizeof fresh, "%s.XXXXXX", file);
    sweep(file);
    int fd = mkstemp(fresh); // nobody else's file, link or pipe
    FILE *to = fd < 0 ? NULL : fdopen(fd, "w");
    bool written = to && fprintf(to, "%s\n%s\n", choice_text(c, layouts, sizeof layouts), c->advice) > 0;
    if (to && fclose(to) != 0) written = false;
    if (written && link(fresh, file) < 0 && !choice_read(c, f, file)) written = rename(fresh, file) == 0;
    if (!written) log_warn("layout.kept", "file=\"%s\" text=\"not written\"", file);
    if (fd >= 0) unlink(fresh);
}

// ---- deciding

static void name_of(char *name, size_t n, const struct choice_for *f, const struct dev *d, int node)
{
    const struct plan_model *m = &f->net;
    const struct plan_job *j = &f->job;
    const int64_t key[] = {f->n,
                           node,
                           f->wish.shape.guide,
                           f->wish.shape.ring,
                           f->wish.shape.heads,
                           m->dim,
                           m->ffn,
                           m->heads,
                           m->layers,
                           m->size,
                           j->frames,
                           j->gh,
                           j->gw,
                           j->pictures,
                           j->motion,
                           j->steps,
                           j->branches,
                           j->speakers,
                           f->wish.spread};
    uint8_t sum[HASH_BYTES];
    struct hash h;
    hash_init(&h);
    hash_update(&h, dev_name(d), strlen(dev_name(d)));
    hash_update(&h, key, sizeof key);
    hash_final(&h, sum);
    size_t used = (size_t)snprintf(name, n, "%s", stem);
    for (int i = 0; i < NAME_BYTES; i++) used += (size_t)snprintf(name + used, n - used, "%02x", sum[i]);
}

// What is to be chosen for, of a folder's shapes. Rank 0 alone need look.
static int look(struct choice_for *f, const struct set_options *o, struct err *e)
{
    struct model *m = calloc(1, sizeof *m); // large
    BUG_IF(!m, "no memory for a model's declaration");
    int rc = set_parts(m, o, e);
    if (rc == 0) rc = sizes_of_folder(&f->net, m, o->n_speakers, (int)dtype_size(o->dtype), e);
    if (rc == 0) rc = sizes_of_job(&f->job, m, o->n_speakers, e);
    free(m);
    return rc;
}

static bool is_open(const struct choice_for *f)
{
    for (int b = 1; b <= CHOICE_BRANCHES; b++)
        if (plan_choices(f->n, f->wish, &f->net, b) > 1) return true;
    return false;
}

int choice_decide(struct choice *out, const struct set_options *o, struct plan_wish wish, struct dev *d,
                  struct comm *world, const char *folder, struct err *e)
{
    struct comm *host = comm_host(world);
    struct choice_for f = {.n = comm_size(world), .wish = wish, .streamed = o->stream_weights};
    struct plan_rates rates;
    struct err why = {0};
    char file[4096], name[64], text[64];
    int32_t known = 0;
    *out = (struct choice){0};
    if (f.n == 1) return 0;
    int rc = comm_agree(host, look(&f, o, e), NULL, e);
    if (rc < 0 || !is_open(&f)) return rc;
    name_of(name, sizeof name, &f, d, o->here);
    snprintf(file, sizeof file, "%s/%s", folder, name);
    if (comm_rank(host) == 0) known = choice_read(out, &f, file);
    comm_bcast(host, 0, &known, sizeof known);
    if (!known) {
        rc = rates_probe(&rates, d, world, &f.net, f.job.frames * f.job.gh * f.job.gw / f.n, e);
        if (rc == 0) rc = choice_make(out, &f, &rates, e);
        if (rc < 0) return rc;
        if (comm_rank(host) == 0) choice_keep(out, &f, file);
    }
    comm_bcast(host, 0, out, sizeof *out);
    if (known && choice_fits(out, &f, o->here, rates_memory(d, world, o->here), &why) < 0)
        return err_set(e, E_BUSY, "of the layouts kept from before, %s, one cannot be taken now: %s",
                       choice_text(out, text, sizeof text), why.text);
    if (comm_rank(host) == 0)
        log_info("layout.chosen", "%s=\"%s\" advice=\"%s\"", known ? "kept" : "measured",
                 choice_text(out, text, sizeof text), out->advice);
    return comm_check(host, e);
}
