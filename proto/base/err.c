// Errors. See err.h for the contract; this file only formats.
#include "proto/base/err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What users wrote comes along in sentences: no line break or escape sequence of theirs reaches a terminal.
static void one_line(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f) *c = ' ';
}

static bool is_inside(char c) { return ((unsigned char)c & 0xc0) == 0x80; } // of a letter in UTF-8

// Of a longer sentence, half the room from its begin and half from its end.
static void fit(struct err *e, const char *whole)
{
    static const char gap[] = "...";
    size_t n = strlen(whole), room = sizeof e->text - 1, head = n, tail = n;
    if (n > room) {
        head = room / 2;
        tail = n - (room - head - strlen(gap));
        while (head > 0 && is_inside(whole[head])) head--;
        while (is_inside(whole[tail])) tail++;
    }
    snprintf(e->text, sizeof e->text, "%.*s%s%s", (int)head, whole, n > room ? gap : "", whole + tail);
    one_line(e->text);
}

static void set(struct err *e, const char *fmt, va_list ap)
{
    char *whole = NULL;
    BUG_IF(vasprintf(&whole, fmt, ap) < 0, "no memory for a sentence");
    fit(e, whole);
    free(whole);
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (!e) return code;
    va_list ap;
    va_start(ap, fmt);
    set(e, fmt, ap);
    va_end(ap);
    e->code = code;
    return code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    if (!e) return E_FATAL;
    struct err inner = *e;
    va_list ap;
    va_start(ap, fmt);
    set(e, fmt, ap);
    va_end(ap);
    struct err outer = *e;
    return err_set(e, inner.code, "%s: %s", outer.text, inner.text);
}

int err_way(struct err *e, const char *way)
{
    if (!e) return E_INPUT;
    if (e->code != E_INPUT || strchr(e->text, ';')) return e->code;
    struct err was = *e;
    return err_set(e, was.code, "%s; %s", was.text, way);
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
