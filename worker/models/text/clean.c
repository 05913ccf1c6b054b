// Three stages: repair (what ftfy does by default), HTML decoded twice more as a browser would, white space.
//
// Repair works line by line, again and again until nothing changes: references that end in a semicolon, then every
// character by itself (Windows-1252 controls, digraphs and ligatures, wide and narrow forms, curly quotes, line ends),
// terminal sequences and controls, normal form C. From the first line with a '<' on, references stay, since that is
// HTML on purpose. The decoding in stage two does not care.
//
// A deviation: text that was decoded with the wrong code page ("Ã©" for "é") is not guessed at; it is taken as written.
//
// Easy to get wrong: wide punctuation (，！？) becomes ASCII while 。 and 、 stay, so nearly every Chinese prompt
// changes; U+0085 is an ellipsis by its Windows byte before it could be a line end.
#include "worker/models/text/clean.h"

#include "worker/models/text/entities.h"

#include <string.h>

// ---- single characters

struct digraph {
    uint32_t c;
    const char *plain;
};
static const struct digraph digraphs[] = {
    {0x132, "IJ"},   {0x133, "ij"},   {0x149, "\u02bcn"},  {0x1c4, "D\u017d"}, {0x1c5, "D\u017e"}, {0x1c6, "d\u017e"},
    {0x1c7, "LJ"},   {0x1c8, "Lj"},   {0x1c9, "lj"},       {0x1ca, "NJ"},      {0x1cb, "Nj"},      {0x1cc, "nj"},
    {0x1f1, "DZ"},   {0x1f2, "Dz"},   {0x1f3, "dz"},       {0xfb00, "ff"},     {0xfb01, "fi"},     {0xfb02, "fl"},
    {0xfb03, "ffi"}, {0xfb04, "ffl"}, {0xfb05, "\u017ft"}, {0xfb06, "st"},
};

static uint32_t straighten(uint32_t c)
{
    if (c == 0x2bc || (c >= 0x2018 && c <= 0x201b)) return '\'';
    if (c >= 0x201c && c <= 0x201f) return '"';
    if (c == '\r' || c == 0x2028 || c == 0x2029 || c == 0x85) return '\n';
    return c;
}

// Wide and narrow forms stand in one block, and their compatible form is what ftfy gives them.
static void put_width(struct text *out, uint32_t c)
{
    if (c == 0x3000) {
        text_put(out, " ", 1);
    } else if (c >= 0xff01 && c <= 0xffef) {
        struct text one = {0}, form = {0};
        text_put_char(&one, c);
        text_put_form(&form, TEXT_NFKC, one.s, one.n);
        for (size_t at = 0; at < form.n;) text_put_char(out, straighten(text_next(form.s, form.n, &at)));
        text_free(&one);
        text_free(&form);
    } else {
        text_put_char(out, straighten(c));
    }
}

static void put_plain(struct text *out, uint32_t c)
{
    c = windows_1252(c);
    for (size_t i = 0; i < sizeof digraphs / sizeof *digraphs; i++)
        if (digraphs[i].c == c) {
            const char *s = digraphs[i].plain;
            for (size_t at = 0, n = strlen(s); at < n;) put_width(out, text_next(s, n, &at));
            return;
        }
    put_width(out, c);
}

static void plain_chars(struct text *out, const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        uint32_t c = text_next(s, n, &at);
        put_plain(out, c);
        if (c == '\r' && at < n && s[at] == '\n') at++;
    }
}

// ---- controls

// The bytes of ESC [ digits and semicolons, letter; 0 when there is none at s.
static size_t terminal_sequence(const char *s, size_t n)
{
    if (n < 3 || s[0] != 0x1b || s[1] != '[') return 0;
    for (size_t at = 2; at < n;) {
        uint32_t c = text_next(s, n, &at);
        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return at;
        if (c != ';' && !char_is_digit(c)) return 0;
    }
    return 0;
}

static bool is_control(uint32_t c)
{
    return c < 9 || c == 0x0b || (c >= 0x0e && c < 0x20) || c == 0x7f || (c >= 0x206a && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xfff9 && c <= 0xfffc);
}

static void drop_controls(struct text *out, const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t sequence = terminal_sequence(s + at, n - at);
        if (sequence > 0) {
            at += sequence;
            continue;
        }
        uint32_t c = text_next(s, n, &at);
        if (!is_control(c)) text_put_char(out, c);
    }
}

// ---- stages

// One line; `a` and `b` are scratch.
static void repair_line(struct text *out, const char *s, size_t n, bool decode, struct text *a, struct text *b)
{
    struct text line = {0};
    text_put(&line, s, n);
    for (;;) {
        text_clear(a);
        if (decode)
            entities_careful(a, line.s, line.n);
        else
            text_put(a, line.s, line.n);
        text_clear(b);
        plain_chars(b, a->s, a->n);
        text_clear(a);
        drop_controls(a, b->s, b->n);
        text_clear(b);
        text_put_form(b, TEXT_NFC, a->s, a->n);
        if (b->n == line.n && memcmp(b->s, line.s, line.n) == 0) break;
        text_swap(b, &line);
    }
    text_put(out, line.s, line.n);
    text_free(&line);
}

static void repair(struct text *out, const char *s, size_t n)
{
    struct text a = {0}, b = {0};
    bool decode = true;
    for (size_t at = 0; at < n;) {
        const char *end = memchr(s + at, '\n', n - at);
        size_t bytes = end ? (size_t)(end - (s + at)) + 1 : n - at;
        if (memchr(s + at, '<', bytes)) decode = false;
        repair_line(out, s + at, bytes, decode, &a, &b);
        at += bytes;
    }
    text_free(&a);
    text_free(&b);
}

static void single_blanks(struct text *out, const char *s, size_t n)
{
    bool blank = false;
    for (size_t at = 0; at < n;) {
        uint32_t c = text_next(s, n, &at);
        if (char_is_space(c)) {
            blank = true;
            continue;
        }
        if (blank && out->n > 0) text_put(out, " ", 1);
        blank = false;
        text_put_char(out, c);
    }
}

void clean_prompt(struct text *out, const char *s, size_t n)
{
    struct text a = {0}, b = {0};
    repair(&a, s, n);
    entities_lax(&b, a.s, a.n);
    text_clear(&a);
    entities_lax(&a, b.s, b.n);
    text_clear(out);
    single_blanks(out, a.s, a.n);
    text_free(&a);
    text_free(&b);
}
