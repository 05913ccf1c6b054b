// Safetensors: eight bytes of header length, a JSON object padded with blanks, then the tensors.
//
// The directory holds every offset, and it comes first; so all shapes are known before the first byte is, and nothing
// is ever held or written twice. The header is padded until the data begins on a multiple of 64, which keeps every
// tensor of a file of one dtype aligned when the file is mapped.
#include "worker/weights/write_safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

struct safetensors_out {
    struct outfile *file;
    int64_t left; // bytes still to come
};

static json_t *shape_json(const struct tensor_head *h)
{
    json_t *shape = json_array();
    for (int i = 0; i < h->n; i++) json_array_append_new(shape, json_integer(h->shape[i]));
    return shape;
}

static json_t *header_json(const struct tensor_head *heads, int64_t n, const char *const *meta, int64_t *total)
{
    json_t *top = json_object();
    if (meta) {
        json_t *m = json_object();
        for (; meta[0]; meta += 2) json_object_set_new(m, meta[0], json_string(meta[1]));
        json_object_set_new(top, "__metadata__", m);
    }
    *total = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t end = *total + head_bytes(&heads[i]);
        json_t *entry = json_object();
        BUG_IF(json_object_get(top, heads[i].name), "the tensor %s is written twice", heads[i].name);
        json_object_set_new(entry, "dtype", json_string(dtype_table[heads[i].dtype].name));
        json_object_set_new(entry, "shape", shape_json(&heads[i]));
        json_object_set_new(entry, "data_offsets", json_pack("[I, I]", (json_int_t)*total, (json_int_t)end));
        json_object_set_new(top, heads[i].name, entry);
        *total = end;
    }
    return top;
}

static int put_header(struct safetensors_out *s, const json_t *top, struct err *e)
{
    static const char blanks[ALIGN + 1] = "                                                                ";
    char *text = json_dumps(top, JSON_COMPACT | JSON_PRESERVE_ORDER);
    BUG_IF(!text, "no memory for the header of %s", outfile_path(s->file));
    size_t n = strlen(text), pad = (ALIGN - (8 + n) % ALIGN) % ALIGN;
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)(n + pad) >> 8 * i);
    int rc = outfile_put(s->file, length, 8, e);
    if (rc == 0) rc = outfile_put(s->file, text, n, e);
    if (rc == 0) rc = outfile_put(s->file, blanks, pad, e);
    free(text);
    return rc;
}

int safetensors_create(struct safetensors_out **out, const char *path, const struct tensor_head *heads, int64_t n,
                       const char *const *meta, struct err *e)
{
    struct safetensors_out *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for a file handle");
    int rc = outfile_create(&s->file, path, e);
    if (rc == 0) {
        json_t *top = header_json(heads, n, meta, &s->left);
        rc = put_header(s, top, e);
        json_decref(top);
    }
    if (rc < 0)
        safetensors_free(&s);
    else
        *out = s;
    return rc;
}

int safetensors_put(struct safetensors_out *s, const void *bytes, size_t n, struct err *e)
{
    BUG_IF((int64_t)n > s->left, "%s gets more bytes than its header says", outfile_path(s->file));
    s->left -= (int64_t)n;
    return outfile_put(s->file, bytes, n, e);
}

int safetensors_close(struct safetensors_out **ps, struct err *e)
{
    struct safetensors_out *s = *ps;
    BUG_IF(s->left != 0, "%s is closed %lld bytes early", outfile_path(s->file), (long long)s->left);
    int rc = outfile_close(&s->file, e);
    safetensors_free(ps);
    return rc;
}

void safetensors_free(struct safetensors_out **ps)
{
    if (!*ps) return;
    outfile_free(&(*ps)->file);
    free(*ps);
    *ps = NULL;
}

// ---- sharded sets

void shards_assign(int *shard, const struct tensor_head *heads, int64_t n, int n_shards)
{
    double total = 0, at = 0;
    for (int64_t i = 0; i < n; i++) total += (double)head_bytes(&heads[i]);
    for (int64_t i = 0; i < n; i++) {
        double bytes = (double)head_bytes(&heads[i]);
        int k = (int)((at + bytes / 2) / total * n_shards); // by the tensor's middle
        shard[i] = k < n_shards ? k : n_shards - 1;
        at += bytes;
    }
}

void shard_file_name(char *buf, size_t size, const char *stem, int i, int n_shards)
{
    snprintf(buf, size, "%s-%05d-of-%05d.safetensors", stem, i + 1, n_shards);
}

int shards_write_index(const char *path, const char *stem, const struct tensor_head *heads, const int *shard, int64_t n,
                       int n_shards, struct err *e)
{
    json_t *map = json_object();
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        char name[256];
        shard_file_name(name, sizeof name, stem, shard[i], n_shards);
        json_object_set_new(map, heads[i].name, json_string(name));
        total += head_bytes(&heads[i]);
    }
    json_t *top = json_pack("{s{sI}so}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *text = json_dumps(top, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    BUG_IF(!text, "no memory for %s", path);
    struct outfile *f = NULL;
    int rc = outfile_create(&f, path, e);
    if (rc == 0) rc = outfile_put(f, text, strlen(text), e);
    if (rc == 0) rc = outfile_put(f, "\n", 1, e);
    if (rc == 0) rc = outfile_close(&f, e);
    outfile_free(&f);
    free(text);
    json_decref(top);
    return rc;
}
