// Jobs of a batch say the same words, and most jobs the same negative ones: the largest encoder need not read them
// again.
#include "worker/texts.h"

#include "proto/base/err.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT = 4 };

struct texts {
    char *text[KEPT];
    struct text_rows rows[KEPT];
    int next; // to be replaced
};

void texts_new(struct texts **out)
{
    *out = calloc(1, sizeof **out);
    BUG_IF(!*out, "no memory for texts");
}

void texts_free(struct texts **t)
{
    if (!*t) return;
    for (int i = 0; i < KEPT; i++) {
        free((*t)->text[i]);
        free((*t)->rows[i].rows);
    }
    free(*t);
    *t = NULL;
}

const struct text_rows *texts_find(const struct texts *t, const char *text)
{
    for (int i = 0; i < KEPT; i++)
        if (t->text[i] && strcmp(t->text[i], text) == 0) return &t->rows[i];
    return NULL;
}

void texts_keep(struct texts *t, const char *text, const struct text_rows *rows, int dim)
{
    size_t bytes = (size_t)rows->n * (size_t)dim * sizeof(float);
    int at = t->next++ % KEPT;
    free(t->text[at]);
    free(t->rows[at].rows);
    t->text[at] = strdup(text);
    t->rows[at] = *rows;
    t->rows[at].rows = malloc(bytes);
    BUG_IF(!t->text[at] || !t->rows[at].rows, "no memory for a text of %d tokens", rows->n);
    memcpy(t->rows[at].rows, rows->rows, bytes);
}
