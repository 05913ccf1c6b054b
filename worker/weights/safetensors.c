// Safetensors: a length, a JSON directory, the bytes.
//
// The directory is hostile until checked: every size by overflow-checked arithmetic, the tensors must tile the data
// area without hole, overlap or rest (so a cut download always shows), names are unique. Alignment is not guaranteed by
// anybody.
#include "proto/json.h"
#include "worker/weights/format.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100000000, TENSORS_MAX = 1000000 };

struct st_dtype {
    const char *name;
    int bits;
    enum dtype dtype; // DT_NONE: known to exist, not used here
};
static const struct st_dtype st_dtypes[] = {
    {"F32", 32, DT_F32},
    {"BF16", 16, DT_BF16},
    {"F16", 16, DT_F16},
    {"F64", 64, DT_F64},
    {"F8_E4M3", 8, DT_F8_E4M3},
    {"F8_E5M2", 8, DT_F8_E5M2},
    {"I8", 8, DT_I8},
    {"I16", 16, DT_I16},
    {"I32", 32, DT_I32},
    {"I64", 64, DT_I64},
    {"U8", 8, DT_U8},
    {"BOOL", 8, DT_BOOL},
    {"U16", 16, DT_NONE},
    {"U32", 32, DT_NONE},
    {"U64", 64, DT_NONE},
    {"C64", 64, DT_NONE},
    {"F8_E8M0", 8, DT_NONE},
    {"F8_E4M3FNUZ", 8, DT_NONE},
    {"F8_E5M2FNUZ", 8, DT_NONE},
    {"F6_E2M3", 6, DT_NONE},
    {"F6_E3M2", 6, DT_NONE},
    {"F4", 4, DT_NONE},
};

struct entry {
    const char *name;
    uint64_t from, to;
    tensor t;
    const char *dtype_name;
};

static const struct st_dtype *find_dtype(const char *name)
{
    for (size_t i = 0; name && i < sizeof st_dtypes / sizeof *st_dtypes; i++)
        if (strcmp(st_dtypes[i].name, name) == 0) return &st_dtypes[i];
    return NULL;
}

static bool is_count(const json_t *j) { return json_is_integer(j) && json_integer_value(j) >= 0; }

static int read_entry(struct entry *out, const struct weights_file *f, const char *name, const json_t *j, struct err *e)
{
    const json_t *shape = json_object_get(j, "shape"), *offsets = json_object_get(j, "data_offsets");
    const char *type = json_string_value(json_object_get(j, "dtype"));
    const struct st_dtype *dt = find_dtype(type);
    if (!name_is_valid(name, strlen(name)))
        return err_set(e, E_INPUT, "%s: the name of a tensor is empty, longer than 4096 bytes or no UTF-8", f->path);
    if (!dt) return err_set(e, E_INPUT, "%s: '%s' has the unknown dtype '%s'", f->path, name, type ? type : "(none)");
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_DIMS || json_array_size(offsets) != 2)
        return err_set(e, E_INPUT, "%s: '%s' lacks a shape of at most %d axes or two data_offsets", f->path, name,
                       TENSOR_DIMS);
    int64_t dims[TENSOR_DIMS];
    uint64_t bits = (uint64_t)dt->bits;
    int n = (int)json_array_size(shape);
    for (int i = 0; i < n; i++) {
        const json_t *v = json_array_get(shape, (size_t)i);
        if (!is_count(v))
            return err_set(e, E_INPUT, "%s: axis %d of '%s' is no whole number of 0 or more", f->path, i + 1, name);
        dims[i] = json_integer_value(v);
        if (mul_overflows(bits, (uint64_t)dims[i], &bits) || bits > INT64_MAX)
            return err_set(e, E_INPUT, "%s: the shape of '%s' overflows", f->path, name);
    }
    if (bits % 8)
        return err_set(e, E_INPUT, "%s: the %llu bits of '%s' do not fill whole bytes", f->path,
                       (unsigned long long)bits, name);
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    if (!is_count(from) || !is_count(to))
        return err_set(e, E_INPUT, "%s: the data_offsets of '%s' are no whole numbers of 0 or more", f->path, name);
    *out = (struct entry){.name = name,
                          .from = (uint64_t)json_integer_value(from),
                          .to = (uint64_t)json_integer_value(to),
                          .t = tensor_of(NULL, dt->dtype, n, dims),
                          .dtype_name = dt->name};
    if (out->to < out->from || out->to - out->from != bits / 8)
        return err_set(e, E_INPUT, "%s: '%s' has %llu bytes by its shape but data_offsets %llu to %llu", f->path, name,
                       (unsigned long long)(bits / 8), (unsigned long long)out->from, (unsigned long long)out->to);
    return 0;
}

static int read_meta(struct weights *w, const struct weights_file *f, json_t *meta, struct err *e)
{
    const char *key;
    json_t *value;
    if (json_is_null(meta)) return 0;
    if (!json_is_object(meta)) return err_set(e, E_INPUT, "%s: __metadata__ is not an object", f->path);
    json_object_foreach(meta, key, value)
    {
        if (!json_is_string(value))
            return err_set(e, E_INPUT, "%s: __metadata__ has '%s', which is no text", f->path, key);
        weights_add_meta(w, key, json_string_value(value));
    }
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return x->to < y->to ? -1 : x->to > y->to;
}

// Sorted entries must follow each other and fill `size` bytes.
static int check_tiling(const struct weights_file *f, const struct entry *en, size_t n, uint64_t size, struct err *e)
{
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (en[i].from != at)
            return err_set(e, E_INPUT, "%s: '%s' begins at byte %llu where %llu belongs", f->path, en[i].name,
                           (unsigned long long)en[i].from, (unsigned long long)at);
        at = en[i].to;
    }
    if (at > size)
        return err_set(e, E_INPUT, "%s is cut: it holds %llu bytes of data of %llu; fetch it again", f->path,
                       (unsigned long long)size, (unsigned long long)at);
    if (at < size)
        return err_set(e, E_INPUT, "%s has %llu %s too many behind its last tensor", f->path,
                       (unsigned long long)(size - at), size - at == 1 ? "byte" : "bytes");
    return 0;
}

static int read_directory(struct weights *w, struct weights_file *f, json_t *header, uint64_t data, struct err *e)
{
    size_t n_max = json_object_size(header), n = 0;
    if (n_max > TENSORS_MAX)
        return err_set(e, E_INPUT, "%s lists %zu tensors, more than %d", f->path, n_max, TENSORS_MAX);
    struct entry *en = calloc(n_max + 1, sizeof *en);
    if (!en) return err_set(e, E_FATAL, "no memory for the directory of %s", f->path);
    const char *key;
    json_t *value;
    int rc = 0;
    json_object_foreach(header, key, value)
    {
        if (rc < 0) break;
        rc = strcmp(key, "__metadata__") == 0 ? read_meta(w, f, value, e) : read_entry(&en[n++], f, key, value, e);
    }
    if (rc == 0) {
        qsort(en, n, sizeof *en, by_offset);
        rc = check_tiling(f, en, n, f->size - data, e);
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        en[i].t.data = (void *)(f->map + data + en[i].from);
        rc = weights_add_record(w, f, en[i].name, en[i].t, en[i].dtype_name, e);
    }
    free(en);
    return rc;
}

int safetensors_read(struct weights *w, struct weights_file *f, struct err *e)
{
    if (f->size < 8)
        return err_set(e, E_INPUT, "%s is cut: it has %llu of at least 8 bytes", f->path, (unsigned long long)f->size);
    uint64_t n = le_bytes(f->map, 8);
    if (n > HEADER_MAX || n > f->size - 8)
        return err_set(e, E_INPUT, "%s is cut or is no safetensors file: its directory would take %llu of %llu bytes",
                       f->path, (unsigned long long)n, (unsigned long long)f->size);
    json_t *header = NULL;
    int rc = json_parse(&header, f->path, f->map + 8, n, e);
    if (rc == 0 && !json_is_object(header)) rc = err_set(e, E_INPUT, "%s: the directory is not an object", f->path);
    if (rc == 0) rc = read_directory(w, f, header, 8 + n, e);
    json_decref(header);
    return rc;
}
