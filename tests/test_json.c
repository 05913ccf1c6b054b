// JSON and YAML into one tree: what is read, and that what is refused names the line.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/yaml.h"

// Compares YAML with the JSON that it means.
static void same(const char *yaml, const char *json)
{
    struct err e = {0};
    json_t *a = NULL, *b = NULL;
    if (yaml_parse(&a, "x.yaml", yaml, strlen(yaml), &e) < 0) fail_msg("%s: %s", yaml, e.text);
    assert_int_equal(json_parse(&b, "x.json", json, strlen(json), &e), 0);
    if (!json_equal(a, b)) fail_msg("%s is %s, not %s", yaml, json_dumps(a, JSON_ENCODE_ANY), json);
    json_decref(a);
    json_decref(b);
}

static void yaml_means_json(void **state)
{
    (void)state;
    same("", "null");
    same("# nothing\n", "null");
    same("\xef\xbb\xbf"
         "a: 1",
         "{\"a\": 1}");
    same("a: 1\nb: -0.5\nc: 1e3\nd: true\ne: null\nf: ~\ng:\n",
         "{\"a\":1,\"b\":-0.5,\"c\":1e3,\"d\":true,\"e\":null,\"f\":null,\"g\":null}");
    same("a: '1'\nb: \"true\"\nc: ''\nd: |\n  x\n  y\n", "{\"a\":\"1\",\"b\":\"true\",\"c\":\"\",\"d\":\"x\\ny\\n\"}");
    // what other readers take for numbers and booleans is text here
    same("[yes, No, on, True, 0x1f, 010, +1, .5, .inf, 1_000, 12:30, 1., NULL]",
         "[\"yes\",\"No\",\"on\",\"True\",\"0x1f\",\"010\",\"+1\",\".5\",\".inf\",\"1_000\",\"12:30\",1.0,\"NULL\"]");
    same("0.50: [1, 2]\ntrue: x\n", "{\"0.50\":[1,2],\"true\":\"x\"}");
    same("sizes:\n  - name: tiny\n    buckets: [[0.67, 32, 48], [1.00, 48, 48]]\n",
         "{\"sizes\":[{\"name\":\"tiny\",\"buckets\":[[0.67,32,48],[1.0,48,48]]}]}");
    same("9223372036854775807", "9223372036854775807");
    same("{\"a\": {\"b\": []}}", "{\"a\":{\"b\":[]}}");
    same("---\na: caf\xc3\xa9\n...\n", "{\"a\":\"caf\xc3\xa9\"}");
}

struct bad {
    const char *text, *says;
};

static void refused(int (*parse)(json_t **, const char *, const void *, size_t, struct err *), const struct bad *b,
                    size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct err e = {0};
        json_t *j = NULL;
        if (parse(&j, "x.doc", b[i].text, strlen(b[i].text), &e) != E_INPUT) fail_msg("read: %s", b[i].text);
        assert_null(j);
        assert_non_null(strstr(e.text, "x.doc"));
        if (!strstr(e.text, b[i].says)) fail_msg("%s: \"%s\" lacks \"%s\"", b[i].text, e.text, b[i].says);
    }
}

static void bad_yaml_is_refused(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {"a: 1\nb: 2\na: 3\n", "line 3: the key a stands twice"},
        {"a: &x 1\nb: *x\n", "line 1: anchors"},
        {"b:\n  - *x\n", "line 2: anchors"},
        {"*x", "anchors"},
        {"&x [1]", "anchors"},
        {"&x {a: 1}", "anchors"},
        {"? &k a\n: 1\n", "a key must be"},
        {"a: !!str 1\n", "line 1: tags"},
        {"a: !python/object:os.system []\n", "line 1: tags"},
        {"a: 1\n---\nb: 2\n", "line 2: it holds more than one document"},
        {"? [1, 2]\n: 3\n", "a key must be"},
        {"a: [1, 2\nb: 3\n", "line "},
        {"a: 'x\n", "line "},
        {"\tx: 1\n", "line 1"},
        {"a: 99999999999999999999\n", "too large"},
        {"a: -1e999\n", "too large"},
        {"a: \"\\0\"\n", "NUL"},
        {"\"a\\0b\": 1\n", "NUL"},
        {"a: \xff\xfe\n", "line "},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", "too deeply"},
    };
    refused(yaml_parse, bad, sizeof bad / sizeof *bad);
}

static void bad_json_is_refused(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {"", "line 1"},
        {"{", "line 1"},
        {"{\"a\":1,\n\"a\":2}", "line 2"},
        {"{\"a\":1,\"\\u0061\":2}", "line 1"},
        {"{\"a\":1} x", "line 1"},
        {"[01]", "line 1"},
        {"\"\\ud800\"", "line 1"},
        {"\"\\u0000\"", "line 1"},
        {"\"\xff\"", "line 1"},
        {"[99999999999999999999]", "line 1"},
        {"[NaN]", "line 1"},
    };
    refused(json_parse, bad, sizeof bad / sizeof *bad);
}

static void depth_is_limited(void **state)
{
    (void)state;
    enum { N = 100000 };
    char *deep = malloc(N);
    struct err e = {0};
    json_t *j = NULL;
    memset(deep, '[', N);
    assert_int_equal(json_parse(&j, "deep", deep, N, &e), E_INPUT);
    assert_int_equal(yaml_parse(&j, "deep", deep, 1000, &e), E_INPUT);
    assert_null(j);
    free(deep);
}

static void files_are_named(void **state)
{
    (void)state;
    char path[] = "/tmp/test_json_XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "\xef\xbb\xbf{\"a\": 1}", 11), 11);
    close(fd);
    json_t *a = NULL, *b = NULL;
    struct err e = {0};
    assert_int_equal(json_read(&a, path, &e), 0);
    assert_int_equal(yaml_read(&b, path, &e), 0);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    unlink(path);
    assert_int_equal(json_read(&a, path, &e), E_INPUT);
    assert_non_null(strstr(e.text, path));
    assert_int_equal(yaml_read(&a, "/", &e), E_INPUT);
    assert_string_equal(e.text, "/ is not a file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yaml_means_json),     cmocka_unit_test(bad_yaml_is_refused),
        cmocka_unit_test(bad_json_is_refused), cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
