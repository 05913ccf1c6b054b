// Two readers of character references: the repairing one of ftfy and the forgiving one of browsers.
//
// Both are one pass from left to right: what a reference decodes to is not looked at again in the same pass. A number
// means a code point, but 0, surrogates and numbers beyond Unicode mean U+FFFD, 0x80 to 0x9f mean Windows-1252, and
// controls and non-characters vanish.
//
// Easy to get wrong: the careful reader leaves &#59; alone, because its result is a semicolon; a browser reads
// "&notit;" as "&not" and "it;".
#include "worker/models/text/entities.h"

#include "worker/models/text/entity_table.h"

#include <string.h>

enum { CAREFUL_MAX = 24, LAX_MAX = 32 }; // characters of a name, at most

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

uint32_t windows_1252(uint32_t c)
{
    static const uint16_t table[32] = {0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021,
                                       0x2c6,  0x2030, 0x160,  0x2039, 0x152,  0x8d,   0x17d,  0x8f,
                                       0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                       0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};
    return c >= 0x80 && c <= 0x9f ? table[c - 0x80] : c;
}

// ---- numbers

static bool vanishes(uint32_t c)
{
    return c < 9 || c == 0x0b || (c >= 0x0e && c < 0x20) || c == 0x7f || (c >= 0xfdd0 && c <= 0xfdef) ||
           (c & 0xfffe) == 0xfffe;
}

static void put_number(struct text *out, uint32_t c)
{
    if (c == 0 || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
        text_put_char(out, 0xfffd);
    else if (!vanishes(c))
        text_put_char(out, windows_1252(c));
}

// The number that begins behind "&#", at s: its bytes (0: none) and its value, which stays just above Unicode when it
// is larger.
static size_t scan_number(const char *s, size_t n, uint32_t *value)
{
    bool hex = n > 0 && (s[0] == 'x' || s[0] == 'X');
    size_t at = hex;
    uint32_t v = 0;
    for (; at < n && (hex ? is_hex(s[at]) : is_digit(s[at])); at++) {
        uint32_t digit = is_digit(s[at]) ? (uint32_t)(s[at] - '0') : (uint32_t)((s[at] | 0x20) - 'a') + 10;
        v = v * (hex ? 16 : 10) + digit;
        if (v > 0x10ffff) v = 0x110000;
    }
    *value = v;
    return at > hex ? at : 0;
}

// ---- names

static void put_entity(struct text *out, const struct entity *e)
{
    text_put_char(out, e->c[0]);
    if (e->c[1]) text_put_char(out, e->c[1]);
}

// The longest name without semicolon that s begins with, at least two bytes and not all of it.
static const struct entity *find_bare_prefix(const char *s, size_t n)
{
    for (size_t k = n > LAX_MAX ? LAX_MAX : n; k >= 2; k--) {
        const struct entity *e = entity_find(s, k);
        if (e && e->bare) return e;
    }
    return NULL;
}

// A name in capitals whose small form is one: the capital of its character. Ligatures come apart, as capitals do.
static bool put_capital(struct text *out, const char *name, size_t n)
{
    char small[CAREFUL_MAX];
    for (size_t i = 0; i < n; i++) {
        if (!is_upper(name[i]) && !is_digit(name[i])) return false;
        small[i] = is_upper(name[i]) ? (char)(name[i] | 0x20) : name[i];
    }
    const struct entity *e = entity_find(small, n);
    if (!e || find_bare_prefix(name, n)) return false;
    struct text plain = {0}, apart = {0};
    put_entity(&plain, e);
    bool ligature = (e->c[0] >= 0xfb00 && e->c[0] <= 0xfb04) || e->c[0] == 0x149;
    text_put_form(&apart, ligature ? TEXT_NFKC : TEXT_NFC, plain.s, plain.n);
    const struct text *from = ligature ? &apart : &plain;
    for (size_t at = 0; at < from->n;) {
        uint32_t c = text_next(from->s, from->n, &at);
        if (c == 0xdf)
            text_put(out, "SS", 2);
        else
            text_put_char(out, char_upper(c));
    }
    text_free(&plain);
    text_free(&apart);
    return true;
}

// ---- the two readers: what follows '&' at s is decoded into out; the bytes read, or 0 when it is no reference

static size_t read_careful(struct text *out, const char *s, size_t n)
{
    size_t hash = n > 0 && s[0] == '#', end = hash;
    while (end < n && (is_digit(s[end]) || is_upper(s[end]) || is_lower(s[end]))) end++;
    if (end == hash || end - hash > CAREFUL_MAX || end == n || s[end] != ';') return 0;
    if (hash) {
        uint32_t c;
        if (scan_number(s + 1, end - 1, &c) != end - 1 || c == ';') return 0;
        put_number(out, c);
        return end + 1;
    }
    const struct entity *e = entity_find(s, end);
    if (e)
        put_entity(out, e);
    else if (!put_capital(out, s, end))
        return 0;
    return end + 1;
}

static size_t read_lax(struct text *out, const char *s, size_t n)
{
    if (n > 0 && s[0] == '#') {
        uint32_t c;
        size_t digits = scan_number(s + 1, n - 1, &c), end = 1 + digits;
        if (digits == 0) return 0;
        put_number(out, c);
        return end < n && s[end] == ';' ? end + 1 : end;
    }
    size_t end = 0;
    while (end < n && end < LAX_MAX && (is_digit(s[end]) || is_upper(s[end]) || is_lower(s[end]))) end++;
    const struct entity *whole = end < n && s[end] == ';' ? entity_find(s, end) : NULL;
    if (whole) {
        put_entity(out, whole);
        return end + 1;
    }
    const struct entity *begin = find_bare_prefix(s, end);
    if (!begin) return 0;
    put_entity(out, begin);
    return strlen(begin->name);
}

static void decode(struct text *out, const char *s, size_t n, size_t (*read)(struct text *, const char *, size_t))
{
    for (size_t at = 0; at < n;) {
        size_t plain = at;
        while (plain < n && s[plain] != '&') plain++;
        text_put(out, s + at, plain - at);
        if ((at = plain) == n) break;
        size_t used = read(out, s + at + 1, n - at - 1);
        if (used == 0) text_put(out, "&", 1);
        at += 1 + used;
    }
}

void entities_careful(struct text *out, const char *s, size_t n) { decode(out, s, n, read_careful); }
void entities_lax(struct text *out, const char *s, size_t n) { decode(out, s, n, read_lax); }
