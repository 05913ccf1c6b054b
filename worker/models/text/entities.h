// Character references of HTML in running text: &eacute; &#233; &#xe9;
#ifndef WORKER_MODELS_TEXT_ENTITIES_H
#define WORKER_MODELS_TEXT_ENTITIES_H

#include "worker/models/text/text.h"

// Puts s with its references decoded.
// Careful: only what ends in a semicolon, names also in capitals throughout (&EACUTE;) where that is no name itself.
void entities_careful(struct text *out, const char *s, size_t n);
// As a browser: the semicolon is optional after numbers and after the names that HTML has without it, of which also the
// longest one that a longer word begins with counts.
void entities_lax(struct text *out, const char *s, size_t n);

// The character that Windows-1252 has at byte 0x80..0x9f; c itself where it has none.
uint32_t windows_1252(uint32_t c);

#endif
