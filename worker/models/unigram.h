// The umT5 tokenizer: cleaning, normalising and unigram segmentation of a prompt, from tokenizer.json.
//
// What is read of tokenizer.json (all else is passed over; a value not listed is refused by name):
//   model.type              "Unigram"; may be absent
//   model.vocab             [[piece, score], ...]: the place in the list is the id, scores are logarithms. Needed
//   model.unk_id            the id of what no piece covers. Needed
//   model.byte_fallback     true: what no piece covers becomes "<0xNN>" pieces, if the vocabulary has them; may be
//   absent added_tokens            [{id, content, special, normalized, single_word, lstrip, rstrip}, ...], matched
//   literally
//                           before the rest; of a token only id and content are needed; may be absent or null
//   normalizer              null, Sequence, Precompiled, Strip, NFC, NFD, NFKC, NFKD, Replace of a literal or of a
//   pattern
//                           that is one character or \s, then + or {n,}; may be absent
//   pre_tokenizer           Metaspace {replacement, prepend_scheme or add_prefix_space, split}, or a Sequence of
//                           WhitespaceSplit and Metaspace. Needed
//   post_processor          TemplateProcessing whose `single` is the text and then one special token, the end token;
//                           null or absent: the end token is the piece or added token "</s>", which then is needed
// The smallest that works: {"model": {"type": "Unigram", "unk_id": 2, "vocab": [["<pad>", 0], ["</s>", 0], ["<unk>",
// 0],
// ["\u2581", -2.5], ["a", -3.5]]}, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
// "prepend_scheme": "always"}}.
#ifndef WORKER_MODELS_UNIGRAM_H
#define WORKER_MODELS_UNIGRAM_H

#include "proto/base/arena.h"
#include "proto/base/err.h"

#include <stdint.h>

struct unigram;

// `tokenizer_json` is the path of the file.
int unigram_open(struct unigram **out, const char *tokenizer_json, struct err *e);
void unigram_free(struct unigram **u);
// One more than the highest id that can come out: an embedding needs as many rows.
int64_t unigram_size(const struct unigram *u);
// Ids of UTF-8 `text` with the end token, at most `max` (the end token is kept); *n_lost is how many pieces did not
// fit. ids has room for `max`. E_INPUT for invalid UTF-8.
int unigram_encode(const struct unigram *u, const char *text, int32_t *ids, int max, int *n, int *n_lost,
                   struct err *e);

#endif
