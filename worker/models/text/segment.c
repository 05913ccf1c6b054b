// Viterbi over the bytes of a word.
//
// node[i] is the best way to cover s[0..i): from where its last piece begins, and which piece. Starts are visited from
// left to right, at each all pieces that begin there; where no piece is just the one character, the unknown stands for
// it, ten below the worst score of the vocabulary, so that every place can be reached.
//
// Easy to get wrong: an earlier start wins a tie (strictly greater replaces); sums are F64 from the left; unknowns side
// by side are one piece, which may be a piece of the vocabulary after all when they are put together.
#include "worker/models/text/segment.h"

#include "worker/models/text/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double unk_penalty = 10;

struct segment_node {
    double score;
    int32_t id;  // of the piece that ends here; -1: nothing does
    size_t from; // where it begins
    size_t to;   // where the piece that begins here ends, on the best way
};

// ---- reading

static int read_pieces(struct vocabulary *v, struct arena *a, const json_t *list, struct err *e)
{
    const json_t *row;
    size_t i, n_bytes = 0;
    v->n = (int32_t)json_array_size(list);
    json_array_foreach(list, i, row)
    {
        const json_t *s = json_array_get(row, 0);
        if (json_array_size(row) != 2 || !json_is_string(s) || !json_is_number(json_array_get(row, 1)))
            return err_set(e, E_INPUT, "its model.vocab holds no [piece, score] at place %zu", i);
        if (json_string_length(s) > PIECE_MAX)
            return err_set(e, E_INPUT, "its piece %zu has %zu bytes, more than %d", i, json_string_length(s),
                           PIECE_MAX);
        n_bytes += json_string_length(s);
    }
    char *pool = arena_alloc(a, n_bytes + 1);
    v->pieces.piece = arena_array(a, (size_t)v->n, sizeof *v->pieces.piece);
    v->score = arena_array(a, (size_t)v->n, sizeof *v->score);
    json_array_foreach(list, i, row)
    {
        const json_t *s = json_array_get(row, 0);
        size_t n = json_string_length(s);
        memcpy(pool, json_string_value(s), n);
        v->pieces.piece[i] = (struct piece){pool, (int32_t)n, (int32_t)i};
        v->score[i] = json_number_value(json_array_get(row, 1));
        pool += n;
    }
    v->pieces.n = v->n;
    pieces_sort(&v->pieces);
    return 0;
}

int vocabulary_read(struct vocabulary *v, struct arena *a, const json_t *model, struct err *e)
{
    const json_t *type = json_object_get(model, "type"), *list = json_object_get(model, "vocab");
    const json_t *unk = json_object_get(model, "unk_id");
    if (!json_is_object(model)) return err_set(e, E_INPUT, "it has no model");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "Unigram") != 0))
        return err_set(e, E_INPUT, "its model is of type '%s' where Unigram belongs; take the tokenizer of umT5",
                       text_shown(json_string_value(type)));
    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > INT32_MAX / 2)
        return err_set(e, E_INPUT, "its model.vocab is no list of [piece, score]");
    int rc = read_pieces(v, a, list, e);
    if (rc < 0) return rc;
    if (!json_is_integer(unk) || json_integer_value(unk) < 0 || json_integer_value(unk) >= v->n)
        return err_set(e, E_INPUT, "its model.unk_id is no place in its vocabulary of %d pieces", v->n);
    v->unk_id = (int32_t)json_integer_value(unk);
    v->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    v->unk_score = v->score[0];
    for (int32_t i = 1; i < v->n; i++) v->unk_score = fmin(v->unk_score, v->score[i]);
    v->unk_score -= unk_penalty;
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        v->byte[i] = pieces_find(&v->pieces, name, strlen(name));
    }
    return 0;
}

// ---- the best way

static void offer(struct segment_node *node, size_t from, size_t to, double score, int32_t id)
{
    struct segment_node *end = &node[to];
    double sum = node[from].score + score;
    if (end->id >= 0 && !(sum > end->score)) return;
    end->score = sum;
    end->id = id;
    end->from = from;
}

static size_t char_bytes(char first)
{
    uint8_t c = (uint8_t)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

static void find_ways(const struct vocabulary *v, struct segment_node *node, const char *s, size_t n)
{
    for (size_t from = 0; from < n; from += char_bytes(s[from])) {
        size_t one = char_bytes(s[from]);
        bool single = false;
        struct piece_walk w = piece_walk_begin(&v->pieces);
        for (size_t i = from; i < n && piece_walk_step(&w, s[i]); i++) {
            if (w.id < 0) continue;
            offer(node, from, i + 1, v->score[w.id], w.id);
            single |= i + 1 - from == one;
        }
        if (!single) offer(node, from, from + one, v->unk_score, v->unk_id);
    }
}

// ---- ids

static bool has_bytes(const struct vocabulary *v, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (v->byte[(uint8_t)s[i]] < 0) return false;
    return true;
}

static void put_unknown(struct segmenter *g, const char *s, size_t n)
{
    int32_t id = pieces_find(&g->v->pieces, s, n);
    if (id < 0 && g->v->byte_fallback && has_bytes(g->v, s, n)) {
        for (size_t i = 0; i < n; i++) g->put(g->ctx, g->v->byte[(uint8_t)s[i]]);
        return;
    }
    g->put(g->ctx, id >= 0 ? id : g->v->unk_id);
}

static void reserve(struct segmenter *g, size_t n)
{
    if (n > g->capacity) {
        g->capacity = 2 * n;
        free(g->node);
        g->node = calloc(g->capacity, sizeof *g->node);
        BUG_IF(!g->node, "no memory for a word of %zu bytes", n);
    }
    for (size_t i = 0; i < n; i++) g->node[i] = (struct segment_node){.id = -1};
}

void segmenter_word(struct segmenter *g, const char *s, size_t n)
{
    reserve(g, n + 1);
    find_ways(g->v, g->node, s, n);
    for (size_t at = n; at > 0; at = g->node[at].from) g->node[g->node[at].from].to = at;
    for (size_t at = 0; at < n;) {
        size_t end = g->node[at].to;
        int32_t id = g->node[end].id;
        if (id == g->v->unk_id) {
            while (end < n && g->node[g->node[end].to].id == id) end = g->node[end].to;
            put_unknown(g, s + at, end - at);
        } else {
            g->put(g->ctx, id);
        }
        at = end;
    }
}

void segmenter_release(struct segmenter *g)
{
    free(g->node);
    g->node = NULL;
    g->capacity = 0;
}
