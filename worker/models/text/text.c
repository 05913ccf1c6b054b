// Growing strings, and the keeper of utf8proc.
#include "worker/models/text/text.h"

#include "proto/base/err.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void text_put(struct text *t, const char *s, size_t n)
{
    if (t->n + n >= t->capacity) {
        size_t want = t->capacity ? 2 * t->capacity : 256;
        while (want <= t->n + n) want *= 2;
        t->s = realloc(t->s, want);
        BUG_IF(!t->s, "no memory for a text of %zu bytes", want);
        t->capacity = want;
    }
    if (n > 0) memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = 0;
}

void text_put_char(struct text *t, uint32_t c)
{
    utf8proc_uint8_t bytes[4];
    text_put(t, (const char *)bytes, (size_t)utf8proc_encode_char((utf8proc_int32_t)c, bytes));
}

void text_clear(struct text *t) { t->n = 0; }

void text_swap(struct text *a, struct text *b)
{
    struct text kept = *a;
    *a = *b;
    *b = kept;
}

void text_free(struct text *t)
{
    free(t->s);
    *t = (struct text){0};
}

bool text_is_valid(const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)s + at, (utf8proc_ssize_t)(n - at), &c);
        if (step <= 0 || c == 0) return false;
        at += (size_t)step;
    }
    return true;
}

const char *text_shown(const char *s)
{
    for (const char *c = s; s && *c; c++)
        if ((uint8_t)*c < 0x20 || *c == 0x7f) return "?";
    return s ? s : "?";
}

uint32_t text_next(const char *s, size_t n, size_t *at)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)s + *at, (utf8proc_ssize_t)(n - *at), &c);
    BUG_IF(step <= 0, "byte %zu of a text is not UTF-8", *at);
    *at += (size_t)step;
    return (uint32_t)c;
}

size_t text_cluster_end(const char *s, size_t n, size_t at)
{
    utf8proc_int32_t state = 0;
    uint32_t last = text_next(s, n, &at);
    while (at < n) {
        size_t behind = at;
        uint32_t c = text_next(s, n, &behind);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)c, &state)) break;
        last = c;
        at = behind;
    }
    return at;
}

void text_put_form(struct text *t, enum text_form form, const char *s, size_t n)
{
    static const utf8proc_option_t options[] = {
        [TEXT_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [TEXT_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [TEXT_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [TEXT_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *form_of = NULL;
    utf8proc_ssize_t n_form = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &form_of, options[form]);
    BUG_IF(n_form < 0, "normal form of %zu bytes: %s", n, utf8proc_errmsg(n_form));
    text_put(t, (const char *)form_of, (size_t)n_form);
    free(form_of);
}

bool char_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

// Alphabetic symbols that are no letters by category: circled and squared Latin.
static bool is_circled_letter(uint32_t c)
{
    return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189);
}

bool char_is_word(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return c == 0x200c || c == 0x200d || is_circled_letter(c); // joiners
    }
}

bool char_is_digit(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND; }

uint32_t char_upper(uint32_t c) { return (uint32_t)utf8proc_toupper((utf8proc_int32_t)c); }
