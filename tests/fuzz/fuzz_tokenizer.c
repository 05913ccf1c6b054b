// tokenizer.json, and what follows its first NUL as the prompt: refused with a sentence, or ids below the size.
#include "tests/fuzz/fuzz.h"
#include "worker/models/unigram.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct unigram *u = NULL;
    struct err e = {0};
    const uint8_t *end = n > 0 ? memchr(data, 0, n) : NULL;
    size_t n_file = end ? (size_t)(end - data) : n;
    int rc = unigram_open(&u, fuzz_file(data, n_file), &e);
    fuzz_file_end();
    if (rc < 0) {
        fuzz_refused(rc, &e);
        return 0;
    }
    size_t n_text = end ? n - n_file - 1 : 0;
    char *text = calloc(n_text + 1, 1);
    BUG_IF(!text, "no memory for %zu bytes", n_text);
    if (n_text > 0) memcpy(text, end + 1, n_text);
    int32_t ids[MAX_IDS];
    int count = 0, n_lost = 0;
    rc = unigram_encode(u, text, ids, MAX_IDS, &count, &n_lost, &e);
    if (rc < 0) fuzz_refused(rc, &e);
    for (int i = 0; rc == 0 && i < count; i++)
        BUG_IF(ids[i] < 0 || ids[i] >= unigram_size(u), "id %d of %lld", ids[i], (long long)unigram_size(u));
    free(text);
    unigram_free(&u);
    return 0;
}
