// From a prompt to ids:
//
//   clean -> cut out added tokens -> normalise what is between -> cut out normalised added tokens
//         -> words: blanks become the mark "▁" (U+2581), each word begins with its own -> segment each word -> end
//         token
//
// tokenizer.json alone says what the steps are (the fast tokenizer of the published program reads nothing else);
// spiece.model beside it differs for characters that no piece covers.
//
// Easy to get wrong: every stretch between added tokens gets a mark of its own; truncation keeps the end token; an
// empty prompt is the end token alone.
#include "worker/models/unigram.h"

#include "worker/models/text/added.h"
#include "worker/models/text/clean.h"
#include "worker/models/text/segment.h"
#include "worker/weights/weights.h"

#include <stdlib.h>
#include <string.h>

enum mark_scheme { MARK_ALWAYS, MARK_FIRST, MARK_NEVER };

// The pre-tokenizer.
struct words {
    char mark[5];
    enum mark_scheme scheme;
    bool split;        // at marks
    bool split_spaces; // at white space before that
};

struct unigram {
    struct arena arena;
    struct vocabulary vocab;
    struct normalizer normalizer;
    struct added added;
    struct words words;
    int32_t end_id;
};

// ---- reading

static const char *type_of(const json_t *j)
{
    const char *s = json_string_value(json_object_get(j, "type"));
    return s ? text_shown(s) : "none";
}

static int read_metaspace(struct words *w, const json_t *j, struct err *e)
{
    const char *mark = json_string_value(json_object_get(j, "replacement"));
    const json_t *scheme = json_object_get(j, "prepend_scheme"), *split = json_object_get(j, "split");
    size_t n = mark ? strlen(mark) : 0, at = 0;
    if (n > 0) text_next(mark, n, &at);
    if (n == 0 || at != n)
        return err_set(e, E_INPUT, "its Metaspace needs a replacement of one character, such as U+2581");
    memcpy(w->mark, mark, n + 1);
    w->split = !split || json_is_true(split);
    const char *name = json_string_value(scheme);
    if (!scheme)
        w->scheme = json_is_false(json_object_get(j, "add_prefix_space")) ? MARK_NEVER : MARK_ALWAYS;
    else if (name && strcmp(name, "always") == 0)
        w->scheme = MARK_ALWAYS;
    else if (name && strcmp(name, "first") == 0)
        w->scheme = MARK_FIRST;
    else if (name && strcmp(name, "never") == 0)
        w->scheme = MARK_NEVER;
    else
        return err_set(e, E_INPUT, "its Metaspace has a prepend_scheme '%s' where always, first or never belongs",
                       text_shown(name));
    return 0;
}

static int read_words(struct words *w, const json_t *j, struct err *e)
{
    if (strcmp(type_of(j), "Metaspace") == 0) return read_metaspace(w, j, e);
    const json_t *list = json_object_get(j, "pretokenizers");
    size_t n = json_array_size(list);
    const json_t *first = json_array_get(list, 0), *last = n > 0 ? json_array_get(list, n - 1) : NULL;
    w->split_spaces = n == 2 && strcmp(type_of(first), "WhitespaceSplit") == 0;
    if (strcmp(type_of(j), "Sequence") == 0 && (n == 1 || w->split_spaces) && strcmp(type_of(last), "Metaspace") == 0)
        return read_metaspace(w, last, e);
    return err_set(e, E_INPUT, "its pre_tokenizer is %s; those that work are Metaspace, and WhitespaceSplit before it",
                   type_of(j));
}

static int32_t id_of(const struct unigram *u, const char *content)
{
    int32_t id = pieces_find(&u->vocab.pieces, content, strlen(content));
    return id >= 0 ? id : added_id(&u->added, content);
}

// The end token: what the template puts behind the text.
static int read_end(struct unigram *u, const json_t *j, struct err *e)
{
    if (!j || json_is_null(j)) {
        u->end_id = id_of(u, "</s>");
        return u->end_id >= 0 ? 0 : err_set(e, E_INPUT, "it has neither a post_processor nor a piece '</s>'");
    }
    const json_t *single = json_object_get(j, "single");
    const json_t *token = json_object_get(json_array_get(single, 1), "SpecialToken");
    const char *name = json_string_value(json_object_get(token, "id"));
    const json_t *entry = name ? json_object_get(json_object_get(j, "special_tokens"), name) : NULL;
    const json_t *ids = json_object_get(entry, "ids");
    json_int_t id = json_integer_value(json_array_get(ids, 0));
    if (strcmp(type_of(j), "TemplateProcessing") != 0 || json_array_size(single) != 2 ||
        !json_object_get(json_array_get(single, 0), "Sequence") || json_array_size(ids) != 1 ||
        !json_is_integer(json_array_get(ids, 0)) || id < 0 || id >= INT32_MAX)
        return err_set(e, E_INPUT,
                       "its post_processor of type %s is no TemplateProcessing that puts one end token behind the text",
                       type_of(j));
    u->end_id = (int32_t)id;
    return 0;
}

static int read_all(struct unigram *u, const json_t *j, struct err *e)
{
    int rc = vocabulary_read(&u->vocab, &u->arena, json_object_get(j, "model"), e);
    if (rc == 0) rc = normalizer_read(&u->normalizer, &u->arena, json_object_get(j, "normalizer"), e);
    if (rc == 0)
        rc = added_read(&u->added, &u->arena, json_object_get(j, "added_tokens"), &u->vocab.pieces, &u->normalizer, e);
    if (rc == 0) rc = read_words(&u->words, json_object_get(j, "pre_tokenizer"), e);
    if (rc == 0) rc = read_end(u, json_object_get(j, "post_processor"), e);
    return rc;
}

int unigram_open(struct unigram **out, const char *tokenizer_json, struct err *e)
{
    json_t *j = NULL;
    int rc = json_read(&j, tokenizer_json, e);
    if (rc < 0) return rc == E_INPUT ? err_way(e, WEIGHTS_WAY) : rc;
    struct unigram *u = calloc(1, sizeof *u);
    rc = u ? read_all(u, j, e) : err_set(e, E_FATAL, "no memory for a tokenizer");
    json_decref(j);
    if (rc == 0)
        *out = u;
    else {
        unigram_free(&u);
        err_wrap(e, "the tokenizer %s does not fit", tokenizer_json);
        err_way(e, WEIGHTS_WAY);
    }
    return rc;
}

void unigram_free(struct unigram **pu)
{
    if (!*pu) return;
    arena_free(&(*pu)->arena);
    free(*pu);
    *pu = NULL;
}

int64_t unigram_size(const struct unigram *u)
{
    int64_t n = u->vocab.n, added = (int64_t)added_highest_id(&u->added) + 1;
    if (added > n) n = added;
    return u->end_id + 1 > n ? (int64_t)u->end_id + 1 : n;
}

// ---- encoding

struct encoder {
    const struct unigram *u;
    struct segmenter segmenter;
    struct text normal, word; // scratch
    int32_t *ids;
    int room, n, n_lost; // without the end token
};

static void put_id(void *ctx, int32_t id)
{
    struct encoder *c = ctx;
    if (c->n < c->room)
        c->ids[c->n++] = id;
    else
        c->n_lost++;
}

// One stretch without added tokens (or one of its words, when white space splits): marks, then words, then pieces.
static void encode_marked(struct encoder *c, const char *s, size_t n, bool first)
{
    const struct words *w = &c->u->words;
    size_t n_mark = strlen(w->mark), from = 0;
    bool marked = n >= n_mark && memcmp(s, w->mark, n_mark) == 0;
    text_clear(&c->word);
    if (n > 0 && s[0] != ' ' && !marked && (w->scheme == MARK_ALWAYS || (w->scheme == MARK_FIRST && first)))
        text_put(&c->word, w->mark, n_mark);
    for (size_t i = 0; i < n; i++)
        if (s[i] == ' ')
            text_put(&c->word, w->mark, n_mark);
        else
            text_put(&c->word, s + i, 1);
    for (size_t at = 1; w->split && at + n_mark <= c->word.n; at++) {
        if (memcmp(c->word.s + at, w->mark, n_mark) != 0) continue;
        segmenter_word(&c->segmenter, c->word.s + from, at - from);
        from = at;
    }
    if (c->word.n > from) segmenter_word(&c->segmenter, c->word.s + from, c->word.n - from);
}

static void encode_words(struct encoder *c, const char *s, size_t n, bool first)
{
    if (!c->u->words.split_spaces) {
        encode_marked(c, s, n, first);
        return;
    }
    for (size_t at = 0; at < n;) {
        size_t end = at, next = at;
        while (next < n && !char_is_space(text_next(s, n, &next))) end = next;
        if (end > at) encode_marked(c, s + at, end - at, first && at == 0);
        at = end == n ? n : next;
    }
}

// What lies between added tokens.
static int encode_between(struct encoder *c, const char *s, size_t n, bool first, struct err *e)
{
    int rc = normalizer_apply(&c->u->normalizer, &c->normal, s, n, e);
    struct added_cut cut = {.t = &c->u->added, .set = &c->u->added.normal, .s = c->normal.s, .n = c->normal.n};
    while (rc == 0 && added_next(&cut))
        if (cut.id >= 0)
            put_id(c, cut.id);
        else
            encode_words(c, cut.s + cut.at, cut.end - cut.at, first && cut.at == 0);
    return rc;
}

static int encode_clean(struct encoder *c, const struct text *clean, struct err *e)
{
    int rc = 0;
    struct added_cut cut = {.t = &c->u->added, .set = &c->u->added.raw, .s = clean->s, .n = clean->n};
    while (rc == 0 && added_next(&cut))
        if (cut.id >= 0)
            put_id(c, cut.id);
        else
            rc = encode_between(c, cut.s + cut.at, cut.end - cut.at, cut.at == 0, e);
    return rc;
}

int unigram_encode(const struct unigram *u, const char *text, int32_t *ids, int max, int *n, int *n_lost, struct err *e)
{
    BUG_IF(max < 1, "room for %d ids has none for the end token", max);
    size_t n_bytes = strlen(text);
    if (n_bytes > NORMALIZED_MAX)
        return err_set(e, E_INPUT, "the prompt has %zu bytes, more than %d", n_bytes, NORMALIZED_MAX);
    if (!text_is_valid(text, n_bytes)) return err_set(e, E_INPUT, "the prompt is not valid UTF-8; save it as UTF-8");
    struct text clean = {0};
    struct encoder c = {.u = u, .ids = ids, .room = max - 1};
    c.segmenter = (struct segmenter){.v = &u->vocab, .put = put_id, .ctx = &c};
    clean_prompt(&clean, text, n_bytes);
    int rc = encode_clean(&c, &clean, e);
    if (rc == 0) {
        ids[c.n] = u->end_id;
        *n = c.n + 1;
        *n_lost = c.n_lost;
    }
    text_free(&clean);
    text_free(&c.normal);
    text_free(&c.word);
    segmenter_release(&c.segmenter);
    return rc;
}
