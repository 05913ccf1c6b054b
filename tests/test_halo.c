// Bands with traded edges give what the whole picture gives, bit for bit, through a small network with every kind of
// layer that looks at neighbours: convolutions in space and time, both samplers, attention over a frame.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/comm_thread.h"
#include "parallel/halo.h"

#include <string.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

enum { C = 3, T = 3, SEED = 31 };

struct scene {
    int ranks;
    bool wide;
    int64_t h, w;
    struct dev *d;
    struct dev_arena *a;
    tensor x, w3, w1, b, y; // x [T, h, w, C], y [T - 2, h, w, C]
};

static float draw(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (float)((int32_t)(*s >> 33) - (1 << 30)) / (float)(1 << 30);
}

static tensor random_tensor(struct dev_arena *a, uint64_t *seed, int n, const int64_t *shape)
{
    tensor x = dev_tensor(a, DT_F32, n, shape);
    for (int64_t i = 0; i < tensor_count(x); i++) ((float *)x.data)[i] = draw(seed);
    return x;
}

// The band of x with room for edges, which are traded.
static tensor with_edges(const struct halo *h, struct dev_arena *a, tensor x, int64_t before, int64_t after)
{
    tensor t = x;
    int64_t n = x.shape[h->axis];
    t.shape[h->axis] = n + before + after;
    t = dev_tensor(a, x.dtype, t.n, t.shape);
    op_copy(h->dev, tensor_slice(t, h->axis, before, before + n), x);
    halo_trade(h, a, t, before, after);
    return t;
}

static tensor conv(const struct halo *h, struct dev_arena *a, tensor x, tensor w, tensor b, int stride)
{
    // Same-size padding, or right and bottom only when down-sampling; on the split axis the edges stand in for it.
    struct conv c = {.stride = {1, stride, stride}, .pad = {{0, 0}, {stride == 1, 1}, {stride == 1, 1}}};
    tensor e = with_edges(h, a, x, stride == 1, 1);
    c.pad[h->axis][0] = c.pad[h->axis][1] = 0;
    tensor y = dev_tensor(a, DT_F32, SHAPE(x.shape[0] - w.shape[2] + 1, x.shape[1] / stride, x.shape[2] / stride, C));
    op_conv(h->dev, y, e, w, b, c, ACT_NONE);
    return y;
}

// conv over time and space -> up -> conv -> down -> x + attention within each frame.
static tensor network(const struct halo *h, struct dev_arena *a, const struct scene *s, tensor x)
{
    x = conv(h, a, x, s->w3, s->b, 1);
    tensor up = dev_tensor(a, DT_F32, SHAPE(x.shape[0], 2 * x.shape[1], 2 * x.shape[2], C));
    op_upsample2(h->dev, up, x);
    x = conv(h, a, conv(h, a, up, s->w1, s->b, 1), s->w1, s->b, 2);
    tensor whole = dev_tensor(a, DT_F32, SHAPE(x.shape[0], s->h, s->w, C)), y = dev_tensor(a, DT_F32, x.n, x.shape);
    halo_gather(h, a, whole, x);
    tensor k = tensor_reshape(whole, SHAPE(x.shape[0], s->h * s->w, 1, C));
    int64_t n = x.shape[1] * x.shape[2];
    op_attention(h->dev, tensor_reshape(y, SHAPE(x.shape[0], n, 1, C)), tensor_reshape(x, SHAPE(x.shape[0], n, 1, C)),
                 k, k, (struct attn){0});
    op_gate_add(h->dev, y, x, NO_TENSOR);
    return y;
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    const struct scene *s = ctx;
    struct dev *d = NULL;
    struct comm *with = NULL;
    int64_t lines = s->wide ? s->w : s->h;
    bool takes_part = comm_rank(world) < lines;
    if (dev_open(&d, "ref", 1, e) < 0 || comm_split(world, &with, takes_part, 0, e) < 0) return e->code;
    if (takes_part) {
        struct dev_arena *a = dev_arena_new(d, "rank", 1 << 24);
        struct halo h = halo_make(d, with, s->wide, lines);
        struct span own = halo_span(&h, comm_rank(with), lines), fine = halo_span(&h, comm_rank(with), 8 * lines);
        CHECK(own.from == h.own.from && own.to == h.own.to && fine.from == 8 * own.from && fine.to == 8 * own.to);
        tensor part = tensor_slice(s->x, h.axis, own.from, own.to), x = dev_tensor(a, DT_F32, part.n, part.shape);
        op_copy(d, x, part);
        tensor y = network(&h, a, s, x), want = tensor_slice(s->y, h.axis, own.from, own.to);
        tensor flat = dev_tensor(a, DT_F32, want.n, want.shape);
        op_copy(d, flat, want);
        CHECK(tensor_same_shape(flat, y) && memcmp(flat.data, y.data, (size_t)tensor_bytes(y)) == 0);
        // One line of input each way and convolution, twice as wide above the sampler; one-sided going down.
        int64_t line = C * 4 * (s->wide ? s->h : s->w), inner = T * line, frames = T - 2;
        int64_t left = own.from > 0, right = own.to < lines;
        int64_t traded = (left + right) * (inner + frames * 2 * line) + left * frames * 2 * line;
        CHECK(comm_counted(with, COMM_TRADE).sent_bytes == traded);
        if (dev_sync(d, e) < 0) return e->code;
        dev_arena_free(&a);
    }
    comm_close(&with);
    dev_close(&d);
    return comm_check(world, e);
}

static void split_picture(int ranks, bool wide, int64_t height, int64_t width)
{
    struct err e = {0};
    struct scene s = {.ranks = ranks, .wide = wide, .h = height, .w = width};
    uint64_t seed = SEED;
    assert_int_equal(dev_open(&s.d, "ref", 1, &e), 0);
    s.a = dev_arena_new(s.d, "scene", 1 << 24);
    s.x = random_tensor(s.a, &seed, SHAPE(T, height, width, C));
    s.w3 = random_tensor(s.a, &seed, SHAPE(C, C, 3, 3, 3));
    s.w1 = random_tensor(s.a, &seed, SHAPE(C, C, 1, 3, 3));
    s.b = random_tensor(s.a, &seed, SHAPE(C));
    // The whole, without any split: plain padding.
    struct conv same = {.pad = {{0, 0}, {1, 1}, {1, 1}}};
    struct conv down = {.stride = {1, 2, 2}, .pad = {{0, 0}, {0, 1}, {0, 1}}};
    int64_t t = T - 2, n = height * width;
    tensor p = dev_tensor(s.a, DT_F32, SHAPE(t, height, width, C)),
           up = dev_tensor(s.a, DT_F32, SHAPE(t, 2 * height, 2 * width, C));
    tensor q = dev_tensor(s.a, DT_F32, SHAPE(t, 2 * height, 2 * width, C)), rows = tensor_reshape(p, SHAPE(t, n, 1, C));
    s.y = dev_tensor(s.a, DT_F32, SHAPE(t, height, width, C));
    op_conv(s.d, p, s.x, s.w3, s.b, same, ACT_NONE);
    op_upsample2(s.d, up, p);
    op_conv(s.d, q, up, s.w1, s.b, same, ACT_NONE);
    op_conv(s.d, p, q, s.w1, s.b, down, ACT_NONE);
    op_attention(s.d, tensor_reshape(s.y, SHAPE(t, n, 1, C)), rows, rows, rows, (struct attn){0});
    op_gate_add(s.d, s.y, p, NO_TENSOR);
    if (comm_thread_run(ranks, rank_main, &s, &e) < 0)
        fail_msg("%d ranks, %s of %dx%d: %s", ranks, wide ? "width" : "height", (int)width, (int)height, e.text);
    dev_arena_free(&s.a);
    dev_close(&s.d);
}

static void bands_equal_the_whole(void **state)
{
    (void)state;
    const int ranks[] = {1, 2, 3, 4, 5, 8};
    for (int i = 0; i < 6; i++)
        for (int wide = 0; wide < 2; wide++) {
            split_picture(ranks[i], wide, 8, 8);
            split_picture(ranks[i], wide, 11, 9);
            split_picture(ranks[i], wide, 4, 3); // fewer lines than ranks
        }
}

int main(void)
{
    print_message("seed %d\n", SEED);
    const struct CMUnitTest tests[] = {cmocka_unit_test(bands_equal_the_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
