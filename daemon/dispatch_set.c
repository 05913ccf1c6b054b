// Which jobs can share a group: those whose weights are the same. The mark of a set is read from its files
// (proto/mark.h), once for all jobs that ask for it in the same words.
#include "daemon/dispatch_parts.h"
#include "proto/base/hash.h"

#include <string.h>

uint64_t dispatch_set_number(const uint8_t mark[MARK_BYTES], int threads)
{
    uint64_t set;
    memcpy(&set, mark, sizeof set);
    return (set ^ (uint64_t)threads * 0x9e3779b97f4a7c15u) | 1; // 0 is none
}

// All words that decide which weights a group loads.
static uint64_t words_of(const struct job *j)
{
    const struct spec *s = j->spec;
    struct hash h;
    uint8_t bytes[HASH_BYTES];
    uint64_t words;
    const char *const text[] = {j->model->dir, s->dit, s->adapter, s->voice};
    const int number[] = {s->n_speakers, s->dtype, s->threads, (int)s->r.parity, s->n_lora};
    hash_init(&h);
    for (int i = 0; i < 4; i++) hash_update(&h, text[i] ? text[i] : "", text[i] ? strlen(text[i]) + 1 : 1);
    hash_update(&h, number, sizeof number);
    for (int i = 0; i < s->n_lora; i++) {
        hash_update(&h, s->lora[i], strlen(s->lora[i]) + 1);
        hash_update(&h, &s->lora_scale[i], sizeof s->lora_scale[i]);
    }
    hash_final(&h, bytes);
    memcpy(&words, bytes, sizeof words);
    return words;
}

const struct known_set *dispatch_set_of(struct dispatch *d, const struct job *j)
{
    const struct spec *s = j->spec;
    uint64_t words = words_of(j);
    uint8_t mark[MARK_BYTES];
    for (int i = 0; i < d->n_known && i < SETS_KNOWN; i++)
        if (d->known[i].words == words) return &d->known[i];
    mark_set(mark, j->model,
             &(struct mark_set){.dit = s->dit,
                                .adapter = s->adapter,
                                .voice = s->voice,
                                .n_speakers = s->n_speakers,
                                .bf16 = s->dtype != 0,
                                .published = s->r.parity == SPEC_PARITY_PUBLISHED,
                                .lora = s->lora,
                                .lora_scale = s->lora_scale,
                                .n_lora = s->n_lora});
    struct known_set *k = &d->known[d->n_known++ % SETS_KNOWN];
    *k = (struct known_set){words, dispatch_set_number(mark, s->threads), dispatch_set_number(mark, 0)};
    return k;
}
