// worker/texts: what is kept is a copy, found by its text, the last four of them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/texts.h"

static void the_last_four_texts_are_found(void **state)
{
    (void)state;
    struct texts *t = NULL;
    texts_new(&t);
    assert_null(texts_find(t, "0"));
    for (int i = 0; i < 6; i++) {
        char text[8];
        float rows[6] = {(float)i, 1, 2, 3, 4, 5};
        snprintf(text, sizeof text, "%d", i);
        texts_keep(t, text, &(struct text_rows){.n = 3, .n_lost = i, .rows = rows}, 2);
        rows[0] = -1; // a copy was kept
        text[0] = 'x';
    }
    for (int i = 0; i < 6; i++) {
        char text[8];
        snprintf(text, sizeof text, "%d", i);
        const struct text_rows *r = texts_find(t, text);
        if (i < 2) {
            assert_null(r);
            continue;
        }
        assert_int_equal(r->n, 3);
        assert_int_equal(r->n_lost, i);
        assert_true(r->rows[0] == (float)i && r->rows[5] == 5);
    }
    assert_null(texts_find(t, ""));
    texts_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_last_four_texts_are_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
