// Job files: the published program's JSON, and YAML or JSON with the names of our own flags.
//
// Both are read into one tree. Keys that the published program nests (cond_audio, bbox) are taken apart here; every
// other key goes through the same table as the flags, so that a misspelt one is answered with its nearest neighbour.
#include "proto/file.h"
#include "proto/spec.h"
#include "proto/yaml.h"

#include <stdlib.h>
#include <string.h>

// A key of neither kind: the nearest of both is named.
static int unknown_key(const char *what, const char *key, struct err *e)
{
    static const char *const nested[] = {"cond_audio", "cond_video", "cond_image", "bbox", "bbox_xyxy", "mask_files"};
    const size_t n_nested = sizeof nested / sizeof *nested;
    struct opt all[200];
    size_t n = 0;
    for (; n < n_nested; n++) all[n] = (struct opt){.key = nested[n]};
    for (const struct opt *o = spec_table(); o->key && n < 199; o++) all[n++] = *o;
    all[n] = (struct opt){0};
    int rc = opt_unknown(all, "key", key, e);
    return e ? err_wrap(e, "%s", what) : rc;
}

// What words and names of files are written as; a number or a truth in their place is a text whose quotes were
// forgotten, or another key's value.
static bool wants_text(const char *key)
{
    const struct opt *o = opt_find(spec_table(), key);
    return o && o->value && (strcmp(o->value, "TEXT") == 0 || opt_named(o) != OPT_NO_NAME);
}

static int refuse_kind(const char *from, const char *key, const json_t *v, struct err *e)
{
    if (json_is_null(v)) return err_set(e, E_INPUT, "%s has no value; give it one, or leave it out", from);
    if (json_is_array(v) || json_is_object(v)) return err_set(e, E_INPUT, "%s wants one value, not a list", from);
    char *text = json_dumps(v, JSON_ENCODE_ANY);
    BUG_IF(!text, "no memory for a value of %s", key);
    err_set(e, E_INPUT, "%s: %s is no text; put it in quotes", from, text);
    free(text);
    return E_INPUT;
}

// `said` is the key as it stands in the file.
static int take_scalar(struct spec *s, const char *what, const char *said, const char *key, const json_t *v,
                       struct err *e)
{
    char number[64];
    const char *text = number, *from = arena_printf(&s->arena, "%s: %s", what, said);
    bool scalar = json_is_string(v) || json_is_number(v) || json_is_boolean(v);
    if (!scalar || (!json_is_string(v) && wants_text(key))) return refuse_kind(from, key, v, e);
    if (json_is_string(v))
        text = json_string_value(v);
    else if (json_is_integer(v))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        snprintf(number, sizeof number, "%.17g", json_real_value(v));
    else
        text = json_is_true(v) ? "yes" : "no";
    return spec_set(s, "key", from, key, text, e);
}

static int take_audio(struct spec *s, const char *what, const json_t *v, struct err *e)
{
    if (!json_is_object(v) || json_object_size(v) < 1 || json_object_size(v) > SPEC_SPEAKERS)
        return err_set(e, E_INPUT, "%s: cond_audio wants person1, or person1 and person2", what);
    const char *name;
    json_t *path;
    json_object_foreach((json_t *)v, name, path)
    {
        bool first = strcmp(name, "person1") == 0;
        if (!first && strcmp(name, "person2") != 0)
            return err_set(e, E_INPUT, "%s: cond_audio has '%s'; it knows person1 and person2", what, name);
        if (!json_is_string(path))
            return err_set(e, E_INPUT, "%s: cond_audio.%s wants a path, or \"None\" for a silent speaker", what, name);
        const char *from = arena_printf(&s->arena, "%s: cond_audio.%s", what, name);
        if (spec_set(s, "key", from, first ? "audio" : "audio2", json_string_value(path), e) < 0) return E_INPUT;
    }
    if (!json_object_get(v, "person1")) return err_set(e, E_INPUT, "%s: cond_audio lacks person1", what);
    return 0;
}

// Entries are matched to speakers by order of appearance, as the published program does.
static int take_boxes(struct spec *s, const char *what, const char *key, const json_t *v, bool rows_first,
                      struct err *e)
{
    if (!json_is_object(v) || json_object_size(v) < 1 || json_object_size(v) > SPEC_SPEAKERS)
        return err_set(e, E_INPUT, "%s: %s wants one box per speaker", what, key);
    int i = 0;
    const char *name;
    json_t *box;
    json_object_foreach((json_t *)v, name, box)
    {
        double n[4];
        bool ok = json_is_array(box) && json_array_size(box) == 4;
        for (size_t k = 0; ok && k < 4; k++) {
            ok = json_is_number(json_array_get(box, k));
            n[k] = json_number_value(json_array_get(box, k));
        }
        if (!ok) return err_set(e, E_INPUT, "%s: %s.%s is not four numbers", what, key, name);
        struct spec_region *r = &s->region[i++];
        r->has_box = true;
        r->row0 = n[!rows_first];
        r->col0 = n[rows_first];
        r->row1 = n[2 + !rows_first];
        r->col1 = n[2 + rows_first];
    }
    return 0;
}

static int take_masks(struct spec *s, const char *what, const json_t *v, struct err *e)
{
    if (!json_is_object(v) || json_object_size(v) < 1 || json_object_size(v) > SPEC_SPEAKERS)
        return err_set(e, E_INPUT, "%s: mask_files wants one file per speaker", what);
    int i = 0;
    const char *name;
    json_t *path;
    json_object_foreach((json_t *)v, name, path)
    {
        if (!json_is_string(path)) return err_set(e, E_INPUT, "%s: mask_files.%s wants a path", what, name);
        const char *from = arena_printf(&s->arena, "%s: mask_files.%s", what, name);
        if (spec_set(s, "key", from, i++ ? "mask2" : "mask1", json_string_value(path), e) < 0) return E_INPUT;
    }
    return 0;
}

static int take_list(struct spec *s, const char *what, const char *key, const json_t *v, struct err *e)
{
    for (size_t i = 0; i < json_array_size(v); i++)
        if (take_scalar(s, what, key, key, json_array_get(v, i), e) < 0) return E_INPUT;
    return 0;
}

static int take_key(struct spec *s, const char *what, const char *key, const json_t *v, struct err *e)
{
    if (strcmp(key, "cond_audio") == 0) return take_audio(s, what, v, e);
    if (strcmp(key, "bbox") == 0) return take_boxes(s, what, key, v, true, e);
    if (strcmp(key, "bbox_xyxy") == 0) return take_boxes(s, what, key, v, false, e);
    if (strcmp(key, "mask_files") == 0) return take_masks(s, what, v, e);
    if (strcmp(key, "cond_video") == 0 || strcmp(key, "cond_image") == 0) {
        if (s->image) return err_set(e, E_INPUT, "%s: cond_video and cond_image are both given; leave one out", what);
        return take_scalar(s, what, key, "image", v, e);
    }
    if (strcmp(key, "video_audio") == 0) return 0; // written back by the published program, not input
    if (strcmp(key, "tts_audio") == 0)
        return err_set(e, E_INPUT,
                       "%s: tts_audio is not supported; record or synthesise the speech first and give it as "
                       "cond_audio",
                       what);
    if (!opt_find(spec_table(), key)) return unknown_key(what, key, e);
    if (json_is_array(v) && strncmp(key, "lora", 4) == 0) return take_list(s, what, key, v, e);
    return take_scalar(s, what, key, key, v, e);
}

int spec_read_tree(struct spec *s, const char *what, const json_t *tree, struct err *e)
{
    if (!json_is_object(tree)) return err_set(e, E_INPUT, "%s is not a list of keys and values", what);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)tree, key, v)
    {
        if (take_key(s, what, key, v, e) < 0) return E_INPUT;
    }
    return 0;
}

int spec_read_file(struct spec *s, const char *path, struct err *e)
{
    json_t *tree = NULL;
    const char *dot = strrchr(path, '.');
    bool yaml = dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
    int rc = yaml ? yaml_read(&tree, path, e) : json_read(&tree, path, e);
    if (rc == 0) rc = spec_read_tree(s, path, tree, e);
    if (rc == 0 && !yaml && json_object_get(tree, "cond_audio") && !json_object_get(tree, "prompt"))
        rc = err_set(e, E_INPUT, "%s lacks the key prompt; an empty one is allowed", path);
    json_decref(tree);
    return rc == E_INPUT ? file_way(path, e) : rc;
}
