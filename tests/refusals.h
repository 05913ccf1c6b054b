// For tests of files that must be refused: writes bytes, opens them as weights, and holds the sentence to its words,
// its file and its way out. Include below cmocka; call top_make first (tests/folder.h).
#ifndef TESTS_REFUSALS_H
#define TESTS_REFUSALS_H

#include "tests/folder.h"
#include "worker/weights/weights.h"

#include <string.h>

// A row of a table whose bytes may hold zeros.
#define ROW(what, bytes, words)                                                                                        \
    {                                                                                                                  \
        what, bytes, sizeof(bytes) - 1, words                                                                          \
    }

// A path in the test's folder; the last four stay.
static inline const char *at(const char *name)
{
    static char path[4][256];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", top, name);
    return p;
}

static inline void put(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

// One sentence with the file's path, these words and, behind them, a way out.
static inline void holds(const struct err *e, const char *path, const char *what, const char *words)
{
    const char *said = strstr(e->text, words), *way = said ? strstr(said + strlen(words) - 1, "; ") : NULL;
    if (!strstr(e->text, path)) fail_msg("%s: does not name the file: %s", what, e->text);
    if (!words[0] || !said) fail_msg("%s: '%s' is not in: %s", what, words, e->text);
    if (!strchr(words, ';') && (!way || strlen(way) < 10)) fail_msg("%s: no way out: %s", what, e->text);
    if (strchr(e->text, '\n')) fail_msg("%s: several lines: %s", what, e->text);
}

static inline void refused(const char *path, const char *what, const char *words)
{
    struct weights *w = NULL;
    struct err e = {0};
    int rc = weights_open(&w, path, &e);
    weights_free(&w);
    if (rc != E_INPUT) fail_msg("%s: accepted, or the wrong code %d", what, rc);
    holds(&e, path, what, words);
}

static inline void accepted(const char *path, int64_t n)
{
    struct weights *w = NULL;
    struct err e = {0};
    if (weights_open(&w, path, &e) < 0) fail_msg("%s", e.text);
    assert_int_equal(weights_count(w), n);
    weights_free(&w);
}

#endif
