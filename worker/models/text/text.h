// Text on its way from a prompt to ids: a string that grows, and Unicode as the tokenizer needs it.
//
// Life: zero-initialise, put, read s and n, free. A text may be cleared and filled again. Everything here is valid
// UTF-8 without NUL: text_is_valid is asked once, where bytes come in.
#ifndef WORKER_MODELS_TEXT_TEXT_H
#define WORKER_MODELS_TEXT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *s;  // NUL-terminated once anything was put
    size_t n; // bytes
    size_t capacity;
};

void text_put(struct text *t, const char *s, size_t n); // s must not point into t
void text_put_char(struct text *t, uint32_t c);
void text_clear(struct text *t);
void text_swap(struct text *a, struct text *b);
void text_free(struct text *t);

bool text_is_valid(const char *s, size_t n);
// s for a sentence: itself when it is one line of printable characters, else "?".
const char *text_shown(const char *s);
// The character at *at < n; *at moves behind it.
uint32_t text_next(const char *s, size_t n, size_t *at);
// Where the extended grapheme cluster that begins at `at` < n ends.
size_t text_cluster_end(const char *s, size_t n, size_t at);

enum text_form { TEXT_NFC, TEXT_NFD, TEXT_NFKC, TEXT_NFKD };
// Puts the normal form of s.
void text_put_form(struct text *t, enum text_form form, const char *s, size_t n);

bool char_is_space(uint32_t c);  // White_Space of Unicode
bool char_is_word(uint32_t c);   // letters, marks, digits, connectors: \w
bool char_is_digit(uint32_t c);  // decimal digits of any script: \d
uint32_t char_upper(uint32_t c); // one for one

#endif
