// Attention over keys in runs equals attention over all keys at once, whatever the cuts and their order.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/ops.h"

#include <math.h>

static float draw(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (float)((int32_t)(*s >> 33) - (1 << 30)) / (float)(1 << 29);
}

static tensor random_rows(struct dev_arena *a, enum dtype t, uint64_t *seed, int64_t n, int64_t h, int64_t w)
{
    tensor x = dev_tensor(a, DT_F32, SHAPE(2, n, h, w)), y = dev_tensor(a, t, SHAPE(2, n, h, w));
    for (int64_t i = 0; i < tensor_count(x); i++) ((float *)x.data)[i] = 3 * draw(seed);
    op_copy(dev_arena_dev(a), y, x);
    return y;
}

// The largest difference between the whole and the sum over runs that end at `cut`, taken last run first.
static double worst(enum dtype t, const int64_t *cut, int n_cuts, float scale)
{
    struct err e;
    struct dev *d;
    assert_int_equal(dev_open(&d, "ref", 1, &e), 0);
    struct dev_arena *a = dev_arena_new(d, "test", 1 << 24);
    uint64_t seed = 7;
    int64_t nq = 5, nk = cut[n_cuts - 1], h = 3, w = 8, wv = 4;
    tensor q = random_rows(a, t, &seed, nq, h, w), k = random_rows(a, t, &seed, nk, h, w);
    tensor v = random_rows(a, t, &seed, nk, h, wv), y = dev_tensor(a, t, SHAPE(2, nq, h, wv));
    tensor z = dev_tensor(a, t, SHAPE(2, nq, h, wv)), sum = dev_tensor(a, DT_F32, SHAPE(2, nq, h, wv));
    tensor state = dev_tensor(a, DT_F32, SHAPE(2, nq, h, 2));
    op_attention(d, y, q, k, v, (struct attn){.scale = scale});
    op_fill(d, sum, NAN);
    op_fill(d, state, NAN);
    for (int i = n_cuts - 1; i >= 0; i--) {
        int64_t from = i ? cut[i - 1] : 0;
        op_attention_more(d, sum, state, q, tensor_slice(k, 1, from, cut[i]), tensor_slice(v, 1, from, cut[i]),
                          (struct attn){.scale = scale}, i == n_cuts - 1);
    }
    op_attention_done(d, z, sum, state);
    double most = 0;
    for (int64_t i = 0; i < tensor_count(y); i++) {
        double p = t == DT_F32 ? (double)((float *)y.data)[i] : (double)bf16_to_f32(((uint16_t *)y.data)[i]);
        double r = t == DT_F32 ? (double)((float *)z.data)[i] : (double)bf16_to_f32(((uint16_t *)z.data)[i]);
        assert_true(isfinite(p) && isfinite(r));
        if (fabs(p - r) > most) most = fabs(p - r);
    }
    assert_int_equal(dev_sync(d, &e), 0);
    dev_arena_free(&a);
    dev_close(&d);
    return most;
}

static void runs_equal_the_whole(void **state)
{
    (void)state;
    print_message("seed 7\n");
    assert_true(worst(DT_F32, (int64_t[]){11}, 1, 0) <= 1e-6);
    assert_true(worst(DT_F32, (int64_t[]){1, 2, 9, 11}, 4, 0) <= 1e-6);
    assert_true(worst(DT_F32, (int64_t[]){4, 8, 12, 13}, 4, 20) <= 1e-5); // scores in the hundreds
    assert_true(worst(DT_BF16, (int64_t[]){3, 11}, 2, 1) <= 0.03);        // one rounding of the result
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs_equal_the_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
