// YAML by libyaml, into the tree that JSON gives.
//
// We walk libyaml's events and build jansson values on the way. What makes YAML surprising is left out: aliases (a few
// lines can stand for gigabytes), tags, several documents, the many spellings of true. A plain scalar is null, true,
// false or a number exactly when JSON would say so; everything else is a string. Keys are always strings, so a bucket
// key 0.50 keeps its spelling. An empty document is null.
#include "proto/yaml.h"

#include "proto/file.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { YAML_FILE_MAX = 16 << 20, YAML_DEPTH_MAX = 32 };

struct reader {
    yaml_parser_t parser;
    const char *what;
    struct err *e;
};

static int refuse(struct reader *r, size_t line, const char *why)
{
    return err_set(r->e, E_INPUT, "%s: line %zu: %s", r->what, line + 1, why);
}

static int next(struct reader *r, yaml_event_t *ev)
{
    if (yaml_parser_parse(&r->parser, ev)) return 0;
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR) return err_set(r->e, E_FATAL, "no memory to read %s", r->what);
    size_t line = p->error == YAML_READER_ERROR ? p->mark.line : p->problem_mark.line;
    return refuse(r, line, p->problem ? p->problem : "it is not valid YAML");
}

// ---- scalars

static const char *digits(const char *s)
{
    while (isdigit((unsigned char)*s)) s++;
    return s;
}

// -?(0|[1-9][0-9]*) then for a real (.[0-9]*)?([eE][+-]?[0-9]+)?
static bool is_number(const char *s, bool *real)
{
    *real = false;
    if (*s == '-') s++;
    if (!isdigit((unsigned char)*s)) return false;
    s = *s == '0' ? s + 1 : digits(s);
    if (*s == '.') s = digits(s + 1), *real = true;
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '+' || *s == '-') s++;
        if (!isdigit((unsigned char)*s)) return false;
        s = digits(s);
        *real = true;
    }
    return *s == 0;
}

static int number(struct reader *r, json_t **out, const char *s, bool real, size_t line)
{
    char *end;
    errno = 0;
    if (real) {
        double v = strtod(s, &end);
        if (!isfinite(v)) return refuse(r, line, "a number is too large");
        *out = json_real(v);
    } else {
        long long v = strtoll(s, &end, 10);
        if (errno == ERANGE) return refuse(r, line, "a whole number is too large");
        *out = json_integer(v);
    }
    return 0;
}

static int scalar(struct reader *r, json_t **out, const yaml_event_t *ev)
{
    const char *s = (const char *)ev->data.scalar.value;
    size_t n = ev->data.scalar.length;
    bool real;
    if (memchr(s, 0, n)) return refuse(r, ev->start_mark.line, "a text holds a NUL");
    if (ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        *out = json_stringn(s, n);
    else if (n == 0 || strcmp(s, "null") == 0 || strcmp(s, "~") == 0)
        *out = json_null();
    else if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0)
        *out = json_boolean(*s == 't');
    else if (is_number(s, &real))
        return number(r, out, s, real, ev->start_mark.line);
    else
        *out = json_stringn(s, n);
    return *out ? 0 : refuse(r, ev->start_mark.line, "a text is not valid UTF-8");
}

// ---- nodes

static int node(struct reader *r, json_t **out, const yaml_event_t *ev, int depth);

static int sequence(struct reader *r, json_t *list, int depth)
{
    for (;;) {
        yaml_event_t ev;
        int rc = next(r, &ev);
        if (rc < 0) return rc;
        bool end = ev.type == YAML_SEQUENCE_END_EVENT;
        json_t *v = NULL;
        if (!end) rc = node(r, &v, &ev, depth);
        yaml_event_delete(&ev);
        if (end || rc < 0) return rc;
        if (json_array_append_new(list, v) < 0) return err_set(r->e, E_FATAL, "no memory to read %s", r->what);
    }
}

static int pair(struct reader *r, json_t *map, const yaml_event_t *key, int depth)
{
    const char *name = (const char *)key->data.scalar.value;
    size_t line = key->start_mark.line;
    if (key->type != YAML_SCALAR_EVENT || key->data.scalar.anchor || key->data.scalar.tag)
        return refuse(r, line, "a key must be one plain word");
    if (strlen(name) != key->data.scalar.length) return refuse(r, line, "a key holds a NUL");
    if (json_object_get(map, name))
        return err_set(r->e, E_INPUT, "%s: line %zu: the key %s stands twice", r->what, line + 1, name);
    yaml_event_t ev;
    json_t *v = NULL;
    int rc = next(r, &ev);
    if (rc < 0) return rc;
    rc = node(r, &v, &ev, depth);
    yaml_event_delete(&ev);
    if (rc == 0 && json_object_set_new(map, name, v) < 0) rc = refuse(r, line, "a key is not valid UTF-8");
    return rc;
}

static int mapping(struct reader *r, json_t *map, int depth)
{
    for (;;) {
        yaml_event_t ev;
        int rc = next(r, &ev);
        if (rc < 0) return rc;
        bool end = ev.type == YAML_MAPPING_END_EVENT;
        if (!end) rc = pair(r, map, &ev, depth);
        yaml_event_delete(&ev);
        if (end || rc < 0) return rc;
    }
}

// The value that begins with `ev`. On failure *out is NULL.
static int node(struct reader *r, json_t **out, const yaml_event_t *ev, int depth)
{
    size_t line = ev->start_mark.line;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (ev->type == YAML_SCALAR_EVENT) anchor = ev->data.scalar.anchor, tag = ev->data.scalar.tag;
    if (ev->type == YAML_SEQUENCE_START_EVENT)
        anchor = ev->data.sequence_start.anchor, tag = ev->data.sequence_start.tag;
    if (ev->type == YAML_MAPPING_START_EVENT) anchor = ev->data.mapping_start.anchor, tag = ev->data.mapping_start.tag;
    if (anchor || ev->type == YAML_ALIAS_EVENT)
        return refuse(r, line, "anchors and aliases (& and *) are not read; repeat the value");
    if (tag) return refuse(r, line, "tags (!) are not read; leave it out");
    if (depth == YAML_DEPTH_MAX) return refuse(r, line, "it is nested too deeply");
    int rc = 0;
    if (ev->type == YAML_SEQUENCE_START_EVENT)
        rc = sequence(r, *out = json_array(), depth + 1);
    else if (ev->type == YAML_MAPPING_START_EVENT)
        rc = mapping(r, *out = json_object(), depth + 1);
    else
        rc = scalar(r, out, ev);
    if (rc < 0) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

// Stream start, document start, value, document end, stream end; nothing else.
static int document(struct reader *r, json_t **out)
{
    bool seen = false, done = false;
    int rc = 0;
    while (rc == 0 && !done) {
        yaml_event_t ev;
        if ((rc = next(r, &ev)) < 0) break;
        done = ev.type == YAML_STREAM_END_EVENT;
        if (ev.type == YAML_DOCUMENT_START_EVENT && seen)
            rc = refuse(r, ev.start_mark.line, "it holds more than one document");
        else if (ev.type == YAML_SCALAR_EVENT || ev.type == YAML_ALIAS_EVENT || ev.type == YAML_MAPPING_START_EVENT ||
                 ev.type == YAML_SEQUENCE_START_EVENT) {
            seen = true;
            rc = node(r, out, &ev, 0);
        }
        yaml_event_delete(&ev);
    }
    if (rc == 0 && !seen) *out = json_null();
    return rc;
}

int yaml_parse(json_t **out, const char *what, const void *text, size_t n, struct err *e)
{
    struct reader r = {.what = what, .e = e};
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text = (const char *)text + 3, n -= 3;
    if (!yaml_parser_initialize(&r.parser)) return err_set(e, E_FATAL, "no memory to read %s", what);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, text, n);
    json_t *tree = NULL;
    int rc = document(&r, &tree);
    yaml_parser_delete(&r.parser);
    if (rc < 0)
        json_decref(tree);
    else
        *out = tree;
    return rc;
}

int yaml_read(json_t **out, const char *path, struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    int rc = file_text(&text, &n, path, YAML_FILE_MAX, e);
    if (rc == 0) rc = yaml_parse(out, path, text, n, e);
    free(text);
    return rc;
}
