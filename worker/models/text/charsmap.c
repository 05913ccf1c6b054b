// Reading and applying the map.
//
//   u32 little-endian: bytes of the trie | trie: u32 units | replacements, each ended by NUL
//
// A unit of the double array holds the label of the byte that leads to it (bits 0-7), whether a value hangs below it
// (bit 8), and how far its children are (bits 10-30, times 256 when bit 9 is set); a value is a unit with the offset of
// its replacement in bits 0-30. Child c of the node at p is at p ^ c.
//
// The rule is odd, but it is what every reader of these models does: a grapheme cluster below six bytes is replaced as
// a whole by what its *shortest* prefix in the trie says; failing that, each of its characters by itself in the same
// way.
//
// The bytes are a stranger's: offsets outside, or into the middle of a character, count as "not in the map".
#include "worker/models/text/charsmap.h"

#include <string.h>

enum { CLUSTER_MAX = 6, REPLACEMENT_MAX = 256 }; // bytes, exclusive and inclusive

// ---- Base64

static int digit_of(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

// Bytes written to `out` (room for n * 3 / 4), or -1.
static long decode_base64(uint8_t *out, const char *s, size_t n)
{
    uint32_t bits = 0;
    int n_bits = 0;
    long n_out = 0;
    while (n > 0 && s[n - 1] == '=') n--;
    for (size_t i = 0; i < n; i++) {
        int d = digit_of(s[i]);
        if (d < 0) return -1;
        bits = bits << 6 | (uint32_t)d;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[n_out++] = (uint8_t)(bits >> n_bits);
        }
    }
    return n_out;
}

// ---- reading

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int charsmap_read(struct charsmap *m, struct arena *a, const char *base64, size_t n, struct err *e)
{
    uint8_t *bytes = arena_alloc(a, n / 4 * 3 + 4);
    long n_bytes = decode_base64(bytes, base64, n);
    if (n_bytes < 0) return err_set(e, E_INPUT, "its precompiled_charsmap is not Base64");
    uint32_t trie = n_bytes >= 4 ? le32(bytes) : 0;
    if (n_bytes < 8 || trie < 4 || trie % 4 || trie > (size_t)n_bytes - 4)
        return err_set(e, E_INPUT, "its precompiled_charsmap of %ld bytes has no room for a trie of %u bytes", n_bytes,
                       trie);
    m->n_units = trie / 4;
    m->unit = arena_array(a, m->n_units, sizeof *m->unit);
    for (size_t i = 0; i < m->n_units; i++) m->unit[i] = le32(bytes + 4 + 4 * i);
    m->replacement = (const char *)bytes + 4 + trie;
    m->n_replacement = (size_t)n_bytes - 4 - trie;
    return 0;
}

// ---- applying

// The replacement at `offset`, or NULL when nothing sound is there.
static const char *replacement_at(const struct charsmap *m, uint32_t offset, size_t *n)
{
    if (offset >= m->n_replacement) return NULL;
    const char *s = m->replacement + offset;
    *n = strnlen(s, m->n_replacement - offset);
    return *n <= REPLACEMENT_MAX && text_is_valid(s, *n) ? s : NULL;
}

// What the shortest prefix of s that is in the trie stands for, or NULL.
static const char *look_up(const struct charsmap *m, const char *s, size_t n, size_t *n_found)
{
    size_t at = 0;
    uint32_t unit = m->unit[0];
    for (size_t i = 0;; i++) {
        at ^= (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
        if (i > 0 && unit >> 8 & 1)
            return at < m->n_units ? replacement_at(m, m->unit[at] & 0x7fffffffu, n_found) : NULL;
        if (i == n) return NULL;
        at ^= (uint8_t)s[i];
        if (at >= m->n_units) return NULL;
        unit = m->unit[at];
        if ((unit & 0x800000ffu) != (uint8_t)s[i]) return NULL;
    }
}

void charsmap_apply(const struct charsmap *m, struct text *out, const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t end = text_cluster_end(s, n, at), n_found;
        const char *found = end - at < CLUSTER_MAX ? look_up(m, s + at, end - at, &n_found) : NULL;
        if (found) {
            text_put(out, found, n_found);
            at = end;
        }
        while (at < end) {
            size_t next = at;
            text_next(s, end, &next);
            found = look_up(m, s + at, next - at, &n_found);
            text_put(out, found ? found : s + at, found ? n_found : next - at);
            at = next;
        }
    }
}
