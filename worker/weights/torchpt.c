// PyTorch checkpoints: a zip of stored members; data.pkl names the tensors, data/<key> hold their bytes.
//
// The root folder inside the zip has the name that the file had when it was saved: it is found, not assumed. Tensors
// are views of storages (offset, size, stride), may share them, and may be non-contiguous.
#include "worker/weights/pickle.h"
#include "worker/weights/zip.h"

#include <stdio.h>
#include <string.h>

enum { PICKLE_MAX = 64 << 20, DEPTH_MAX = 64, KEY_MAX = 64, WALKED_MAX = 1000000 };

struct torchpt {
    struct weights *w;
    struct weights_file *f;
    struct arena a; // directory and pickle values; gone after reading
    struct zip z;
    char root[512];
    int64_t n_tensors, n_walked; // walked: a dict that stands at two places is entered twice
    struct err *e;
};

static int find_root(struct torchpt *t)
{
    int n = 0;
    for (int64_t i = 0; i < t->z.n; i++) {
        const char *name = t->z.member[i].name, *slash = strchr(name, '/');
        if (!slash || slash - name >= (int)sizeof t->root) continue;
        if (strcmp(slash, "/data.pkl") == 0) {
            snprintf(t->root, sizeof t->root, "%.*s", (int)(slash - name), name);
            n++;
        }
        if (strncmp(slash, "/code/", 6) == 0)
            return err_set(t->e, E_INPUT,
                           "%s is a TorchScript archive, not a state dict; save its state_dict with torch.save",
                           t->f->path);
    }
    if (n == 1) return 0;
    return err_set(t->e, E_INPUT, "%s is a zip file with %d members called data.pkl; a PyTorch checkpoint has one",
                   t->f->path, n);
}

static const struct zip_member *member(const struct torchpt *t, const char *tail)
{
    char name[1024];
    snprintf(name, sizeof name, "%s/%s", t->root, tail);
    return zip_find(&t->z, name);
}

static bool is_key(const char *s)
{
    size_t n = strspn(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-");
    return n > 0 && n <= KEY_MAX && s[n] == 0;
}

// The bytes of a tensor's storage, checked against its claim.
static int storage_of(struct torchpt *t, const char *name, const struct pickle *s, const struct zip_member **out)
{
    char tail[KEY_MAX + 8];
    if (!is_key(s->text))
        return err_set(
            t->e, E_INPUT,
            "%s: '%s' lies in the storage '%.80s', which is no name of one (at most %d letters, digits, _ and -)",
            t->f->path, name, s->text, KEY_MAX);
    snprintf(tail, sizeof tail, "data/%s", s->text);
    const struct zip_member *m = member(t, tail);
    if (!m) return err_set(t->e, E_INPUT, "%s lacks the storage %s of '%s'", t->f->path, tail, name);
    uint64_t bytes;
    if (mul_overflows((uint64_t)s->count, (uint64_t)dtype_size(s->dtype), &bytes) || bytes != m->size)
        return err_set(t->e, E_INPUT, "%s: the storage %s has %llu bytes where '%s' needs %lld elements of %s",
                       t->f->path, tail, (unsigned long long)m->size, name, (long long)s->count,
                       dtype_table[s->dtype].name);
    *out = m;
    return 0;
}

static int add_tensor(struct torchpt *t, const char *name, const struct pickle *p)
{
    const struct zip_member *m = NULL;
    int rc = storage_of(t, name, p->storage, &m);
    if (rc < 0) return rc;
    tensor v = {.dtype = p->dtype, .n = (int)p->size->n};
    uint64_t last = (uint64_t)p->offset, reach, size = (uint64_t)dtype_size(v.dtype), bytes = size;
    bool empty = false, over = false, huge = false;
    for (int i = 0; i < v.n; i++) {
        v.shape[i] = p->size->item[i]->number;
        v.stride[i] = p->stride->item[i]->number;
        empty |= v.shape[i] == 0;
        huge |= mul_overflows(bytes, (uint64_t)v.shape[i], &bytes) || bytes > INT64_MAX; // strides of 0 reach nowhere
        over |= v.shape[i] > 0 && (mul_overflows((uint64_t)v.shape[i] - 1, (uint64_t)v.stride[i], &reach) ||
                                   add_overflows(last, reach, &last));
    }
    if (!empty && huge) return err_set(t->e, E_INPUT, "%s: the shape of '%s' overflows", t->f->path, name);
    if (!empty && (over || last >= m->size / size))
        return err_set(t->e, E_INPUT, "%s: '%s' reaches beyond its storage of %llu bytes", t->f->path, name,
                       (unsigned long long)m->size);
    v.data = (void *)(m->data + (empty ? 0 : (uint64_t)p->offset * size));
    t->n_tensors++;
    return weights_add_record(t->w, t->f, name, v, dtype_table[v.dtype].name, t->e);
}

static bool has_tensors(const struct pickle *dict)
{
    for (size_t i = 0; i + 1 < dict->n; i += 2)
        if (dict->item[i]->kind == PK_STR && dict->item[i + 1]->kind == PK_TENSOR) return true;
    return false;
}

// Every tensor under `dict` by its name behind `prefix`; nested dicts only when asked.
static int walk(struct torchpt *t, struct pickle *dict, const char *prefix, bool nested, int depth)
{
    if (depth > DEPTH_MAX)
        return err_set(t->e, E_INPUT, "%s: the checkpoint is nested more than %d deep", t->f->path, DEPTH_MAX);
    int rc = 0;
    for (size_t i = 0; i + 1 < dict->n && rc == 0; i += 2) {
        struct pickle *key = dict->item[i], *v = dict->item[i + 1];
        if (key->kind != PK_STR || (v->kind != PK_TENSOR && (v->kind != PK_DICT || !nested))) continue;
        if (++t->n_walked > WALKED_MAX)
            return err_set(t->e, E_INPUT, "%s lists more than %d tensors", t->f->path, WALKED_MAX);
        const char *name = arena_printf(&t->a, "%s%s", prefix, key->text);
        if (!name_is_valid(name, strlen(name)))
            rc = err_set(t->e, E_INPUT, "%s: the name of a tensor is empty, longer than 4096 bytes or no UTF-8",
                         t->f->path);
        else if (v->kind == PK_TENSOR)
            rc = add_tensor(t, name, v);
        else
            rc = walk(t, v, arena_printf(&t->a, "%s.", name), true, depth + 1);
    }
    return rc;
}

// The dict that holds the tensors: the top one, or one under a usual name.
static struct pickle *descend(struct pickle *top)
{
    static const char *const names[] = {"state_dict", "model", "module", "generator_ema", "params_ema"};
    if (has_tensors(top)) return top;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        for (size_t i = 0; i + 1 < top->n; i += 2)
            if (top->item[i]->kind == PK_STR && top->item[i + 1]->kind == PK_DICT &&
                strcmp(top->item[i]->text, names[k]) == 0)
                return top->item[i + 1];
    return top;
}

static int read_checkpoint(struct torchpt *t)
{
    int rc = zip_read(&t->z, &t->a, t->f, t->e);
    if (rc == 0) rc = find_root(t);
    if (rc < 0) return rc;
    const struct zip_member *order = member(t, "byteorder"), *pkl = member(t, "data.pkl");
    if (order && order->size == 3 && memcmp(order->data, "big", 3) == 0)
        return err_set(t->e, E_INPUT, "%s was saved on a big-endian machine; load and save it again on another",
                       t->f->path);
    if (pkl->size > PICKLE_MAX)
        return err_set(t->e, E_INPUT, "%s: data.pkl has %llu bytes, more than %d", t->f->path,
                       (unsigned long long)pkl->size, PICKLE_MAX);
    struct pickle *top = NULL;
    rc = pickle_run(&top, &t->a, t->f->path, pkl->data, pkl->size, t->e);
    if (rc < 0) return rc;
    if (top->kind != PK_DICT)
        return err_set(t->e, E_INPUT, "%s holds no dict of tensors; save a state dict with torch.save", t->f->path);
    struct pickle *dict = descend(top);
    rc = walk(t, dict, "", !has_tensors(dict), 0);
    if (rc == 0 && t->n_tensors == 0)
        rc = err_set(t->e, E_INPUT, "%s holds no tensor; save a state dict with torch.save", t->f->path);
    return rc;
}

int torchpt_read(struct weights *w, struct weights_file *f, struct err *e)
{
    struct torchpt t = {.w = w, .f = f, .e = e};
    int rc = read_checkpoint(&t);
    arena_free(&t.a);
    return rc;
}
