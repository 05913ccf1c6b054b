// Attention over a split sequence equals attention on one rank: heads axis, ring axis, both, with rows that do not
// divide, empty ranks, several branches, voice groups and the speaker map; and moves the bytes that the formulas say.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/comm_thread.h"
#include "parallel/seqpar.h"

#include <math.h>
#include <string.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

enum { KEYS = 3, CLASSES = 3, WIDTH = 8, SEED = 20 };

struct scene { // what one rank computes alone
    struct seqpar_for f;
    struct mesh_shape shape;
    bool with_map, published;
    struct dev *d;
    struct dev_arena *a;
    tensor q, k, v, y;       // [batch, total, heads, WIDTH]
    tensor vk, vv, vy;       // voice: [frames, KEYS, ..], [total, ..] of the first branch
    tensor masks, map, lohi; // [CLASSES, frame_tokens], [maps, CLASSES, total], [maps, CLASSES, 2]
};

static float draw(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (float)((int32_t)(*s >> 33) - (1 << 30)) / (float)(1 << 29);
}

static tensor random_tensor(struct scene *s, uint64_t *seed, enum dtype t, int n, const int64_t *shape)
{
    tensor x = dev_tensor(s->a, DT_F32, n, shape), y = dev_tensor(s->a, t, n, shape);
    for (int64_t i = 0; i < tensor_count(x); i++) ((float *)x.data)[i] = 2 * draw(seed);
    op_copy(s->d, y, x);
    return y;
}

static void scene_open(struct scene *s)
{
    struct err e;
    uint64_t seed = SEED;
    assert_int_equal(dev_open(&s->d, "ref", 1, &e), 0);
    s->a = dev_arena_new(s->d, "scene", 1 << 27);
    const struct seqpar_for *f = &s->f;
    enum dtype t = f->dtype;
    int64_t n = f->frames * f->frame_tokens, h = f->n_heads, b = f->batch, c = f->frame_tokens, w = WIDTH;
    s->q = random_tensor(s, &seed, t, SHAPE(b, n, h, w));
    s->k = random_tensor(s, &seed, t, SHAPE(b, n, h, w));
    s->v = random_tensor(s, &seed, t, SHAPE(b, n, h, w));
    s->vk = random_tensor(s, &seed, t, SHAPE(f->frames, KEYS, h, w));
    s->vv = random_tensor(s, &seed, t, SHAPE(f->frames, KEYS, h, w));
    s->y = dev_tensor(s->a, t, SHAPE(b, n, h, w));
    s->vy = dev_tensor(s->a, t, SHAPE(n, h, w));
    s->masks = dev_tensor(s->a, DT_F32, SHAPE(CLASSES, c));
    s->map = dev_tensor(s->a, DT_F32, SHAPE(b, CLASSES, n));
    s->lohi = dev_tensor(s->a, DT_F32, SHAPE(b, CLASSES, 2));
    for (int64_t i = 0; i < CLASSES * c; i++) // the last class is empty: 0/0 when published
        ((float *)s->masks.data)[i] = i < (CLASSES - 1) * c && (i * 7 + 3) % 5 < 2;
    op_attention(s->d, s->y, s->q, s->k, s->v, (struct attn){0});
    op_attention(s->d, tensor_split(s->vy, 0, f->frames, c), tensor_split(tensor_at(s->q, 0), 0, f->frames, c), s->vk,
                 s->vv, (struct attn){0});
    for (int64_t i = 0; i < b; i++) {
        tensor map = tensor_at(s->map, i);
        op_attention_map(s->d, map, tensor_at(s->q, i), tensor_slice(tensor_at(s->k, i), 0, 0, c), s->masks,
                         s->published);
        op_row_range(s->d, tensor_at(s->lohi, i), map);
    }
}

static void scene_close(struct scene *s)
{
    dev_arena_free(&s->a);
    dev_close(&s->d);
}

// Own rows of a whole tensor; padding is NaN, so that whoever looks at it shows.
static tensor own_rows(struct dev_arena *a, tensor whole, int axis, const struct split_rows *r)
{
    tensor mine = whole;
    mine.shape[axis] = r->each;
    mine = dev_tensor(a, whole.dtype, mine.n, mine.shape);
    op_fill(dev_arena_dev(a), mine, NAN);
    op_copy(dev_arena_dev(a), tensor_slice(mine, axis, 0, span_length(r->own)),
            tensor_slice(whole, axis, r->own.from, r->own.to));
    return mine;
}

static double at(tensor t, int64_t i)
{
    return t.dtype == DT_F32 ? (double)((float *)t.data)[i] : (double)bf16_to_f32(((uint16_t *)t.data)[i]);
}

// Largest difference of two tensors, of any strides; one NaN against a number is infinite. When `equal` is given, it
// receives how many are the same bits.
static double apart_counting(struct dev_arena *a, tensor x, tensor y, int64_t *equal)
{
    int64_t mark = dev_arena_mark(a), n = tensor_count(x);
    tensor p = dev_tensor(a, x.dtype, x.n, x.shape), q = dev_tensor(a, y.dtype, y.n, y.shape);
    op_copy(dev_arena_dev(a), p, x);
    op_copy(dev_arena_dev(a), q, y);
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        double g = fabs(at(p, i) - at(q, i));
        if (isnan(at(p, i)) != isnan(at(q, i))) return INFINITY;
        if (!isnan(g) && g > most) most = g;
        if (equal) *equal += at(p, i) == at(q, i);
    }
    dev_arena_reset(a, mark);
    return most;
}

static double apart(struct dev_arena *a, tensor x, tensor y) { return apart_counting(a, x, y, NULL); }

static int bytes_as_written(const struct scene *s, const struct seqpar *sp, struct err *e)
{
    int64_t u = s->shape.heads, r = s->shape.ring, n = sp->rows.each, maps = s->with_map ? sp->f.maps : 0;
    int64_t x = s->f.batch * n * s->f.n_heads * WIDTH * dtype_size(s->f.dtype);
    struct comm_count swap = comm_counted(sp->heads, COMM_ALL_TO_ALL), turn = comm_counted(sp->ring, COMM_TRADE);
    struct comm_count sum = comm_counted(sp->heads, COMM_ALL_REDUCE), all_heads = comm_counted_all(sp->heads);
    CHECK(swap.sent_bytes == 4 * x * (u - 1) / u && swap.received_bytes == swap.sent_bytes);
    CHECK(turn.sent_bytes == 2 * x * (r - 1) && turn.received_bytes == turn.sent_bytes);
    // The map: one all-reduce of its block, and two numbers a class over the ring.
    CHECK(llabs(sum.sent_bytes - 2 * (u - 1) * maps * CLASSES * n * 4) <= 8 * u);
    CHECK(all_heads.sent_bytes == swap.sent_bytes + sum.sent_bytes);
    CHECK(comm_counted_all(sp->ring).sent_bytes == turn.sent_bytes + (r - 1) * maps * CLASSES * 8);
    CHECK(comm_counted_all(sp->sequence).sent_bytes == 0);
    return 0;
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    const struct scene *s = ctx;
    struct mesh m = {0};
    struct dev *d = NULL;
    if (mesh_open(&m, world, s->shape, e) < 0 || dev_open(&d, "ref", 1, e) < 0) return e->code;
    struct dev_arena *a = dev_arena_new(d, "rank", 1 << 25);
    struct seqpar sp;
    struct seqpar_for f = s->f;
    if (!s->with_map) f.classes = 0;
    seqpar_init(&sp, &m, a, &f);
    tensor q = own_rows(a, s->q, 1, &sp.rows), k = own_rows(a, s->k, 1, &sp.rows), v = own_rows(a, s->v, 1, &sp.rows);
    tensor y = dev_tensor(a, f.dtype, q.n, q.shape), vy = dev_tensor(a, f.dtype, q.n - 1, q.shape + 1);
    struct seqpar_map map = {.masks = s->masks, .published = s->published};
    if (s->with_map) {
        map.map = dev_tensor(a, DT_F32, SHAPE(sp.f.maps, CLASSES, sp.rows.each));
        map.lohi = dev_tensor(a, DT_F32, SHAPE(sp.f.maps, CLASSES, 2));
    }
    comm_count_reset(m.heads);
    comm_count_reset(m.ring);
    comm_count_reset(m.sequence);
    seqpar_attention(&sp, y, q, k, v, s->with_map ? &map : NULL);
    if (bytes_as_written(s, &sp, e) < 0) return e->code;
    seqpar_grouped(&sp, vy, tensor_at(q, 0), s->vk, s->vv);
    int64_t n = span_length(sp.rows.own), from = sp.rows.own.from, w = f.n_heads * f.width;
    tensor all = dev_tensor(a, f.dtype, SHAPE(sp.rows.total, w));
    seqpar_gather(&sp, a, all, tensor_reshape(tensor_at(y, 0), SHAPE(sp.rows.each, w)));
    // A sum in another order: f32 to 1e-5; bf16 to one rounding of the result. The heads axis alone is bit-equal.
    double bound = s->shape.ring == 1 ? 0 : f.dtype == DT_F32 ? 1e-5 : 0.02;
    CHECK(apart(a, tensor_slice(y, 1, 0, n), tensor_slice(s->y, 1, from, from + n)) <= bound);
    CHECK(apart(a, all, tensor_reshape(tensor_at(s->y, 0), SHAPE(sp.rows.total, w))) <= bound);
    CHECK(apart(a, tensor_slice(vy, 0, 0, n), tensor_slice(s->vy, 0, from, from + n)) == 0);
    double loose = f.dtype == DT_F32 ? 1e-6 : 0.004;
    for (int64_t i = 0; i < sp.f.maps; i++) {
        tensor mine = tensor_slice(tensor_at(map.map, i), 1, 0, n), whole = tensor_at(s->map, i);
        int64_t equal = 0;
        CHECK(apart_counting(a, mine, tensor_slice(whole, 1, from, from + n), &equal) <= loose);
        CHECK(f.dtype == DT_F32 || equal * 10 >= n * CLASSES * 9); // rounded as one rank rounds, but for ties
        CHECK(apart(a, tensor_at(map.lohi, i), tensor_at(s->lohi, i)) <= loose);
    }
    int rc = dev_sync(d, e);
    dev_arena_free(&a);
    dev_close(&d);
    mesh_close(&m);
    return rc < 0 ? rc : comm_check(world, e);
}

static void run(struct scene s)
{
    static const struct mesh_shape shapes[] = {{1, 1, 1}, {1, 1, 2}, {1, 1, 3}, {1, 1, 4}, {1, 1, 8},
                                               {1, 2, 1}, {1, 3, 1}, {1, 4, 1}, {1, 5, 1}, {1, 8, 1},
                                               {1, 2, 2}, {1, 4, 2}, {1, 2, 4}, {1, 2, 3}};
    int only = s.shape.ring; // 0: every layout
    scene_open(&s);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct err e = {0};
        s.shape = shapes[i];
        if (only && only != s.shape.ring) continue;
        if (s.f.n_heads % s.shape.heads) continue;
        if (comm_thread_run(s.shape.ring * s.shape.heads, rank_main, &s, &e) < 0)
            fail_msg("ring %d x heads %d: %s", s.shape.ring, s.shape.heads, e.text);
    }
    scene_close(&s);
}

static struct seqpar_for sizes(int64_t frames, int64_t tokens, int heads, int batch, enum dtype t)
{
    return (struct seqpar_for){.frames = frames,
                               .frame_tokens = tokens,
                               .n_heads = heads,
                               .width = WIDTH,
                               .batch = batch,
                               .classes = CLASSES,
                               .dtype = t};
}

static void rows_that_divide(void **state)
{
    (void)state;
    run((struct scene){.f = sizes(3, 8, 8, 1, DT_F32)});
}

static void rows_that_do_not(void **state)
{
    (void)state;
    run((struct scene){.f = sizes(3, 7, 6, 1, DT_F32)});
    run((struct scene){.f = sizes(3, 3, 8, 1, DT_F32)}); // some ranks of 8 own nothing
    run((struct scene){.f = sizes(1, 1, 4, 1, DT_F32)});
}

// More rows than a ring takes in one piece.
static void long_blocks(void **state)
{
    (void)state;
    run((struct scene){.f = sizes(3, 1371, 1, 1, DT_F32), .shape.ring = 2});
}

static void branches_together(void **state)
{
    (void)state;
    run((struct scene){.f = sizes(2, 7, 4, 3, DT_F32)});
    run((struct scene){.f = sizes(2, 7, 4, 2, DT_BF16)});
}

static void speakers(void **state)
{
    (void)state;
    run((struct scene){.f = sizes(3, 7, 6, 1, DT_F32), .with_map = true});
    run((struct scene){.f = sizes(2, 13, 8, 2, DT_F32), .with_map = true, .published = true});
    run((struct scene){.f = sizes(3, 5, 8, 1, DT_BF16), .with_map = true});
}

static void maps_of_some_branches(void **state)
{
    (void)state;
    struct scene s = {.f = sizes(2, 6, 4, 3, DT_F32), .with_map = true};
    s.f.maps = 2;
    run(s);
}

// A dry run learns the bytes of a layer and touches nothing.
static int dry(struct comm *world, void *ctx, struct err *e)
{
    const struct mesh_shape *shape = ctx;
    struct mesh m = {0};
    struct dev *d = NULL;
    if (mesh_open(&m, world, *shape, e) < 0 || dev_open(&d, "ref", 1, e) < 0) return e->code;
    dev_set_dry(d, true);
    comm_follow(world, d);
    struct dev_arena *a = dev_arena_new(d, "dry", 0);
    struct seqpar sp;
    seqpar_init(
        &sp, &m, a,
        &(struct seqpar_for){.frames = 21, .frame_tokens = 1568, .n_heads = 40, .width = 128, .dtype = DT_BF16});
    tensor t[4];
    for (int i = 0; i < 4; i++) t[i] = dev_tensor(a, DT_BF16, SHAPE(1, sp.rows.each, 40, 128));
    seqpar_attention(&sp, t[0], t[1], t[2], t[3], NULL);
    // parallel sizes of a published model: 448 x 896, 81 frames; megabytes of one layer
    int64_t x = 4116 * 5120 * 2, heads = comm_counted_all(m.heads).sent_bytes,
            ring = comm_counted_all(m.ring).sent_bytes;
    int u = shape->heads, r = shape->ring;
    CHECK(sp.rows.each == 4116 && heads == 4 * x * (u - 1) / u && ring == 2 * x * (r - 1));
    CHECK(dev_arena_peak(a) > 0);
    comm_follow(world, NULL);
    dev_arena_free(&a);
    dev_close(&d);
    mesh_close(&m);
    return 0;
}

static void dry_run_counts(void **state)
{
    (void)state;
    struct mesh_shape shapes[] = {{1, 1, 8}, {1, 2, 4}, {1, 4, 2}, {1, 8, 1}};
    struct err e = {0};
    for (int i = 0; i < 4; i++)
        if (comm_thread_run(8, dry, &shapes[i], &e) < 0) fail_msg("%s", e.text);
}

int main(void)
{
    print_message("seed %d\n", SEED);
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_that_divide), cmocka_unit_test(rows_that_do_not),
                                       cmocka_unit_test(long_blocks),      cmocka_unit_test(branches_together),
                                       cmocka_unit_test(speakers),         cmocka_unit_test(maps_of_some_branches),
                                       cmocka_unit_test(dry_run_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
