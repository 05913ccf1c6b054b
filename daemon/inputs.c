// Media are known by the hash of all their bytes, weights (which may be a hundred gigabytes) by the names, sizes and
// times of their files: weights are not edited in place, but a folder may be filled anew.
//
// What is no ordinary file (a device, a pipe) is not read here: it is refused when it is opened as what it should be.
#include "daemon/inputs.h"

#include "proto/base/hash.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 20, DEPTH = 8, FILES_MAX = 4096 };

static void hex(char name[65], const uint8_t bytes[HASH_BYTES])
{
    for (int i = 0; i < HASH_BYTES; i++) snprintf(name + 2 * i, 3, "%02x", bytes[i]);
}

int inputs_hash(char name[65], const char *path, struct err *e)
{
    struct hash h;
    uint8_t bytes[HASH_BYTES];
    struct stat st;
    hash_init(&h);
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        uint8_t *piece = malloc(PIECE);
        BUG_IF(!piece, "no memory to read a file");
        ssize_t n = -1;
        while (fd >= 0 && (n = read(fd, piece, PIECE)) > 0) hash_update(&h, piece, (size_t)n);
        int why = errno;
        free(piece);
        if (fd >= 0) close(fd);
        if (n < 0)
            return err_set(e, E_INPUT, "cannot read it: %s; %s", strerror(why),
                           why == EACCES ? "give yourself the right to read it (chmod)" : "copy it again");
    }
    hash_final(&h, bytes);
    hex(name, bytes);
    return 0;
}

// ---- weights

struct found {
    char *line[FILES_MAX];
    int n;
};

static void found_add(struct found *f, const char *path, const struct stat *st)
{
    if (f->n == FILES_MAX) return;
    int n = asprintf(&f->line[f->n], "%s %lld %lld.%09ld", path, (long long)st->st_size, (long long)st->st_mtim.tv_sec,
                     st->st_mtim.tv_nsec);
    BUG_IF(n < 0, "no memory for a name");
    f->n++;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void folder_add(struct found *f, const char *path, int depth)
{
    struct dirent **entry = NULL;
    struct stat st;
    if (stat(path, &st) < 0) return;
    if (!S_ISDIR(st.st_mode)) {
        found_add(f, path, &st);
        return;
    }
    int n = depth < DEPTH ? scandir(path, &entry, NULL, alphasort) : 0;
    for (int i = 0; i < n; i++) {
        char inside[4200];
        snprintf(inside, sizeof inside, "%s/%s", path, entry[i]->d_name);
        if (entry[i]->d_name[0] != '.') folder_add(f, inside, depth + 1);
        free(entry[i]);
    }
    free(entry);
}

static json_t *weights_mark(const struct spec *s, const struct model *m)
{
    struct found *f = calloc(1, sizeof *f);
    struct hash h;
    uint8_t bytes[HASH_BYTES];
    char name[65];
    BUG_IF(!f, "no memory for names");
    const char *const elsewhere[] = {s->dit, s->adapter, s->voice};
    folder_add(f, m->dir, 0);
    for (int i = 0; i < 3; i++)
        if (elsewhere[i]) folder_add(f, elsewhere[i], 0);
    for (int i = 0; i < s->n_lora; i++) folder_add(f, s->lora[i], 0);
    qsort(f->line, (size_t)f->n, sizeof *f->line, by_text);
    hash_init(&h);
    for (int i = 0; i < f->n; i++) {
        hash_update(&h, f->line[i], strlen(f->line[i]) + 1);
        free(f->line[i]);
    }
    free(f);
    hash_final(&h, bytes);
    hex(name, bytes);
    return json_string(name);
}

// ---- the whole

int inputs_name(json_t **out, const struct spec *s, const struct model *m, struct err *e)
{
    static const char *const media[] = {"image", "video", "audio", "audio2", "mask1", "mask2"}, *const aside[] = {
                                                                                                    "output",
                                                                                                    "overwrite",
                                                                                                    "relax-layout",
                                                                                                    "model"};
    static const char *const word[] = {"picture", "video", "voice", "voice", "mask", "mask"};
    json_t *tree = spec_write(s);
    for (size_t i = 0; i < sizeof media / sizeof *media; i++) {
        char name[65];
        const char *path = json_string_value(json_object_get(tree, media[i]));
        if (!path || strcmp(path, "None") == 0) continue;
        int rc = inputs_hash(name, path, e);
        if (rc < 0) {
            err_wrap(e, "%s %s", word[i], path);
            json_decref(tree); // the path with it
            return rc;
        }
        json_object_set_new(tree, media[i], json_string(name));
    }
    for (size_t i = 0; i < sizeof aside / sizeof *aside; i++) json_object_del(tree, aside[i]);
    json_object_set_new(tree, "weights", weights_mark(s, m));
    json_object_set_new(tree, "program", json_string(LONGTAKE_VERSION));
    *out = tree;
    return 0;
}

const char *inputs_differ(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)a, key, value)
    {
        if (!json_equal(value, json_object_get(b, key))) return key;
    }
    json_object_foreach((json_t *)b, key, value)
    {
        if (!json_object_get(a, key)) return key;
    }
    return NULL;
}
