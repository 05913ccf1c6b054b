// Sharded sets of weight files: by index, or by the numbers in their names.
//
// A shard's name comes from a file that strangers write, so it must be a plain name beside the index. Every tensor must
// be in the shard that the index names; a tensor in two shards is an error.
#include "proto/json.h"
#include "worker/weights/format.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_plain_name(const char *s)
{
    return s && *s && !strchr(s, '/') && !strchr(s, '\\') && strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

static void beside(char *out, size_t n, const char *index, const char *name)
{
    const char *slash = strrchr(index, '/');
    snprintf(out, n, "%.*s%s", slash ? (int)(slash - index + 1) : 0, index, name);
}

// Opens each shard once; `seen` collects their names.
static int add_shards(struct weights *w, const char *path, const json_t *map, json_t *seen, struct err *e)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value)
    {
        const char *shard = json_string_value(value);
        if (!is_plain_name(shard))
            return err_set(e, E_INPUT, "%s: the shard '%s' of '%s' is not a plain file name", path,
                           shard ? shard : "(no text)", name);
        if (json_object_get(seen, shard)) continue;
        char file[4096];
        beside(file, sizeof file, path, shard);
        if (json_object_set_new(seen, shard, json_true()) < 0)
            return err_set(e, E_FATAL, "no memory for the index %s", path);
        int rc = weights_add_file(w, file, e);
        if (rc < 0) return err_wrap(e, "%s", path);
    }
    return 0;
}

static int check_places(const struct weights *w, const char *path, const json_t *map, struct err *e)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value)
    {
        char file[4096];
        beside(file, sizeof file, path, json_string_value(value));
        const char *said = json_string_value(value);
        if (!weights_has(w, name))
            return err_set(e, E_INPUT, "%s says that %s holds '%s', which it does not", path, said, name);
        if (strcmp(weights_file(w, name), file) != 0)
            return err_set(e, E_INPUT, "%s says that %s holds '%s', but %s holds it", path, said, name,
                           weights_file(w, name));
    }
    return 0;
}

int shards_add_index(struct weights *w, const char *path, struct err *e)
{
    json_t *index = NULL, *seen = json_object();
    int rc = json_read(&index, path, e);
    const json_t *map = json_object_get(index, "weight_map");
    if (rc == 0 && json_object_size(map) == 0) rc = err_set(e, E_INPUT, "%s has no weight_map, or an empty one", path);
    if (rc == 0) rc = add_shards(w, path, map, seen, e);
    if (rc == 0) rc = check_places(w, path, map, e);
    json_decref(index);
    json_decref(seen);
    return rc;
}

// "x-00002-of-00007.safetensors": its number and count.
static bool shard_number(const char *name, int *i, int *n)
{
    const char *of = strstr(name, "-of-");
    if (!of || of - name < 6 || !ends_with(name, ".safetensors")) return false;
    return sscanf(of - 6, "-%5d-of-%5d.safetensors", i, n) == 2 && *n > 0;
}

struct listing {
    char index[256], single[256], stem[256];
    int n_shards, n_single;
};

static int list_folder(struct listing *l, const char *path, struct err *e)
{
    DIR *dir = opendir(path);
    if (!dir) return err_set(e, E_INPUT, "cannot read the folder %s: %s", path, strerror(errno));
    for (struct dirent *d; (d = readdir(dir));) {
        int i, n;
        if (ends_with(d->d_name, ".safetensors.index.json") || ends_with(d->d_name, ".bin.index.json"))
            snprintf(l->index, sizeof l->index, "%s", d->d_name);
        else if (shard_number(d->d_name, &i, &n)) {
            l->n_shards = n;
            snprintf(l->stem, sizeof l->stem, "%.*s", (int)(strstr(d->d_name, "-of-") - 6 - d->d_name), d->d_name);
        } else if (ends_with(d->d_name, ".safetensors")) {
            l->n_single++;
            snprintf(l->single, sizeof l->single, "%s", d->d_name);
        }
    }
    closedir(dir);
    return 0;
}

int shards_add_folder(struct weights *w, const char *path, struct err *e)
{
    struct listing l = {0};
    char file[4096];
    int rc = list_folder(&l, path, e);
    if (rc < 0) return rc;
    if (l.index[0]) {
        snprintf(file, sizeof file, "%s/%s", path, l.index);
        return shards_add_index(w, file, e);
    }
    for (int i = 1; i <= l.n_shards && rc == 0; i++) {
        snprintf(file, sizeof file, "%s/%s-%05d-of-%05d.safetensors", path, l.stem, i, l.n_shards);
        rc = weights_add_file(w, file, e);
    }
    if (l.n_shards > 0) return rc;
    if (l.n_single == 1) {
        snprintf(file, sizeof file, "%s/%s", path, l.single);
        return weights_add_file(w, file, e);
    }
    return err_set(e, E_INPUT, "the folder %s holds %s", path,
                   l.n_single ? "several weight files and no index; name one of them"
                              : "no safetensors file; name the file, or fetch the model again");
}
