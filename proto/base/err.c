// Errors. See err.h for the contract; this file only formats.
#include "proto/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What users wrote comes along in sentences: no line break or escape sequence of theirs reaches a terminal.
static void one_line(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f) *c = ' ';
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (!e) return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    one_line(e->text);
    e->code = code;
    return code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    if (!e) return E_FATAL;
    char inner[sizeof e->text];
    memcpy(inner, e->text, sizeof inner);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text) snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", inner);
    return e->code;
}

int err_way(struct err *e, const char *way)
{
    if (!e) return E_INPUT;
    if (e->code != E_INPUT || strchr(e->text, ';')) return e->code;
    size_t n = strlen(e->text), most = sizeof e->text - strlen(way) - 3;
    snprintf(e->text + (n < most ? n : most), strlen(way) + 3, "; %s", way);
    return e->code;
}

const char *err_name(int code)
{
    switch (code) {
    case E_OK:
        return "ok";
    case E_INPUT:
        return "input";
    case E_BUSY:
        return "busy";
    case E_LOST:
        return "lost";
    default:
        return "fatal";
    }
}

void err_bug(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "BUG %s:%d: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}
