// The text encoder beyond what golden pins: buckets, padding, BF16, and weights that do not fit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "worker/models/umt5.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_by_distance),
        cmocka_unit_test(padding_changes_nothing),
        cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(misfits_are_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
