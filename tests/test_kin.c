// Rank 0 names the rank that ended first, whatever made it end, and those that are told to end with it are not it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/kin.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 3, PATIENCE_MS = 20000, TERM_STATUS = 128 + SIGTERM };

// A rank that does nothing; ready when it has opened its kin.
static pid_t rank_start(int number)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct kin *k;
        kin_open(&k, NULL, N, number);
        if (k || write(ready[1], &byte, 1) != 1) _exit(1);
        for (;;) pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void ranks_start(int32_t pid[N])
{
    pid[0] = getpid();
    for (int i = 1; i < N; i++) pid[i] = rank_start(i);
}

// How it ended.
static int rank_bury(pid_t pid)
{
    int status = 0;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void woken(const struct kin *k)
{
    struct pollfd p = {.fd = kin_fd(k), .events = POLLIN};
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
}

// Three ranks, this process among them as rank 0, which watches.
static struct kin *family_start(int32_t pid[N])
{
    struct kin *k;
    ranks_start(pid);
    kin_open(&k, pid, N, 0);
    return k;
}

static void names_who_was_killed(void **state)
{
    (void)state;
    for (int victim = 1; victim < N; victim++) {
        int32_t pid[N];
        struct kin *k = family_start(pid);
        struct err e = {0};
        char want[64];
        assert_int_equal(kin_lost(k, &e), 0);
        assert_int_equal(e.code, 0);
        kill(pid[victim], SIGKILL);
        woken(k);
        raise(SIGTERM); // as the launcher says then
        assert_int_equal(kin_lost(k, &e), E_LOST);
        snprintf(want, sizeof want, "rank %d of %d (process %d) ended", victim, N, (int)pid[victim]);
        assert_string_equal(e.text, want);
        kin_rest(k, PATIENCE_MS);
        kin_close(&k);
        for (int i = 1; i < N; i++) rank_bury(pid[i]);
    }
}

static void names_nobody_when_all_are_told_to_end(void **state)
{
    (void)state;
    int32_t pid[N];
    struct kin *k = family_start(pid);
    struct err e = {0};
    raise(SIGTERM);
    woken(k);
    assert_int_equal(kin_lost(k, &e), E_LOST);
    assert_string_equal(e.text, "the group was told to end (signal 15)");
    kin_rest(k, PATIENCE_MS);
    kin_close(&k);
    for (int i = 1; i < N; i++) rank_bury(pid[i]);
}

static void a_rank_that_is_told_ends_by_itself(void **state)
{
    (void)state;
    int32_t pid[N];
    struct kin *k = family_start(pid);
    struct err e = {0};
    kill(pid[2], SIGTERM);
    woken(k);
    assert_int_equal(kin_lost(k, &e), E_LOST);
    assert_non_null(strstr(e.text, "rank 2 of 3"));
    int status = rank_bury(pid[2]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), TERM_STATUS);
    rank_bury(pid[1]);
    kin_close(&k);
}

static void who_is_elsewhere_is_counted(void **state)
{
    (void)state;
    int32_t pid[N] = {(int32_t)getpid(), 0, 0};
    struct kin *k;
    struct err e = {0};
    kin_open(&k, pid, N, 0);
    assert_int_equal(kin_lost(k, &e), 0);
    raise(SIGTERM);
    woken(k);
    assert_int_equal(kin_lost(k, &e), E_LOST);
    assert_non_null(strstr(e.text, "one of 2 on other machines"));
    kin_rest(k, PATIENCE_MS);
    kin_close(&k);
}

static void alone_nobody_is_watched(void **state)
{
    (void)state;
    int32_t pid = (int32_t)getpid();
    struct kin *k;
    kin_open(&k, &pid, 1, 0);
    assert_null(k);
    kin_close(&k);
}

// After kin_leave, SIGTERM ends the program; one that came before does too.
static void left_alone_it_ends_as_any_program(void **state)
{
    (void)state;
    for (int before = 0; before < 2; before++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            int32_t pid[N] = {(int32_t)getpid(), 0, 0};
            struct kin *k;
            kin_open(&k, pid, N, 0);
            if (before) raise(SIGTERM);
            kin_leave(k);
            raise(SIGTERM);
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGTERM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_who_was_killed),
        cmocka_unit_test(names_nobody_when_all_are_told_to_end),
        cmocka_unit_test(a_rank_that_is_told_ends_by_itself),
        cmocka_unit_test(who_is_elsewhere_is_counted),
        cmocka_unit_test(alone_nobody_is_watched),
        cmocka_unit_test(left_alone_it_ends_as_any_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
