// Attention over a split sequence.
//
//   q, k, v [b, n, H, d]                                     n rows of this rank, all heads
//     -> send [b][U][n][3][H/U][d]   --all to all-->  recv [b][U n][3][H/U][d]        heads axis
//     -> attention over the rows of R such groups            ring axis: k, v copied to a slot that travels
//     -> out [b][U n][H/U][d]        --all to all-->  [b][U][n][H/U][d] -> y [b, n, H, d]
//
// The idea of the layouts: the exchange sends to rank u the heads of u; what arrives is in the order of rows because
// source ranks own consecutive rows, so attention reads it in place, by strides. On the way back a destination is a run
// of rows, so the output is already sorted; only then are heads interleaved, in one copy.
//
// Ring, round i of R: this rank holds block (r - i) mod R. The next block arrives and this one leaves while its
// attention runs; the last round sends nothing. A block without real rows is skipped, or its empty maximum would make
// NaN of a difference of infinities.
//
// The speaker map needs every row's q against the first frame's keys. After the exchange a rank holds q of its block
// for its heads, and the first frame's keys pass by: so each rank makes the map of its block over its heads, one
// all-reduce over the heads axis adds them, and its range is a gather of two numbers a class over the ring. In bf16 the
// one rounding of the op must come after the sum: parts are made from F32 copies, some rows at a time.
//
// Bytes sent by a rank, x = b n H d bytes: 4 x (U-1)/U + 2 x.
#include "parallel/seqpar.h"

enum { MAP_ROWS = 1024, PIECE_ROWS = 2048 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Real rows of ring block i.
static int64_t block_rows(const struct seqpar *sp, int i)
{
    int64_t left = sp->rows.total - i * sp->block;
    return left < 0 ? 0 : least(left, sp->block);
}

void seqpar_init(struct seqpar *sp, const struct mesh *m, struct dev_arena *a, const struct seqpar_for *want)
{
    struct seqpar_for f = *want;
    if (!f.batch) f.batch = 1;
    if (!f.classes) f.maps = 0;
    if (f.classes && !f.maps) f.maps = f.batch;
    static const struct mesh alone = {.n = {1, 1, 1}};
    if (!m) m = &alone;
    int u = m->n.heads, r = m->n.ring;
    BUG_IF(f.n_heads % u != 0, "%d heads on %d ranks", f.n_heads, u);
    BUG_IF(f.maps > f.batch, "%d maps of %d branches", f.maps, f.batch);
    *sp = (struct seqpar){.dev = dev_arena_dev(a), .sequence = m->sequence, .ring = m->ring, .heads = m->heads, .f = f};
    sp->n_ring = r, sp->i_ring = m->i_ring, sp->n_heads = u, sp->i_heads = m->i_heads;
    sp->rows = split_rows(f.frames * f.frame_tokens, r * u, m->i_ring * u + m->i_heads);
    sp->n_groups = split_groups(sp->group, sp->rows.own, f.frame_tokens);
    int64_t n = sp->rows.each, h = f.n_heads / u, d = f.width, b = f.batch;
    sp->block = n * u;
    if (u > 1) {
        sp->send = dev_tensor(a, f.dtype, SHAPE(b, u, n, 3, h, d));
        sp->recv = dev_tensor(a, f.dtype, SHAPE(b, u, n, 3, h, d));
        sp->out = dev_tensor(a, f.dtype, SHAPE(b, sp->block, h, d));
    }
    if (r > 1) {
        for (int i = 0; i < 2; i++) sp->slot[i] = dev_tensor(a, f.dtype, SHAPE(b, sp->block, 2, h, d));
        sp->sum = dev_tensor(a, DT_F32, SHAPE(b, sp->block, h, d));
        sp->state = dev_tensor(a, DT_F32, SHAPE(b, sp->block, h, 2));
    }
    if (f.maps) {
        sp->key0 = dev_tensor(a, f.dtype, SHAPE(f.maps, f.frame_tokens, h, d));
        sp->part = dev_tensor(a, DT_F32, SHAPE(f.maps, f.classes, sp->block));
        sp->range = dev_tensor(a, DT_F32, SHAPE(f.maps, f.classes, 2));
        sp->ranges = dev_tensor(a, DT_F32, SHAPE(r, f.maps, f.classes, 2));
        sp->turned = dev_tensor(a, DT_F32, SHAPE(r, f.maps, f.classes, 2));
        op_fill(sp->dev, sp->range, 0);
    }
    if (f.maps && f.dtype != DT_F32) {
        sp->q32 = dev_tensor(a, DT_F32, SHAPE(least(MAP_ROWS, sp->block), h, d));
        sp->k32 = dev_tensor(a, DT_F32, SHAPE(f.frame_tokens, h, d));
        sp->rounded = dev_tensor(a, f.dtype, SHAPE(f.maps, f.classes, sp->block));
    }
}

// ---- heads axis

// q (0), k (1) or v (2) in a buffer of the exchange, as [b, U, n, H/U, d].
static tensor lane(tensor buffer, int i) { return tensor_at(tensor_permute(buffer, (int[]){3, 0, 1, 2, 4, 5}), i); }

// The same of what was received, as [b, U n, H/U, d]: source ranks own consecutive rows.
static tensor block_lane(const struct seqpar *sp, int i)
{
    tensor t = tensor_reshape(sp->recv, SHAPE(sp->f.batch, sp->block, 3, sp->recv.shape[4], sp->f.width));
    return tensor_at(tensor_permute(t, (int[]){2, 0, 1, 3, 4}), i);
}

// [b, n, H, d] with heads by destination: [b, U, n, H/U, d].
static tensor by_rank(const struct seqpar *sp, tensor t)
{
    t = tensor_split(t, 2, sp->n_heads, sp->f.n_heads / sp->n_heads);
    return tensor_permute(t, (int[]){0, 2, 1, 3, 4});
}

static void heads_for_rows(struct seqpar *sp, tensor q, tensor k, tensor v)
{
    tensor from[3] = {q, k, v};
    for (int i = 0; i < 3; i++) op_copy(sp->dev, lane(sp->send, i), by_rank(sp, from[i]));
    comm_all_to_all(sp->heads, sp->recv.data, sp->send.data, tensor_bytes(sp->send) / sp->f.batch / sp->n_heads,
                    sp->f.batch);
}

static void rows_for_heads(struct seqpar *sp, tensor y)
{
    int64_t b = sp->f.batch, u = sp->n_heads, h = sp->f.n_heads / u;
    tensor back = tensor_of(sp->send.data, sp->f.dtype, SHAPE(b, u, sp->rows.each, h, sp->f.width));
    comm_all_to_all(sp->heads, back.data, sp->out.data, tensor_bytes(back) / b / u, (int)b);
    op_copy(sp->dev, by_rank(sp, y), back);
}

// ---- ring axis

// Keys (0) or values (1) of a slot as [b, rows, H/U, d].
static tensor slot_lane(tensor slot, int i, int64_t rows)
{
    return tensor_slice(tensor_at(tensor_permute(slot, (int[]){2, 0, 1, 3, 4}), i), 1, 0, rows);
}

// The keys of the first frame that block i holds, while they are here.
static void keep_first_frame(struct seqpar *sp, int i, tensor k)
{
    int64_t from = i * sp->block, to = least(from + block_rows(sp, i), sp->f.frame_tokens);
    if (to <= from) return;
    op_copy(sp->dev, tensor_slice(sp->key0, 1, from, to),
            tensor_slice(tensor_slice(k, 0, 0, sp->f.maps), 1, 0, to - from));
}

static struct comm_ticket *pass_on(struct seqpar *sp, tensor here, tensor next)
{
    int r = sp->i_ring, n = sp->n_ring;
    struct comm_move moves[] = {
        {.receive = true, .peer = (r + n - 1) % n, .at = next.data, .bytes = tensor_bytes(next)},
        {.peer = (r + 1) % n, .at = here.data, .bytes = tensor_bytes(here)}};
    return comm_start_trade(sp->ring, moves, 2);
}

// Attention of all queries to one block, in pieces: between two of them the transport may move what is under way.
static void attend_block(struct seqpar *sp, tensor q, tensor k, tensor v, bool first)
{
    for (int64_t b = 0; b < sp->f.batch; b++)
        for (int64_t from = 0; from < sp->block; from += PIECE_ROWS) {
            int64_t to = least(from + PIECE_ROWS, sp->block);
            tensor part[5] = {sp->sum, sp->state, q, k, v};
            for (int i = 0; i < 5; i++) part[i] = tensor_slice(part[i], 0, b, b + 1);
            for (int i = 0; i < 3; i++) part[i] = tensor_slice(part[i], 1, from, to);
            op_attention_more(sp->dev, part[0], part[1], part[2], part[3], part[4], (struct attn){.wide = sp->f.wide},
                              first);
            comm_poll(sp->ring);
        }
}

static void ring_attention(struct seqpar *sp, tensor y, tensor q, tensor k, tensor v, bool with_map)
{
    bool first = true;
    op_copy(sp->dev, tensor_slice(sp->slot[0], 2, 0, 1), tensor_split(k, 1, sp->block, 1));
    op_copy(sp->dev, tensor_slice(sp->slot[0], 2, 1, 2), tensor_split(v, 1, sp->block, 1));
    for (int i = 0; i < sp->n_ring; i++) {
        int block = (sp->i_ring - i + sp->n_ring) % sp->n_ring;
        int64_t rows = block_rows(sp, block);
        tensor here = sp->slot[i % 2];
        struct comm_ticket *t = i + 1 < sp->n_ring ? pass_on(sp, here, sp->slot[1 - i % 2]) : NULL;
        if (rows > 0) {
            if (with_map) keep_first_frame(sp, block, slot_lane(here, 0, rows));
            attend_block(sp, q, slot_lane(here, 0, rows), slot_lane(here, 1, rows), first);
            first = false;
        }
        comm_wait(&t);
    }
    op_attention_done(sp->dev, y, sp->sum, sp->state);
}

// ---- speakers

// The map of this block's rows over this rank's heads, not rounded: out [classes, block], q [block, h, d].
static void part_of_map(struct seqpar *sp, tensor out, tensor q, tensor key0, const struct seqpar_map *map)
{
    if (sp->f.dtype == DT_F32) {
        op_attention_map(sp->dev, out, q, key0, map->masks, map->published);
        return;
    }
    op_copy(sp->dev, sp->k32, key0);
    for (int64_t from = 0, step = sp->q32.shape[0]; from < sp->block; from += step) {
        int64_t to = least(from + step, sp->block);
        tensor some = tensor_slice(sp->q32, 0, 0, to - from);
        op_copy(sp->dev, some, tensor_slice(q, 0, from, to));
        op_attention_map(sp->dev, tensor_slice(out, 1, from, to), some, sp->k32, map->masks, map->published);
    }
}

// Smallest and largest value of each class over the real rows of all ring blocks.
static void range_of_map(struct seqpar *sp, tensor lohi)
{
    int64_t maps = sp->f.maps, classes = sp->f.classes, rows = block_rows(sp, sp->i_ring);
    int n = 0; // blocks that have any
    while (n < sp->n_ring && block_rows(sp, n) > 0) n++;
    for (int64_t m = 0; m < maps && rows > 0; m++)
        op_row_range(sp->dev, tensor_at(sp->range, m), tensor_slice(tensor_at(sp->part, m), 1, 0, rows));
    if (sp->n_ring == 1) {
        op_copy(sp->dev, lohi, sp->range);
        return;
    }
    comm_all_gather(sp->ring, sp->ranges.data, sp->range.data, tensor_bytes(sp->range));
    tensor turned = tensor_of(sp->turned.data, DT_F32, SHAPE(maps, classes, n, 2));
    op_copy(sp->dev, turned, tensor_permute(tensor_slice(sp->ranges, 0, 0, n), (int[]){1, 2, 0, 3}));
    op_row_range(sp->dev, tensor_reshape(lohi, SHAPE(maps * classes, 2)),
                 tensor_reshape(turned, SHAPE(maps * classes, 2 * n)));
}

static void find_speakers(struct seqpar *sp, tensor q, const struct seqpar_map *map)
{
    for (int64_t m = 0; m < sp->f.maps; m++)
        part_of_map(sp, tensor_at(sp->part, m), tensor_at(q, m), tensor_at(sp->key0, m), map);
    if (sp->n_heads > 1) {
        comm_all_reduce(sp->heads, sp->part.data, tensor_count(sp->part), DT_F32, COMM_SUM);
        op_axpby(sp->dev, sp->part, 1 / (float)sp->n_heads, sp->part, 0, sp->part);
    }
    if (!tensor_is_none(sp->rounded)) {
        op_copy(sp->dev, sp->rounded, sp->part);
        op_copy(sp->dev, sp->part, sp->rounded);
    }
    int64_t from = sp->i_heads * sp->rows.each;
    op_copy(sp->dev, map->map, tensor_slice(sp->part, 2, from, from + sp->rows.each));
    range_of_map(sp, map->lohi);
}

// ---- the whole

void seqpar_attention(struct seqpar *sp, tensor y, tensor q, tensor k, tensor v, const struct seqpar_map *map)
{
    BUG_IF(q.shape[0] != sp->f.batch || q.shape[1] != sp->rows.each, "a split attention of %lld x %lld rows",
           (long long)q.shape[0], (long long)q.shape[1]);
    BUG_IF(map && sp->f.maps == 0, "a speaker map that nobody planned");
    tensor part = y;
    if (sp->n_heads > 1) {
        heads_for_rows(sp, q, k, v);
        q = block_lane(sp, 0);
        k = block_lane(sp, 1);
        v = block_lane(sp, 2);
        part = sp->out;
    }
    if (sp->n_ring > 1)
        ring_attention(sp, part, q, k, v, map != NULL);
    else {
        if (map) keep_first_frame(sp, 0, k);
        op_attention(sp->dev, part, q, tensor_slice(k, 1, 0, sp->rows.total), tensor_slice(v, 1, 0, sp->rows.total),
                     (struct attn){.wide = sp->f.wide});
    }
    if (map) find_speakers(sp, q, map);
    if (sp->n_heads > 1) rows_for_heads(sp, y);
}

void seqpar_grouped(struct seqpar *sp, tensor y, tensor q, tensor k, tensor v)
{
    int64_t own = span_length(sp->rows.own);
    for (int i = 0; i < sp->n_groups; i++) {
        struct split_group g = sp->group[i];
        int64_t to = g.row + g.rows * g.n_frames;
        tensor yg = tensor_split(tensor_slice(y, 0, g.row, to), 0, g.n_frames, g.rows);
        tensor qg = tensor_split(tensor_slice(q, 0, g.row, to), 0, g.n_frames, g.rows);
        op_attention(sp->dev, yg, qg, tensor_slice(k, 0, g.frame, g.frame + g.n_frames),
                     tensor_slice(v, 0, g.frame, g.frame + g.n_frames), (struct attn){.wide = sp->f.wide});
    }
    if (own < sp->rows.each) op_fill(sp->dev, tensor_slice(y, 0, own, sp->rows.each), 0);
}

void seqpar_gather(struct seqpar *sp, struct dev_arena *scratch, tensor all, tensor mine)
{
    int64_t mark = dev_arena_mark(scratch), n = sp->n_ring * sp->n_heads * sp->rows.each;
    if (sp->n_ring * sp->n_heads == 1) {
        op_copy(sp->dev, all, mine);
        return;
    }
    tensor padded = dev_tensor(scratch, mine.dtype, SHAPE(n, mine.shape[1]));
    comm_all_gather(sp->sequence, padded.data, mine.data, tensor_bytes(mine));
    op_copy(sp->dev, all, tensor_slice(padded, 0, 0, sp->rows.total));
    dev_arena_reset(scratch, mark);
}
