// What a LoRA changes: pairs and their ranks, whole changes, and the kinds of modules by name, with N for a block's
// number.
#include "worker/inspect/part.h"
#include "worker/weights/lora_key.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 4200 };

static void count_up(json_t *object, const char *key)
{
    json_object_set_new(object, key, json_integer(json_integer_value(json_object_get(object, key)) + 1));
}

// "blocks.12.self_attn.q" to "blocks.N.self_attn.q".
static void drop_number(char *s)
{
    char *at = strstr(s, "blocks");
    if (!at || !at[6] || !isdigit((unsigned char)at[7])) return;
    char *from = at + 7, *to = from;
    while (isdigit((unsigned char)*to)) to++;
    *from = 'N';
    memmove(from + 1, to, strlen(to) + 1);
}

static void put_rank(json_t *ranks, const struct weights *w, const char *down)
{
    tensor t = NO_TENSOR;
    if (weights_get(w, down, &t, NULL) < 0 || t.n < 1) return;
    size_t i = 0, n = json_array_size(ranks);
    while (i < n && json_integer_value(json_array_get(ranks, i)) < t.shape[0]) i++;
    if (i < n && json_integer_value(json_array_get(ranks, i)) == t.shape[0]) return;
    json_array_insert_new(ranks, i, json_integer(t.shape[0]));
}

bool part_lora(json_t *part, json_t *problems, const struct weights *w)
{
    json_t *ranks = json_array(), *targets = json_object();
    json_int_t n_down = 0, n_up = 0, n_changes = 0, n_alphas = 0, n_other = 0;
    const char *method = NULL;
    for (int64_t i = 0; i < weights_count(w); i++) {
        const char *key = weights_name(w, i);
        char module[NAME_BYTES];
        enum lora_role role = lora_key_split(key, module, sizeof module);
        n_down += role == LORA_DOWN;
        n_up += role == LORA_UP;
        n_changes += role == LORA_DIFF || role == LORA_DIFF_B;
        n_alphas += role == LORA_ALPHA;
        n_other += role == LORA_NONE;
        if (role == LORA_FOREIGN) method = lora_key_method(key);
        if (role == LORA_DOWN) put_rank(ranks, w, key);
        if (role == LORA_DOWN || role == LORA_DIFF || role == LORA_DIFF_B) {
            drop_number(module);
            count_up(targets, module);
        }
    }
    bool is_lora = (n_down + n_up + n_changes > 0 || method) && !weights_has(w, "blocks.0.self_attn.q.weight");
    if (is_lora && method) problem_add(problems, "this is no plain LoRA but %s, which cannot be merged here", method);
    if (is_lora && n_down != n_up)
        problem_add(problems, "the LoRA has %lld lower and %lld upper halves of pairs", (long long)n_down,
                    (long long)n_up);
    if (is_lora)
        json_object_set_new(part, "lora",
                            json_pack("{sI sI sI sI sO sO}", "pairs", n_down, "changes", n_changes, "alphas", n_alphas,
                                      "other", n_other, "ranks", ranks, "targets", targets));
    json_decref(ranks);
    json_decref(targets);
    return is_lora;
}
