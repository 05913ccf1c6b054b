// The grammar of LoRA keys: prefix, module, suffix (spec: weights 4.1).
#ifndef WORKER_WEIGHTS_LORA_KEY_H
#define WORKER_WEIGHTS_LORA_KEY_H

#include <stdbool.h>
#include <stddef.h>

enum lora_role {
    LORA_NONE,    // no key of a LoRA
    LORA_DOWN,    // [rank, in, ...]
    LORA_UP,      // [out, rank, ...]
    LORA_ALPHA,   // scalar
    LORA_DIFF,    // added to the weight
    LORA_DIFF_B,  // added to the bias
    LORA_FOREIGN, // of a method that is no LoRA: DoRA, LoHa, LoKr, ...
};

// Splits `key`. `module` receives the middle as it is spelt, without prefixes: names_find knows what it means.
enum lora_role lora_key_split(const char *key, char *module, size_t n);
// The name of the method that a foreign key belongs to, for messages.
const char *lora_key_method(const char *key);

// The keys that the published program sees: diffusion_model.<name>.lora_down.weight, .diff_b, .diff. `target` receives
// the tensor's name, and for a pair `up` the key of its other half.
enum lora_role lora_key_published(const char *key, char *target, char *up, size_t n);

#endif
