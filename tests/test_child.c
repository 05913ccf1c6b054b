// Media children: what they say, how they end, and what they may not do.
//
// This program re-executes itself. Its own kinds misbehave on purpose; all others go to media_child_main.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/media/child.h"

static const char self[] = "/proc/self/exe";

// Serves numbers doubled until told 0, then the first argument.
static void serve(char **argv)
{
    int x;
    while (child_asked(&x, sizeof x) && x) {
        x *= 2;
        child_write(1, &x, sizeof x, NULL);
    }
    child_write(1, argv[3], strlen(argv[3]), NULL);
}

static void open_and(const char *letter, char *got)
{
    int fd = open(TEST_DIR "/CMakeLists.txt", O_RDONLY);
    if (fd < 0) return;
    strcat(got, letter);
    close(fd);
}

// What a decoder that was taken over would try: a letter for each attempt that comes through.
static void escape(void)
{
    char got[16] = "";
    child_fence();
    open_and("r", got); // decoders open their file
    if (open("/dev/null", O_WRONLY) >= 0) strcat(got, "w");
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0) strcat(got, "s");
    execl("/bin/true", "true", (char *)NULL);
    if (kill(getppid(), 0) == 0) strcat(got, "k");
    for (int fd = 4; fd < 64; fd++)
        if (fcntl(fd, F_GETFD) >= 0) strcat(got, "d");
    if (getenv("TEST_CHILD_SECRET")) strcat(got, "e");
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
    if (mmap(NULL, (size_t)5 << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED)
        strcat(got, "m");
#endif
    child_seal();
    open_and("R", got);
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    if (pid > 0) strcat(got, "f");
    child_write(1, got, sizeof got, NULL);
}

static int misbehave(char **argv)
{
    struct err e = {E_INPUT, "no\nsuch thing"};
    const char *verb = argv[2];
    if (strcmp(verb, "serve") == 0) serve(argv);
    if (strcmp(verb, "escape") == 0) escape();
    if (strcmp(verb, "crash") == 0) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (strcmp(verb, "refuse") == 0) child_write(3, &e, sizeof e, NULL);
    if (strcmp(verb, "leave") == 0) _exit(7);
    if (strcmp(verb, "little") == 0) child_write(1, "ab", 2, NULL);
    if (strcmp(verb, "hang") == 0) pause();
    _exit(0);
}

static struct child *begin(const char *verb)
{
    struct child *c;
    struct err e = {0};
    if (child_start(&c, self, verb, (const char *const[]){"the-file", NULL}, &e) < 0) fail_msg("%s", e.text);
    return c;
}

static void requests_are_served(void **state)
{
    (void)state;
    struct child *c = begin("serve");
    struct err e = {0};
    for (int i = 1; i < 100; i++) {
        int twice = 0;
        assert_int_equal(child_ask(c, &i, sizeof i, &e), 0);
        assert_int_equal(child_read(c, &twice, sizeof twice, &e), 0);
        assert_int_equal(twice, 2 * i);
    }
    char name[8];
    assert_int_equal(child_ask(c, &(int){0}, sizeof(int), &e), 0);
    assert_int_equal(child_read(c, name, sizeof name, &e), 0);
    assert_memory_equal(name, "the-file", 8);
    assert_int_equal(child_end(c, &e), 0);
}

static void bad_ends_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *verb;
        int code;
        const char *says;
    } cases[] = {
        {"crash", E_INPUT, "crash the-file: the decoder crashed on it (Segmentation fault)"},
        {"refuse", E_INPUT, "no such thing"},
        {"leave", E_FATAL, "leave the-file: the decoder did not run (status 7)"},
        {"little", E_FATAL, "little the-file: the decoder said too little"},
        {"no-such-verb", E_FATAL, "no-such-verb the-file: the decoder did not run (status 2)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct child *c = begin(cases[i].verb);
        char buf[16];
        struct err e = {0};
        assert_int_equal(child_read(c, buf, sizeof buf, &e), cases[i].code);
        assert_int_equal(strncmp(e.text, cases[i].says, strlen(cases[i].says)), 0);
        child_kill(c);
    }
}

static void asking_a_dead_child_tells_its_end(void **state)
{
    (void)state;
    struct child *c = begin("crash");
    static char much[1 << 20];
    struct err e = {0};
    int rc = 0;
    for (int i = 0; i < 100 && rc == 0; i++) rc = child_ask(c, much, sizeof much, &e);
    assert_int_equal(rc, E_INPUT);
    assert_non_null(strstr(e.text, "crashed"));
    child_kill(c);
}

static void killing_ends_a_child_that_hangs(void **state)
{
    (void)state;
    child_kill(begin("hang")); // comes back
}

static void a_child_behind_the_fence_cannot_leave(void **state)
{
    (void)state;
    setenv("TEST_CHILD_SECRET", "1", 1);
    int extra = open(TEST_DIR "/CMakeLists.txt", O_RDONLY); // without close-on-exec: closed all the same
    struct child *c = begin("escape");
    char got[16];
    struct err e = {0};
    if (child_read(c, got, sizeof got, &e) < 0) fail_msg("%s", e.text);
    assert_string_equal(got, "r");
    assert_int_equal(child_end(c, &e), 0);
    close(extra);
}

static void a_program_that_is_missing_is_told(void **state)
{
    (void)state;
    struct child *c;
    struct err e = {0};
    assert_int_equal(child_start(&c, "/no/such/program", "serve", (const char *const[]){"f", NULL}, &e), E_FATAL);
    assert_null(c);
    assert_non_null(strstr(e.text, "/no/such/program"));
}

int main(int argc, char **argv)
{
    static const char own[] = " serve escape crash refuse leave little hang ";
    if (argc > 2 && strcmp(argv[1], "__media") == 0)
        return strstr(own, argv[2]) ? misbehave(argv) : media_child_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_served),
        cmocka_unit_test(bad_ends_are_told),
        cmocka_unit_test(asking_a_dead_child_tells_its_end),
        cmocka_unit_test(killing_ends_a_child_that_hangs),
        cmocka_unit_test(a_child_behind_the_fence_cannot_leave),
        cmocka_unit_test(a_program_that_is_missing_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
