// longtake-worker --selftest passes on the CPU, and a device that is not there is told in a sentence.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static char said[16384];

// Runs the worker with these flags; its exit status.
static int worker(const char *flags)
{
    char command[256];
    snprintf(command, sizeof command, "%s/longtake-worker %s 2>&1", BIN_DIR, flags);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    return WEXITSTATUS(pclose(f));
}

static void every_op_passes_on_the_cpu(void **state)
{
    (void)state;
    if (worker("--selftest") != 0) fail_msg("%s", said);
    assert_non_null(strstr(said, "\nverdict: cpu "));
    assert_non_null(strstr(said, "\nattention_map "));
    assert_null(strstr(said, "WRONG"));
}

static void other_devices_are_told(void **state)
{
    (void)state;
    assert_int_equal(worker("--selftest --device gpu9"), 3);
    assert_non_null(strstr(said, "there is no 'gpu9'; there are cpu, cuda and cuda:N"));
    assert_int_equal(worker("--selftest --device cuda --table ref"), 3);
    assert_non_null(strstr(said, "--table ref"));
    // Without a toolkit, without a driver, or without that many cards.
    assert_int_equal(worker("--selftest --device cuda:63"), 3);
    assert_true(strstr(said, "no CUDA table") || strstr(said, "no NVIDIA driver") || strstr(said, "no card 63"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_passes_on_the_cpu),
        cmocka_unit_test(other_devices_are_told),
    };
    return cmocka_run_group_tests_name("selftest", tests, NULL, NULL);
}
