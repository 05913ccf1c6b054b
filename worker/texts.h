// What the text encoder made of the last few texts: rows in the host's memory, by the text.
#ifndef WORKER_TEXTS_H
#define WORKER_TEXTS_H

#include "kernels/tensor.h"

struct texts;

struct text_rows {
    int n, n_lost; // tokens that were encoded, and left out
    float *rows;   // [n, dim]
};

void texts_new(struct texts **out);
void texts_free(struct texts **t);
// NULL: it is not known.
const struct text_rows *texts_find(const struct texts *t, const char *text);
// A copy of the rows is kept; the oldest text goes.
void texts_keep(struct texts *t, const char *text, const struct text_rows *rows, int dim);

#endif
