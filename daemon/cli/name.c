// Names that need no quotes in a shell and no thought on any disk, whatever the prompt is: a line break, a slash or a
// quote in it never gets into a name. Letters of other scripts stay, cut between characters and not inside one.
//
// The name has the second in it, so two of a kind are rare, but a script may start two renders at once. Trap: a render
// under way has no film yet, only its private folder.
#include "daemon/cli/name.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PROMPT_CHARS = 50, STEM_BYTES = NAME_BYTES - 8, TRIES = 1000, ROOM_TIME = 16 }; // 8: "-999.mp4"

// The character at `s`, and its bytes; 0 bytes: not UTF-8.
static uint32_t utf8_char(const unsigned char *s, int *bytes)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    int n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    uint32_t c = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));
    *bytes = 0;
    for (int i = 1; i < n; i++) {
        if (s[i] >> 6 != 2) return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (n == 0 || c < least[n]) return 0;
    *bytes = n;
    return c;
}

// Letters and digits; beyond ASCII, the blocks of scripts, without those of signs, pictures and private use.
static bool is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
               c == '.';
    return (c >= 0xc0 && c < 0x2000 && c != 0xd7 && c != 0xf7) || (c >= 0x2e80 && c < 0xd800 && c != 0x3000) ||
           (c >= 0xf900 && c < 0xfe00) || (c >= 0x20000 && c < 0x30000);
}

// Appends at most `chars` characters of the text, as long as the stem stays below `most` bytes.
static size_t word_add(char *stem, size_t at, size_t most, const char *text, int chars)
{
    const unsigned char *s = (const unsigned char *)text;
    for (int i = 0; i < chars && *s; i++) {
        int bytes;
        bool kept = is_word(utf8_char(s, &bytes)) && bytes > 0;
        size_t n = kept ? (size_t)bytes : 1;
        if (at + n > most) break;
        if (kept)
            memcpy(stem + at, s, n);
        else
            stem[at] = '_';
        at += n;
        s += bytes > 0 ? bytes : 1;
    }
    stem[at] = 0;
    return at;
}

static bool is_taken(const char *path)
{
    char work[4200];
    snprintf(work, sizeof work, "%s.longtake", path);
    return access(path, F_OK) == 0 || access(work, F_OK) == 0;
}

int name_choose(char *path, size_t n, const char *folder, const struct name_of *o, struct err *e)
{
    char stem[STEM_BYTES + 1] = "infinitetalk_", ranks[32], when[ROOM_TIME + 1] = "";
    struct tm t = {0};
    size_t at = strlen(stem);
    at = word_add(stem, at, STEM_BYTES / 2, o->size, PROMPT_CHARS);
    snprintf(ranks, sizeof ranks, "_%d_%d_", o->ulysses, o->ring);
    at = word_add(stem, at, STEM_BYTES - ROOM_TIME, ranks, (int)sizeof ranks);
    at = word_add(stem, at, STEM_BYTES - ROOM_TIME, o->prompt, PROMPT_CHARS);
    localtime_r(&o->when, &t);
    strftime(when, sizeof when, "_%Y%m%d_%H%M%S", &t);
    word_add(stem, at, STEM_BYTES, when, ROOM_TIME);
    for (int i = 0; i < TRIES; i++) {
        char more[8] = "";
        if (i > 0) snprintf(more, sizeof more, "-%d", i);
        snprintf(path, n, "%s%s%s%s.mp4", folder, *folder ? "/" : "", stem, more);
        if (!is_taken(path)) return 0;
    }
    return err_set(e, E_INPUT, "%s and %d names like it are taken; give -o FILE.mp4", path, TRIES - 1);
}
