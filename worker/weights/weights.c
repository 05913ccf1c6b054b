// The set of named tensors: files mapped, records indexed by name.
//
// A file is told by its first bytes. Records of a later file replace those of an earlier one (adapter over base); twice
// in one file is an error. The index is a hash table, so that a hostile directory of a million names stays quick.
#include "worker/weights/weights.h"

#include "kernels/ops.h"
#include "proto/base/log.h"
#include "worker/weights/format.h"
#include "worker/weights/quant.h"
#include "worker/weights/spelling.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct record {
    const char *name;
    tensor t;
    const char *dtype_name;
    const struct weights_file *file; // NULL: weights_put
};

struct meta {
    const char *key, *value;
    struct meta *next;
};

struct weights {
    struct arena host;
    struct weights_file *files;
    struct record *record;
    int64_t n, capacity;
    int64_t *slot; // hash table of record numbers + 1; size is a power of two
    int64_t n_slots;
    struct meta *meta; // newest first
    int64_t n_replaced;
    int n_sets;
};

// ---- index

static uint64_t hash_name(const char *s)
{
    uint64_t h = 14695981039346656037u; // FNV-1a
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u;
    return h;
}

static int64_t *find_slot(const struct weights *w, const char *name)
{
    uint64_t mask = (uint64_t)w->n_slots - 1;
    for (uint64_t i = hash_name(name) & mask;; i = (i + 1) & mask)
        if (w->slot[i] == 0 || strcmp(w->record[w->slot[i] - 1].name, name) == 0) return &w->slot[i];
}

static struct record *find(const struct weights *w, const char *name)
{
    if (w->n_slots == 0) return NULL;
    int64_t *s = find_slot(w, name);
    return *s ? &w->record[*s - 1] : NULL;
}

static void grow(struct weights *w)
{
    if (w->n < w->capacity) return;
    w->capacity = w->capacity ? 2 * w->capacity : 256;
    struct record *old = w->record;
    w->record = calloc((size_t)w->capacity, sizeof *w->record);
    free(w->slot);
    w->n_slots = 4 * w->capacity;
    w->slot = calloc((size_t)w->n_slots, sizeof *w->slot);
    BUG_IF(!w->record || !w->slot, "no memory for %lld tensor names", (long long)w->capacity);
    if (old) memcpy(w->record, old, (size_t)w->n * sizeof *old);
    free(old);
    for (int64_t i = 0; i < w->n; i++) *find_slot(w, w->record[i].name) = i + 1;
}

static struct record *record_for(struct weights *w, const char *name)
{
    struct record *r = find(w, name);
    if (r) return r;
    grow(w);
    BUG_IF(!w->record || !w->slot, "no place for a name");
    int64_t *s = find_slot(w, name);
    r = &w->record[w->n++];
    *r = (struct record){.name = arena_strdup(&w->host, name)};
    *s = w->n;
    return r;
}

// ---- other names

bool weights_is_new(const struct weights *w, const char *name)
{
    const struct record *r = find(w, name);
    return r && r->file && r->file->set == w->n_sets;
}

// Enters all records anew. Of two that have come to one name, the newer set's stays.
static int enter_anew(struct weights *w, struct err *e)
{
    int64_t n = 0;
    memset(w->slot, 0, (size_t)w->n_slots * sizeof *w->slot);
    for (int64_t i = 0; i < w->n; i++) {
        struct record r = w->record[i];
        if (!r.name) continue; // dropped
        int64_t *s = find_slot(w, r.name);
        if (*s == 0) {
            w->record[n++] = r;
            *s = n;
            continue;
        }
        struct record *other = &w->record[*s - 1];
        int set = r.file ? r.file->set : 0, other_set = other->file ? other->file->set : 0;
        if (set == other_set)
            return err_set(e, E_INPUT, "%s holds '%s' in two spellings", r.file ? r.file->path : "the set", r.name);
        if (set > other_set) *other = r;
        w->n_replaced++;
    }
    w->n = n;
    return 0;
}

int weights_rename(struct weights *w, rename_fn *rename, const void *ctx, struct err *e)
{
    bool any = false;
    for (int64_t i = 0; i < w->n; i++) {
        struct record *r = &w->record[i];
        char name[4200];
        if (!r->file || r->file->set != w->n_sets || !rename(ctx, r->name, name, sizeof name)) continue;
        r->name = arena_strdup(&w->host, name);
        any = true;
    }
    return any ? enter_anew(w, e) : 0;
}

int weights_drop(struct weights *w, bool (*is)(const char *name), struct err *e)
{
    for (int64_t i = 0; i < w->n; i++) {
        struct record *r = &w->record[i];
        if (r->file && r->file->set == w->n_sets && is(r->name)) r->name = NULL;
    }
    return enter_anew(w, e);
}

bool name_is_valid(const char *s, size_t n)
{
    if (n == 0 || n > 4096) return false;
    for (size_t i = 0; i < n;) {
        uint8_t c = (uint8_t)s[i];
        int more = c < 0x80 ? 0 : c >= 0xf0 && c < 0xf5 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : -1;
        if (c == 0 || more < 0 || c >= 0xf5 || i + (size_t)more >= n) return false;
        for (int k = 1; k <= more; k++)
            if (((uint8_t)s[i + (size_t)k] & 0xc0) != 0x80) return false;
        i += (size_t)more + 1;
    }
    return true;
}

int weights_add_record(struct weights *w, struct weights_file *f, const char *name, tensor t, const char *dtype_name,
                       struct err *e)
{
    struct record *r = record_for(w, name);
    if (r->file && r->file == f) return err_set(e, E_INPUT, "%s holds '%s' twice", f->path, name);
    if (r->file) w->n_replaced++;
    int size = dtype_size(t.dtype);
    if (size > 1 && (uintptr_t)t.data % (uintptr_t)size && tensor_is_contiguous(t)) {
        void *copy = arena_alloc(&w->host, (size_t)tensor_bytes(t));
        memcpy(copy, t.data, (size_t)tensor_bytes(t));
        t.data = copy;
    }
    r->t = t;
    r->dtype_name = dtype_name;
    r->file = f;
    return 0;
}

void weights_add_meta(struct weights *w, const char *key, const char *value)
{
    struct meta *m = arena_alloc(&w->host, sizeof *m);
    *m = (struct meta){arena_strdup(&w->host, key), arena_strdup(&w->host, value), w->meta};
    w->meta = m;
}

// ---- files

static int detect(struct weights *w, struct weights_file *f, struct err *e)
{
    static const uint8_t legacy[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};
    static const char lfs[] = "version https://git-lfs";
    const uint8_t *p = f->map;
    if (f->size >= 4 && memcmp(p, "PK\3\4", 4) == 0) return torchpt_read(w, f, e);
    if (f->size >= 4 && memcmp(p, "PK\5\6", 4) == 0) return err_set(e, E_INPUT, "%s is an empty zip file", f->path);
    if (f->size >= 4 && memcmp(p, "GGUF", 4) == 0)
        return err_set(e, E_INPUT,
                       "%s is a GGUF file, which is not read here; fetch the model as safetensors or PyTorch files",
                       f->path);
    if (f->size >= 15 && p[0] == 0x80 && memcmp(p + 2, legacy, sizeof legacy) == 0)
        return err_set(e, E_INPUT,
                       "%s was saved by PyTorch before 1.6 in its old format; load and save it again with any PyTorch "
                       "since 1.6",
                       f->path);
    if (f->size >= 2 && p[0] == 0x80 && p[1] >= 2 && p[1] <= 5)
        return err_set(e, E_INPUT, "%s is a bare pickle, which is never executed; save a state dict with torch.save",
                       f->path);
    if (f->size >= sizeof lfs - 1 && memcmp(p, lfs, sizeof lfs - 1) == 0)
        return err_set(e, E_INPUT, "%s is a Git LFS pointer, not the weights; fetch them with: git lfs pull", f->path);
    if (p[0] == '<') return err_set(e, E_INPUT, "%s is a web page, not weights; download it again", f->path);
    uint64_t n = f->size >= 9 ? le_bytes(p, 8) : 0;
    if (n >= 2 && n <= 100000000 && (p[8] == '{' || p[8] == ' ' || p[8] == '\n' || p[8] == '\t' || p[8] == '\r'))
        return safetensors_read(w, f, e);
    return err_set(e, E_INPUT,
                   "%s is no weights file that is known here (safetensors, PyTorch zip); copy or fetch it again",
                   f->path);
}

static int map_file(struct weights *w, const char *path, struct weights_file **out, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe is refused below, not waited for
    if (fd < 0) return err_set(e, E_INPUT, "cannot read the weights %s: %s", path, strerror(errno));
    int rc = 0;
    void *map = MAP_FAILED;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        rc = err_set(e, E_INPUT, "%s is not a file", path);
    else if (st.st_size == 0)
        rc = err_set(e, E_INPUT, "%s is empty (0 bytes)", path);
    else if ((map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        rc = err_set(e, E_FATAL, "cannot map %s: %s; free some memory, or raise its limit (ulimit -v)", path,
                     strerror(errno));
    close(fd);
    if (rc < 0) return rc;
    struct weights_file *f = arena_alloc(&w->host, sizeof *f);
    *f = (struct weights_file){arena_strdup(&w->host, path), map, (uint64_t)st.st_size, w->n_sets, w->files};
    w->files = f;
    *out = f;
    return 0;
}

int weights_add_file(struct weights *w, const char *path, struct err *e)
{
    struct weights_file *f = NULL;
    int64_t before = w->n_replaced;
    int rc = map_file(w, path, &f, e);
    if (rc == 0) rc = detect(w, f, e);
    if (rc == 0 && w->n_replaced > before)
        log_info("weights.replaced", "file=%s tensors=%lld", path, (long long)(w->n_replaced - before));
    return rc;
}

static int add_path(struct weights *w, const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0) return err_set(e, E_INPUT, "cannot read the weights %s: %s", path, strerror(errno));
    size_t n = strlen(path);
    static const char index[] = ".index.json";
    if (S_ISDIR(st.st_mode)) return shards_add_folder(w, path, e);
    if (n >= sizeof index && strcmp(path + n - (sizeof index - 1), index) == 0) return shards_add_index(w, path, e);
    return weights_add_file(w, path, e);
}

int weights_add(struct weights *w, const char *path, struct err *e)
{
    w->n_sets++;
    int rc = add_path(w, path, e);
    if (rc == 0) rc = quant_settle(w, e);
    if (rc == 0) rc = spelling_settle(w, e);
    return rc == E_INPUT ? err_way(e, WEIGHTS_WAY) : rc;
}

int weights_new(struct weights **out, struct err *e)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : err_set(e, E_FATAL, "no memory for weights");
}

int weights_open(struct weights **out, const char *path, struct err *e)
{
    struct weights *w = NULL;
    int rc = weights_new(&w, e);
    if (rc == 0) rc = weights_add(w, path, e);
    if (rc < 0)
        weights_free(&w);
    else
        *out = w;
    return rc;
}

void weights_free(struct weights **pw)
{
    struct weights *w = *pw;
    if (!w) return;
    for (struct weights_file *f = w->files; f; f = f->next) munmap((void *)f->map, f->size);
    free(w->record);
    free(w->slot);
    arena_free(&w->host);
    free(w);
    *pw = NULL;
}

// ---- access

int64_t weights_count(const struct weights *w) { return w->n; }
const char *weights_name(const struct weights *w, int64_t i) { return w->record[i].name; }
bool weights_has(const struct weights *w, const char *name) { return find(w, name) != NULL; }

const char *weights_file(const struct weights *w, const char *name)
{
    const struct record *r = find(w, name);
    if (r && r->file) return r->file->path;
    const char *path = w->files ? w->files->path : "the weights";
    size_t most = 0; // of several files, the one with the nearest name should have it
    for (int64_t i = 0; w->record && i < w->n; i++) {
        size_t n = 0;
        while (name[n] && w->record[i].name[n] == name[n]) n++;
        if (n <= most || !w->record[i].file) continue;
        most = n;
        path = w->record[i].file->path;
    }
    return path;
}

int weights_get(const struct weights *w, const char *name, tensor *out, struct err *e)
{
    const struct record *r = find(w, name);
    const char *file = weights_file(w, name);
    if (!r)
        return err_set(e, E_INPUT,
                       "%s lacks the tensor '%s'; it is damaged or of another model: copy or fetch the right one", file,
                       name);
    if (r->t.dtype == DT_NONE)
        return err_set(e, E_INPUT, "%s: '%s' is stored as %s, which is not read here; fetch the bf16 or f32 weights",
                       file, name, r->dtype_name);
    *out = r->t;
    return 0;
}

const char *weights_meta(const struct weights *w, const char *key)
{
    for (const struct meta *m = w->meta; m; m = m->next)
        if (strcmp(m->key, key) == 0) return m->value;
    return NULL;
}

void weights_put(struct weights *w, const char *name, tensor t)
{
    struct record *r = record_for(w, name);
    r->t = t;
}

void weights_set(struct weights *w, const char *name, tensor t)
{
    struct record *r = find(w, name);
    BUG_IF(!r, "no tensor %s", name);
    r->t = t;
}

void *weights_alloc(struct weights *w, size_t n_bytes) { return arena_alloc(&w->host, n_bytes); }

// ---- loading

static bool shape_fits(tensor t, int n, const int64_t *shape)
{
    if (t.n != n) return false;
    for (int i = 0; i < n; i++)
        if (shape[i] >= 0 && t.shape[i] != shape[i]) return false;
    return true;
}

static int wrong_shape(const struct weights *w, const char *name, tensor t, int n, const int64_t *shape, struct err *e)
{
    char have[96], want[96];
    tensor_text(t, have, sizeof have);
    tensor_text(tensor_of(NULL, t.dtype, n, shape), want, sizeof want);
    return err_set(
        e, E_INPUT,
        "%s: '%s' is %s where %s belongs; the file is damaged or of another model: copy or fetch the right one",
        weights_file(w, name), name, have, want);
}

// A quantised tensor times its factors.
static int load_widened(struct dev_arena *a, tensor *out, enum dtype t, tensor s, struct err *e)
{
    struct dev *d = dev_arena_dev(a);
    *out = dev_tensor(a, t, s.n, s.shape);
    if (!out->data || dev_is_dry(d)) return 0;
    void *host = dev_shares_host(d) ? out->data : malloc((size_t)tensor_bytes(*out));
    if (!host) return err_set(e, E_FATAL, "no memory for %lld bytes of a weight", (long long)tensor_bytes(*out));
    weights_widen(host, t, s, 0, tensor_count(s));
    if (host == out->data) return 0;
    dev_upload(d, *out, host, t);
    free(host);
    return 0;
}

int weights_load(const struct weights *w, struct dev_arena *a, tensor *out, enum dtype t, const char *name, int n,
                 const int64_t *shape, struct err *e)
{
    tensor s = NO_TENSOR;
    int rc = weights_get(w, name, &s, e);
    if (rc < 0) return rc;
    if (!shape_fits(s, n, shape)) return wrong_shape(w, name, s, n, shape, e);
    if (t == DT_NONE) t = s.scale ? DT_F32 : s.dtype;
    if (s.scale) return load_widened(a, out, t, s, e);
    if (s.dtype == t && tensor_is_contiguous(s) && dev_shares_host(dev_arena_dev(a))) {
        *out = s;
        return 0;
    }
    *out = dev_tensor(a, t, s.n, s.shape);
    if (out->data) dev_put(dev_arena_dev(a), *out, s);
    return 0;
}

// Lets the pages of a stored tensor go that its file gives back when asked: what was read from them is elsewhere now.
static void let_go(const struct weights *w, const char *name)
{
    const struct record *r = find(w, name);
    if (!r || !r->file || !tensor_is_contiguous(r->t)) return;
    uintptr_t map = (uintptr_t)r->file->map, page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)r->t.data;
    uintptr_t to = from + (uintptr_t)tensor_bytes(r->t);
    if (from < map || to > map + r->file->size) return; // copied when it was read
    from = (from + page - 1) / page * page;
    to = to / page * page;
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
}

// Packs a loaded weight; `mark` is where the arena stood before it was loaded. What was cast on the way gives its place
// to the packed one, and what came from the file is let go, so that memory holds one copy.
static void pack(const struct weights *w, struct dev_arena *a, int64_t mark, tensor *t, const char *name,
                 enum pack_use use)
{
    bool cast = dev_arena_mark(a) > mark;
    *t = cast ? op_pack_take(dev_arena_dev(a), a, mark, *t, use) : op_pack(dev_arena_dev(a), a, *t, use);
    if (cast || t->packed) let_go(w, name);
}

// Products of BF16 rows may take the bytes as they are, where the device has such products.
static bool stays_quantised(const struct dev *d, tensor s, enum dtype t)
{
    return s.scale && t == DT_BF16 && (s.dtype == DT_I8 || s.dtype == DT_F8_E4M3) && op_keeps_quantised(d);
}

static int load_quantised(struct dev_arena *a, tensor *out, tensor s)
{
    struct dev *d = dev_arena_dev(a);
    tensor scale = dev_tensor(a, DT_F32, SHAPE(s.shape[0]));
    *out = dev_tensor(a, s.dtype, s.n, s.shape);
    if (!out->data || !scale.data) return 0; // a fault, and told
    dev_upload(d, *out, s.data, s.dtype);
    dev_upload(d, scale, s.scale, DT_F32);
    out->scale = scale.data;
    return 0;
}

int weights_load_linear(const struct weights *w, struct dev_arena *a, tensor *out, enum dtype t, const char *name,
                        int64_t n_out, int64_t n_in, struct err *e)
{
    int64_t mark = dev_arena_mark(a);
    tensor s = NO_TENSOR;
    int rc = weights_get(w, name, &s, e);
    if (rc == 0 && stays_quantised(dev_arena_dev(a), s, t) && shape_fits(s, SHAPE(n_out, n_in)))
        return load_quantised(a, out, s);
    if (rc == 0) rc = weights_load(w, a, out, t, name, SHAPE(n_out, n_in), e);
    if (rc == 0) pack(w, a, mark, out, name, PACK_LINEAR);
    return rc;
}

int weights_load_conv(const struct weights *w, struct dev_arena *a, tensor *out, enum dtype t, const char *name,
                      const int64_t shape[5], struct err *e)
{
    tensor s = NO_TENSOR;
    int rc = weights_get(w, name, &s, e);
    if (rc < 0) return rc;
    int64_t stored[5] = {shape[0], shape[1]};
    int n = s.n >= 3 && s.n <= 5 ? s.n : 5, spare = 5 - n;
    for (int i = 0; i < spare; i++)
        if (shape[2 + i] != 1) return wrong_shape(w, name, s, 5, shape, e);
    for (int i = 2; i < n; i++) stored[i] = shape[i + spare];
    int64_t mark = dev_arena_mark(a);
    rc = weights_load(w, a, out, t, name, n, stored, e);
    if (rc == 0) {
        *out = tensor_reshape(*out, 5, shape);
        pack(w, a, mark, out, name, PACK_CONV);
    }
    return rc;
}
