// Edit distance with transpositions over short words (at most 63 letters), two rows at a time plus one for swaps.
#include "proto/base/near.h"

#include <stddef.h>
#include <string.h>

enum { NEAR_MAX = 64 };

static int near_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n >= NEAR_MAX || m >= NEAR_MAX) return NEAR_MAX;
    int rows[3][NEAR_MAX];
    for (size_t j = 0; j <= m; j++) rows[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *cur = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
        cur[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (cur[j - 1] + 1 < best) best = cur[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            cur[j] = best;
        }
    }
    return rows[n % 3][m];
}

const char *near_word(const char *word, const char *const *words)
{
    const char *best = NULL;
    int least = 4;
    for (; *words; words++) {
        int d = near_distance(word, *words);
        if (d < least && 2 * d <= (int)strlen(word) + 1) {
            least = d;
            best = *words;
        }
    }
    return best;
}
