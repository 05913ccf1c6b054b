// Safetensors, sets of shards and other files that must be refused as weights, each with a sentence that names the file
// and what is wrong; and the few odd ones that must load. A row is a file's bytes and words that its refusal must hold.
// PyTorch's files: test_refusals_torch.c; whole models: bad/weights.txt.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/log.h"
#include "tests/refusals.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int begin(void **state)
{
    (void)state;
    log_init(LOG_OFF, "test_refusals", 0);
    return top_make("test_refusals");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
}

// ---- safetensors

static void put_safetensors(const char *path, const char *header, size_t n_header, size_t n_data)
{
    uint8_t *bytes = calloc(1, 8 + n_header + n_data);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)n_header >> 8 * i);
    memcpy(bytes + 8, header, n_header);
    put(path, bytes, 8 + n_header + n_data);
    free(bytes);
}

#define T(dtype, shape, from, to) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"
static const struct {
    const char *what, *header;
    size_t n_data;
    const char *words;
} headers[] = {
    {"a brace", "{", 0, " is no weights file that is known here"},
    {"a brace and a space", "{ ", 0, " is not valid JSON: line 1, column 2: string or '}' expected"},
    {"a list", "[]", 0, " is no weights file that is known here"},
    {"a list behind a space", " []", 0, ": the directory is not an object"},
    {"something behind the object", "{}x", 0, " is not valid JSON: line 1, column 3: end of file expected"},
    {"a name twice", "{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 0, 4) "}", 4,
     ": duplicate object key near '\"a\"'"},
    {"a name twice by escape", "{\"a\":" T("F32", "[1]", 0, 4) ",\"\\u0061\":" T("F32", "[1]", 4, 8) "}", 8,
     ": duplicate object key near '\"\\u0061\"'"},
    {"a member twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 4, ": duplicate object key near '\"dtype\"'"},
    {"half a pair of surrogates", "{\"\\ud800\":" T("F32", "[1]", 0, 4) "}", 4, ": invalid Unicode '\\uD800'"},
    {"overlap", "{\"a\":" T("F32", "[2]", 0, 8) ",\"b\":" T("F32", "[2]", 4, 12) "}", 12,
     ": 'b' begins at byte 4 where 8 belongs"},
    {"a hole", "{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 8, 12) "}", 12,
     ": 'b' begins at byte 8 where 4 belongs"},
    {"a hole in front", "{\"a\":" T("F32", "[1]", 4, 8) "}", 8, ": 'a' begins at byte 4 where 0 belongs"},
    {"end before begin", "{\"a\":" T("F32", "[1]", 4, 0) "}", 4,
     ": 'a' has 4 bytes by its shape but data_offsets 4 to 0"},
    {"a range too long", "{\"a\":" T("F32", "[1]", 0, 8) "}", 8,
     ": 'a' has 4 bytes by its shape but data_offsets 0 to 8"},
    {"a product that overflows", "{\"a\":" T("F32", "[2,18446744073709551614]", 0, 4) "}", 4,
     ": too big integer near '18446744073709551614'"},
    {"bytes that overflow", "{\"a\":" T("I32", "[2,9223372036854775807]", 0, 4) "}", 4, ": the shape of 'a' overflows"},
    {"a byte too many", "{\"a\":" T("F32", "[1]", 0, 4) "}", 5, " has 1 byte too many behind its last tensor"},
    {"two bytes too many", "{\"a\":" T("F32", "[1]", 0, 4) "}", 6, " has 2 bytes too many behind its last tensor"},
    {"a byte too few", "{\"a\":" T("F32", "[1]", 0, 4) "}", 3, " is cut: it holds 3 bytes of data of 4"},
    {"an unknown dtype", "{\"a\":" T("F33", "[1]", 0, 4) "}", 4, ": 'a' has the unknown dtype 'F33'"},
    {"no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ": 'a' has the unknown dtype '(none)'"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4,
     ": 'a' lacks a shape of at most 8 axes or two data_offsets"},
    {"one offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}}", 4,
     ": 'a' lacks a shape of at most 8 axes or two data_offsets"},
    {"a negative offset", "{\"a\":" T("F32", "[1]", -4, 0) "}", 4,
     ": the data_offsets of 'a' are no whole numbers of 0 or more"},
    {"a negative axis", "{\"a\":" T("F32", "[1,-1]", 0, 4) "}", 4, ": axis 2 of 'a' is no whole number of 0 or more"},
    {"an axis that is no whole number", "{\"a\":" T("F32", "[1.0]", 0, 4) "}", 4,
     ": axis 1 of 'a' is no whole number of 0 or more"},
    {"an axis with an exponent", "{\"a\":" T("F32", "[1e3]", 0, 4000) "}", 4000,
     ": axis 1 of 'a' is no whole number of 0 or more"},
    {"an axis in quotes", "{\"a\":" T("F32", "[\"2\"]", 0, 8) "}", 8,
     ": axis 1 of 'a' is no whole number of 0 or more"},
    {"an axis with a zero in front", "{\"a\":" T("F32", "[01]", 0, 4) "}", 4, " is not valid JSON: line 1, column "},
    {"nine axes", "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4,
     ": 'a' lacks a shape of at most 8 axes or two data_offsets"},
    {"metadata that is no text", "{\"__metadata__\":{\"a\":1}}", 0, ": __metadata__ has 'a', which is no text"},
    {"metadata that is a list", "{\"__metadata__\":[]}", 0, ": __metadata__ is not an object"},
    {"half a byte", "{\"a\":" T("F4", "[3]", 0, 2) "}", 2, ": the 12 bits of 'a' do not fill whole bytes"},
    {"bytes that are not UTF-8", "{\"\xff\":" T("F32", "[1]", 0, 4) "}", 4,
     ": unable to decode byte 0xff near '\"'; save it as UTF-8"},
    {"a name of no bytes", "{\"\":" T("F32", "[1]", 0, 4) "}", 4,
     ": the name of a tensor is empty, longer than 4096 bytes"},
};

static void test_safetensors_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        const char *path = at("a.safetensors");
        put_safetensors(path, headers[i].header, strlen(headers[i].header), headers[i].n_data);
        refused(path, headers[i].what, headers[i].words);
    }
}

static void test_safetensors_lengths(void **state)
{
    (void)state;
    const char *path = at("b.safetensors");
    static const uint8_t seven[7] = {2}, huge[16] = {0, 0, 0, 0, 0, 0, 0, 0x80},
                         longer[10] = {3, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    put(path, seven, sizeof seven);
    refused(path, "seven bytes", " is no weights file that is known here");
    put(path, huge, sizeof huge);
    refused(path, "a header of 2^63 bytes", " is no weights file that is known here");
    put(path, longer, sizeof longer);
    refused(path, "a header longer than the file", ": its directory would take 3 of 10 bytes");
    int fd = open(path, O_WRONLY | O_TRUNC); // all of a directory that is one byte too long: a hole, no bytes on disk
    static const uint8_t too_long[9] = {0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{'};
    assert_true(fd >= 0 && write(fd, too_long, 9) == 9 && ftruncate(fd, 8 + 100000001) == 0);
    close(fd);
    refused(path, "a header of 100,000,001 bytes", " is no weights file that is known here");
    enum { DEEP = 100000 };
    static const char front[] = "{\"a\":"; // without a brace in front it would not be taken for safetensors at all
    size_t n = sizeof front - 1;
    char *deep = malloc(n + 2 * DEEP + 1);
    assert_non_null(deep);
    memcpy(deep, front, n);
    memset(deep + n, '[', DEEP);
    memset(deep + n + DEEP, ']', DEEP);
    deep[n + 2 * DEEP] = '}';
    put_safetensors(path, deep, n + 2 * DEEP + 1, 0);
    refused(path, "100,000 brackets", ": maximum parsing depth reached near '['");
    free(deep);
}

// A name of 4096 bytes is one; a byte more is none; and one that fills the sentence leaves room for the way out.
static void test_long_names(void **state)
{
    (void)state;
    const char *path = at("n.safetensors");
    static const int lengths[] = {4096, 4097, 4000};
    for (int i = 0; i < 3; i++) {
        static char name[5000], header[6000];
        memset(name, 'n', (size_t)lengths[i]);
        name[lengths[i]] = 0;
        int n =
            snprintf(header, sizeof header, "{\"%s\":%s}", name, i < 2 ? T("F32", "[1]", 0, 4) : T("F33", "[1]", 0, 4));
        put_safetensors(path, header, (size_t)n, 4);
        if (i == 0)
            accepted(path, 1);
        else
            refused(path, name, i == 1 ? ": the name of a tensor is empty, longer than 4096 bytes" : ": 'nnnn");
    }
}

static void test_safetensors_that_load(void **state)
{
    (void)state;
    const char *path = at("c.safetensors"), *none = "{\"t\":" T("I32", "[2,0]", 0, 0) "}";
    put_safetensors(path, "{}", 2, 0);
    accepted(path, 0);
    put_safetensors(path, "\t\n{}\r ", 6, 0);
    accepted(path, 0);
    put_safetensors(path, none, strlen(none), 0);
    accepted(path, 1);
}

static void put_index(const char *dir, const char *map)
{
    char path[256], text[512];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    snprintf(text, sizeof text, "{\"weight_map\":{%s}}", map);
    put(path, text, strlen(text));
}

static void test_shards(void **state)
{
    (void)state;
    const char *dir = at("shards"), *a = "{\"a\":" T("F32", "[1]", 0, 4) "}";
    char path[256], index[256];
    mkdir(dir, 0777);
    for (int i = 1; i <= 2; i++) {
        snprintf(path, sizeof path, "%s/x-0000%d.safetensors", dir, i);
        put_safetensors(path, a, strlen(a), 4);
    }
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", dir);
    static const char *const outside[][2] = {
        {"../x.safetensors", ": the shard '../x.safetensors' of 'a' is not a plain"},
        {"/x", ": the shard '/x' of 'a' is not a plain file name"},
        {"a/b", ": the shard 'a/b' of 'a' is not a plain file name"},
        {"a\\\\b", ": the shard 'a\\b' of 'a' is not a plain file name"},
        {"..", ": the shard '..' of 'a' is not a plain file name"},
        {"", ": the shard '' of 'a' is not a plain file name"}};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        char map[64];
        snprintf(map, sizeof map, "\"a\":\"%s\"", outside[i][0]);
        put_index(dir, map);
        refused(index, outside[i][0], outside[i][1]);
    }
    put_index(dir, "\"a\":7");
    refused(index, "a number", ": the shard '(no text)' of 'a' is not a plain file name");
    put_index(dir, "\"a\":\"x-00001.safetensors\",\"b\":\"x-00001.safetensors\"");
    refused(index, "a shard without the tensor", " says that x-00001.safetensors holds 'b', which it does not");
    put_index(dir, "\"a\":\"x-00003.safetensors\"");
    refused(index, "a missing shard", "/shards/x-00003.safetensors: No such file or directory");
    put_index(dir, "\"a\":\"x-00001.safetensors\",\"b\":\"x-00002.safetensors\"");
    refused(index, "a tensor in two shards", " says that x-00001.safetensors holds 'a', but ");
    put_index(dir, "\"a\":\"x-00001.safetensors\",\"a\":\"x-00002.safetensors\"");
    refused(index, "a tensor twice in the map", ": duplicate object key near '\"a\"'");
    put_index(dir, "");
    refused(index, "an empty map", " has no weight_map, or an empty one");
    put(index, "{\"weight_map\":[]}", 17);
    refused(index, "a map that is a list", " has no weight_map, or an empty one");
    put(index, "[]", 2);
    refused(index, "an index that is a list", " has no weight_map, or an empty one");
    put(index, "{", 1);
    refused(index, "half an index", " is not valid JSON: line 1, column 1");
}

static void test_numbered_shards(void **state)
{
    (void)state;
    const char *dir = at("numbered"), *a = "{\"a\":" T("F32", "[1]", 0, 4) "}",
               *b = "{\"b\":" T("F32", "[1]", 0, 4) "}";
    char path[256];
    mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/x-00001-of-00002.safetensors", dir);
    put_safetensors(path, a, strlen(a), 4);
    refused(dir, "the second of two is missing", "/x-00002-of-00002.safetensors: No such file or directory");
    snprintf(path, sizeof path, "%s/x-00002-of-00002.safetensors", dir);
    put_safetensors(path, b, strlen(b), 4);
    accepted(dir, 2);
}

// ---- weights that are stored in a way which is not read

static void unread(const char *header, size_t n_data, const char *name, const char *words)
{
    struct weights *w = NULL;
    struct err e = {0};
    tensor t = NO_TENSOR;
    const char *path = at("q.safetensors");
    put_safetensors(path, header, strlen(header), n_data);
    if (weights_open(&w, path, &e) < 0) fail_msg("%s", e.text);
    int rc = weights_get(w, name, &t, &e);
    weights_free(&w);
    if (rc != E_INPUT) fail_msg("%s of %s: read, or the wrong code %d", name, header, rc);
    holds(&e, path, header, words);
}

static void test_unread(void **state)
{
    (void)state;
    unread("{\"a\":" T("F8_E8M0", "[4]", 0, 4) "}", 4, "a",
           ": 'a' is stored as F8_E8M0, which is not read here; fetch");
    unread("{\"a\":" T("C64", "[1]", 0, 8) "}", 8, "a", ": 'a' is stored as C64, which is not read here; fetch");
    unread("{\"a\":" T("F32", "[1]", 0, 4) "}", 4, "b", " lacks the tensor 'b'; it is damaged or of another model");
}

// ---- other things

static void test_not_weights(void **state)
{
    (void)state;
    static const struct {
        const char *what, *bytes;
        size_t n;
        const char *words;
    } rows[] = {
        ROW("an old PyTorch file", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M",
            " was saved by PyTorch before 1.6 in its old format; load and save it again"),
        ROW("a bare pickle", "\x80\x04\x95\0\0\0\0\0\0\0\0}.", " is a bare pickle, which is never executed; save"),
        ROW("a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            " is a Git LFS pointer, not the weights; fetch them with: git lfs pull"),
        ROW("a web page", "<!DOCTYPE html><html>404</html>", " is a web page, not weights; download it again"),
        ROW("GGUF", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", " is a GGUF file, which is not read here; fetch"),
        ROW("GGUF of version 1", "GGUF\1\0\0\0", " is a GGUF file, which is not read here; fetch"),
        ROW("GGUF of the other byte order", "GGUF\0\0\0\3", " is a GGUF file, which is not read here; fetch"),
        ROW("an empty zip", "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", " is an empty zip file"),
        ROW("nothing", "", " is empty (0 bytes)"),
        ROW("text", "once upon a time there was no weight", " is no weights file that is known here"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put(at("other"), rows[i].bytes, rows[i].n);
        refused(at("other"), rows[i].what, rows[i].words);
    }
    refused(at("missing"), "no file", ": No such file or directory");
    mkdir(at("folder"), 0777);
    refused(at("folder"), "a folder without weights", " holds no safetensors file; name the file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_headers),
        cmocka_unit_test(test_safetensors_lengths),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_safetensors_that_load),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_numbered_shards),
        cmocka_unit_test(test_unread),
        cmocka_unit_test(test_not_weights),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
