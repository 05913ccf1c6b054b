// PyTorch checkpoints that must be refused, and odd ones that must load: the pickle inside, the zip around it. A row is
// bytes and words that their refusal must hold.
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
#include "worker/weights/zip_out.h"

static int begin(void **state)
{
    (void)state;
    log_init(LOG_OFF, "test_refusals_torch", 0);
    return top_make("test_refusals_torch");
}

static int end(void **state)
{
    (void)state;
    return top_remove();
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

// "a" and _rebuild_tensor_v2(storage(FloatStorage, KEY, "cpu", COUNT), OFFSET, SIZE, STRIDE, False, OrderedDict()); and
// a checkpoint of it alone
#define PAIR(key, count, offset, size, stride)                                                                         \
    "X\1\0\0\0a"                                                                                                       \
    "ctorch._utils\n_rebuild_tensor_v2\n"                                                                              \
    "((X\7\0\0\0storagectorch\nFloatStorage\nX" key "X\3\0\0\0cpu" count "tQ" offset size stride "\x89"                \
    "ccollections\nOrderedDict\n)RtR"
#define TENSOR(key, count, offset, size, stride) "\x80\x02}" PAIR(key, count, offset, size, stride) "s."
#define GOOD                                     PAIR(KEY_0, INT("\6"), INT("\0"), ONE("\6"), ONE("\1"))
#define GOOD_FILE                                "\x80\x02}" GOOD "s."
#define BROKEN                                   " is a broken or cut zip file: "
#define KEY_0                                    "\1\0\0\0000"
#define INT(n)                                   "K" n
#define ONE(n)                                   "K" n "\x85"
#define TWO(a, b)                                "K" a "K" b "\x86"
#define MINUS(n)                                 "J" n "\xff\xff\xff"
#define MOST                                     "J\xff\xff\xff\x7f"
#define NINE                                     "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"

static const struct {
    const char *what, *pickle;
    size_t n;
    const char *words;
} pickles[] = {
    ROW("os.system",
        "\x80\x02"
        "cos\nsystem\n.",
        " wants to run os.system, which is not weights; save a plain state dict"),
    ROW("builtins.eval",
        "\x80\x02"
        "cbuiltins\neval\n.",
        " wants to run builtins.eval, which is not weights; save a plain state dict"),
    ROW("torch.serialization.load",
        "\x80\x02"
        "ctorch.serialization\nload\n.",
        " wants to run torch.serialization.load, which is not weights; save a plain state dict"),
    ROW("OrderedDict with arguments",
        "\x80\x02"
        "ccollections\nOrderedDict\nK\1\x85R.",
        ": a call has arguments that it does not take (byte 31)"),
    ROW("a global built from strings", "\x80\x04\x8c\5posix\x8c\6system\x93.",
        " wants to run posix.system, which is not weights; save a plain state dict"),
    ROW("a call of a string", "\x80\x02X\1\0\0\0a)R.", ": it calls what is no function (byte 10)"),
    ROW("NEWOBJ",
        "\x80\x02"
        "ccollections\nOrderedDict\n)\x81.",
        ": it uses the operation NEWOBJ (81), which no state dict needs (byte 29)"),
    ROW("INST", "\x80\x02(icollections\nOrderedDict\n.",
        ": it uses the operation INST (69), which no state dict needs (byte 4)"),
    ROW("OBJ", "\x80\x02(ccollections\nOrderedDict\no.",
        ": it uses the operation OBJ (6F), which no state dict needs (byte 29)"),
    ROW("EXT1", "\x80\x02\x82\1.", ": it uses the operation EXT1 (82), which no state dict needs (byte 3)"),
    ROW("an unset memo slot", "\x80\x02h\5.", ": its memo lacks the entry 5 (byte 4)"),
    ROW("TUPLE without MARK", "\x80\x02K\1t.", ": a mark is missing (byte 5)"),
    ROW("SETITEMS of three", "\x80\x02}(K\1K\2K\3u.", ": the last of 3 keys and values has no other half (byte 11)"),
    ROW("SETITEMS on a list", "\x80\x02](K\1K\2u.", ": a dict is missing below the mark (byte 9)"),
    ROW("APPENDS on a dict", "\x80\x02}(K\1e.", ": a list is missing below the mark (byte 7)"),
    ROW("APPEND to a dict", "\x80\x02}K\1a.", ": a list is missing (byte 6)"),
    ROW("SETITEM on a list", "\x80\x02]K\1K\2s.", ": a dict is missing (byte 8)"),
    ROW("a state for a number", "\x80\x02K\1}b.", ": it gives a state to what has none (byte 6)"),
    ROW("STOP of nothing", "\x80\x02.", ": it ends with 0 results, not one (byte 3)"),
    ROW("STOP of two", "\x80\x02}}.", ": it ends with 2 results, not one (byte 5)"),
    ROW("no STOP", "\x80\x02}", ": it is cut (bytes wanted: 1, left: 0) (byte 3)"),
    ROW("no header", "}}}.", ": it has no header (byte 0)"),
    ROW("a header of version 6", "\x80\x06}.", ": it has no header (byte 0)"),
    ROW("text past the end", "\x80\x02X\xff\0\0\0a.", ": it is cut (bytes wanted: 255, left: 2) (byte 7)"),
    ROW("text of 4 GiB",
        "\x80\x02X\xff\xff\xff\xff"
        "a.",
        ": it is cut (bytes wanted: 4294967295, left: 2) (byte 7)"),
    ROW("a number of 255 bytes", "\x80\x02\x8a\xff\1.", ": a number has 255 bytes, more than 8 (byte 4)"),
    ROW("a list inside itself", "\x80\x02]q\0h\0a.", ": a list holds itself (byte 9)"),
    ROW("a list inside itself, beside a good tensor", "\x80\x02}(X\1\0\0\0b]q\0h\0a" GOOD "u.",
        ": a list holds itself"),
    ROW("a dict inside a list inside it", "\x80\x02}q\0X\1\0\0\0a]h\0as.", ": a dict holds itself (byte 17)"),
    ROW("a number", "\x80\x02K\1.", " holds no dict of tensors; save a state dict with torch.save"),
    ROW("a dict of numbers", "\x80\x02}X\1\0\0\0aK\1s.", " holds no tensor; save a state dict with torch.save"),
    ROW("a key that climbs", TENSOR("\4\0\0\0../x", INT("\6"), INT("\0"), ONE("\6"), ONE("\1")),
        ": 'a' lies in the storage '../x', which is no name of one"),
    ROW("a key of 65 characters",
        TENSOR("\101\0\0\0"
               "00000000001111111111222222222233333333334444444444555555555566666",
               INT("\6"), INT("\0"), ONE("\6"), ONE("\1")),
        ": 'a' lies in the storage '00000000001111111111222222222233333333334444444444555555555566666', which is no "
        "name"),
    ROW("a key without bytes", TENSOR("\1\0\0\0007", INT("\6"), INT("\0"), ONE("\6"), ONE("\1")),
        " lacks the storage data/7 of 'a'"),
    ROW("a storage that promises more", TENSOR(KEY_0, INT("\7"), INT("\0"), ONE("\6"), ONE("\1")),
        ": the storage data/0 has 24 bytes where 'a' needs 7 elements of F32"),
    ROW("a view past the storage", TENSOR(KEY_0, INT("\6"), INT("\1"), ONE("\6"), ONE("\1")),
        ": 'a' reaches beyond its storage of 24 bytes"),
    ROW("a stride past the storage", TENSOR(KEY_0, INT("\6"), INT("\0"), TWO("\3", "\2"), TWO("\1", "\4")),
        ": 'a' reaches beyond its storage of 24 bytes"),
    ROW("a negative offset", TENSOR(KEY_0, INT("\6"), MINUS("\xff"), ONE("\1"), ONE("\1")),
        ": a tensor has the offset -1 (byte "),
    ROW("a negative size", TENSOR(KEY_0, INT("\6"), INT("\5"), INT("\1") MINUS("\xfe") "\x86", TWO("\1", "\1")),
        ": a tensor has the size -2 on axis 2 (byte "),
    ROW("a negative stride", TENSOR(KEY_0, INT("\6"), INT("\5"), ONE("\2"), MINUS("\xfd") "\x85"),
        ": a tensor has the stride -3 on axis 1 (byte "),
    ROW("a size more than strides", TENSOR(KEY_0, INT("\6"), INT("\0"), TWO("\3", "\2"), ONE("\1")),
        ": a tensor has sizes on 2 axes and strides on 1 (byte "),
    ROW("nine axes", TENSOR(KEY_0, INT("\6"), INT("\0"), NINE, NINE), ": a tensor has 9 axes, more than 8 (byte "),
    ROW("a size in words", TENSOR(KEY_0, INT("\6"), INT("\0"), "X\1\0\0\0a\x85", ONE("\1")),
        ": a tensor has an unknown form (byte "),
    ROW("sizes that overflow", TENSOR(KEY_0, INT("\6"), INT("\0"), MOST MOST MOST "\x87", "K\0K\0K\0\x87"),
        ": the shape of 'a' overflows"),
    ROW("strides that overflow", TENSOR(KEY_0, INT("\6"), INT("\0"), ONE("\3"), "\x8a\x08\0\0\0\0\0\0\0\x7f\x85"),
        ": 'a' reaches beyond its storage of 24 bytes"),
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

// Every operation that takes from the stack, on an empty one and above a mark.
static void test_empty_stacks(void **state)
{
    (void)state;
    static const struct {
        const char *what, *op;
        size_t n;
    } ops[] = {
        {"SETITEM", "s", 1},
        {"SETITEMS", "u", 1},
        {"APPEND", "a", 1},
        {"APPENDS", "e", 1},
        {"LIST", "l", 1},
        {"TUPLE", "t", 1},
        {"TUPLE1", "\x85", 1},
        {"TUPLE2", "\x86", 1},
        {"TUPLE3", "\x87", 1},
        {"POP", "0", 1},
        {"POP_MARK", "1", 1},
        {"DUP", "2", 1},
        {"BINPUT", "q\0", 2},
        {"LONG_BINPUT", "r\0\0\0\0", 5},
        {"MEMOIZE", "\x94", 1},
        {"BINPERSID", "Q", 1},
        {"REDUCE", "R", 1},
        {"BUILD", "b", 1},
        {"STACK_GLOBAL", "\x93", 1},
    };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        char pickle[16] = "\x80\x02", words[64];
        bool marks = strchr("uelt1", ops[i].op[0]) != NULL; // what wants a mark must not find one there is none of
        memcpy(pickle + 2, ops[i].op, ops[i].n);
        pickle[2 + ops[i].n] = '.';
        put_torch(at("p.pth"), pickle, 3 + ops[i].n);
        snprintf(words, sizeof words, ": %s (byte %zu)", marks ? "a mark is missing" : "its stack is empty",
                 2 + ops[i].n);
        refused(at("p.pth"), ops[i].what, words);
        if (marks || ops[i].op[0] == '0') continue;
        memcpy(pickle + 2, "K\1(", 3); // below a mark lies something, which is not theirs
        memcpy(pickle + 5, ops[i].op, ops[i].n);
        pickle[5 + ops[i].n] = '.';
        put_torch(at("p.pth"), pickle, 6 + ops[i].n);
        snprintf(words, sizeof words, ": its stack is empty (byte %zu)", 5 + ops[i].n);
        refused(at("p.pth"), ops[i].what, words);
    }
}

// Dicts of two keys with the same dict below each, 40 times over: a small file, and a million million ways through it.
static void test_wide_checkpoints(void **state)
{
    (void)state;
    enum { DEPTH = 40 };
    static const char twice[] = "q\1"
                                "0}(U\1ah\1U\1bh\1u";
    char pickle[3 + DEPTH * (sizeof twice - 1) + 1] = "\x80\x02}"; // the innermost one is empty
    for (size_t i = 0; i < DEPTH; i++) memcpy(pickle + 3 + i * (sizeof twice - 1), twice, sizeof twice - 1);
    pickle[sizeof pickle - 1] = '.';
    put_torch(at("wide.pth"), pickle, sizeof pickle);
    refused(at("wide.pth"), "a wide checkpoint", " lists more than 1000000 tensors");
}

static void test_deep_checkpoints(void **state)
{
    (void)state;
    for (int depth = 60; depth <= 70; depth += 10) { // of lists, in a dict, beside a tensor
        char pickle[512] = "\x80\x02}(" GOOD "U\1b";
        size_t n = sizeof "\x80\x02}(" GOOD "U\1b" - 1;
        memset(pickle + n, ']', (size_t)depth);
        memset(pickle + n + depth, 'a', (size_t)depth - 1);
        memcpy(pickle + n + 2 * depth - 1, "u.", 2);
        put_torch(at("deep.pth"), pickle, n + 2 * (size_t)depth + 1);
        if (depth == 60)
            accepted(at("deep.pth"), 1);
        else
            refused(at("deep.pth"), "a deep checkpoint", ": it is nested more than 64 deep (byte ");
    }
}

// A good checkpoint as bytes, to be spoilt.
static uint8_t *good(size_t *n)
{
    static const char whole[] = GOOD_FILE;
    put_torch(at("good.pth"), whole, sizeof whole - 1);
    return file_bytes(at("good.pth"), n);
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
    int i, offset, n; // bytes of the record
    const char *bytes, *words;
} spoilt[] = {
    {"a compressed member", "PK\1\2", 1, 10, 1, "\x08",
     " holds compressed members; PyTorch stores them plainly: save it"},
    {"an encrypted member", "PK\1\2", 1, 8, 1, "\1", " is encrypted; save it again without a password"},
    {"a directory past the end", "PK\5\6", 0, 18, 1, "\x7f", BROKEN "the directory does not fit"},
    {"a directory of fewer bytes than its members", "PK\5\6", 0, 10, 1, "\x7f", BROKEN "the directory does not fit"},
    {"a local name that differs", "PK\3\4", 1, 30, 1, "x", BROKEN "a member has another name than the directory says"},
    {"a member in another's place", "PK\1\2", 1, 42, 4, "\0\0\0\0", BROKEN "a member has another name than the"},
    {"a member longer than the file", "PK\1\2", 1, 20, 8, "\x18\0\0\x7f\x18\0\0\x7f", BROKEN "a member is cut"},
    {"a member of two sizes", "PK\1\2", 1, 20, 1, "\x17",
     " holds compressed members; PyTorch stores them plainly: save it"},
    {"a member behind the file", "PK\1\2", 1, 42, 4, "\0\0\0\x7f", BROKEN "a member is missing"},
    {"a name with a backslash", "PK\1\2", 1, 46, 1, "\\", BROKEN "a member's name is not valid"},
};

static void test_spoilt_zips(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        size_t n;
        uint8_t *bytes = good(&n);
        memcpy(bytes + record(bytes, n, spoilt[i].sig, spoilt[i].i) + spoilt[i].offset, spoilt[i].bytes,
               (size_t)spoilt[i].n);
        put(at("spoilt.pth"), bytes, n);
        free(bytes);
        refused(at("spoilt.pth"), spoilt[i].what, spoilt[i].words);
    }
}

// The directory's place is said in a record elsewhere, and that is nowhere; or there is none where it should be.
static void test_lost_64_bit_directory(void **state)
{
    (void)state;
    for (int nowhere = 0; nowhere < 2; nowhere++) {
        size_t n;
        uint8_t *bytes = good(&n), *end = bytes + record(bytes, n, "PK\5\6", 0);
        memset(end + 16, 0xff, 4);
        memcpy(end - 20,
               nowhere ? "PK\6\7\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\1\0\0\0"
                       : "PK\6\7\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0",
               20);
        put(at("lost.pth"), bytes, n);
        free(bytes);
        refused(at("lost.pth"), nowhere ? "outside the file" : "not there", BROKEN "the 64-bit directory is missing");
    }
}

// The pickle has a whole member behind its end, with a header of its own; and the directory says that a storage is
// that.
static void test_members_in_one_place(void **state)
{
    (void)state;
    char inner[] =
        GOOD_FILE "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0m/data/0------------------------";
    put_torch(at("inner.pth"), inner, sizeof inner - 1);
    accepted(at("inner.pth"), 1);
    size_t n, entry, within;
    uint8_t *bytes = file_bytes(at("inner.pth"), &n);
    entry = record(bytes, n, "PK\1\2", 1);
    within = record(bytes, n, "PK\3\4", 1);
    for (int i = 0; i < 4; i++) bytes[entry + 42 + (size_t)i] = (uint8_t)(within >> 8 * i);
    put(at("inner.pth"), bytes, n);
    free(bytes);
    refused(at("inner.pth"), "a member within another", BROKEN "members overlap");
}

// Every prefix of a good file is a download that broke off.
static void test_broken_downloads(void **state)
{
    (void)state;
    size_t n;
    uint8_t *bytes = good(&n);
    for (size_t k = 0; k < n; k += k < 64 ? 1 : 13) {
        char what[64];
        snprintf(what, sizeof what, "%zu of %zu bytes", k, n);
        put(at("part.pth"), bytes, k);
        refused(at("part.pth"), what,
                k == 0  ? " is empty (0 bytes)"
                : k < 4 ? " is no weights file that is known here"
                        : BROKEN "no directory");
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
                             *const script[] = {"m/data.pkl", "m/code/a.py"}, *const climbs[] = {"../../x"},
                             *const twins[] = {"m/data.pkl", "m/data.pkl"};
    zip_of(at("z.pth"), none, 1);
    refused(at("z.pth"), "no data.pkl", " is a zip file with 0 members called data.pkl; a PyTorch checkpoint has one");
    zip_of(at("z.pth"), two, 2);
    refused(at("z.pth"), "two data.pkl", " is a zip file with 2 members called data.pkl; a PyTorch checkpoint has one");
    zip_of(at("z.pth"), script, 2);
    refused(at("z.pth"), "TorchScript", " is a TorchScript archive, not a state dict; save its state_dict");
    zip_of(at("z.pth"), climbs, 1);
    refused(at("z.pth"), "a name that climbs", BROKEN "a member's name is not valid");
    zip_of(at("z.pth"), twins, 2);
    refused(at("z.pth"), "two of one name", BROKEN "a member stands twice");
    struct zip_out *z = NULL;
    struct err e = {0};
    assert_int_equal(zip_create(&z, at("z.pth"), &e), 0);
    assert_int_equal(zip_member_put(z, "m/data.pkl", "\x80\x02}.", 4, &e), 0);
    assert_int_equal(zip_member_put(z, "m/byteorder", "big", 3, &e), 0);
    assert_int_equal(zip_close(&z, &e), 0);
    refused(at("z.pth"), "big endian", " was saved on a big-endian machine; load and save it again");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pickles),
        cmocka_unit_test(test_pickles_that_load),
        cmocka_unit_test(test_empty_stacks),
        cmocka_unit_test(test_wide_checkpoints),
        cmocka_unit_test(test_deep_checkpoints),
        cmocka_unit_test(test_spoilt_zips),
        cmocka_unit_test(test_lost_64_bit_directory),
        cmocka_unit_test(test_members_in_one_place),
        cmocka_unit_test(test_broken_downloads),
        cmocka_unit_test(test_archives),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
