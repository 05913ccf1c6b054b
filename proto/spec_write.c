// A job as a tree that spec_read_tree reads back to the same job: every listed key with its value, in its table's
// spelling. Keys that are more than a field are written here by hand; aliases are not written.
#include "proto/spec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A number below its range is the mark of a field that nobody has set.
static json_t *whole(const struct opt *o, int64_t v)
{
    bool unset = (o->min != 0 || o->max != 0) && (double)v < o->min;
    return unset ? NULL : json_integer(v);
}

static json_t *field(const struct opt *o, const void *base)
{
    const void *at = (const char *)base + o->offset;
    switch (o->type) {
    case OPT_TEXT:
        return *(const char *const *)at ? json_string(*(const char *const *)at) : NULL;
    case OPT_INT:
        return whole(o, *(const int *)at);
    case OPT_LONG:
        return whole(o, *(const int64_t *)at);
    case OPT_REAL:
        return isfinite(*(const double *)at) ? json_real(*(const double *)at) : NULL;
    case OPT_FLAG:
        return json_boolean(*(const bool *)at);
    case OPT_NAME:
        return *(const int *)at < 0 ? NULL : json_string(o->names[*(const int *)at]);
    case OPT_CALL:
        break;
    }
    return NULL;
}

static void put(json_t *tree, const char *key, json_t *value)
{
    if (value) json_object_set_new(tree, key, value);
}

static void put_box(json_t *tree, const char *key, const struct spec_region *r)
{
    char text[128];
    if (!r->has_box) return;
    snprintf(text, sizeof text, "%.17g,%.17g,%.17g,%.17g", r->col0, r->row0, r->col1, r->row1);
    put(tree, key, json_string(text));
}

static void put_voices(json_t *tree, const struct spec *s)
{
    static const char *const keys[SPEC_SPEAKERS] = {"audio", "audio2"};
    for (int p = 0; p < s->n_speakers && p < SPEC_SPEAKERS; p++)
        put(tree, keys[p], json_string(s->audio[p] ? s->audio[p] : "None"));
}

static void put_loras(json_t *tree, const struct spec *s)
{
    if (s->n_lora == 0) return;
    json_t *files = json_array(), *scales = json_array();
    for (int i = 0; i < s->n_lora; i++) json_array_append_new(files, json_string(s->lora[i]));
    for (int i = 0; i < s->n_lora_scale; i++) json_array_append_new(scales, json_real(s->lora_scale[i]));
    put(tree, "lora-dir", files);
    put(tree, "lora-scale", scales);
}

static void put_cuts(json_t *tree, const struct spec *s)
{
    if (s->cut_at_shots) put(tree, "cuts", json_string("auto"));
    if (s->cut_at_shots || s->n_cuts == 0) return;
    size_t room = (size_t)s->n_cuts * 24 + 1, n = 0;
    char *text = malloc(room);
    BUG_IF(!text, "no memory for cuts");
    for (int i = 0; i < s->n_cuts; i++)
        n += (size_t)snprintf(text + n, room - n, "%s%lldf", i ? "," : "", (long long)s->cut[i]);
    put(tree, "cuts", json_string(text));
    free(text);
}

json_t *spec_write(const struct spec *s)
{
    // the published program's names for what has a name of its own
    static const char *const doubles[] = {"ckpt-dir", "base-seed", NULL};
    json_t *tree = json_object();
    for (const struct opt *o = spec_table(); o->key; o++) {
        bool twice = !o->help;
        for (int i = 0; doubles[i]; i++) twice |= strcmp(o->key, doubles[i]) == 0;
        if (!twice) put(tree, o->key, field(o, s));
    }
    put_voices(tree, s);
    put_loras(tree, s);
    put_cuts(tree, s);
    put_box(tree, "box1", &s->region[0]);
    put_box(tree, "box2", &s->region[1]);
    return tree;
}
