// Quantised weights on a card: BF16 layers keep the bytes and multiply them as they are, by the contract of
// op_linear_scaled; F32 layers, and bytes that have no product, are widened when they are loaded.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/trial.h"
#include "tests/gpusim/sim.h"
#include "tests/quantised.h"

enum { ROWS = 5 };

static int begin(void **state)
{
    (void)state;
    return top_make("test_gpusim_quantised");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

static struct dev *opened(const char *table)
{
    struct dev *d = NULL;
    struct err e = {0};
    if (dev_open(&d, table, 1, &e) < 0) fail_msg("%s", e.text);
    return d;
}

// y of the layer on a device, in the host's memory.
static void product(struct dev *d, const struct weights *w, enum dtype t, enum dtype keeps, float y[ROWS * Q_OUT])
{
    struct err e = {0};
    float x[ROWS * Q_IN];
    struct dev_arena *a = dev_arena_new(d, "quantised", 1 << 20);
    tensor weight = NO_TENSOR, in = dev_tensor(a, t, SHAPE(ROWS, Q_IN)), out = dev_tensor(a, t, SHAPE(ROWS, Q_OUT));
    for (int i = 0; i < ROWS * Q_IN; i++) x[i] = (float)(i * 29 % 71 - 35) / 16;
    dev_upload(d, in, x, DT_F32);
    if (weights_load_linear(w, a, &weight, t, "layer.weight", Q_OUT, Q_IN, &e) < 0) fail_msg("%s", e.text);
    assert_int_equal(weight.dtype, keeps);
    assert_int_equal(weight.scale != NULL, keeps == DT_I8 || keeps == DT_F8_E4M3);
    op_linear(d, out, in, weight, NO_TENSOR, ACT_NONE);
    dev_download(d, y, DT_F32, out);
    if (dev_sync(d, &e) < 0) fail_msg("%s", e.text);
    dev_arena_free(&a);
}

static void bytes_stay_bytes_where_they_serve(void **state)
{
    (void)state;
    sim_cards(1, 90);
    struct dev *ref = opened("ref"), *card = opened("cuda");
    for (int k = 0; k < N_QUANTISED; k++) {
        const struct quantised *q = &quantised_ways[k];
        char path[256];
        struct weights *w = NULL;
        struct err e = {0};
        float want[ROWS * Q_OUT], got[ROWS * Q_OUT];
        tensor wanted = tensor_of(want, DT_F32, SHAPE(ROWS, Q_OUT)),
               gotten = tensor_of(got, DT_F32, SHAPE(ROWS, Q_OUT));
        quantised_write(q, path, sizeof path);
        if (weights_open(&w, path, &e) < 0) fail_msg("%s", e.text);
        product(ref, w, DT_F32, DT_F32, want);
        product(card, w, DT_F32, DT_F32, got);
        assert_true(trial_error(gotten, wanted) <= 1e-5);
        product(card, w, DT_BF16, q->dtype == DT_F8_E5M2 ? DT_BF16 : q->dtype, got);
        // A row of x in 8 bits: half a step of its values, over 64 terms of either sign.
        double error = trial_error(gotten, wanted);
        print_message("way %d: %.3g of the largest value off\n", k, error);
        assert_true(error <= 0.03);
        weights_free(&w);
    }
    dev_close(&card);
    dev_close(&ref);
    sim_cards(1, 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_stay_bytes_where_they_serve),
    };
    return cmocka_run_group_tests_name("gpusim quantised", tests, begin, end);
}
