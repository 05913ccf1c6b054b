// What a group's log tells of its end. A row is a log and the words that are taken from it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/launch.h"
#include "tests/folder.h"

#define OWN     "longtake-worker: "
#define MPI     "mpirun noticed that process rank 2 with PID 71 on node a exited on signal 9 (Killed).\n"
#define RULE    "--------------------------------------------------------------------------\n"
#define STARTED "t=1.0 info worker.ready layout=x\n"

static const struct {
    const char *what, *log, *words;
    bool rank; // the launcher says which rank it was
} rows[] = {
    {"nothing", "", "", false},
    {"one line of its own, which is the first", OWN "the roof is leaking; mend it\n", "the roof is leaking; mend it",
     false},
    {"the same without its end", OWN "the roof is leaking", "the roof is leaking", false},
    {"its own line behind others", STARTED OWN "the roof is leaking\n", "the roof is leaking", false},
    {"of two, the later one", OWN "rain\n" STARTED OWN "hail\n", "hail", false},
    {"a launcher behind it", OWN "the roof is leaking\n" RULE "ranks ended early\n" RULE, "the roof is leaking", false},
    {"its name amid a line", STARTED "bash: " OWN "not found\n", "bash: " OWN "not found", false},
    {"another program's", STARTED "Illegal instruction\n\n", "Illegal instruction", false},
    {"good days alone", STARTED, "", false},
    {"what could disturb a terminal",
     OWN "a\x1b[31mb\tc\x7f"
         "d\n",
     "a [31mb c d", false},
    {"a rank by its number", OWN "rain\n" RULE MPI RULE, "rank 2 ended on signal 9 (Killed)", true},
    {"a rank that is only half named", RULE "process rank two fell\n", "process rank two fell", false},
};

static void test_last_words(void **state)
{
    (void)state;
    char path[256], said[400];
    snprintf(path, sizeof path, "%s/log", top);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(rows[i].log, f);
        assert_int_equal(fclose(f), 0);
        bool rank = launch_last_words(path, said, sizeof said);
        if (strcmp(said, rows[i].words) != 0 || rank != rows[i].rank)
            fail_msg("%s: '%s', not '%s'", rows[i].what, said, rows[i].words);
    }
    assert_false(launch_last_words("/no/such/log", said, sizeof said));
    assert_string_equal(said, "");
}

// Only the end of a long log is read, and of a long line its begin.
static void test_long_logs(void **state)
{
    (void)state;
    char path[256], said[400];
    snprintf(path, sizeof path, "%s/long", top);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(OWN "long ago\n", f);
    for (int i = 0; i < 1000; i++) fputs(STARTED, f);
    fputs(OWN, f);
    for (int i = 0; i < 1000; i++) fputc('a', f);
    assert_int_equal(fclose(f), 0);
    assert_false(launch_last_words(path, said, sizeof said));
    assert_int_equal(strlen(said), 300);
    assert_int_equal(strspn(said, "a"), 300);
}

static int begin(void **state)
{
    (void)state;
    return top_make("test_launch");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_last_words), cmocka_unit_test(test_long_logs)};
    return cmocka_run_group_tests(tests, begin, end);
}
