// The writers, read back through the readers: safetensors, PyTorch zips, shards; and what only the bytes show.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/folder.h"
#include "worker/weights/weights.h"
#include "worker/weights/write_safetensors.h"
#include "worker/weights/write_torchpt.h"
#include "worker/weights/zip_out.h"

static int begin(void **state)
{
    (void)state;
    return top_make("test_write");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

static const char *at(char *buf, size_t n, const char *name)
{
    snprintf(buf, n, "%s/%s", top, name);
    return buf;
}

// Tensors of every kind that matters: many axes, a scalar, nothing at all, a quotation mark in the name.
static const struct tensor_head heads[] = {
    {"a.weight", DT_F32, 2, {3, 5}},  {"scalar", DT_F32, 0, {0}},         {"none", DT_BF16, 2, {0, 4}},
    {"odd \"name\"", DT_F16, 1, {7}}, {"b", DT_BF16, 5, {2, 1, 3, 1, 2}}, {"ids", DT_I64, 1, {300}},
    {"last", DT_U8, 1, {1}},
};
enum { N = sizeof heads / sizeof *heads };

static int64_t total_bytes(void)
{
    int64_t n = 0;
    for (int i = 0; i < N; i++) n += head_bytes(&heads[i]);
    return n;
}

static uint8_t pattern(int64_t i) { return (uint8_t)(i * 37 + i / 256); }

// Pieces that fit no tensor: 1, 2, 3, ... bytes.
static void fill(int (*put)(void *, const void *, size_t, struct err *), void *to)
{
    int64_t done = 0, piece = 1;
    while (done < total_bytes()) {
        uint8_t bytes[4096];
        int64_t n = piece < total_bytes() - done ? piece : total_bytes() - done;
        for (int64_t i = 0; i < n; i++) bytes[i] = pattern(done + i);
        OK(put(to, bytes, (size_t)n, ep));
        done += n;
        piece++;
    }
}

static int put_st(void *to, const void *p, size_t n, struct err *e) { return safetensors_put(to, p, n, e); }
static int put_pt(void *to, const void *p, size_t n, struct err *e) { return torchpt_put(to, p, n, e); }

static void check(const char *path)
{
    struct weights *w = NULL;
    int64_t done = 0;
    OK(weights_open(&w, path, ep));
    assert_int_equal(weights_count(w), N);
    for (int i = 0; i < N; i++) {
        tensor t = NO_TENSOR;
        OK(weights_get(w, heads[i].name, &t, ep));
        assert_int_equal(t.dtype, heads[i].dtype);
        assert_int_equal(t.n, heads[i].n);
        for (int k = 0; k < t.n; k++) assert_int_equal(t.shape[k], heads[i].shape[k]);
        assert_true(tensor_is_contiguous(t));
        const uint8_t *p = t.data;
        for (int64_t k = 0; k < tensor_bytes(t); k++) assert_int_equal(p[k], pattern(done + k));
        done += tensor_bytes(t);
    }
    weights_free(&w);
}

static void safetensors_come_back(void **state)
{
    (void)state;
    char path[256];
    const char *const meta[] = {"format", "pt", "note", "a \"quoted\" word", NULL};
    struct safetensors_out *s = NULL;
    at(path, sizeof path, "x.safetensors");
    OK(safetensors_create(&s, path, heads, N, meta, ep));
    fill(put_st, s);
    OK(safetensors_close(&s, ep));
    assert_null(s);
    check(path);
    struct weights *w = NULL;
    OK(weights_open(&w, path, ep));
    assert_string_equal(weights_meta(w, "note"), "a \"quoted\" word");
    weights_free(&w);
}

static void checkpoints_come_back(void **state)
{
    (void)state;
    for (int ordered = 0; ordered < 2; ordered++) {
        char path[256];
        struct torchpt_out *t = NULL;
        at(path, sizeof path, ordered ? "ordered.pth" : "plain.pth");
        OK(torchpt_create(&t, path, "some_root", ordered, heads, N, ep));
        fill(put_pt, t);
        OK(torchpt_close(&t, ep));
        assert_null(t);
        check(path);
    }
}

// Each payload on a multiple of 64, and the checksums right: CRC-32 of "123456789" is cbf43926.
static void zips_are_aligned_and_summed(void **state)
{
    (void)state;
    char path[256];
    struct zip_out *z = NULL;
    OK(zip_create(&z, at(path, sizeof path, "x.zip"), ep));
    OK(zip_member_put(z, "r/one", "123456789", 9, ep));
    OK(zip_begin(z, "r/a longer name", 9, ep));
    OK(zip_put(z, "1", 1, ep));
    assert_int_equal(zip_left(z), 8);
    OK(zip_put(z, "23456789", 8, ep));
    OK(zip_end(z, ep));
    OK(zip_close(&z, ep));
    size_t n;
    uint8_t *p = file_bytes(path, &n);
    int found = 0;
    for (size_t i = 0; i + 25 <= n; i++) {
        if (memcmp(p + i, "123456789", 9) != 0) continue;
        const uint8_t descriptor[16] = {'P', 'K', 7, 8, 0x26, 0x39, 0xf4, 0xcb, 9, 0, 0, 0, 9, 0, 0, 0};
        assert_int_equal(i % 64, 0);
        assert_memory_equal(p + i + 9, descriptor, 16);
        found++;
    }
    assert_int_equal(found, 2);
    free(p);
}

static void shards_are_even_and_indexed(void **state)
{
    (void)state;
    enum { SHARDS = 3, TENSORS = 11 };
    struct tensor_head h[TENSORS];
    int shard[TENSORS];
    char path[256], name[128];
    for (int i = 0; i < TENSORS; i++) {
        h[i] = (struct tensor_head){.dtype = DT_F32, .n = 1, .shape = {16}};
        snprintf(h[i].name, sizeof h[i].name, "t%d", i);
    }
    shards_assign(shard, h, TENSORS, SHARDS);
    for (int i = 0, first = 0; i < SHARDS; i++) {
        struct safetensors_out *s = NULL;
        int n = 0;
        while (first + n < TENSORS && shard[first + n] == i) n++;
        assert_in_range(n, 3, 4);
        shard_file_name(name, sizeof name, "stem", i, SHARDS);
        OK(safetensors_create(&s, at(path, sizeof path, name), h + first, n, NULL, ep));
        for (int k = 0; k < n; k++) {
            float row[16] = {(float)(first + k)};
            OK(safetensors_put(s, row, sizeof row, ep));
        }
        OK(safetensors_close(&s, ep));
        first += n;
    }
    OK(shards_write_index(at(path, sizeof path, "stem.safetensors.index.json"), "stem", h, shard, TENSORS, SHARDS, ep));
    struct weights *w = NULL;
    OK(weights_open(&w, path, ep));
    assert_int_equal(weights_count(w), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        tensor t = NO_TENSOR;
        OK(weights_get(w, h[i].name, &t, ep));
        assert_true(*(float *)t.data == (float)i);
    }
    weights_free(&w);
}

static void an_unwritable_path_is_told(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors_out *s = NULL;
    struct torchpt_out *t = NULL;
    assert_int_equal(safetensors_create(&s, "/nowhere/at all/x", heads, N, NULL, &e), E_INPUT);
    assert_non_null(strstr(e.text, "/nowhere/at all/x"));
    assert_null(s);
    assert_int_equal(torchpt_create(&t, "/nowhere/at all/y", "r", false, heads, N, &e), E_INPUT);
    assert_non_null(strstr(e.text, "/nowhere/at all/y"));
    assert_null(t);
}

// A full disk shows late: /dev/full takes the header into the buffer and fails when it is flushed.
static void a_full_disk_is_told(void **state)
{
    (void)state;
    struct err e = {0};
    struct zip_out *z = NULL;
    assert_int_equal(zip_create(&z, "/dev/full", &e), 0);
    int rc = zip_member_put(z, "r/x", "x", 1, &e);
    if (rc == 0) rc = zip_close(&z, &e);
    zip_out_free(&z);
    assert_int_equal(rc, E_INPUT);
    assert_non_null(strstr(e.text, "No space left"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_come_back),       cmocka_unit_test(checkpoints_come_back),
        cmocka_unit_test(zips_are_aligned_and_summed), cmocka_unit_test(shards_are_even_and_indexed),
        cmocka_unit_test(an_unwritable_path_is_told),  cmocka_unit_test(a_full_disk_is_told),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
