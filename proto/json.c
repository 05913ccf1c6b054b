// JSON by jansson, strict: duplicate keys are refused, depth and size are limited.
#include "proto/json.h"

#include "proto/file.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_FILE_MAX = 64 << 20 };

int json_parse(json_t **out, const char *what, const void *text, size_t n, struct err *e)
{
    const char *p = text;
    if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) p += 3, n -= 3;
    json_error_t j;
    *out = json_loadb(p, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &j);
    if (*out) return 0;
    enum json_error_code why = json_error_code(&j);
    bool spelt = why == json_error_invalid_utf8;
    if (why == json_error_null_character || why == json_error_null_byte_in_key)
        return err_set(e, E_INPUT, "%s: line %d: a text holds the character \\u0000, which ends texts; leave it out",
                       what, j.line);
    return err_set(e, E_INPUT, "%s is not valid JSON: line %d, column %d: %s%s", what, j.line, j.column, j.text,
                   spelt ? "; save it as UTF-8" : "");
}

int json_read(json_t **out, const char *path, struct err *e)
{
    char *text = NULL;
    size_t n = 0;
    int rc = file_text(&text, &n, path, JSON_FILE_MAX, e);
    if (rc == 0) rc = json_parse(out, path, text, n, e);
    free(text);
    return rc;
}
