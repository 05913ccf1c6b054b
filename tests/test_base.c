// proto/base: errors, arenas, nearest words, options.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/arena.h"
#include "proto/base/clock.h"
#include "proto/base/err.h"
#include "proto/base/hash.h"
#include "proto/base/near.h"
#include "proto/base/opt.h"

static void err_says_and_wraps(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(err_set(&e, E_INPUT, "crf: %d is too large", 99), E_INPUT);
    assert_int_equal(err_wrap(&e, "job %d", 7), E_INPUT);
    assert_string_equal(e.text, "job 7: crf: 99 is too large");
    assert_int_equal(err_set(NULL, E_BUSY, "nobody listens"), E_BUSY);
}

static void err_is_one_line(void **state)
{
    (void)state;
    struct err e = {0};
    err_set(&e, E_INPUT, "steps: '%s' is not a whole number", "4\n1\x1b[2J\t");
    assert_string_equal(e.text, "steps: '4 1 [2J ' is not a whole number");
}

static void err_cuts_long_sentences(void **state)
{
    (void)state;
    struct err e = {0};
    char long_text[4096];
    memset(long_text, 'z', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    err_set(&e, E_FATAL, "%s", long_text);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    err_wrap(&e, "outer");
    assert_int_equal(strncmp(e.text, "outer: zzz", 10), 0);
    // the end stays, as the way out, whatever comes before it; no letter is cut in two
    for (size_t n = 900; n < 1100; n++) {
        for (size_t i = 0; i < n; i++) long_text[i] = "\xc3\xa4"[i % 2];
        long_text[n / 2 * 2] = 0;
        err_set(&e, E_INPUT, "picture %s is empty", long_text);
        err_way(&e, "copy it again");
        err_wrap(&e, "job 7");
        assert_int_equal(strncmp(e.text, "job 7: picture \xc3\xa4", 17), 0);
        const char *end = " is empty; copy it again", *at = e.text + strlen("job 7: picture ");
        size_t length = strlen(e.text), letters = length - strlen(end);
        assert_true(length < sizeof e.text);
        assert_string_equal(e.text + letters, end);
        while (at < e.text + letters) {
            assert_true(*at == '.' || strncmp(at, "\xc3\xa4", 2) == 0);
            at += *at == '.' ? 1 : 2;
        }
    }
}

static void arena_gives_and_takes_back(void **state)
{
    (void)state;
    struct arena a = {0};
    char *first = arena_strdup(&a, "stays");
    struct arena_mark m = arena_mark(&a);
    for (int i = 0; i < 100; i++) {
        char *p = arena_alloc(&a, 5000);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (int k = 0; k < 5000; k++) assert_int_equal(p[k], 0);
        memset(p, 1, 5000);
    }
    arena_reset(&a, m);
    assert_string_equal(first, "stays");
    assert_string_equal(arena_printf(&a, "%d-%s", 3, "x"), "3-x");
    arena_free(&a);
    assert_null(a.head);
}

static void near_word_finds_typos(void **state)
{
    (void)state;
    static const char *const words[] = {"prompt", "audio", "image", "motion-frame", NULL};
    assert_string_equal(near_word("promt", words), "prompt");
    assert_string_equal(near_word("aduio", words), "audio");
    assert_string_equal(near_word("motion-frames", words), "motion-frame");
    assert_null(near_word("zzzzzz", words));
    assert_null(near_word("x", words));
}

struct sample {
    int count;
    int64_t big;
    double real;
    bool flag;
    int name;
    const char *text;
};
static const char *const sample_names[] = {"red", "green", NULL};
static const struct opt sample_rows[] = {
    {"count", OPT_INT, offsetof(struct sample, count), 1, 10, NULL, NULL, "N", "a count"},
    {"big", OPT_LONG, offsetof(struct sample, big), -1, 9.2e18, NULL, NULL, "N", "a big one"},
    {"real-part", OPT_REAL, offsetof(struct sample, real), 0, 1, NULL, NULL, "X", "a real"},
    {"flag", OPT_FLAG, offsetof(struct sample, flag), 0, 0, NULL, NULL, NULL, "a flag"},
    {"name", OPT_NAME, offsetof(struct sample, name), 0, 0, sample_names, NULL, "NAME", "a name"},
    {"text", OPT_TEXT, offsetof(struct sample, text), 0, 0, NULL, NULL, "TEXT", "a text"},
    {0},
};

struct opt_case {
    const char *key, *text, *says; // says NULL: accepted
};

static void opt_reads_and_refuses(void **state)
{
    (void)state;
    static const struct opt_case cases[] = {
        {"count", "7", NULL},
        {"count", "11", "--count: 11 is not between 1 and 10"},
        {"count", "7x", "--count: '7x' is not a whole number"},
        {"count", "", "--count: '' is not a whole number"},
        {"big", "9223372036854775808", "--big: '9223372036854775808' is not a whole number"},
        {"real_part", "0.25", NULL},
        {"real-part", "nan", "--real-part: 'nan' is not a number"},
        {"real-part", "1.5", "--real-part: 1.5 is not between 0 and 1"},
        {"flag", "False", NULL},
        {"flag", "maybe", "--flag: 'maybe' is neither yes nor no"},
        {"name", "green", NULL},
        {"name", "blue", "--name: 'blue' is none of: red, green"},
        {"text", "anything", NULL},
    };
    struct sample s = {.flag = true};
    struct arena a = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        const struct opt *o = opt_find(sample_rows, cases[i].key);
        assert_non_null(o);
        char from[64];
        snprintf(from, sizeof from, "--%s", o->key);
        int rc = opt_set(o, &s, &a, from, cases[i].text, &e);
        assert_int_equal(rc, cases[i].says ? E_INPUT : 0);
        if (cases[i].says) assert_string_equal(e.text, cases[i].says);
    }
    assert_int_equal(s.count, 7);
    assert_true(s.real == 0.25 && !s.flag && s.name == 1);
    struct err e = {0};
    opt_unknown(sample_rows, "flag", "cuont", &e);
    assert_string_equal(e.text, "unknown flag --cuont; did you mean --count?");
    arena_free(&a);
}

static void hash_is_blake2b_of_any_pieces(void **state)
{
    (void)state;
    uint8_t bytes[1280], sum[HASH_BYTES];
    for (int i = 0; i < 1280; i++) bytes[i] = (uint8_t)i;
    const struct {
        const void *data;
        size_t n;
        const char *hex; // of another implementation
    } cases[] = {
        {"abc", 3, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"},
        {bytes, sizeof bytes, "82628cbfc9689e234b0923a531f4578fe2e7138a03e2f81ed6cde97517336650"},
    };
    for (size_t i = 0; i < 2; i++)
        for (size_t piece = 1; piece < 1300; piece = piece * 3 + 1) {
            struct hash h;
            hash_init(&h);
            for (size_t at = 0; at < cases[i].n; at += piece)
                hash_update(&h, (const char *)cases[i].data + at, cases[i].n - at < piece ? cases[i].n - at : piece);
            hash_final(&h, sum);
            char hex[2 * HASH_BYTES + 1];
            for (int b = 0; b < HASH_BYTES; b++) snprintf(hex + 2 * b, 3, "%02x", sum[b]);
            assert_string_equal(hex, cases[i].hex);
        }
}

static void clock_can_be_set(void **state)
{
    (void)state;
    clock_set_us(5000);
    assert_int_equal(clock_ms(), 5);
    clock_set_us(-1);
    int64_t t = clock_us();
    assert_true(clock_us() >= t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_says_and_wraps),      cmocka_unit_test(err_is_one_line),
        cmocka_unit_test(err_cuts_long_sentences), cmocka_unit_test(arena_gives_and_takes_back),
        cmocka_unit_test(near_word_finds_typos),   cmocka_unit_test(opt_reads_and_refuses),
        cmocka_unit_test(clock_can_be_set),        cmocka_unit_test(hash_is_blake2b_of_any_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
