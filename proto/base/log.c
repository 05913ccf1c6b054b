// Event log. The line is built in one buffer and written once, so lines of several threads or ranks never mix.
//
// As JSON an event is the same words read back: key=value, the value a number, a word, or text between quotes, which
// ends where a quote is followed by the end or by the next key. So an event is written in one way wherever it happens.
#include "proto/base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level log_min = LOG_INFO;
static const char *log_program = "longtake";
static int log_rank;
static int log_as_json;

void log_init(enum log_level level, const char *program, int rank)
{
    log_min = level;
    log_program = program;
    log_rank = rank;
}

void log_json(int on) { log_as_json = on; }

struct line {
    char text[1 << 14]; // what is said has 2 KiB, and an odd byte is written in six
    size_t n;
};

static void __attribute__((format(printf, 2, 3))) put(struct line *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(l->text + l->n, sizeof l->text - l->n - 4, fmt, ap); // room for the end
    va_end(ap);
    l->n += n < 0 ? 0 : (size_t)n;
    if (l->n > sizeof l->text - 5) l->n = sizeof l->text - 5;
}

static void put_json(struct line *l, const char *text, size_t n)
{
    put(l, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            put(l, "\\%c", c);
        else if (c < ' ')
            put(l, "\\u%04x", c);
        else
            put(l, "%c", c);
    }
    put(l, "\"");
}

static size_t key_length(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    return n > 0 && s[n] == '=' ? n : 0;
}

// The text's length up to the quote that ends it.
static size_t quoted_length(const char *s)
{
    for (size_t n = 0; s[n]; n++)
        if (s[n] == '"' && (s[n + 1] == 0 || (s[n + 1] == ' ' && key_length(s + n + 2)))) return n;
    return strlen(s);
}

static void put_pairs(struct line *l, const char *s)
{
    while (*s) {
        size_t key = key_length(s), n;
        if (key == 0) {
            s++;
            continue;
        }
        put(l, ",");
        put_json(l, s, key);
        put(l, ":");
        s += key + 1;
        if (*s == '"') {
            n = quoted_length(++s);
            put_json(l, s, n);
            s += n + (s[n] == '"');
            continue;
        }
        n = strcspn(s, " ");
        size_t digits = strspn(s + (*s == '-'), "0123456789") + (*s == '-');
        bool number = n > 0 && n < 19 && digits == n && s[n - 1] != '-' && (s[*s == '-'] != '0' || n == 1);
        if (number)
            put(l, "%.*s", (int)n, s);
        else
            put_json(l, s, n);
        s += n;
    }
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level < log_min || level >= LOG_OFF) return;
    struct line l = {.n = 0};
    char said[2048], at[32];
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    struct tm tm;
    gmtime_r(&ts.tv_sec, &tm);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S", &tm);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(said, sizeof said, fmt, ap);
    va_end(ap);
    if (log_as_json) {
        put(&l, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"program\":\"%s\",\"rank\":%d,\"event\":\"%s\"", at,
            ts.tv_nsec / 1000000, names[level], log_program, log_rank, event);
        put_pairs(&l, said);
        l.text[l.n++] = '}';
    } else
        put(&l, "%s.%03ldZ %s %s rank=%d %s %s", at, ts.tv_nsec / 1000000, names[level], log_program, log_rank, event,
            said);
    l.text[l.n++] = '\n';
    ssize_t written = write(STDERR_FILENO, l.text, l.n);
    (void)written; // nowhere to report it
}
