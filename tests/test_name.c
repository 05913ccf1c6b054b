// The name of a film that was given none: tame whatever the prompt is, and never one that is taken.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/cli/name.h"
#include "tests/folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int begin(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    return top_make("test_name");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

// The name alone.
static const char *name(const char *size, const char *prompt)
{
    static char path[4096];
    struct err e = {0};
    struct name_of o = {.size = size, .prompt = prompt, .ulysses = 2, .ring = 1, .when = 1700000000};
    if (name_choose(path, sizeof path, top, &o, &e) < 0) fail_msg("%s", e.text);
    assert_memory_equal(path, top, strlen(top));
    return path + strlen(top) + 1;
}

static void prompts_become_tame(void **state)
{
    (void)state;
    static const struct {
        const char *prompt, *in;
    } cases[] = {
        {"A woman talks.", "A_woman_talks."},
        {"", ""},
        {"../../etc/passwd\n\"'$(rm)", ".._.._etc_passwd_____rm_"},
        {"\xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c \xc3\xa9t\xc3\xa9 \xf0\x9f\x98\x80",
         "\xe4\xbd\xa0\xe5\xa5\xbd__\xc3\xa9t\xc3\xa9__"},
        {"a\xff\xc3(\xe4\xbd", "a_____"}, // no UTF-8
        {"12345678901234567890123456789012345678901234567890+more",
         "12345678901234567890123456789012345678901234567890"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[256];
        snprintf(want, sizeof want, "infinitetalk_tiny_2_1_%s_20231114_221320.mp4", cases[i].in);
        assert_string_equal(name("tiny", cases[i].prompt), want);
    }
}

static void names_stay_short_and_whole(void **state)
{
    (void)state;
    char prompt[3 * 60 + 1] = "", size[64];
    for (int i = 0; i < 60; i++) strcat(prompt, "\xe4\xbd\xa0");
    memset(size, 'x', sizeof size - 1);
    size[sizeof size - 1] = 0;
    for (int i = 0; i < 4; i++) { // the cut falls on each byte of a character
        const char *got = name(size + i, prompt);
        size_t n = strlen(got);
        assert_true(n <= NAME_BYTES);
        assert_string_equal(got + n - 20, "_20231114_221320.mp4");
        assert_int_equal((uint8_t)got[n - 21], 0xa0); // the last byte of a whole character
    }
}

static void a_name_is_not_given_twice(void **state)
{
    (void)state;
    char path[4096], work[4200];
    assert_string_equal(name("tiny", "p"), "infinitetalk_tiny_2_1_p_20231114_221320.mp4");
    snprintf(path, sizeof path, "%s/infinitetalk_tiny_2_1_p_20231114_221320.mp4", top);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    assert_string_equal(name("tiny", "p"), "infinitetalk_tiny_2_1_p_20231114_221320-1.mp4");
    snprintf(work, sizeof work, "%s/infinitetalk_tiny_2_1_p_20231114_221320-1.mp4.longtake", top); // a render under way
    assert_int_equal(mkdir(work, 0700), 0);
    assert_string_equal(name("tiny", "p"), "infinitetalk_tiny_2_1_p_20231114_221320-2.mp4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(prompts_become_tame),
                                       cmocka_unit_test(names_stay_short_and_whole),
                                       cmocka_unit_test(a_name_is_not_given_twice)};
    return cmocka_run_group_tests(tests, begin, end);
}
