// Packed weights in pieces: put together from any cuts they are the packed weight, bit for bit in what a product makes
// of them; several ranks that each have a part of one gather it whole; a dry run learns what they take.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/ops.h"
#include "parallel/comm_thread.h"
#include "parallel/shard.h"

#include <stdio.h>
#include <string.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

enum { ROWS = 5, N_SIZES = 6, ARENA = 1 << 26 };
static const int64_t sizes[N_SIZES][2] = {{640, 640}, {1728, 640}, {640, 1728}, {64, 128}, {200, 96}, {1000, 72}};

static uint32_t random_next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static tensor random_tensor(struct dev *d, struct dev_arena *a, enum dtype t, int64_t rows, int64_t n, uint64_t *seed)
{
    tensor x = dev_tensor(a, t, SHAPE(rows, n));
    float *host = malloc((size_t)(rows * n) * sizeof *host);
    if (!host) abort();
    for (int64_t i = 0; i < rows * n; i++) host[i] = (float)(random_next(seed) % 2001) / 1000 - 1;
    dev_upload(d, x, host, DT_F32);
    free(host);
    return x;
}

// The packed form of w in `n` runs of pieces, cut where the seed says.
static void pack_by_cuts(struct dev *d, char *to, tensor w, struct pack_form f, uint64_t *seed)
{
    int64_t rows = w.shape[0], n_pieces = (rows + f.rows - 1) / f.rows, piece = f.bytes / n_pieces;
    for (int64_t at = 0; at < n_pieces;) {
        int64_t n = 1 + random_next(seed) % (n_pieces - at), first = at * f.rows, last = (at + n) * f.rows;
        op_pack_rows(d, to + at * piece, w, first, (last < rows ? last : rows) - first,
                     (char *)w.data + first * w.shape[1] * dtype_size(w.dtype));
        at += n;
    }
}

static void pieces_make_the_whole(void **state)
{
    (void)state;
    struct dev *d = NULL;
    struct err e = {0};
    int tried = 0;
    assert_int_equal(dev_open(&d, "cpu", 2, &e), 0);
    for (int i = 0; i < 2 * N_SIZES; i++) {
        enum dtype t = i % 2 ? DT_BF16 : DT_F32;
        uint64_t seed = 11 + (uint64_t)i;
        struct dev_arena *a = dev_arena_new(d, "pieces", ARENA);
        tensor w = random_tensor(d, a, t, sizes[i / 2][0], sizes[i / 2][1], &seed);
        tensor x = random_tensor(d, a, t, ROWS, sizes[i / 2][1], &seed);
        tensor y[3];
        for (int k = 0; k < 3; k++) y[k] = dev_tensor(a, t, SHAPE(ROWS, w.shape[0]));
        struct pack_form f = op_packed_form(d, w);
        if (f.bytes > 0) {
            tensor bytes = dev_tensor(a, DT_U8, SHAPE(f.bytes));
            memset(bytes.data, 0xff, (size_t)f.bytes);
            pack_by_cuts(d, bytes.data, w, f, &seed);
            op_linear(d, y[0], x, op_packed_at(d, a, w, bytes.data), NO_TENSOR, ACT_NONE);
            op_linear(d, y[1], x, op_pack(d, a, w, PACK_LINEAR), NO_TENSOR, ACT_NONE);
            op_linear(d, y[2], x, w, NO_TENSOR, ACT_NONE);
            assert_memory_equal(y[0].data, y[1].data, (size_t)tensor_bytes(y[0]));
            assert_memory_equal(y[0].data, y[2].data, (size_t)tensor_bytes(y[0]));
            tried++;
        }
        assert_true(f.bytes <= tensor_bytes(w) + tensor_bytes(w) / 200);
        if (dev_sync(d, &e) < 0) fail_msg("%s", e.text);
        dev_arena_free(&a);
    }
    print_message("%s: %d of %d weights come in pieces\n", dev_name(d), tried, 2 * N_SIZES);
    if (strstr(dev_name(d), "avx512")) assert_in_range(tried, N_SIZES / 2, 2 * N_SIZES);
    dev_close(&d);
    assert_int_equal(dev_open(&d, "ref", 1, &e), 0);
    tensor plain = tensor_of(NULL, DT_F32, SHAPE(640, 640));
    assert_int_equal(op_packed_form(d, plain).bytes, 0); // it reads weights as they are
    dev_close(&d);
}

// ---- gathered

enum { N_BLOCKS = 3, OUT = 192, IN = 128 };

struct reader {
    struct dev *d;
    tensor w[N_BLOCKS];
    char *packed[N_BLOCKS]; // whole
};

static int read_packed(void *ctx, int block, int i_tensor, int64_t from, int64_t to, void *dst, struct err *e)
{
    const struct reader *r = ctx;
    (void)e;
    memcpy(dst, (i_tensor ? (char *)r->w[block].data : r->packed[block]) + from, (size_t)(to - from));
    return 0;
}

static int gather(struct reader *r, struct comm *world, struct dev_arena *a, struct pack_form f, uint64_t seed,
                  struct err *e)
{
    struct dev *d = r->d;
    const struct shard_tensor t[] = {{DT_F32, 2, {OUT, IN}, f.bytes}, {DT_F32, 2, {OUT, IN}, 0}};
    struct shard_for sf = {.n_blocks = N_BLOCKS, .n_tensors = 2, .tensors = t, .read = read_packed, .ctx = r};
    struct shard *s = NULL;
    tensor x = random_tensor(d, a, DT_F32, ROWS, IN, &seed), y[3];
    for (int k = 0; k < 3; k++) y[k] = dev_tensor(a, DT_F32, SHAPE(ROWS, OUT));
    int rc = shard_open(&s, a, world, &sf, e);
    for (int pass = 0; pass < 2 && rc == 0; pass++)
        for (int b = 0; b < N_BLOCKS && rc == 0; b++) {
            const tensor *v = shard_take(s, b);
            CHECK(v[0].packed && !v[0].data && v[1].data && !v[1].packed);
            op_linear(d, y[0], x, v[0], NO_TENSOR, ACT_NONE);
            op_linear(d, y[1], x, v[1], NO_TENSOR, ACT_NONE);
            op_linear(d, y[2], x, r->w[b], NO_TENSOR, ACT_NONE);
            CHECK(memcmp(y[0].data, y[2].data, (size_t)tensor_bytes(y[0])) == 0);
            CHECK(memcmp(y[1].data, y[2].data, (size_t)tensor_bytes(y[0])) == 0);
            shard_give(s, b);
        }
    shard_close(&s);
    return rc == 0 ? dev_sync(d, e) : rc;
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    bool *skipped = ctx;
    struct reader r = {0};
    if (dev_open(&r.d, "cpu", 1, e) < 0) return e->code;
    struct dev_arena *a = dev_arena_new(r.d, "gathered", ARENA);
    struct pack_form f = op_packed_form(r.d, tensor_of(NULL, DT_F32, SHAPE(OUT, IN)));
    uint64_t seed = 5;
    for (int b = 0; b < N_BLOCKS; b++) {
        r.w[b] = random_tensor(r.d, a, DT_F32, OUT, IN, &seed);
        if (f.bytes == 0) continue;
        r.packed[b] = dev_tensor(a, DT_U8, SHAPE(f.bytes)).data;
        op_pack_rows(r.d, r.packed[b], r.w[b], 0, OUT, r.w[b].data);
    }
    if (f.bytes == 0 && comm_rank(world) == 0) *skipped = true;
    int rc = f.bytes > 0 ? gather(&r, world, a, f, seed, e) : 0;
    dev_arena_free(&a);
    dev_close(&r.d);
    return rc;
}

static void ranks_gather_what_is_packed(void **state)
{
    (void)state;
    static const int counts[] = {2, 3, 5};
    for (int i = 0; i < 3; i++) {
        struct err e = {0};
        bool skipped = false;
        if (comm_thread_run(counts[i], rank_main, &skipped, &e) < 0) fail_msg("%d ranks: %s", counts[i], e.text);
        if (skipped) skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_make_the_whole),
        cmocka_unit_test(ranks_gather_what_is_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
