// Finding added tokens: leftmost first, of those that begin at one place the longest.
//
// A token may ask to stand alone as a word (single_word), and to swallow the white space before it (lstrip) and behind
// it (rstrip). Those marked `normalized` are sought in the normalised text, by their own normal form, in what the
// others left.
#include "worker/models/text/added.h"

#include <string.h>

struct added_token {
    const char *content;
    int32_t id;
    bool single_word, left, right;
};

// ---- reading

static bool flag(const json_t *j, const char *key, bool absent)
{
    const json_t *value = json_object_get(j, key);
    return value ? json_is_true(value) : absent;
}

static int read_content(struct arena *a, const json_t *j, bool normalized, const struct normalizer *normalizer,
                        struct pieces *set, int32_t number, struct err *e)
{
    const char *content = json_string_value(json_object_get(j, "content"));
    struct text form = {0};
    int rc = 0;
    if (normalized)
        rc = normalizer_apply(normalizer, &form, content, strlen(content), e);
    else
        text_put(&form, content, strlen(content));
    if (rc == 0 && form.n > PIECE_MAX)
        rc = err_set(e, E_INPUT, "its added token %d has %zu bytes, more than %d", number, form.n, PIECE_MAX);
    if (rc == 0) set->piece[set->n++] = (struct piece){arena_strdup(a, form.s), (int32_t)form.n, number};
    text_free(&form);
    return rc;
}

static int read_token(struct added *t, struct arena *a, const json_t *j, const struct pieces *vocab,
                      const struct normalizer *normalizer, struct err *e)
{
    const char *content = json_string_value(json_object_get(j, "content"));
    const json_t *id = json_object_get(j, "id");
    json_int_t n = json_integer_value(id);
    if (!content || !json_is_integer(id) || n < 0 || n >= INT32_MAX)
        return err_set(e, E_INPUT, "its added token %d needs a content and an id of 0 or more", t->n);
    struct added_token *token = &t->token[t->n];
    int32_t piece = pieces_find(vocab, content, strlen(content));
    *token = (struct added_token){.content = arena_strdup(a, content),
                                  .id = piece >= 0 ? piece : (int32_t)n,
                                  .single_word = flag(j, "single_word", false),
                                  .left = flag(j, "lstrip", false),
                                  .right = flag(j, "rstrip", false)};
    bool normalized = flag(j, "normalized", !flag(j, "special", false));
    return read_content(a, j, normalized, normalizer, normalized ? &t->normal : &t->raw, t->n++, e);
}

int added_read(struct added *t, struct arena *a, const json_t *j, const struct pieces *vocab,
               const struct normalizer *normalizer, struct err *e)
{
    if (!j || json_is_null(j)) return 0;
    if (!json_is_array(j)) return err_set(e, E_INPUT, "its added_tokens is not a list");
    size_t n = json_array_size(j), i;
    const json_t *one;
    t->token = arena_array(a, n + 1, sizeof *t->token);
    t->raw.piece = arena_array(a, n + 1, sizeof *t->raw.piece);
    t->normal.piece = arena_array(a, n + 1, sizeof *t->normal.piece);
    json_array_foreach(j, i, one)
    {
        int rc = read_token(t, a, one, vocab, normalizer, e);
        if (rc < 0) return rc;
    }
    pieces_sort(&t->raw);
    pieces_sort(&t->normal);
    return 0;
}

int32_t added_id(const struct added *t, const char *content)
{
    for (int32_t i = 0; i < t->n; i++)
        if (strcmp(t->token[i].content, content) == 0) return t->token[i].id;
    return -1;
}

int32_t added_highest_id(const struct added *t)
{
    int32_t top = -1;
    for (int32_t i = 0; i < t->n; i++)
        if (t->token[i].id > top) top = t->token[i].id;
    return top;
}

// ---- cutting

// The longest token that begins at s[at]: its number and length.
static int32_t longest(const struct pieces *p, const char *s, size_t n, size_t at, size_t *length)
{
    int32_t found = -1;
    struct piece_walk w = piece_walk_begin(p);
    for (size_t i = at; i < n && piece_walk_step(&w, s[i]); i++)
        if (w.id >= 0) {
            found = w.id;
            *length = i + 1 - at;
        }
    return found;
}

static size_t char_before(const char *s, size_t at)
{
    do at--;
    while (at > 0 && ((uint8_t)s[at] & 0xc0) == 0x80);
    return at;
}

static bool stands_alone(const struct added_cut *c, size_t from, size_t to)
{
    size_t before = from > 0 ? char_before(c->s, from) : 0, behind = to;
    if (from > 0 && char_is_word(text_next(c->s, from, &before))) return false;
    return to == c->n || !char_is_word(text_next(c->s, c->n, &behind));
}

// Widens [from, to) over the white space that the token swallows; not past where the last one ended.
static void swallow(const struct added_cut *c, const struct added_token *token, size_t *from, size_t *to)
{
    while (token->left && *from > c->at) {
        size_t before = char_before(c->s, *from), next = before;
        if (!char_is_space(text_next(c->s, *from, &next))) break;
        *from = before;
    }
    for (size_t next = *to; token->right && next < c->n && char_is_space(text_next(c->s, c->n, &next));) *to = next;
}

static bool give(struct added_cut *c, size_t end, int32_t id)
{
    c->end = end;
    c->id = id;
    return true;
}

bool added_next(struct added_cut *c)
{
    size_t from = c->end, at = from, length = 0;
    c->at = from;
    if (c->next_end > 0) {
        size_t end = c->next_end;
        c->next_end = 0;
        return give(c, end, c->next);
    }
    if (from == c->n) return false;
    while (at < c->n) {
        int32_t i = longest(c->set, c->s, c->n, at, &length);
        if (i < 0) {
            text_next(c->s, c->n, &at);
            continue;
        }
        const struct added_token *token = &c->t->token[i];
        size_t begin = at, to = at + length;
        at = to;
        if (token->single_word && !stands_alone(c, begin, to)) continue;
        swallow(c, token, &begin, &to);
        if (begin == from) return give(c, to, token->id);
        c->next = token->id;
        c->next_end = to;
        return give(c, begin, -1);
    }
    return give(c, c->n, -1);
}
