// The nearest known word to a misspelt one, for messages: "unknown key 'promt'; did you mean 'prompt'?".
#ifndef PROTO_BASE_NEAR_H
#define PROTO_BASE_NEAR_H

// The word of `words` (NULL-terminated) with the smallest edit distance to `word`, or NULL when none is near (distance
// > 3 or more than half the length).
const char *near_word(const char *word, const char *const *words);

#endif
