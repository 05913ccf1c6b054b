// Reading a zip directory.
//
// Sizes come from the central directory, never from a local header (PyTorch leaves those 0). A ZIP64 extra field holds
// only those of size, compressed size, offset whose 32-bit field is all ones, in that order.
#include "worker/weights/zip.h"

#include <stdlib.h>
#include <string.h>

enum { END_BYTES = 22, END64_BYTES = 56, CENTRAL_BYTES = 46, LOCAL_BYTES = 30, COMMENT_MAX = 65535 };
enum { MEMBERS_MAX = 1000000 };

struct directory {
    uint64_t n, size, offset;
    uint64_t limit; // where the end records begin
};

static int broken(const struct weights_file *f, const char *what, struct err *e)
{
    return err_set(e, E_INPUT, "%s is a broken or cut zip file: %s; fetch it again", f->path, what);
}

static bool inside(const struct weights_file *f, uint64_t at, uint64_t n) { return at <= f->size && n <= f->size - at; }

static int find_end(struct directory *d, const struct weights_file *f, struct err *e)
{
    if (f->size < END_BYTES) return broken(f, "no directory", e);
    uint64_t at = f->size - END_BYTES, lowest = at > COMMENT_MAX ? at - COMMENT_MAX : 0;
    const uint8_t *p = NULL;
    for (;; at--) {
        p = f->map + at;
        if (memcmp(p, "PK\5\6", 4) == 0 && le_bytes(p + 20, 2) == f->size - END_BYTES - at) break;
        if (at == lowest) return broken(f, "no directory", e);
    }
    *d = (struct directory){le_bytes(p + 10, 2), le_bytes(p + 12, 4), le_bytes(p + 16, 4), at};
    if (d->n != 0xffff && d->size != 0xffffffff && d->offset != 0xffffffff) return 0;
    if (at < 20 || memcmp(p - 20, "PK\6\7", 4) != 0) return 0; // no ZIP64: the numbers are what they are
    uint64_t end64 = le_bytes(p - 12, 8);
    if (!inside(f, end64, END64_BYTES) || memcmp(f->map + end64, "PK\6\6", 4) != 0)
        return broken(f, "the 64-bit directory is missing", e);
    const uint8_t *q = f->map + end64;
    *d = (struct directory){le_bytes(q + 32, 8), le_bytes(q + 40, 8), le_bytes(q + 48, 8), end64};
    return 0;
}

// The ZIP64 extra field of a central entry: fills what the 32-bit fields could not hold.
static bool read_extra(const uint8_t *x, uint64_t n, uint64_t *value[3])
{
    while (n >= 4) {
        uint64_t tag = le_bytes(x, 2), len = le_bytes(x + 2, 2);
        if (len > n - 4) return false;
        const uint8_t *p = x + 4;
        for (int i = 0; i < 3 && tag == 1; i++) {
            if (*value[i] != 0xffffffff) continue;
            if (len < 8) return false;
            *value[i] = le_bytes(p, 8);
            p += 8;
            len -= 8;
        }
        len = le_bytes(x + 2, 2);
        x += 4 + len;
        n -= 4 + len;
    }
    return true;
}

static bool good_name(const char *s, size_t n)
{
    if (!name_is_valid(s, n) || s[0] == '/') return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] == '\\' || (s[i] == '.' && i + 1 < n && s[i + 1] == '.')) return false;
    return true;
}

// One central entry at *at; moves it on.
static int read_member(struct zip_member *m, struct arena *a, const struct weights_file *f, const struct directory *d,
                       uint64_t *at, struct err *e)
{
    uint64_t left = d->offset + d->size - *at;
    const uint8_t *p = f->map + *at;
    if (left < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0) return broken(f, "a directory entry is missing", e);
    uint64_t n_name = le_bytes(p + 28, 2), n_extra = le_bytes(p + 30, 2), n_note = le_bytes(p + 32, 2);
    if (n_name + n_extra + n_note > left - CENTRAL_BYTES) return broken(f, "a directory entry is cut", e);
    const char *name = (const char *)p + CENTRAL_BYTES;
    uint64_t packed = le_bytes(p + 20, 4), size = le_bytes(p + 24, 4), local = le_bytes(p + 42, 4);
    *at += CENTRAL_BYTES + n_name + n_extra + n_note;
    if (!good_name(name, n_name)) return broken(f, "a member's name is not valid", e);
    if (!read_extra(p + CENTRAL_BYTES + n_name, n_extra, (uint64_t *[]){&size, &packed, &local}))
        return broken(f, "an extra field is cut", e);
    if (p[8] & 1) return err_set(e, E_INPUT, "%s is encrypted; save it again without a password", f->path);
    if (le_bytes(p + 10, 2) != 0 || packed != size)
        return err_set(e, E_INPUT,
                       "%s holds compressed members; PyTorch stores them plainly: save it again with torch.save",
                       f->path);
    if (!inside(f, local, LOCAL_BYTES) || memcmp(f->map + local, "PK\3\4", 4) != 0)
        return broken(f, "a member is missing", e);
    const uint8_t *q = f->map + local;
    uint64_t data = local + LOCAL_BYTES + le_bytes(q + 26, 2) + le_bytes(q + 28, 2);
    if (le_bytes(q + 26, 2) != n_name || !inside(f, local + LOCAL_BYTES, n_name) ||
        memcmp(q + LOCAL_BYTES, name, n_name) != 0)
        return broken(f, "a member has another name than the directory says", e);
    if (data > d->offset || size > d->offset - data) return broken(f, "a member is cut", e);
    char *copy = arena_alloc(a, n_name + 1);
    memcpy(copy, name, n_name);
    *m = (struct zip_member){copy, f->map + data, size};
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct zip_member *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zip_member *)a)->name, ((const struct zip_member *)b)->name);
}

int zip_read(struct zip *z, struct arena *a, const struct weights_file *f, struct err *e)
{
    struct directory d = {0};
    int rc = find_end(&d, f, e);
    if (rc < 0) return rc;
    if (d.offset > d.limit || d.size > d.limit - d.offset || d.n > MEMBERS_MAX || d.n * CENTRAL_BYTES > d.size)
        return broken(f, "the directory does not fit", e);
    z->member = arena_array(a, d.n + 1, sizeof *z->member);
    z->n = (int64_t)d.n;
    uint64_t at = d.offset;
    for (uint64_t i = 0; i < d.n; i++)
        if ((rc = read_member(&z->member[i], a, f, &d, &at, e)) < 0) return rc;
    qsort(z->member, d.n, sizeof *z->member, by_place);
    for (uint64_t i = 1; i < d.n; i++)
        if (z->member[i - 1].size > (uint64_t)(z->member[i].data - z->member[i - 1].data))
            return broken(f, "members overlap", e);
    qsort(z->member, d.n, sizeof *z->member, by_name);
    for (uint64_t i = 1; i < d.n; i++)
        if (strcmp(z->member[i - 1].name, z->member[i].name) == 0) return broken(f, "a member stands twice", e);
    return 0;
}

const struct zip_member *zip_find(const struct zip *z, const char *name)
{
    struct zip_member key = {.name = name};
    return bsearch(&key, z->member, (size_t)z->n, sizeof *z->member, by_name);
}
