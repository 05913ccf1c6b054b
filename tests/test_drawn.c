// Drawn or photographed: areas of one colour against noise, at every size, and the bound between.
#include "daemon/media/drawn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

enum { SIDE = 96 };

static uint32_t next(uint32_t *x) { return (*x = *x * 1664525 + 1013904223) >> 8; }

// Stripes of one colour, `wide` pixels each; with `noise`, each value moved by up to so much.
static void paint(uint8_t *rgb, int h, int w, int wide, unsigned noise)
{
    uint32_t x = 7;
    for (int i = 0; i < h * w; i++)
        for (int c = 0; c < 3; c++)
            rgb[3 * i + c] =
                (uint8_t)(40 + (i % w / wide * 50 + 30 * c) % 150 + (noise ? (int)(next(&x) % (noise + 1)) : 0));
}

static void areas_are_drawn_noise_is_not(void **state)
{
    (void)state;
    uint8_t *rgb = malloc(3 * SIDE * SIDE);
    static const struct {
        int h, w, wide;
        unsigned noise;
        bool drawn;
    } rows[] = {
        {SIDE, SIDE, 12, 0, true},      {SIDE, SIDE, 12, 1, true},    {SIDE, SIDE, 12, 6, false},
        {SIDE, SIDE, SIDE, 0, true},    {SIDE, SIDE, SIDE, 6, false}, {SIDE, SIDE / 2, 12, 0, true},
        {16, 16, 8, 0, true},           {16, 16, 8, 9, false},        {SIDE / 2, SIDE, 4, 0, true},
        {SIDE / 2, SIDE, 12, 9, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        paint(rgb, rows[i].h, rows[i].w, rows[i].wide, rows[i].noise);
        if (drawn_looks(rgb, rows[i].h, rows[i].w) != rows[i].drawn) fail_msg("row %zu", i);
    }
    free(rgb);
}

// One pixel away from alike in one channel is enough, and only the last channel tells.
static void every_channel_counts(void **state)
{
    (void)state;
    uint8_t rgb[3 * 16 * 16];
    for (int i = 0; i < 256; i++) {
        rgb[3 * i] = rgb[3 * i + 1] = 90;
        rgb[3 * i + 2] = (uint8_t)(90 + 2 * ((i + i / 16) % 2));
    }
    assert_false(drawn_looks(rgb, 16, 16));
    for (int i = 0; i < 256; i++) rgb[3 * i + 2] = (uint8_t)(90 + (i + i / 16) % 2);
    assert_true(drawn_looks(rgb, 16, 16));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(areas_are_drawn_noise_is_not),
        cmocka_unit_test(every_channel_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
