// JSON by jansson, strict: duplicate keys are refused, depth and size are limited.
#include "proto/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { JSON_FILE_MAX = 64 << 20 };

int json_parse(json_t **out, const char *what, const void *text, size_t n, struct err *e)
{
    const char *p = text;
    if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) p += 3, n -= 3;
    json_error_t j;
    *out = json_loadb(p, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &j);
    if (*out) return 0;
    return err_set(e, E_INPUT, "%s is not valid JSON: line %d, column %d: %s", what, j.line, j.column, j.text);
}

int json_read(json_t **out, const char *path, struct err *e)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(e, E_INPUT, "cannot read %s: %s", path, strerror(errno));
    int rc = 0;
    char *text = NULL;
    if (fstat(fileno(f), &st) < 0 || !S_ISREG(st.st_mode))
        rc = err_set(e, E_INPUT, "%s is not a file", path);
    else if (st.st_size > JSON_FILE_MAX)
        rc = err_set(e, E_INPUT, "%s has %lld bytes; a JSON file here has at most %d", path, (long long)st.st_size,
                     JSON_FILE_MAX);
    else if (!(text = malloc((size_t)st.st_size + 1)))
        rc = err_set(e, E_FATAL, "no memory to read %s", path);
    else if (fread(text, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        rc = err_set(e, E_INPUT, "cannot read %s to its end", path);
    else
        rc = json_parse(out, path, text, (size_t)st.st_size, e);
    free(text);
    fclose(f);
    return rc;
}
