// Weight files that must be refused, each with a sentence that names the file and what is wrong; and the few odd ones
// that must load. A row is a file's bytes and words that its refusal must hold.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/log.h"
#include "tests/folder.h"
#include "worker/weights/weights.h"
#include "worker/weights/zip_out.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *at(const char *name)
{
    static char path[4][256];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", top, name);
    return p;
}

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

static void put(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void refused(const char *path, const char *what, const char *words)
{
    struct weights *w = NULL;
    struct err e = {0};
    int rc = weights_open(&w, path, &e);
    weights_free(&w);
    if (rc != E_INPUT) fail_msg("%s: accepted, or the wrong code %d", what, rc);
    if (!strstr(e.text, path)) fail_msg("%s: does not name the file: %s", what, e.text);
    if (!strstr(e.text, words)) fail_msg("%s: '%s' is not in: %s", what, words, e.text);
    if (!strchr(e.text, ';')) fail_msg("%s: no way out: %s", what, e.text);
    if (strchr(e.text, '\n')) fail_msg("%s: several lines: %s", what, e.text);
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
    {"a brace", "{", 0, "no weights file"},
    {"a list", "[]", 0, "no weights file"},
    {"something behind the object", "{}x", 0, "column 3: end of file expected"},
    {"a name twice", "{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 0, 4) "}", 4, "uplicate"},
    {"a name twice by escape", "{\"a\":" T("F32", "[1]", 0, 4) ",\"\\u0061\":" T("F32", "[1]", 4, 8) "}", 8,
     "uplicate"},
    {"overlap", "{\"a\":" T("F32", "[2]", 0, 8) ",\"b\":" T("F32", "[2]", 4, 12) "}", 12,
     ": b begins at byte 4 where 8 belongs"},
    {"a hole", "{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 8, 12) "}", 12,
     ": b begins at byte 8 where 4 belongs"},
    {"a hole in front", "{\"a\":" T("F32", "[1]", 4, 8) "}", 8, ": a begins at byte 4 where 0 belongs"},
    {"end before begin", "{\"a\":" T("F32", "[1]", 4, 0) "}", 4,
     ": a has 4 bytes by its shape but data_offsets 4 to 0"},
    {"a range too long", "{\"a\":" T("F32", "[1]", 0, 8) "}", 8,
     ": a has 4 bytes by its shape but data_offsets 0 to 8"},
    {"a product that overflows", "{\"a\":" T("F32", "[2,18446744073709551614]", 0, 4) "}", 4, "too big integer"},
    {"bytes that overflow", "{\"a\":" T("I32", "[2,9223372036854775807]", 0, 4) "}", 4, "the shape of a overflows"},
    {"a byte too many", "{\"a\":" T("F32", "[1]", 0, 4) "}", 5, "1 byte"},
    {"a byte too few", "{\"a\":" T("F32", "[1]", 0, 4) "}", 3, "3 bytes of data of 4"},
    {"an unknown dtype", "{\"a\":" T("F33", "[1]", 0, 4) "}", 4, ": a has the unknown dtype 'F33'"},
    {"a negative axis", "{\"a\":" T("F32", "[-1]", 0, 4) "}", 4, "the shape of a is not made of counts"},
    {"an axis that is no whole number", "{\"a\":" T("F32", "[1.0]", 0, 4) "}", 4,
     "the shape of a is not made of counts"},
    {"an axis with an exponent", "{\"a\":" T("F32", "[1e0]", 0, 4) "}", 4, "the shape of a is not made of counts"},
    {"an axis in quotes", "{\"a\":" T("F32", "[\"2\"]", 0, 8) "}", 8, "the shape of a is not made of counts"},
    {"nine axes", "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, ": a lacks a shape of at most 8 axes"},
    {"metadata that is no text", "{\"__metadata__\":{\"a\":1}}", 0, "metadata"},
    {"half a byte", "{\"a\":" T("F4", "[3]", 0, 2) "}", 2, ": a does not fill whole bytes"},
    {"bytes that are not UTF-8", "{\"\xff\":" T("F32", "[1]", 0, 4) "}", 4, "0xff"},
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
    refused(path, "seven bytes", "no weights file");
    put(path, huge, sizeof huge);
    refused(path, "a header of 2^63 bytes", "no weights file");
    put(path, longer, sizeof longer);
    refused(path, "a header longer than the file", "would take 3 of 10 bytes");
    int fd = open(path, O_WRONLY | O_TRUNC); // all of a directory that is one byte too long: a hole, no bytes on disk
    static const uint8_t too_long[9] = {0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{'};
    assert_true(fd >= 0 && write(fd, too_long, 9) == 9 && ftruncate(fd, 8 + 100000001) == 0);
    close(fd);
    refused(path, "a header of 100,000,001 bytes", "no weights file");
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
    refused(path, "100,000 brackets", "maximum parsing depth");
    free(deep);
}

static void accepted(const char *path, int64_t n)
{
    struct weights *w = NULL;
    struct err e = {0};
    if (weights_open(&w, path, &e) < 0) fail_msg("%s", e.text);
    assert_int_equal(weights_count(w), n);
    weights_free(&w);
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
    static const char *const outside[] = {"\"a\":\"../x.safetensors\"", "\"a\":\"/x\"", "\"a\":\"a/b\"", "\"a\":7"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        put_index(dir, outside[i]);
        refused(index, outside[i], "plain file name");
    }
    put_index(dir, "\"b\":\"x-00001.safetensors\"");
    refused(index, "a shard without the tensor", "x-00001.safetensors holds b, which it does not");
    put_index(dir, "\"a\":\"x-00003.safetensors\"");
    refused(index, "a missing shard", "x-00003");
    put_index(dir, "\"a\":\"x-00001.safetensors\",\"b\":\"x-00002.safetensors\"");
    refused(index, "a tensor in two shards", "holds a, but ");
    put_index(dir, "");
    refused(index, "an empty map", "weight_map");
}

// ---- PyTorch zips

// A checkpoint whose data.pkl is `pickle`, with storages "0" of 24 bytes.
static void put_torch(const char *path, const char *pickle, size_t n)
{
    struct zip_out *z = NULL;
    struct err e = {0};
    static const uint8_t floats[24] = {0};
    int rc = zip_create(&z, path, &e);
    if (rc == 0) rc = zip_member_put(z, "m/data.pkl", pickle, n, &e);
    if (rc == 0) rc = zip_member_put(z, "m/data/0", floats, sizeof floats, &e);
    if (rc == 0) rc = zip_member_put(z, "m/version", "3\n", 2, &e);
    if (rc == 0) rc = zip_close(&z, &e);
    if (rc < 0) fail_msg("%s", e.text);
}

// {"a": _rebuild_tensor_v2(storage(FloatStorage, KEY, "cpu", COUNT), OFFSET, SIZE, STRIDE, False, OrderedDict())}
#define TENSOR(key, count, offset, size, stride)                                                                       \
    "\x80\x02}X\1\0\0\0a"                                                                                              \
    "ctorch._utils\n_rebuild_tensor_v2\n"                                                                              \
    "((X\7\0\0\0storagectorch\nFloatStorage\nX" key "X\3\0\0\0cpu" count "tQ" offset size stride "\x89"                \
    "ccollections\nOrderedDict\n)RtRs."
#define KEY_0     "\1\0\0\0000"
#define INT(n)    "K" n
#define ONE(n)    "K" n "\x85"
#define TWO(a, b) "K" a "K" b "\x86"
#define ROW(what, pickle, words)                                                                                       \
    {                                                                                                                  \
        what, pickle, sizeof(pickle) - 1, words                                                                        \
    }

static const struct {
    const char *what, *pickle;
    size_t n;
    const char *words;
} pickles[] = {
    ROW("os.system",
        "\x80\x02"
        "cos\nsystem\n.",
        "os.system"),
    ROW("builtins.eval",
        "\x80\x02"
        "cbuiltins\neval\n.",
        "builtins.eval"),
    ROW("torch.serialization.load",
        "\x80\x02"
        "ctorch.serialization\nload\n.",
        "torch.serialization.load"),
    ROW("OrderedDict with arguments",
        "\x80\x02"
        "ccollections\nOrderedDict\nK\1\x85R.",
        "a call has an unknown form (byte 31)"),
    ROW("a global built from strings", "\x80\x04\x8c\5posix\x8c\6system\x93.", "posix.system"),
    ROW("a call of a string", "\x80\x02X\1\0\0\0a)R.", "calls what is no function"),
    ROW("NEWOBJ",
        "\x80\x02"
        "ccollections\nOrderedDict\n)\x81.",
        "NEWOBJ"),
    ROW("INST", "\x80\x02(icollections\nOrderedDict\n.", "INST"),
    ROW("OBJ", "\x80\x02(ccollections\nOrderedDict\no.", "OBJ"),
    ROW("EXT1", "\x80\x02\x82\1.", "EXT1"),
    ROW("an unset memo slot", "\x80\x02h\5.", "its memo lacks an entry"),
    ROW("TUPLE without MARK", "\x80\x02K\1t.", "a mark is missing"),
    ROW("SETITEMS of three", "\x80\x02}(K\1K\2K\3u.", "(byte 11)"),
    ROW("APPEND to nothing",
        "\x80\x02"
        "a.",
        "its stack is empty"),
    ROW("SETITEM on nothing", "\x80\x02s.", "its stack is empty"),
    ROW("TUPLE2 of one", "\x80\x02K\1\x86.", "its stack is empty"),
    ROW("REDUCE of nothing", "\x80\x02R.", "its stack is empty"),
    ROW("BINPERSID of nothing", "\x80\x02Q.", "its stack is empty"),
    ROW("STOP of nothing", "\x80\x02.", "does not end with one result"),
    ROW("no STOP", "\x80\x02}", "it is cut"),
    ROW("text past the end", "\x80\x02X\xff\0\0\0a.", "it is cut"),
    ROW("text of 4 GiB",
        "\x80\x02X\xff\xff\xff\xff"
        "a.",
        "it is cut"),
    ROW("a number of 255 bytes", "\x80\x02\x8a\xff\1.", "a number is too long"),
    ROW("a list inside itself", "\x80\x02}X\1\0\0\0a]q\0h\0as.", "holds no tensor"),
    ROW("a key that climbs", TENSOR("\4\0\0\0../x", INT("\6"), INT("\0"), ONE("\6"), ONE("\1")),
        "a names a storage '../x'"),
    ROW("a key of 65 characters",
        TENSOR("\101\0\0\0"
               "00000000001111111111222222222233333333334444444444555555555566666",
               INT("\6"), INT("\0"), ONE("\6"), ONE("\1")),
        "a names a storage '0000000000111"),
    ROW("a key without bytes", TENSOR("\1\0\0\0007", INT("\6"), INT("\0"), ONE("\6"), ONE("\1")),
        "lacks the storage data/7 of a"),
    ROW("a storage that promises more", TENSOR(KEY_0, INT("\7"), INT("\0"), ONE("\6"), ONE("\1")),
        "24 bytes where a needs 7 elements of F32"),
    ROW("a view past the storage", TENSOR(KEY_0, INT("\6"), INT("\1"), ONE("\6"), ONE("\1")),
        "a reaches beyond its storage"),
    ROW("a stride past the storage", TENSOR(KEY_0, INT("\6"), INT("\0"), TWO("\3", "\2"), TWO("\1", "\4")),
        "a reaches beyond its storage"),
    ROW("a negative offset", TENSOR(KEY_0, INT("\6"), "J\xff\xff\xff\xff", ONE("\1"), ONE("\1")),
        "a tensor has an unknown form"),
    ROW("a negative stride", TENSOR(KEY_0, INT("\6"), INT("\5"), ONE("\2"), "J\xff\xff\xff\xff\x85"),
        "a tensor has an unknown form"),
    ROW("a negative size", TENSOR(KEY_0, INT("\6"), INT("\0"), "J\xff\xff\xff\xff\x85", ONE("\1")),
        "a tensor has an unknown form"),
    ROW("sizes that overflow",
        TENSOR(KEY_0, INT("\6"), INT("\0"), "J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87",
               "a reaches beyond its storage"),
        "a"),
};

static void test_pickles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        const char *path = at("p.pth");
        put_torch(path, pickles[i].pickle, pickles[i].n);
        refused(path, pickles[i].what, pickles[i].words);
    }
}

static void test_pickles_that_load(void **state)
{
    (void)state;
    static const char whole[] = TENSOR(KEY_0, INT("\6"), INT("\0"), ONE("\6"), ONE("\1")),
                      turned[] = TENSOR(KEY_0, INT("\6"), INT("\0"), TWO("\3", "\2"), TWO("\1", "\3"));
    put_torch(at("p.pth"), whole, sizeof whole - 1);
    accepted(at("p.pth"), 1);
    put_torch(at("p.pth"), turned, sizeof turned - 1);
    accepted(at("p.pth"), 1);
}

// A good checkpoint as bytes, to be spoilt.
static uint8_t *good(size_t *n)
{
    static const char whole[] = TENSOR(KEY_0, INT("\6"), INT("\0"), ONE("\6"), ONE("\1"));
    const char *path = at("good.pth");
    put_torch(path, whole, sizeof whole - 1);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*n);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, f), *n);
    fclose(f);
    return bytes;
}

// Where the i-th record of a signature begins.
static size_t record(const uint8_t *bytes, size_t n, const char sig[4], int i)
{
    for (size_t k = 0; k + 4 <= n; k++)
        if (memcmp(bytes + k, sig, 4) == 0 && i-- == 0) return k;
    fail_msg("no record");
    return 0;
}

static const struct {
    const char *what, *sig;
    int i, offset; // byte of the record
    uint8_t value;
    const char *words;
} spoilt[] = {
    {"a compressed member", "PK\1\2", 1, 10, 8, "compress"},
    {"an encrypted member", "PK\1\2", 1, 8, 1, "encrypt"},
    {"a directory past the end", "PK\5\6", 0, 18, 0x7f, "the directory does not fit"},
    {"a local name that differs", "PK\3\4", 1, 30, 'x', "a member has another name"},
    {"two members in one place", "PK\1\2", 1, 42, 0, "a member has another name"},
    {"a member longer than the file", "PK\1\2", 1, 27, 0x7f, "broken or cut zip file"},
    {"a 64-bit directory outside the file", "PK\5\6", 0, 16, 0xff, "64-bit"},
};

static void test_spoilt_zips(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        size_t n, k;
        uint8_t *bytes = good(&n);
        k = record(bytes, n, spoilt[i].sig, spoilt[i].i) + (size_t)spoilt[i].offset;
        if (strcmp(spoilt[i].what, "two members in one place") == 0) memset(bytes + k, 0, 4);
        if (strcmp(spoilt[i].what, "a member longer than the file") == 0) bytes[k - 4] = spoilt[i].value; // both sizes
        if (strncmp(spoilt[i].what, "a 64-bit", 8) ==
            0) { // the directory's place is said elsewhere, and that is nowhere
            uint8_t *locator = bytes + k - 16 - 20;
            memset(bytes + k, 0xff, 4);
            memcpy(locator, "PK\6\7\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\1\0\0\0", 20);
        }
        bytes[k] = spoilt[i].value;
        put(at("spoilt.pth"), bytes, n);
        free(bytes);
        refused(at("spoilt.pth"), spoilt[i].what, spoilt[i].words);
    }
}

// Every prefix of a good file is a download that broke off.
static void test_broken_downloads(void **state)
{
    (void)state;
    size_t n;
    uint8_t *bytes = good(&n);
    for (size_t k = 0; k < n; k += k < 64 ? 1 : 13) {
        put(at("part.pth"), bytes, k);
        refused(at("part.pth"), "a prefix", "");
    }
    free(bytes);
}

static void zip_of(const char *path, const char *const *names, int n)
{
    struct zip_out *z = NULL;
    struct err e = {0};
    int rc = zip_create(&z, path, &e);
    for (int i = 0; i < n && rc == 0; i++) rc = zip_member_put(z, names[i], "\x80\x02}.", 4, &e);
    if (rc == 0) rc = zip_close(&z, &e);
    if (rc < 0) fail_msg("%s", e.text);
}

static void test_archives(void **state)
{
    (void)state;
    static const char *const none[] = {"m/version"}, *const two[] = {"m/data.pkl", "n/data.pkl"},
                             *const script[] = {"m/data.pkl", "m/code/a.py"}, *const climbs[] = {"../../x"};
    zip_of(at("z.pth"), none, 1);
    refused(at("z.pth"), "no data.pkl", "data.pkl");
    zip_of(at("z.pth"), two, 2);
    refused(at("z.pth"), "two data.pkl", "data.pkl");
    zip_of(at("z.pth"), script, 2);
    refused(at("z.pth"), "TorchScript", "TorchScript");
    zip_of(at("z.pth"), climbs, 1);
    refused(at("z.pth"), "a name that climbs", "name is not valid");
    struct zip_out *z = NULL;
    struct err e = {0};
    assert_int_equal(zip_create(&z, at("z.pth"), &e), 0);
    assert_int_equal(zip_member_put(z, "m/data.pkl", "\x80\x02}.", 4, &e), 0);
    assert_int_equal(zip_member_put(z, "m/byteorder", "big", 3, &e), 0);
    assert_int_equal(zip_close(&z, &e), 0);
    refused(at("z.pth"), "big endian", "big");
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
        ROW("an old PyTorch file", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M", "PyTorch"),
        ROW("a bare pickle", "\x80\x04\x95\0\0\0\0\0\0\0\0}.", "pickle"),
        ROW("a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        ROW("a web page", "<!DOCTYPE html><html>404</html>", "a web page"),
        ROW("GGUF", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "GGUF"),
        ROW("an empty zip", "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "empty"),
        ROW("nothing", "", "empty"),
        ROW("text", "once upon a time there was no weight", "no weights file"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put(at("other"), rows[i].bytes, rows[i].n);
        refused(at("other"), rows[i].what, rows[i].words);
    }
    refused(at("missing"), "no file", "No such file");
    mkdir(at("folder"), 0777);
    refused(at("folder"), "a folder without weights", "holds no safetensors file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_headers),
        cmocka_unit_test(test_safetensors_lengths),
        cmocka_unit_test(test_safetensors_that_load),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_pickles),
        cmocka_unit_test(test_pickles_that_load),
        cmocka_unit_test(test_spoilt_zips),
        cmocka_unit_test(test_broken_downloads),
        cmocka_unit_test(test_archives),
        cmocka_unit_test(test_not_weights),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
