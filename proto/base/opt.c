// The option table's reader. Numbers are parsed whole and finite; a value out of range is refused with the range.
#include "proto/base/opt.h"

#include "proto/base/near.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { OPT_ROWS_MAX = 256 };

static bool key_same(const char *row, const char *key)
{
    for (; *row && *key; row++, key++)
        if (*row != *key && !(*row == '-' && *key == '_')) return false;
    return *row == *key;
}

const struct opt *opt_find(const struct opt *table, const char *key)
{
    for (; table->key; table++)
        if (key_same(table->key, key)) return table;
    return NULL;
}

int opt_environment(const struct opt *table, void *base, struct arena *a, struct err *e)
{
    for (const struct opt *o = table; o->key; o++) {
        char name[96] = "LONGTAKE_";
        size_t n = strlen(name);
        for (const char *k = o->key; *k && n + 1 < sizeof name; k++)
            name[n++] = *k == '-' ? '_' : (char)toupper((unsigned char)*k);
        name[n] = 0;
        const char *text = o->help ? getenv(name) : NULL;
        int rc = text && *text ? opt_set(o, base, a, name, text, e) : 0;
        if (rc < 0) return rc;
    }
    return 0;
}

int opt_unknown(const struct opt *table, const char *what, const char *key, struct err *e)
{
    const char *words[OPT_ROWS_MAX + 1];
    int n = 0;
    for (; table->key && n < OPT_ROWS_MAX; table++) words[n++] = table->key;
    words[n] = NULL;
    char dashed[128];
    snprintf(dashed, sizeof dashed, "%s", key);
    for (char *c = dashed; *c; c++)
        if (*c == '_') *c = '-';
    const char *near = near_word(dashed, words);
    const char *dash = strcmp(what, "flag") == 0 ? "--" : "";
    if (near) return err_set(e, E_INPUT, "unknown %s %s%s; did you mean %s%s?", what, dash, key, dash, near);
    return err_set(e, E_INPUT, "unknown %s %s%s", what, dash, key);
}

static int parse_real(const char *from, const char *text, double *out, struct err *e)
{
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    if (end == text || *end || errno == ERANGE || !isfinite(*out))
        return err_set(e, E_INPUT, "%s: '%s' is not a number", from, text);
    return 0;
}

static int parse_long(const char *from, const char *text, int64_t *out, struct err *e)
{
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (end == text || *end || errno == ERANGE)
        return err_set(e, E_INPUT, "%s: '%s' is not a whole number", from, text);
    return 0;
}

static int check_range(const struct opt *o, const char *from, const char *text, double v, struct err *e)
{
    if (o->min == 0 && o->max == 0) return 0;
    if (v >= o->min && v <= o->max) return 0;
    if (o->type == OPT_REAL) return err_set(e, E_INPUT, "%s: %s is not between %g and %g", from, text, o->min, o->max);
    return err_set(e, E_INPUT, "%s: %s is not between %.0f and %.0f", from, text, o->min, o->max);
}

static int parse_flag(const char *from, const char *text, bool *out, struct err *e)
{
    static const char *const yes[] = {"yes", "true", "t", "y", "1", "on"}, *const no[] = {"no", "false", "f",
                                                                                          "n",  "0",     "off"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (strcasecmp(text, yes[i]) == 0) return *out = true, 0;
        if (strcasecmp(text, no[i]) == 0) return *out = false, 0;
    }
    return err_set(e, E_INPUT, "%s: '%s' is neither yes nor no", from, text);
}

static int parse_name(const struct opt *o, const char *from, const char *text, int *out, struct err *e)
{
    char list[256] = "";
    for (int i = 0; o->names[i]; i++) {
        if (strcmp(o->names[i], text) == 0) return *out = i, 0;
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", o->names[i]);
    }
    return err_set(e, E_INPUT, "%s: '%s' is none of: %s", from, text, list);
}

enum opt_named opt_named(const struct opt *o)
{
    if (!o->value) return OPT_NO_NAME;
    if (strncmp(o->value, "FILE", 4) == 0 || strcmp(o->value, "STEM") == 0) return OPT_FILE;
    return strcmp(o->value, "DIR") == 0 ? OPT_FOLDER : OPT_NO_NAME;
}

// A name that is empty is one that was forgotten, often a variable of the shell.
static int check_name(const struct opt *o, const char *from, const char *text, struct err *e)
{
    enum opt_named what = opt_named(o);
    if (*text || what == OPT_NO_NAME) return 0;
    return err_set(e, E_INPUT, "%s is an empty name; name a %s, or leave it out", from,
                   what == OPT_FILE ? "file" : "folder");
}

int opt_set(const struct opt *o, void *base, struct arena *a, const char *from, const char *text, struct err *e)
{
    void *field = (char *)base + o->offset;
    int rc = check_name(o, from, text, e);
    int64_t whole;
    double real;
    if (rc < 0) return rc;
    switch (o->type) {
    case OPT_TEXT:
        *(const char **)field = arena_strdup(a, text);
        return 0;
    case OPT_FLAG:
        return parse_flag(from, text, field, e);
    case OPT_NAME:
        return parse_name(o, from, text, field, e);
    case OPT_CALL:
        return o->set(base, a, o, from, text, e);
    case OPT_REAL:
        rc = parse_real(from, text, &real, e);
        if (rc == 0) rc = check_range(o, from, text, real, e);
        if (rc == 0) *(double *)field = real;
        return rc;
    case OPT_INT:
    case OPT_LONG:
        rc = parse_long(from, text, &whole, e);
        if (rc == 0) rc = check_range(o, from, text, (double)whole, e);
        if (rc == 0 && o->type == OPT_INT && (whole > INT32_MAX || whole < INT32_MIN))
            rc = err_set(e, E_INPUT, "%s: %s is too large", from, text);
        if (rc == 0 && o->type == OPT_INT) *(int *)field = (int)whole;
        if (rc == 0 && o->type == OPT_LONG) *(int64_t *)field = whole;
        return rc;
    }
    return rc;
}

void opt_help(const struct opt *table, FILE *to)
{
    for (; table->key; table++) {
        if (!table->help) continue;
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", table->key, table->value ? " " : "", table->value ? table->value : "");
        fprintf(to, "  %-32s %s\n", left, table->help);
    }
}
