// Looking at files and folders.
//
// A folder is, in this order: the voice encoder's (its config.json has conv_dim), a tokenizer's, a set of shards, a
// model. Of a model every part is looked at alone, then the parts' sizes against each other, since each may be whole
// and still not fit its neighbour. What is printed comes from one tree, for machines as it is, for people as lines.
#include "worker/inspect/inspect.h"

#include "proto/json.h"
#include "proto/model.h"
#include "worker/inspect/part.h"
#include "worker/models/unigram.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

struct look {
    bool list;
    json_t *parts, *problems;
};

// ---- one set of weights

static bool begins_with(const char *path, const char *bytes)
{
    char head[8] = "";
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(head, 1, strlen(bytes), f) : 0;
    if (f) fclose(f);
    return n == strlen(bytes) && memcmp(head, bytes, n) == 0;
}

static void put_format(json_t *part, const struct weights *w)
{
    json_t *files = json_object();
    const char *first = NULL;
    for (int64_t i = 0; i < weights_count(w); i++) {
        const char *file = weights_file(w, weights_name(w, i));
        if (!first) first = file;
        json_object_set_new_nocheck(files, file, json_true());
    }
    json_object_set_new(part, "files", json_integer((json_int_t)json_object_size(files)));
    json_object_set_new(part, "format", json_string(first && begins_with(first, "PK") ? "PyTorch" : "safetensors"));
    json_decref(files);
}

static json_t *new_part(struct look *l, const char *name, const char *path)
{
    json_t *part = json_object();
    if (name) json_object_set_new(part, "part", json_string(name));
    json_object_set_new(part, "path", text_json(path));
    json_array_append_new(l->parts, part);
    return part;
}

static void look_at_weights(struct look *l, const char *name, const char *path)
{
    struct weights *w = NULL;
    struct err e = {0};
    json_t *part = new_part(l, name, path);
    if (weights_open(&w, path, &e) < 0) {
        problem_add(l->problems, "%s", e.text);
        return;
    }
    put_format(part, w);
    part_examine(part, l->problems, w);
    if (l->list) part_list(part, w);
    weights_free(&w);
}

// ---- folders that are one part

static bool has(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void look_at_voice(struct look *l, const char *name, const char *dir)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"};
    char path[PATH_BYTES];
    if (!has(dir, "config.json")) problem_add(l->problems, "the voice encoder's folder %s lacks config.json", dir);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!has(dir, names[i])) continue;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        look_at_weights(l, name, path);
        return;
    }
    new_part(l, name, dir);
    problem_add(l->problems, "the voice encoder's folder %s holds neither model.safetensors nor pytorch_model.bin",
                dir);
}

static void look_at_tokenizer(struct look *l, const char *name, const char *dir)
{
    char path[PATH_BYTES];
    struct unigram *u = NULL;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    json_t *part = new_part(l, name, path);
    json_object_set_new(part, "holds", json_pack("[s]", "tokenizer"));
    if (unigram_open(&u, path, &e) < 0)
        problem_add(l->problems, "%s", e.text);
    else
        json_object_set_new(part, "sizes", json_pack("{s{sI}}", "tokenizer", "pieces", (json_int_t)unigram_size(u)));
    unigram_free(&u);
}

static bool is_voice(const char *dir)
{
    char path[PATH_BYTES];
    json_t *j = NULL;
    snprintf(path, sizeof path, "%s/config.json", dir);
    bool found = access(path, F_OK) == 0 && json_read(&j, path, NULL) == 0 && json_object_get(j, "conv_dim");
    json_decref(j);
    return found;
}

// ---- a model

static json_int_t size_of(const struct look *l, const char *network, const char *name)
{
    size_t i;
    json_t *part;
    json_array_foreach(l->parts, i, part)
    {
        const json_t *v = json_object_get(json_object_get(json_object_get(part, "sizes"), network), name);
        if (v) return json_integer_value(v);
    }
    return 0;
}

static void check_fit(struct look *l, const struct model *m)
{
    static const struct {
        const char *a, *a_name, *b, *b_name;
    } fit[] = {
        {"dit", "dim", "adapter", "dim"},        {"dit", "layers", "adapter", "layers"},
        {"dit", "text-dim", "text", "text-dim"}, {"dit", "clip-dim", "clip", "clip-dim"},
        {"dit", "channels", "vae", "channels"},  {"adapter", "voice-width", "voice", "voice-width"},
    };
    for (size_t i = 0; i < sizeof fit / sizeof *fit; i++) {
        json_int_t a = size_of(l, fit[i].a, fit[i].a_name), b = size_of(l, fit[i].b, fit[i].b_name);
        if (a > 0 && b > 0 && a != b)
            problem_add(l->problems, "the parts do not fit: %s has %s %lld, %s has %s %lld", fit[i].a, fit[i].a_name,
                        (long long)a, fit[i].b, fit[i].b_name, (long long)b);
    }
    json_int_t pieces = size_of(l, "tokenizer", "pieces"), rows = size_of(l, "text", "vocabulary");
    if (pieces > rows && rows > 0)
        problem_add(l->problems, "the tokenizer has %lld pieces, the text encoder %lld rows", (long long)pieces,
                    (long long)rows);
    json_int_t dim = size_of(l, "dit", "dim");
    if (dim % m->dit_heads)
        problem_add(l->problems, "dit: a width of %lld does not split into %d heads; declare num_heads in config.json",
                    (long long)dim, m->dit_heads);
}

static bool found(const struct model *m)
{
    return m->dit[0] || m->adapter[0] || m->text[0] || m->tokenizer[0] || m->clip[0] || m->vae[0];
}

static void look_at_model(struct look *l, const struct model *m)
{
    const struct {
        const char *name, *path;
        void (*look)(struct look *l, const char *name, const char *path);
    } part[] = {
        {"dit", m->dit, look_at_weights},
        {"adapter", m->adapter, look_at_weights},
        {"adapter2", m->adapter2, look_at_weights},
        {"text", m->text, look_at_weights},
        {"tokenizer", m->tokenizer, look_at_tokenizer},
        {"clip", m->clip, look_at_weights},
        {"vae", m->vae, look_at_weights},
        {"voice", m->voice, look_at_voice},
    };
    struct err e = {0};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (part[i].path[0] && access(part[i].path, F_OK) == 0) part[i].look(l, part[i].name, part[i].path);
    if (model_missing(m, &e) < 0) problem_add(l->problems, "%s", e.text);
    check_fit(l, m);
}

static const char *look_at_folder(struct look *l, json_t *tree, const char *dir)
{
    struct model m;
    struct err e = {0};
    if (is_voice(dir)) return look_at_voice(l, NULL, dir), "file";
    if (has(dir, "tokenizer.json") && !has(dir, "model.yaml")) return look_at_tokenizer(l, NULL, dir), "file";
    if (model_open(&m, dir, &e) < 0) return problem_add(l->problems, "%s", e.text), "model";
    struct weights *w = NULL;
    if (!found(&m) && weights_open(&w, dir, NULL) == 0) {
        weights_free(&w);
        return look_at_weights(l, NULL, dir), "file";
    }
    json_object_set_new(tree, "name", text_json(m.name));
    return look_at_model(l, &m), "model";
}

json_t *inspect_path(const char *path, bool list)
{
    struct stat st;
    json_t *tree = json_object();
    struct look l = {.list = list, .parts = json_array(), .problems = json_array()};
    const char *kind = "file";
    json_object_set_new(tree, "path", text_json(path));
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        kind = look_at_folder(&l, tree, path);
    else
        look_at_weights(&l, NULL, path);
    json_object_set_new(tree, "kind", json_string(kind));
    json_object_set_new(tree, "whole", json_boolean(json_array_size(l.problems) == 0));
    json_object_set_new(tree, "problems", l.problems);
    json_object_set_new(tree, "parts", l.parts);
    return tree;
}
