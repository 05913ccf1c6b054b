// The text encoder beyond what golden pins: buckets, padding, BF16, weights that do not fit, and blocks spread over
// ranks.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "parallel/comm_thread.h"
#include "parallel/mesh.h"
#include "proto/base/log.h"
#include "worker/models/umt5.h"

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

static struct dev *dev;
static struct dev_arena *arena;
static struct weights *t5, *golden;

static int begin(void **state)
{
    (void)state;
    struct err e = {0};
    int rc = dev_open(&dev, "ref", 0, &e);
    if (rc == 0) rc = weights_open(&t5, TEST_DIR "/golden/weights_t5.safetensors", &e);
    if (rc == 0) rc = weights_open(&golden, TEST_DIR "/golden/t5_encoder.safetensors", &e);
    if (rc < 0) fprintf(stderr, "%s\n", e.text);
    if (rc == 0) arena = dev_arena_new(dev, "test", 0);
    return rc;
}

static int end(void **state)
{
    (void)state;
    dev_arena_free(&arena);
    weights_free(&t5);
    weights_free(&golden);
    dev_close(&dev);
    return 0;
}

static struct umt5 *open_as(enum dtype t)
{
    struct umt5 *m = NULL;
    struct err e = {0};
    if (umt5_new(&m, dev, t5, NULL, t, &e) < 0) fail_msg("%s", e.text);
    return m;
}

// The published thresholds, and that distances grow by bucket in both directions.
static void buckets_by_distance(void **state)
{
    (void)state;
    static const int first[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
    for (int b = 0; b < 16; b++) {
        int last = b < 15 ? first[b + 1] - 1 : 100000;
        assert_int_equal(umt5_bucket(-first[b], 32, 128), b);
        assert_int_equal(umt5_bucket(-last, 32, 128), b);
        if (b == 0) continue;
        assert_int_equal(umt5_bucket(first[b], 32, 128), 16 + b);
        assert_int_equal(umt5_bucket(last, 32, 128), 16 + b);
    }
    for (int n = 4; n <= 64; n += 4)
        for (int d = 1; d < 1000; d++) {
            int b = umt5_bucket(d, n, 200), next = umt5_bucket(d + 1, n, 200);
            assert_true(b >= n / 2 && b < n && next >= b && next <= b + 1);
            assert_int_equal(umt5_bucket(-d, n, 200), b - n / 2);
        }
}

static tensor ids_tensor(const int32_t *ids, int64_t n)
{
    tensor t = dev_tensor(arena, DT_I32, SHAPE(n));
    dev_upload(dev, t, ids, DT_I32);
    return t;
}

// Whatever stands in the padding, the rows of the words are the same to the bit.
static void padding_changes_nothing(void **state)
{
    (void)state;
    enum dtype dtypes[] = {DT_F32, DT_BF16};
    for (int k = 0; k < 2; k++) {
        struct umt5 *m = open_as(dtypes[k]);
        int32_t ids[24], vocab = (int32_t)umt5_vocab(m);
        for (int32_t i = 0; i < 24; i++) ids[i] = (i * 37 + 11) % vocab;
        tensor bare = dev_tensor(arena, DT_F32, SHAPE(9, umt5_dim(m))),
               padded = dev_tensor(arena, DT_F32, SHAPE(9, umt5_dim(m)));
        umt5_encode(m, arena, bare, ids_tensor(ids, 9), 9, NULL);
        umt5_encode(m, arena, padded, ids_tensor(ids, 24), 9, NULL);
        assert_memory_equal(bare.data, padded.data, (size_t)tensor_bytes(bare));
        for (int i = 9; i < 24; i++) ids[i] = 0;
        umt5_encode(m, arena, padded, ids_tensor(ids, 24), 9, NULL);
        assert_memory_equal(bare.data, padded.data, (size_t)tensor_bytes(bare));
        ids[8] = (ids[8] + 1) % vocab;
        umt5_encode(m, arena, padded, ids_tensor(ids, 9), 9, NULL);
        assert_memory_not_equal(bare.data, padded.data, (size_t)tensor_bytes(bare));
        umt5_free(&m);
    }
    dev_arena_reset(arena, 0);
}

// BF16 against the F32 reference: near by root mean square, and not the same, so BF16 it was.
static void bf16_is_near(void **state)
{
    (void)state;
    struct umt5 *m = open_as(DT_BF16);
    struct err e = {0};
    tensor ids = NO_TENSOR, ref = NO_TENSOR;
    assert_int_equal(weights_get(golden, "in.ids", &ids, &e), 0);
    assert_int_equal(weights_get(golden, "context0", &ref, &e), 0);
    int64_t n = ref.shape[0];
    int32_t *host = calloc((size_t)n, sizeof *host);
    for (int64_t i = 0; i < n; i++) host[i] = (int32_t)((const float *)ids.data)[i];
    tensor out = dev_tensor(arena, DT_F32, SHAPE(n, umt5_dim(m)));
    umt5_encode(m, arena, out, ids_tensor(host, n), n, NULL);
    double gap = 0, size = 0;
    for (int64_t i = 0; i < tensor_count(ref); i++) {
        double r = (double)((const float *)ref.data)[i], o = (double)((const float *)out.data)[i];
        gap += (o - r) * (o - r);
        size += r * r;
    }
    gap = sqrt(gap / size);
    if (!(gap < 2e-2 && gap > 1e-5)) fail_msg("relative rms %g", gap);
    free(host);
    umt5_free(&m);
    dev_arena_reset(arena, 0);
}

static void refuse(const struct umt5_config *c, const char *says)
{
    struct umt5 *m = NULL;
    struct err e = {0};
    assert_int_equal(umt5_new(&m, dev, t5, c, DT_F32, &e), E_INPUT);
    assert_null(m);
    if (!strstr(e.text, says)) fail_msg("'%s' does not say '%s'", e.text, says);
}

static void misfits_are_refused(void **state)
{
    (void)state;
    refuse(&(struct umt5_config){.n_heads = 5}, "5 heads");
    refuse(&(struct umt5_config){.n_buckets = 16}, "16 distance buckets");
    refuse(&(struct umt5_config){.max_distance = 8}, "distance 8");
    tensor kept = NO_TENSOR;
    const char *name = "blocks.1.pos_embedding.embedding.weight";
    assert_int_equal(weights_get(t5, name, &kept, NULL), 0);
    tensor turned = tensor_of(kept.data, kept.dtype, SHAPE(kept.shape[1], kept.shape[0]));
    weights_put(t5, name, turned); // as many values, another shape
    refuse(NULL, name);
    weights_put(t5, name, kept);
    name = "blocks.2.ffn.gate.0.weight";
    assert_int_equal(weights_get(t5, name, &kept, NULL), 0);
    weights_put(t5, name, tensor_slice(kept, 0, 0, kept.shape[0] - 1));
    refuse(NULL, name);
    weights_put(t5, name, kept);
    struct umt5 *m = open_as(DT_F32);
    umt5_free(&m);
}

// ---- spread over ranks

enum { WORDS = 9, TEXTS = 3 };

struct spreading {
    const char *table;
    enum dtype dtype;
    struct mesh_shape shape; // blocks over the heads axis; each row of it has a set
    int reader;              // in its row
    float *want;             // [TEXTS, WORDS, dim] of a whole encoder
    const char *cut;         // a tensor that is short on rank 1, or NULL
};

static void draw_ids(int32_t *ids, int i_text, int64_t vocab)
{
    for (int i = 0; i < WORDS; i++) ids[i] = (int32_t)((i * 37 + i_text * 11 + 5) % vocab);
}

static int encode_all(struct umt5 *m, struct dev *d, float *out)
{
    struct dev_arena *a = dev_arena_new(d, "texts", 1 << 24);
    tensor rows = dev_tensor(a, DT_F32, SHAPE(WORDS, umt5_dim(m))), at = dev_tensor(a, DT_I32, SHAPE(WORDS));
    for (int i = 0; i < TEXTS; i++) {
        int32_t ids[WORDS];
        draw_ids(ids, i, umt5_vocab(m));
        dev_upload(d, at, ids, DT_I32);
        umt5_encode(m, a, rows, at, WORDS, NULL);
        dev_download(d, out + (int64_t)i * WORDS * umt5_dim(m), DT_F32, rows);
    }
    dev_arena_free(&a);
    return dev_sync(d, NULL);
}

// Bytes of the tensors of all blocks, each at a multiple of 256: matrices of dtype `t`, vectors F32.
static int64_t blocks_bytes(enum dtype t, int *n_blocks)
{
    int64_t bytes = 0;
    *n_blocks = 0;
    for (int64_t i = 0; i < weights_count(t5); i++) {
        const char *name = weights_name(t5, i);
        tensor x = NO_TENSOR;
        if (strncmp(name, "blocks.", 7) != 0 || weights_get(t5, name, &x, NULL) < 0) continue;
        bytes += (tensor_count(x) * dtype_size(x.n == 1 ? DT_F32 : t) + 255) / 256 * 256;
        *n_blocks += strstr(name, ".norm1.") != NULL;
    }
    return bytes;
}

// A share of every block and two whole ones; the reader has the last norm too, and the embedding where its dtype must
// change.
static int holds_its_share(const struct spreading *s, const struct umt5 *m, int ranks, bool reads, struct err *e)
{
    int n_blocks;
    int64_t all = blocks_bytes(s->dtype, &n_blocks), run = all / n_blocks, unit = (int64_t)256 * ranks;
    run = (run + unit - 1) / unit * unit;
    int64_t due = ranks > 1 ? n_blocks * (run / ranks) + 2 * run : n_blocks * run, has = umt5_bytes(m);
    int64_t norm = reads ? umt5_dim(m) * 4 : 0;
    int64_t heads = ranks > 1 ? 2 * 7 * 1280 : 0; // what is known of each packed matrix of the two blocks
    CHECK(has >= due + norm && has <= due + norm + 5 * 256 + heads);
    return 0;
}

// Every block once a text, and the first of the next on its way.
static int gathers_as_written(const struct spreading *s, const struct umt5 *m, int ranks, struct err *e)
{
    int n_blocks;
    int64_t all = blocks_bytes(s->dtype, &n_blocks), run = all / n_blocks, unit = (int64_t)256 * ranks;
    run = (run + unit - 1) / unit * unit;
    struct comm_count got = comm_counted_all(umt5_comm(m));
    CHECK(got.received_bytes == (TEXTS * n_blocks + 1) * (run / ranks * (ranks - 1)) && n_blocks > 2);
    return 0;
}

static int read_or_lend(const struct spreading *s, struct umt5 *m, struct dev *d, struct comm *row, struct err *e)
{
    bool reads = comm_rank(row) == s->reader;
    int rc = holds_its_share(s, m, comm_size(row), reads, e);
    if (rc < 0) return rc;
    comm_count_reset(umt5_comm(m));
    if (!reads) {
        for (int i = 0; i < TEXTS; i++) umt5_lend(m);
    } else {
        size_t bytes = (size_t)TEXTS * WORDS * (size_t)umt5_dim(m) * sizeof(float);
        float *got = malloc(bytes);
        BUG_IF(!got, "no memory");
        rc = encode_all(m, d, got);
        bool equal = memcmp(got, s->want, bytes) == 0;
        free(got);
        CHECK(rc == 0 && equal);
    }
    return comm_size(row) > 1 ? gathers_as_written(s, m, comm_size(row), e) : 0;
}

static int spread_rank(struct comm *world, void *ctx, struct err *e)
{
    const struct spreading *s = ctx;
    struct mesh m = {0};
    struct dev *d = NULL;
    struct umt5 *encoder = NULL;
    struct weights *own = NULL;
    int rc = mesh_open(&m, world, s->shape, e);
    if (rc == 0) rc = weights_open(&own, TEST_DIR "/golden/weights_t5.safetensors", e);
    if (rc == 0) rc = dev_open(&d, s->table, 1, e);
    if (rc < 0) return rc;
    if (s->cut && comm_rank(world) == 1) {
        tensor kept = NO_TENSOR;
        rc = weights_get(own, s->cut, &kept, e);
        if (rc == 0) weights_put(own, s->cut, tensor_slice(kept, 0, 0, kept.shape[0] - 1));
    }
    if (rc == 0) rc = umt5_new_shared(&encoder, d, own, NULL, s->dtype, m.heads, comm_rank(m.heads) != s->reader, e);
    if (rc == 0) rc = read_or_lend(s, encoder, d, m.heads, e);
    umt5_free(&encoder);
    dev_close(&d);
    weights_free(&own);
    mesh_close(&m);
    return rc;
}

static void whole(struct spreading *s)
{
    struct dev *d = NULL;
    struct umt5 *m = NULL;
    struct err e = {0};
    assert_int_equal(dev_open(&d, s->table, 1, &e), 0);
    if (umt5_new(&m, d, t5, NULL, s->dtype, &e) < 0) fail_msg("%s", e.text);
    s->want = malloc((size_t)TEXTS * WORDS * (size_t)umt5_dim(m) * sizeof(float));
    assert_non_null(s->want);
    assert_int_equal(encode_all(m, d, s->want), 0);
    umt5_free(&m);
    dev_close(&d);
}

static void spread_blocks_give_the_same_bits(void **state)
{
    (void)state;
    static const struct mesh_shape shapes[] = {{1, 1, 1}, {1, 1, 2}, {1, 1, 3}, {1, 1, 4}, {1, 2, 2}, {2, 1, 2}};
    static const char *const tables[] = {"ref", "cpu"};
    static const enum dtype dtypes[] = {DT_F32, DT_BF16};
    for (int k = 0; k < 4; k++) {
        struct spreading s = {.table = tables[k % 2], .dtype = dtypes[k / 2]};
        whole(&s);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (s.reader = 0; s.reader < shapes[i].heads; s.reader++) {
                struct err e = {0};
                s.shape = shapes[i];
                if (comm_thread_run(s.shape.guide * s.shape.ring * s.shape.heads, spread_rank, &s, &e) < 0)
                    fail_msg("%s of %s, guide %d x ring %d x heads %d, read by %d: %s",
                             s.dtype == DT_F32 ? "f32" : "bf16", s.table, s.shape.guide, s.shape.ring, s.shape.heads,
                             s.reader, e.text);
            }
        free(s.want);
    }
}

static void what_one_rank_cannot_read_none_has(void **state)
{
    (void)state;
    static const char *const names[] = {"blocks.1.ffn.fc1.weight", "blocks.0.ffn.fc1.weight"}; // when read, and before
    for (int i = 0; i < 2; i++) {
        struct spreading s = {.table = "ref", .dtype = DT_F32, .shape = {1, 1, 3}, .cut = names[i]};
        struct err e = {0};
        assert_int_equal(comm_thread_run(3, spread_rank, &s, &e), E_INPUT);
        if (strncmp(e.text, "rank 1: ", 8) != 0 || !strstr(e.text, "blocks.")) fail_msg("'%s'", e.text);
    }
}

int main(void)
{
    log_init(LOG_ERROR, "test_umt5", 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_by_distance),
        cmocka_unit_test(padding_changes_nothing),
        cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(misfits_are_refused),
        cmocka_unit_test(spread_blocks_give_the_same_bits),
        cmocka_unit_test(what_one_rank_cannot_read_none_has),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
