// The tree of an inspection as lines. Names come from strangers' files, so what a terminal would obey is not printed.
#include "worker/inspect/inspect.h"

#include <string.h>

static void put(FILE *to, const char *text)
{
    for (const char *c = text ? text : ""; *c; c++) putc((unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c, to);
}

static void put_number(FILE *to, json_int_t v)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)v);
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) putc(',', to);
        putc(digits[i], to);
    }
}

static void put_count(FILE *to, const json_t *part, const char *key, const char *unit)
{
    const json_t *v = json_object_get(part, key);
    if (!v) return;
    fputs(", ", to);
    put_number(to, json_integer_value(v));
    fprintf(to, " %s", unit);
}

// "{q: 3, k: 2}" as "q 3, k 2".
static void put_pairs(FILE *to, const json_t *object, const char *between)
{
    const char *key, *comma = "";
    json_t *v;
    json_object_foreach((json_t *)object, key, v)
    {
        fputs(comma, to);
        put(to, key);
        putc(' ', to);
        put_number(to, json_integer_value(v));
        comma = between;
    }
}

static void put_lora(FILE *to, const json_t *lora)
{
    size_t i;
    json_t *rank;
    if (!lora) return;
    fputs("    ", to);
    put_number(to, json_integer_value(json_object_get(lora, "pairs")));
    fputs(" pairs of rank", to);
    json_array_foreach(json_object_get(lora, "ranks"), i, rank)
        fprintf(to, "%s %lld", i ? "," : "", (long long)json_integer_value(rank));
    put_count(to, lora, "changes", "whole changes");
    put_count(to, lora, "alphas", "alphas");
    put_count(to, lora, "other", "other tensors");
    fputs("\n    changes ", to);
    put_pairs(to, json_object_get(lora, "targets"), ", ");
    putc('\n', to);
}

static void put_list(FILE *to, const json_t *list)
{
    size_t i, k;
    json_t *row, *length;
    json_array_foreach(list, i, row)
    {
        fputs("    ", to);
        put(to, json_string_value(json_object_get(row, "name")));
        fputs(" [", to);
        json_array_foreach(json_object_get(row, "shape"), k, length)
            fprintf(to, "%s%lld", k ? ", " : "", (long long)json_integer_value(length));
        fprintf(to, "] %s\n", json_string_value(json_object_get(row, "dtype")));
    }
}

static void put_part(FILE *to, const json_t *part)
{
    const char *name = json_string_value(json_object_get(part, "part"));
    const json_t *format = json_object_get(part, "format");
    size_t i;
    json_t *word, *sizes;
    if (name) fprintf(to, "%-10s", name);
    put(to, json_string_value(json_object_get(part, "path")));
    putc('\n', to);
    if (format) {
        fprintf(to, "    %s", json_string_value(format));
        if (json_integer_value(json_object_get(part, "files")) > 1) put_count(to, part, "files", "files");
        put_count(to, part, "tensors", "tensors");
        put_count(to, part, "parameters", "parameters");
        put_count(to, part, "bytes", "bytes");
        fputs(" (", to);
        put_pairs(to, json_object_get(part, "dtypes"), ", ");
        fputs(")\n", to);
    }
    json_array_foreach(json_object_get(part, "holds"), i, word)
    {
        sizes = json_object_get(json_object_get(part, "sizes"), json_string_value(word));
        fprintf(to, "    %s%s", json_string_value(word), json_object_size(sizes) ? ": " : "");
        put_pairs(to, sizes, ", ");
        putc('\n', to);
    }
    put_lora(to, json_object_get(part, "lora"));
    put_list(to, json_object_get(part, "list"));
}

void inspect_print(const json_t *tree, FILE *to)
{
    const char *name = json_string_value(json_object_get(tree, "name"));
    size_t i;
    json_t *item;
    if (name) {
        fputs("model ", to);
        put(to, name);
        putc('\n', to);
    }
    json_array_foreach(json_object_get(tree, "parts"), i, item) put_part(to, item);
    json_array_foreach(json_object_get(tree, "problems"), i, item)
    {
        fputs("! ", to);
        put(to, json_string_value(item));
        putc('\n', to);
    }
    fputs(json_is_true(json_object_get(tree, "whole")) ? "whole\n" : "not whole\n", to);
}
