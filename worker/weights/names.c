// Spellings of module names.
//
// Dots cannot be guessed from underscores (self_attn, k_img), so the table is built from the model's own modules: each
// is entered by its own name and by its diffusers name, both with underscores for dots, and whatever a file spells is
// looked up that way. So dotted, underscored and mixed forms are one case, and no direction has to be guessed: what
// diffusers calls norm2 is our norm3, and we have no norm2 with weights.
#include "worker/weights/names.h"

#include "proto/base/arena.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct spelling {
    const char *ours, *diffusers;
};
static const struct spelling whole[] = {
    {"text_embedding.0", "condition_embedder.text_embedder.linear_1"},
    {"text_embedding.2", "condition_embedder.text_embedder.linear_2"},
    {"time_embedding.0", "condition_embedder.time_embedder.linear_1"},
    {"time_embedding.2", "condition_embedder.time_embedder.linear_2"},
    {"time_projection.1", "condition_embedder.time_proj"},
    {"img_emb.proj.0", "condition_embedder.image_embedder.norm1"},
    {"img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"},
    {"img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"},
    {"img_emb.proj.4", "condition_embedder.image_embedder.norm2"},
    {"head.head", "proj_out"},
    {"head.modulation", "scale_shift_table"},
};
static const struct spelling in_block[] = {
    {"modulation", "scale_shift_table"},
    {"norm3", "norm2"},
    {"self_attn.q", "attn1.to_q"},
    {"self_attn.k", "attn1.to_k"},
    {"self_attn.v", "attn1.to_v"},
    {"self_attn.o", "attn1.to_out.0"},
    {"self_attn.norm_q", "attn1.norm_q"},
    {"self_attn.norm_k", "attn1.norm_k"},
    {"cross_attn.q", "attn2.to_q"},
    {"cross_attn.k", "attn2.to_k"},
    {"cross_attn.v", "attn2.to_v"},
    {"cross_attn.o", "attn2.to_out.0"},
    {"cross_attn.norm_q", "attn2.norm_q"},
    {"cross_attn.norm_k", "attn2.norm_k"},
    {"cross_attn.k_img", "attn2.add_k_proj"},
    {"cross_attn.v_img", "attn2.add_v_proj"},
    {"cross_attn.norm_k_img", "attn2.norm_added_k"},
    {"ffn.0", "ffn.net.0.proj"},
    {"ffn.2", "ffn.net.2"},
};

// The length of "blocks.12." at the head of a name, or 0.
static size_t block_head(const char *name)
{
    if (strncmp(name, "blocks.", 7) != 0 || !isdigit((unsigned char)name[7])) return 0;
    size_t n = 7;
    while (isdigit((unsigned char)name[n])) n++;
    return name[n] == '.' ? n + 1 : 0;
}

// The end of a tensor's name that is no part of its module: ".weight", ".bias" or nothing.
static size_t module_length(const char *name)
{
    size_t n = strlen(name);
    if (n > 7 && strcmp(name + n - 7, ".weight") == 0) return n - 7;
    if (n > 5 && strcmp(name + n - 5, ".bias") == 0) return n - 5;
    return n;
}

static bool is_text(const char *s, size_t n, const char *text) { return strlen(text) == n && memcmp(s, text, n) == 0; }

bool names_to_diffusers(char *out, size_t n, const char *module)
{
    size_t head = block_head(module), length = strlen(module) - head;
    const struct spelling *s = head ? in_block : whole;
    size_t rows = head ? sizeof in_block / sizeof *in_block : sizeof whole / sizeof *whole;
    for (size_t i = 0; i < rows; i++)
        if (is_text(module + head, length, s[i].ours)) {
            snprintf(out, n, "%.*s%s", (int)head, module, s[i].diffusers);
            return true;
        }
    return false;
}

bool names_from_diffusers(char *out, size_t n, const char *name)
{
    size_t head = block_head(name), end = module_length(name);
    const struct spelling *s = head ? in_block : whole;
    size_t rows = head ? sizeof in_block / sizeof *in_block : sizeof whole / sizeof *whole;
    for (size_t i = 0; i < rows; i++)
        if (is_text(name + head, end - head, s[i].diffusers)) {
            snprintf(out, n, "%.*s%s%s", (int)head, name, s[i].ours, name + end);
            return true;
        }
    return false;
}

// ---- the table

struct entry {
    const char *key, *module;
};
struct names {
    struct arena host;
    struct entry *entry; // sorted by key
    int64_t n, n_collisions;
};

static void underscore(char *s)
{
    for (; *s; s++)
        if (*s == '.') *s = '_';
}

static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : strcmp(x->module, y->module);
}

static void add(struct names *t, const char *spelt, const char *module)
{
    char *key = arena_strdup(&t->host, spelt);
    underscore(key);
    t->entry[t->n++] = (struct entry){key, module};
}

// A module's weight and bias enter it twice; equal entries become one, and equal keys of two modules are counted.
static void settle(struct names *t)
{
    int64_t n = 0;
    qsort(t->entry, (size_t)t->n, sizeof *t->entry, by_key);
    for (int64_t i = 0; i < t->n; i++) {
        if (n > 0 && strcmp(t->entry[n - 1].key, t->entry[i].key) == 0) {
            t->n_collisions += strcmp(t->entry[n - 1].module, t->entry[i].module) != 0;
            continue;
        }
        t->entry[n++] = t->entry[i];
    }
    t->n = n;
}

struct names *names_new(const struct weights *w)
{
    struct names *t = calloc(1, sizeof *t);
    BUG_IF(!t, "no memory for names");
    t->entry = calloc((size_t)weights_count(w) * 2 + 1, sizeof *t->entry);
    BUG_IF(!t->entry, "no memory for names");
    for (int64_t i = 0; i < weights_count(w); i++) {
        const char *name = weights_name(w, i);
        char other[256];
        char *module = arena_printf(&t->host, "%.*s", (int)module_length(name), name);
        add(t, module, module);
        if (names_to_diffusers(other, sizeof other, module)) add(t, other, module);
    }
    settle(t);
    return t;
}

void names_free(struct names **pt)
{
    struct names *t = *pt;
    if (!t) return;
    arena_free(&t->host);
    free(t->entry);
    free(t);
    *pt = NULL;
}

const char *names_find(const struct names *t, const char *text)
{
    char key[512];
    if (strlen(text) >= sizeof key) return NULL;
    memcpy(key, text, strlen(text) + 1);
    underscore(key);
    struct entry *found = NULL;
    int64_t low = 0, high = t->n;
    while (low < high && !found) {
        int64_t i = (low + high) / 2;
        int order = strcmp(key, t->entry[i].key);
        if (order == 0)
            found = &t->entry[i];
        else if (order < 0)
            high = i;
        else
            low = i + 1;
    }
    return found ? found->module : NULL;
}

int64_t names_collisions(const struct names *t) { return t->n_collisions; }
