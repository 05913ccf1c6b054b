// A mapped file that shrinks: the process that reads it ends with a sentence that names the file.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BYTES = 1 << 20 };

// In a child: maps the file, shrinks it, reads past its end.
static void read_shrunk(const char *path, const char *said, int rank)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || ftruncate(fd, BYTES) < 0) _exit(2);
    const volatile char *map = mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED || map[BYTES / 2] != 0 || ftruncate(fd, 5000) < 0) _exit(3);
    if (!freopen(said, "w", stderr)) _exit(4);
    fault_watch(-1);
    if (rank >= 0) fault_watch(rank);
    if (map[4500] != 0) _exit(5); // what is there can be read
    _exit(6 + map[BYTES / 2]);
}

static void named(int rank, const char *who)
{
    char folder[] = "/tmp/fault test-XXXXXX", path[64], said[64], text[512] = "";
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/weights of mine", folder);
    snprintf(said, sizeof said, "%s/said", folder);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) read_shrunk(path, said, rank);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
    FILE *f = fopen(said, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    char want[128];
    snprintf(want, sizeof want, "longtake-worker: %s%s was cut short", who, path);
    assert_ptr_equal(strstr(text, want), text);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    unlink(path);
    unlink(said);
    rmdir(folder);
}

static void the_file_is_named(void **state)
{
    (void)state;
    named(-1, "");
    named(11, "rank 11: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_file_is_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
