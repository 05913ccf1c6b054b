// daemon/media_store: files come in pieces, whole and right or not at all; no name leads outside.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/media_store.h"
#include "proto/base/hash.h"

#include <stdio.h>
#include <unistd.h>

static char folder[] = "/tmp/media-test-XXXXXX";
static struct media_store *m;
static uint8_t bytes[1000], hash[32];
static char name[80];

static int put(uint64_t offset, uint64_t total, const void *data, size_t n, uint64_t *have)
{
    struct err e = {0};
    return media_store_put(m, hash, offset, total, data, n, have, &e);
}

static void a_file_comes_in_pieces_and_goes_on_after_a_break(void **state)
{
    (void)state;
    struct err e = {0};
    char path[4200];
    uint64_t have = 9;
    assert_int_equal(put(0, 1000, NULL, 0, &have), 0); // what is there?
    assert_int_equal(have, 0);
    assert_int_equal(put(0, 1000, bytes, 400, &have), 0);
    assert_int_equal(have, 400);
    assert_int_equal(put(500, 1000, bytes + 500, 100, &have), 0); // a gap is not filled
    assert_int_equal(have, 400);
    assert_int_equal(put(0, 1000, bytes, 400, &have), 0); // again
    assert_int_equal(have, 400);
    assert_int_equal(media_store_path(m, name, path, sizeof path, &e), E_INPUT); // not whole
    media_store_close(&m);
    assert_int_equal(media_store_open(&m, folder, 2000, &e), 0);
    assert_int_equal(put(400, 1000, bytes + 400, 600, &have), 0);
    assert_int_equal(have, 1000);
    assert_int_equal(media_store_path(m, name, path, sizeof path, &e), 0);
    uint8_t got[1001];
    FILE *f = fopen(path, "rb");
    assert_int_equal(fread(got, 1, sizeof got, f), 1000);
    fclose(f);
    assert_memory_equal(got, bytes, 1000);
    assert_int_equal(put(0, 1000, NULL, 0, &have), 0); // the next client need not bring it
    assert_int_equal(have, 1000);
    unlink(path);
}

static void other_bytes_and_large_files_are_refused(void **state)
{
    (void)state;
    struct err e = {0};
    char path[4200];
    uint64_t have;
    assert_int_equal(put(0, 2001, bytes, 10, &have), E_INPUT);
    assert_int_equal(put(0, 0, bytes, 0, &have), E_INPUT);
    assert_int_equal(put(0, 999, bytes, 999, &have), E_INPUT); // has not the hash of all
    assert_int_equal(put(0, 1000, NULL, 0, &have), 0);
    assert_int_equal(have, 0); // and was dropped
    assert_int_equal(media_store_path(m, name, path, sizeof path, &e), E_INPUT);
}

static void names_lead_nowhere_else(void **state)
{
    (void)state;
    static const char *const names[] = {"",           "content:", "/etc/passwd", "content:../../../../etc/passwd",
                                        "content:zz", "None"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct err e = {0};
        char path[4200];
        assert_int_equal(media_store_path(m, names[i], path, sizeof path, &e), E_INPUT);
    }
}

static int set_up(void **state)
{
    (void)state;
    struct err e = {0};
    struct hash h;
    for (int i = 0; i < 1000; i++) bytes[i] = (uint8_t)(i * 7);
    hash_init(&h);
    hash_update(&h, bytes, sizeof bytes);
    hash_final(&h, hash);
    snprintf(name, sizeof name, "content:");
    for (int i = 0; i < 32; i++) snprintf(name + 8 + 2 * i, 3, "%02x", hash[i]);
    return mkdtemp(folder) ? media_store_open(&m, folder, 2000, &e) : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char path[64];
    media_store_close(&m);
    snprintf(path, sizeof path, "%s/media", folder);
    return rmdir(path) || rmdir(folder); // nothing is left
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_comes_in_pieces_and_goes_on_after_a_break),
        cmocka_unit_test(other_bytes_and_large_files_are_refused),
        cmocka_unit_test(names_lead_nowhere_else),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
