// The arithmetic of shares. A cut may fall inside a frame: nothing that is computed on rows needs whole frames.
#include "parallel/split.h"

#include "proto/base/err.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct split_rows split_rows(int64_t total, int n, int i)
{
    BUG_IF(total < 1 || n < 1 || i < 0 || i >= n, "rows of %lld for rank %d of %d", (long long)total, i, n);
    int64_t each = (total + n - 1) / n;
    return (struct split_rows){
        .total = total, .each = each, .own = {.from = least(i * each, total), .to = least((i + 1) * each, total)}};
}

struct span split_even(int64_t total, int n, int i)
{
    BUG_IF(total < 0 || n < 1 || i < 0 || i >= n, "%lld in %d shares, of which the %d.", (long long)total, n, i);
    int64_t less = total / n, longer = total % n;
    int64_t from = i * less + least(i, longer);
    return (struct span){.from = from, .to = from + less + (i < longer)};
}

int split_groups(struct split_group out[3], struct span rows, int64_t frame_rows)
{
    int n = 0;
    for (int64_t at = rows.from; at < rows.to;) {
        int64_t frame = at / frame_rows, left = rows.to - at, inside = at % frame_rows;
        struct split_group g = {.row = at - rows.from, .rows = frame_rows - inside, .frame = frame, .n_frames = 1};
        if (inside == 0 && left >= frame_rows)
            g.n_frames = left / frame_rows;
        else
            g.rows = least(g.rows, left);
        out[n++] = g;
        at += g.rows * g.n_frames;
    }
    return n;
}
