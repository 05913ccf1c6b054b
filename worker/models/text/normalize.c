// Reading and running the steps.
//
// A pattern of Replace is a literal or one of the few regular expressions that published tokenizers use: a character or
// \s, repeated. Anything else is refused by name, since a step that is passed over would change ids without a word.
#include "worker/models/text/normalize.h"

#include <stdlib.h>
#include <string.h>

enum { CONTENT_MAX = 64 }; // bytes of a replacement

enum step_kind { STEP_REPLACE, STEP_STRIP, STEP_FORM, STEP_CHARSMAP };

struct normalize_step {
    enum step_kind kind;
    enum text_form form;
    struct charsmap charsmap;
    bool left, right;    // STRIP
    const char *literal; // REPLACE: or else a run of one character
    uint32_t c;          // of a run; 0: any white space
    size_t at_least;
    const char *content;
};

// ---- reading

static const char *text_of(const json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? s : "";
}

static const char metas[] = "\\.+*?()|[]{}^$";

// The repeated character (or \s) and its least number. False: the pattern is something else.
static bool parse_run(struct normalize_step *s, const char *p)
{
    size_t at = 0, n = strlen(p);
    s->at_least = 1;
    if (p[0] == '\\' && p[1] == 's') {
        s->c = 0;
        at = 2;
    } else if (p[0] == '\\' && p[1] && strchr(metas, p[1])) {
        s->c = (uint8_t)p[1];
        at = 2;
    } else if (n > 0 && !strchr(metas, p[0])) {
        s->c = text_next(p, n, &at);
    } else {
        return false;
    }
    if (strcmp(p + at, "+") == 0) return true;
    if (p[at] != '{' || p[at + 1] < '1' || p[at + 1] > '9') return false;
    char *end;
    s->at_least = strtoul(p + at + 1, &end, 10);
    return s->at_least <= NORMALIZED_MAX && strcmp(end, ",}") == 0;
}

static int read_replace(struct normalize_step *s, struct arena *a, const json_t *j, struct err *e)
{
    const json_t *pattern = json_object_get(j, "pattern");
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *content = json_string_value(json_object_get(j, "content"));
    if (!content || strlen(content) > CONTENT_MAX || !!literal == !!regex)
        return err_set(e, E_INPUT,
                       "its normalizer's Replace needs a pattern (String or Regex) and a content of at most %d bytes",
                       CONTENT_MAX);
    s->kind = STEP_REPLACE;
    s->content = arena_strdup(a, content);
    if (literal && *literal) {
        s->literal = arena_strdup(a, literal);
        return 0;
    }
    if (regex && *regex && strcspn(regex, metas) == strlen(regex)) {
        s->literal = arena_strdup(a, regex);
        return 0;
    }
    if (regex && parse_run(s, regex)) return 0;
    return err_set(
        e, E_INPUT,
        "its normalizer replaces '%s'; patterns that work are a literal, or one character or \\s followed by "
        "+ or {n,}",
        text_shown(literal ? literal : regex));
}

static bool form_named(const char *name, enum text_form *form)
{
    static const char *const names[] = {
        [TEXT_NFC] = "NFC", [TEXT_NFD] = "NFD", [TEXT_NFKC] = "NFKC", [TEXT_NFKD] = "NFKD"};
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *form = (enum text_form)i;
            return true;
        }
    return false;
}

static int read_charsmap(struct normalizer *m, struct arena *a, const json_t *j, struct err *e)
{
    const json_t *map = json_object_get(j, "precompiled_charsmap");
    if (!map || json_is_null(map) || (json_is_string(map) && json_string_length(map) == 0)) return 0; // changes nothing
    if (!json_is_string(map)) return err_set(e, E_INPUT, "its normalizer's precompiled_charsmap is not a text");
    struct normalize_step *s = &m->step[m->n++];
    s->kind = STEP_CHARSMAP;
    return charsmap_read(&s->charsmap, a, json_string_value(map), json_string_length(map), e);
}

static int read_step(struct normalizer *m, struct arena *a, const json_t *j, struct err *e)
{
    const char *type = text_of(j, "type");
    if (m->n == NORMALIZE_STEPS_MAX)
        return err_set(e, E_INPUT, "its normalizer has more than %d steps", NORMALIZE_STEPS_MAX);
    if (strcmp(type, "Precompiled") == 0) return read_charsmap(m, a, j, e);
    struct normalize_step *s = &m->step[m->n++];
    if (strcmp(type, "Replace") == 0) return read_replace(s, a, j, e);
    if (strcmp(type, "Strip") == 0) {
        s->kind = STEP_STRIP;
        s->left = json_is_true(json_object_get(j, "strip_left"));
        s->right = json_is_true(json_object_get(j, "strip_right"));
        return 0;
    }
    s->kind = STEP_FORM;
    if (form_named(type, &s->form)) return 0;
    return err_set(
        e, E_INPUT,
        "its normalizer has a step '%s'; those that work are Sequence, Precompiled, Strip, Replace, NFC, NFD, "
        "NFKC and NFKD",
        text_shown(type));
}

// A sequence may hold sequences; the parser limits how deep.
static int read_steps(struct normalizer *m, struct arena *a, const json_t *j, struct err *e)
{
    if (strcmp(text_of(j, "type"), "Sequence") != 0) return read_step(m, a, j, e);
    const json_t *list = json_object_get(j, "normalizers"), *inner;
    size_t i;
    if (!json_is_array(list)) return err_set(e, E_INPUT, "its normalizer is a Sequence without a list of normalizers");
    json_array_foreach(list, i, inner)
    {
        int rc = read_steps(m, a, inner, e);
        if (rc < 0) return rc;
    }
    return 0;
}

int normalizer_read(struct normalizer *m, struct arena *a, const json_t *j, struct err *e)
{
    m->step = arena_array(a, NORMALIZE_STEPS_MAX, sizeof *m->step);
    return !j || json_is_null(j) ? 0 : read_steps(m, a, j, e);
}

// ---- running

static void replace_literal(const struct normalize_step *step, struct text *out, const char *s, size_t n)
{
    size_t length = strlen(step->literal);
    for (size_t at = 0; at < n;)
        if (n - at >= length && memcmp(s + at, step->literal, length) == 0) {
            text_put(out, step->content, strlen(step->content));
            at += length;
        } else {
            text_put(out, s + at++, 1);
        }
}

static void replace_runs(const struct normalize_step *step, struct text *out, const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t count = 0, end = at;
        for (size_t next = at; next < n; count++) {
            uint32_t c = text_next(s, n, &next);
            if (step->c ? c != step->c : !char_is_space(c)) break;
            end = next;
        }
        if (count >= step->at_least) {
            text_put(out, step->content, strlen(step->content));
            at = end;
        } else {
            if (count == 0) text_next(s, n, &end);
            text_put(out, s + at, end - at);
            at = end;
        }
    }
}

static void strip(const struct normalize_step *step, struct text *out, const char *s, size_t n)
{
    size_t from = 0, end = n;
    for (size_t next = 0; step->left && from < n && char_is_space(text_next(s, n, &next));) from = next;
    if (step->right) {
        end = from;
        for (size_t at = from; at < n;)
            if (!char_is_space(text_next(s, n, &at))) end = at;
    }
    text_put(out, s + from, end - from);
}

static void run_step(const struct normalize_step *step, struct text *out, const char *s, size_t n)
{
    switch (step->kind) {
    case STEP_REPLACE:
        if (step->literal)
            replace_literal(step, out, s, n);
        else
            replace_runs(step, out, s, n);
        break;
    case STEP_STRIP:
        strip(step, out, s, n);
        break;
    case STEP_FORM:
        text_put_form(out, step->form, s, n);
        break;
    case STEP_CHARSMAP:
        charsmap_apply(&step->charsmap, out, s, n);
        break;
    }
}

int normalizer_apply(const struct normalizer *m, struct text *out, const char *s, size_t n, struct err *e)
{
    struct text next = {0};
    text_clear(out);
    text_put(out, s, n);
    for (int i = 0; i < m->n && out->n <= NORMALIZED_MAX; i++) {
        text_clear(&next);
        run_step(&m->step[i], &next, out->s, out->n);
        text_swap(out, &next);
    }
    text_free(&next);
    if (out->n <= NORMALIZED_MAX) return 0;
    return err_set(e, E_INPUT, "a text of %zu bytes becomes longer than %d when it is normalised", n, NORMALIZED_MAX);
}
