// The tokenizer: cleaning, every kind of step, segmentation by hand-made scores, and files that are wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/models/text/clean.h"
#include "worker/models/unigram.h"

#define MARK "\u2581"

static char path[] = "/tmp/test_unigram_XXXXXX";

static int begin(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int end(void **state)
{
    (void)state;
    return unlink(path);
}

// ---- cleaning

static void cleaning(void **state)
{
    (void)state;
    static const struct {
        const char *dirty, *clean;
    } cases[] = {
        {"", ""},
        {" \t\n\u3000\u00a0 ", ""},
        {"  a \n\n b\u2003c ", "a b c"},
        {"你好，世界！真的？（是）：好；", "你好,世界!真的?(是):好;"},
        {"。、「」", "。、「」"},
        {"‘a’ “b” \u02bc", "'a' \"b\" '"},
        {"ＡＢ１￥￣", "AB1¥ \u0304"},
        {"ｶﾞﾊﾟ", "ガパ"},
        {"e\u0301 \u212b \u1100\u1161\u11a8", "\u00e9 \u00c5 \uac01"},
        {"ﬁﬂ ﬅ ĳ ŉ Ǆ", "fifl \u017ft ij 'n D\u017d"},
        {"\x1b[1;31mred\x1b[0m \x07"
         "bell\x7f",
         "red bell"},
        {"\ufeff"
         "a\ufffc",
         "a"},
        {"a\xc2\x85"
         "b \xc2\x91"
         "c\xc2\x92",
         "a\u2026"
         "b 'c'"},
        {"a\r\nb\rc\u2028d", "a b c d"},
        {"&amp;amp;amp;amp; &eacute; &EACUTE; &#233; &#xE9; &SZLIG; &FFLIG; &NAPOS;", "& é É é é SS FF 'N"},
        {"&amp &copy2020 &notit; &noti &unknown; &; & &#; &#x;", "& ©2020 ¬it; ¬i &unknown; &; & &#; &#x;"},
        {"&#0; &#128; &#55296; &#1114112; &#99999999999999999999; [&#1;&#xfdd0;]", "\ufffd € \ufffd \ufffd \ufffd []"},
        {"&#59; &#38;lt;", "; <"},
        {"&NotEqualTilde; &gtcc; &GTDOT;", "\u2242\u0338 \u2aa7 >DOT;"},
        // a '<' ends the careful decoding, so that what is written twice is decoded twice only
        {"&amp;amp;amp;lt;", "<"},
        {"< &amp;amp;amp;lt;", "< &amp;lt;"},
        {"&amp;amp;amp;lt;\n< &amp;amp;amp;lt;", "< < &amp;lt;"},
        {"&am&#112;lt;", "<"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text t = {0};
        clean_prompt(&t, cases[i].dirty, strlen(cases[i].dirty));
        assert_string_equal(t.n ? t.s : "", cases[i].clean);
        text_free(&t);
    }
}

// ---- tokenizers

static const char added[] = "{\"id\":0,\"content\":\"<pad>\",\"special\":true}";
static const char vocab[] =
    "[\"<pad>\",0],[\"</s>\",0],[\"<s>\",0],[\"<unk>\",0],[\"" MARK "\",-2],[\"a\",-3],[\"b\",-3],"
    "[\"ab\",-5],[\"" MARK "a\",-4],[\"abc\",-5.5],[\"c\",-1],[\"日\",-6],[\"<0xE6>\",-9],"
    "[\"<0x9C>\",-9],[\"<0xAC>\",-9],[\"木木\",-9],[\"aa\",-6]";
enum { PAD, END, START, UNK, M, A, B, AB, MA, ABC, C, SUN, E6, X9C, XAC, WOODS, AA };
static const char metaspace[] = "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\"}";

struct recipe {
    const char *vocab, *model, *added, *normalizer, *words, *finish; // NULL: as usual
};

static void write_text(const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void write_recipe(const struct recipe *r)
{
    char text[16384];
    int n =
        snprintf(text, sizeof text,
                 "{\"added_tokens\":[%s],\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,"
                 "\"model\":{\"type\":\"Unigram\",\"unk_id\":3%s,\"vocab\":[%s]}}",
                 r->added ? r->added : added, r->normalizer ? r->normalizer : "null", r->words ? r->words : metaspace,
                 r->finish ? r->finish : "null", r->model ? r->model : "", r->vocab ? r->vocab : vocab);
    assert_true(n > 0 && n < (int)sizeof text);
    write_text(text, (size_t)n);
}

static struct unigram *open_recipe(const struct recipe *r)
{
    struct unigram *u = NULL;
    struct err e = {0};
    write_recipe(r);
    if (unigram_open(&u, path, &e) < 0) fail_msg("%s", e.text);
    return u;
}

// The ids of `text`, which must be those given, up to -1; the end token is added here.
static void gives(const struct unigram *u, const char *text, const int *want)
{
    int32_t ids[64];
    int n = 0, n_lost = 0;
    char ours[512] = "", theirs[512] = "";
    struct err e = {0};
    if (unigram_encode(u, text, ids, 64, &n, &n_lost, &e) < 0) fail_msg("%s", e.text);
    assert_int_equal(n_lost, 0);
    for (int i = 0; i < n; i++) sprintf(ours + strlen(ours), " %d", ids[i]);
    for (; *want >= 0; want++) sprintf(theirs + strlen(theirs), " %d", *want);
    sprintf(theirs + strlen(theirs), " %d", END);
    if (strcmp(ours, theirs) != 0) fail_msg("'%s' gives%s, not%s", text, ours, theirs);
}
#define GIVES(u, text, ...) gives(u, text, (const int[]){__VA_ARGS__ __VA_OPT__(, ) - 1})
#define RECIPE(...)         open_recipe(&(struct recipe){__VA_ARGS__})

static void best_sums(void **state)
{
    (void)state;
    struct unigram *u = open_recipe(&(struct recipe){0});
    assert_int_equal(unigram_size(u), 17);
    GIVES(u, "");
    GIVES(u, "  \n ");
    GIVES(u, "a", MA);     // -4 against -2 - 3
    GIVES(u, "ab", M, AB); // a tie with MA b, -4 - 3: the piece from the earlier start stays
    GIVES(u, "b", M, B);
    GIVES(u, "abc", M, ABC);   // -7.5 against -8
    GIVES(u, "bab", M, B, AB); // ab -5 beats a b -6
    GIVES(u, "baa", M, B, AA); // aa from an earlier start, a tie with a a
    GIVES(u, "a  a", MA, MA);  // each word has its mark
    GIVES(u, "日", M, SUN);
    GIVES(u, "木", M, UNK);
    GIVES(u, "木木", M, WOODS);
    GIVES(u, "木木木", M, UNK, WOODS); // unknown -19 and the piece -9, in the order that was found first
    GIVES(u, "木本水", M, UNK);        // unknowns side by side are one
    GIVES(u, "木 本", M, UNK, M, UNK);
    GIVES(u, "木日本", M, UNK, SUN, UNK);
    GIVES(u, "b" MARK "b", M, B, M, B); // the mark typed by hand
    GIVES(u, "&lt;pad&gt;b", PAD, M, B);
    unigram_free(&u);
    assert_null(u);
}

static void bytes_for_the_unknown(void **state)
{
    (void)state;
    struct unigram *u = RECIPE(.model = ",\"byte_fallback\":true");
    GIVES(u, "本", M, E6, X9C, XAC);
    GIVES(u, "木", M, UNK); // E6 9C A8: one byte has no piece
    GIVES(u, "日本", M, SUN, E6, X9C, XAC);
    GIVES(u, "<0xE6>", M, E6); // as text, too
    unigram_free(&u);
}

static void twice_in_the_vocabulary(void **state)
{
    (void)state;
    struct unigram *u = RECIPE(.vocab = "[\"<pad>\",0],[\"</s>\",0],[\"<s>\",0],[\"<unk>\",0],[\"" MARK
                                        "\",-2],[\"a\",-3],[\"a\",-4],[\"\",0]");
    GIVES(u, "a", 4, 6); // the later one
    unigram_free(&u);
}

static void cut_to_length(void **state)
{
    (void)state;
    struct unigram *u = open_recipe(&(struct recipe){0});
    int32_t ids[5] = {-7, -7, -7, -7, -7};
    int n = 0, n_lost = 0;
    assert_int_equal(unigram_encode(u, "b b b", ids, 4, &n, &n_lost, NULL), 0);
    assert_int_equal(n, 4);
    assert_int_equal(n_lost, 3);
    assert_memory_equal(ids, ((int32_t[]){M, B, M, END, -7}), sizeof ids);
    assert_int_equal(unigram_encode(u, "b b b", ids, 1, &n, &n_lost, NULL), 0);
    assert_true(n == 1 && n_lost == 6 && ids[0] == END);
    unigram_free(&u);
}

static void words_by_scheme(void **state)
{
    (void)state;
    struct unigram *u =
        RECIPE(.words = "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":\"never\"}");
    GIVES(u, "b b", B, M, B);
    unigram_free(&u);
    u = RECIPE(.words = "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"add_prefix_space\":false}");
    GIVES(u, "b b", B, M, B);
    unigram_free(&u);
    u = RECIPE(.words = "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":\"first\"}");
    GIVES(u, "b<pad>b<pad> b", M, B, PAD, B, PAD, M, B);
    unigram_free(&u);
    u = open_recipe(&(struct recipe){0});
    GIVES(u, "b<pad>b<pad> b", M, B, PAD, M, B, PAD, M, B);
    unigram_free(&u);
    u = RECIPE(.words =
                   "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":\"Metaspace\","
                   "\"replacement\":\"" MARK "\",\"add_prefix_space\":true}]}");
    GIVES(u, "b<pad> b b", M, B, PAD, M, B, M, B);
    unigram_free(&u);
    u = RECIPE(.vocab = "[\"<pad>\",0],[\"</s>\",0],[\"<s>\",0],[\"<unk>\",0],[\"" MARK "\",-2],[\"b\",-2],[\"b" MARK
                        "b\",-3]",
               .words = "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"split\":false}");
    GIVES(u, "b b", 4, 6);
    unigram_free(&u);
}

static void added_tokens(void **state)
{
    (void)state;
    struct unigram *u = RECIPE(.added = "{\"id\":0,\"content\":\"<pad>\",\"special\":true},"
                                        "{\"id\":40,\"content\":\"<x>\",\"special\":true,\"lstrip\":true},"
                                        "{\"id\":41,\"content\":\"<xx>\",\"special\":true,\"rstrip\":true},"
                                        "{\"id\":42,\"content\":\"<x><x>\",\"special\":true},"
                                        "{\"id\":43,\"content\":\"bb\",\"special\":true,\"single_word\":true},"
                                        "{\"id\":44,\"content\":\"\u00e9\",\"special\":false,\"normalized\":true}",
                               .normalizer = "{\"type\":\"NFD\"}");
    assert_int_equal(unigram_size(u), 45);
    GIVES(u, "b <x> b", M, B, 40, M, B);       // its blank is gone, the next word has its own mark
    GIVES(u, "b <pad> <x>", M, B, M, PAD, 40); // a blank alone is a mark
    GIVES(u, "<xx> b", 41, M, B);
    GIVES(u, "<xx> <x>", 41, 40); // a blank is swallowed once
    GIVES(u, "<x><x><x>", 42, 40);
    GIVES(u, "bb b bbb a,bb", 43, M, B, M, B, B, B, MA, UNK, 43);
    GIVES(u, "bb\u0301 \u24b6bb", M, B, B, UNK, M, UNK, B, B);
    GIVES(u, "b\u00e9", M, B, 44); // found by its normal form, as the text has it by then
    unigram_free(&u);
}

static void steps(void **state)
{
    (void)state;
    struct unigram *u = RECIPE(
            .normalizer =
                "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},"
                "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"},"
                "{\"type\":\"Replace\",\"pattern\":{\"String\":\"xy\"},\"content\":\"b\"},"
                "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"z{3,}\"},\"content\":\"c\"},"
                "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\.+\"},\"content\":\"\"},"
                "{\"type\":\"NFKC\"},{\"type\":\"Precompiled\",\"precompiled_charsmap\":null}]}");
    GIVES(u, "xyxxy", M, B, UNK, B);
    GIVES(u, "zzzz", M, C);
    GIVES(u, "zz", M, UNK);
    GIVES(u, "b..b.", M, B, B);
    GIVES(u, "...");
    GIVES(u, "\u24d1<pad> b", M, B, PAD, M, B); // circled b; the stretch after the token is stripped
    unigram_free(&u);
    u = RECIPE(.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\"\"}");
    GIVES(u, "b b", M, B, B);
    unigram_free(&u);
}

static void the_end_token(void **state)
{
    (void)state;
    struct unigram *u =
        RECIPE(.finish = "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},"
                         "{\"SpecialToken\":{\"id\":\"end\"}}],\"special_tokens\":{\"end\":{\"ids\":[77]}}}");
    int32_t ids[4];
    int n, n_lost;
    assert_int_equal(unigram_encode(u, "", ids, 4, &n, &n_lost, NULL), 0);
    assert_true(n == 1 && ids[0] == 77);
    assert_int_equal(unigram_size(u), 78);
    unigram_free(&u);
}

// ---- a character map made by hand

struct map {
    uint32_t unit[4096];
    size_t n_used; // of blocks of 256 units: the children of one node
    char replacement[256];
    size_t n_replacement;
};

// Child nodes of the one at `at`, which gets a block of its own.
static uint32_t map_block(struct map *m, uint32_t at)
{
    if (m->unit[at] >> 10 == 0) m->unit[at] |= (at ^ (uint32_t)(256 * ++m->n_used)) << 10;
    return at ^ m->unit[at] >> 10;
}

static void map_put(struct map *m, const char *key, const char *replacement)
{
    uint32_t at = 0;
    for (; *key; key++) {
        uint32_t child = map_block(m, at) ^ (uint8_t)*key;
        m->unit[child] = (m->unit[child] & ~0xffu) | (uint8_t)*key;
        at = child;
    }
    uint32_t value = map_block(m, at);
    m->unit[at] |= 1u << 8;
    m->unit[value] = (uint32_t)m->n_replacement;
    memcpy(m->replacement + m->n_replacement, replacement, strlen(replacement) + 1);
    m->n_replacement += strlen(replacement) + 1;
}

static void base64(char *out, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        for (int k = 0; k < 4; k++) *out++ = i + (size_t)k <= n ? digits[v >> (18 - 6 * k) & 63] : '=';
    }
    *out = 0;
}

// The step as JSON; `trie_bytes` 0: the right number.
static char *map_json(const struct map *m, uint32_t trie_bytes)
{
    size_t n_units = 256 * (m->n_used + 1), n = 0;
    uint8_t *blob = calloc(4 + 4 * n_units + m->n_replacement, 1);
    uint32_t head = trie_bytes ? trie_bytes : (uint32_t)(4 * n_units);
    for (int i = 0; i < 4; i++) blob[n++] = (uint8_t)(head >> 8 * i);
    for (size_t u = 0; u < n_units; u++)
        for (int i = 0; i < 4; i++) blob[n++] = (uint8_t)(m->unit[u] >> 8 * i);
    memcpy(blob + n, m->replacement, m->n_replacement);
    n += m->n_replacement;
    char *json = calloc(2 * n + 128, 1);
    size_t begin_at = (size_t)sprintf(json, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
    base64(json + begin_at, blob, n);
    sprintf(json + strlen(json), "\"}");
    free(blob);
    return json;
}

static struct unigram *open_map(const struct map *m)
{
    char *step = map_json(m, 0), *text = calloc(strlen(step) + 4096, 1);
    sprintf(text, "{\"normalizer\":%s,\"pre_tokenizer\":%s,\"model\":{\"unk_id\":3,\"vocab\":[%s]}}", step, metaspace,
            vocab);
    write_text(text, strlen(text));
    struct unigram *u = NULL;
    struct err e = {0};
    if (unigram_open(&u, path, &e) < 0) fail_msg("%s", e.text);
    free(step);
    free(text);
    return u;
}

static void character_map(void **state)
{
    (void)state;
    struct map *m = calloc(1, sizeof *m);
    map_put(m, "X", "a");
    map_put(m, "Z", "");
    map_put(m, "\u0107", "c");
    map_put(m, "q\u0323", "b");
    map_put(m, "\u0301", "b"); // acute, when it is looked up alone
    struct unigram *u = open_map(m);
    GIVES(u, "X", MA);
    GIVES(u, "bZb", M, B, B);
    GIVES(u, "\u0107", M, C);
    GIVES(u, "q\u0323", M, B);
    GIVES(u, "q", M, UNK);
    GIVES(u, "X\u0323", MA);                     // the whole cluster goes by its shortest prefix
    GIVES(u, "b\u0301", M, B, B);                // no prefix: each by itself
    GIVES(u, "X\u0323\u0323\u0301", MA, UNK, B); // six bytes or more: each by itself
    unigram_free(&u);
    // offsets that point outside, into the middle of a character, or on and on
    memcpy(m->replacement, "\u65e5", sizeof "\u65e5");
    m->n_replacement = 2;
    u = open_map(m);
    GIVES(u, "X Z", M, UNK, M, UNK);
    unigram_free(&u);
    m->unit[0] = 0xffffffffu;
    u = open_map(m);
    GIVES(u, "b", M, B);
    unigram_free(&u);
    free(m);
}

// ---- wrong files and texts

static void refused(const char *says)
{
    struct unigram *u = NULL;
    struct err e = {0};
    assert_int_equal(unigram_open(&u, path, &e), E_INPUT);
    assert_null(u);
    if (!strstr(e.text, says) || !strstr(e.text, path)) fail_msg("'%s' does not say '%s'", e.text, says);
    assert_null(strchr(e.text, '\n'));
}
#define REFUSED(says, ...)                                                                                             \
    do {                                                                                                               \
        write_recipe(&(struct recipe){__VA_ARGS__});                                                                   \
        refused(says);                                                                                                 \
    } while (0)

static void wrong_files(void **state)
{
    (void)state;
    struct unigram *u = NULL;
    struct err e = {0};
    assert_int_equal(unigram_open(&u, "/nowhere/tokenizer.json", &e), E_INPUT);
    assert_non_null(strstr(e.text, "/nowhere/tokenizer.json"));
    write_text("{", 1);
    refused("JSON");
    write_text("[]", 2);
    refused("no model");
    REFUSED("no list", .vocab = "");
    REFUSED("at place 1", .vocab = "[\"a\",0],[\"b\"]");
    REFUSED("at place 0", .vocab = "[1,0]");
    REFUSED("at place 0", .vocab = "\"a\"");
    REFUSED("unk_id", .vocab = "[\"</s>\",0]");
    REFUSED("neither", .vocab = "[\"a\",0],[\"b\",0],[\"c\",0],[\"d\",0]");
    REFUSED("added token 0", .added = "{\"id\":1}");
    REFUSED("added token 0", .added = "{\"id\":-1,\"content\":\"x\"}");
    REFUSED("added token 0", .added = "{\"id\":2147483647,\"content\":\"x\"}");
    REFUSED("'Lower?", .normalizer = "{\"type\":\"Lower?\"}");
    REFUSED("'?'", .normalizer = "{\"type\":\"two\\nlines\"}");
    REFUSED("Sequence", .normalizer = "{\"type\":\"Sequence\"}");
    REFUSED("'(a|b)'", .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a|b)\"},\"content\":\"\"}");
    REFUSED("'a{0,}'", .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a{0,}\"},\"content\":\"\"}");
    REFUSED("''", .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}");
    REFUSED("Replace", .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}");
    REFUSED("Base64", .normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"?\"}");
    REFUSED("no room", .normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}");
    REFUSED("not a text", .normalizer = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":7}");
    REFUSED("pre_tokenizer is none", .words = "null");
    REFUSED("pre_tokenizer is ByteLevel", .words = "{\"type\":\"ByteLevel\"}");
    REFUSED("one character", .words = "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}");
    REFUSED("'last'", .words = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}");
    REFUSED("BertProcessing", .finish = "{\"type\":\"BertProcessing\"}");
    struct map *m = calloc(1, sizeof *m);
    map_put(m, "X", "a");
    char *step = map_json(m, 0x7ffffffc);
    REFUSED("no room", .normalizer = step);
    free(step);
    free(m);
}

static void other_models_are_named(void **state)
{
    (void)state;
    static const char bpe[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}";
    write_text(bpe, strlen(bpe));
    refused("'BPE'");
}

static void wrong_texts(void **state)
{
    (void)state;
    struct unigram *u = open_recipe(&(struct recipe){0});
    static const char *const bad[] = {"\xff", "a\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80", "\x80"};
    int32_t ids[8];
    int n, n_lost;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        assert_int_equal(unigram_encode(u, bad[i], ids, 8, &n, &n_lost, &e), E_INPUT);
        assert_non_null(strstr(e.text, "UTF-8"));
    }
    char *long_text = calloc((1 << 20) + 2, 1);
    memset(long_text, 'b', (1 << 20) + 1);
    assert_int_equal(unigram_encode(u, long_text, ids, 8, &n, &n_lost, NULL), E_INPUT);
    free(long_text);
    unigram_free(&u);
    // sixteen steps of which each makes 64 of one
    char grow[4096] = "{\"type\":\"Sequence\",\"normalizers\":[";
    for (int i = 0; i < 16; i++) {
        sprintf(grow + strlen(grow), "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"b\"},\"content\":\"",
                i ? "," : "");
        memset(grow + strlen(grow), 'b', 64);
        sprintf(grow + strlen(grow), "\"}%s", i < 15 ? "" : "]}");
    }
    u = RECIPE(.normalizer = grow);
    struct err e = {0};
    assert_int_equal(unigram_encode(u, "b", ids, 8, &n, &n_lost, &e), E_INPUT);
    assert_non_null(strstr(e.text, "normalised"));
    unigram_free(&u);
}

// Bytes changed at random: refused with a sentence, or read and then usable on any text.
static void damaged_files(void **state)
{
    (void)state;
    uint64_t seed = 20240607;
    printf("seed %llu\n", (unsigned long long)seed);
    struct map *m = calloc(1, sizeof *m);
    map_put(m, "X", "a");
    map_put(m, "\u0107", "c");
    char *step = map_json(m, 0), *text = calloc(strlen(step) + 4096, 1), *damaged = calloc(strlen(step) + 4096, 1);
    sprintf(text,
            "{\"normalizer\":%s,\"added_tokens\":[%s],\"pre_tokenizer\":%s,\"model\":{\"unk_id\":3,\"vocab\":[%s]}}",
            step, added, metaspace, vocab);
    size_t n = strlen(text);
    int n_read = 0;
    for (int round = 0; round < 2000; round++) {
        memcpy(damaged, text, n + 1);
        for (int k = 0; k <= round % 4; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            damaged[(seed >> 33) % n] = (char)(round % 3 ? "09{}[],:\"aA/+\\"[(seed >> 20) % 14] : (char)(seed >> 24));
        }
        write_text(damaged, n);
        struct unigram *u = NULL;
        struct err e = {0};
        int rc = unigram_open(&u, path, &e), count, n_lost;
        if (rc < 0) {
            assert_int_equal(rc, E_INPUT);
            assert_true(e.text[0] != 0);
            continue;
        }
        n_read++;
        int32_t ids[16];
        if (unigram_encode(u, "X \u0107b\u0301 <pad>日本", ids, 16, &count, &n_lost, &e) == 0)
            for (int i = 0; i < count; i++) assert_true(ids[i] >= 0 && ids[i] < unigram_size(u));
        unigram_free(&u);
    }
    assert_true(n_read > 100);
    free(damaged);
    free(text);
    free(step);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cleaning),
        cmocka_unit_test(best_sums),
        cmocka_unit_test(bytes_for_the_unknown),
        cmocka_unit_test(twice_in_the_vocabulary),
        cmocka_unit_test(cut_to_length),
        cmocka_unit_test(words_by_scheme),
        cmocka_unit_test(added_tokens),
        cmocka_unit_test(steps),
        cmocka_unit_test(the_end_token),
        cmocka_unit_test(character_map),
        cmocka_unit_test(wrong_files),
        cmocka_unit_test(other_models_are_named),
        cmocka_unit_test(wrong_texts),
        cmocka_unit_test(damaged_files),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
