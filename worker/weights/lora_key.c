// Keys of LoRA files.
//
// Prefixes may stack (base_model.model.transformer.). ".default" is peft's name of an adapter and stands before or
// inside the suffix. A modulation table's change is spelt .modulation.diff or .diff_m; both become the change of the
// module <...>.modulation. Longer suffixes stand before those they end with.
#include "worker/weights/lora_key.h"

#include <stdio.h>
#include <string.h>

static const char *const prefixes[] = {"model.diffusion_model.",
                                       "diffusion_model.",
                                       "transformer.",
                                       "base_model.model.",
                                       "pipe.dit.",
                                       "lora_unet__",
                                       "lora_unet_",
                                       "lycoris_",
                                       "unet."};

static const struct {
    const char *text;
    enum lora_role role;
} suffixes[] = {
    {".lora_linear_layer.down.weight", LORA_DOWN},
    {".lora_linear_layer.up.weight", LORA_UP},
    {".lora_down.weight", LORA_DOWN},
    {".lora_up.weight", LORA_UP},
    {".lora_A.weight", LORA_DOWN},
    {".lora_B.weight", LORA_UP},
    {".lora.down.weight", LORA_DOWN},
    {".lora.up.weight", LORA_UP},
    {"_lora.down.weight", LORA_DOWN},
    {"_lora.up.weight", LORA_UP},
    {".lora_B.bias", LORA_DIFF_B},
    {".lora_down", LORA_DOWN},
    {".lora_up", LORA_UP},
    {".lora_A", LORA_DOWN},
    {".lora_B", LORA_UP},
    {".alpha", LORA_ALPHA},
    {".diff_b", LORA_DIFF_B},
    {".b_norm", LORA_DIFF_B},
    {".w_norm", LORA_DIFF},
    {".diff", LORA_DIFF},
};

static const struct {
    const char *part, *method;
} foreign[] = {
    {".lora_mid.", "LoCon with a middle layer"},
    {".dora_scale", "DoRA"},
    {".lora_magnitude_vector", "DoRA"},
    {".hada_", "LoHa"},
    {".lokr_", "LoKr"},
    {".oft_", "OFT"},
    {".a1.weight", "GLoRA"},
    {".a2.weight", "GLoRA"},
    {".b1.weight", "GLoRA"},
    {".b2.weight", "GLoRA"},
    {".set_weight", "a replacement of whole weights"},
    {".reshape_weight", "a change of shapes"},
};

// Cuts `suffix` off, if it is there.
static bool cut_end(char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    if (n <= m || strcmp(s + n - m, suffix) != 0) return false;
    s[n - m] = 0;
    return true;
}

static void put_end(char *s, size_t n, const char *end)
{
    size_t at = strlen(s);
    snprintf(s + at, n - at, "%s", end);
}

static void cut_prefixes(char *s)
{
    bool cut = true;
    while (cut) {
        cut = false;
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes && !cut; i++) {
            size_t m = strlen(prefixes[i]);
            cut = strncmp(s, prefixes[i], m) == 0;
            if (cut) memmove(s, s + m, strlen(s + m) + 1);
        }
    }
}

static void cut_default(char *s)
{
    char *at = strstr(s, ".default.");
    if (at) memmove(at, at + 8, strlen(at + 8) + 1);
}

enum lora_role lora_key_split(const char *key, char *module, size_t n)
{
    if (strlen(key) + sizeof ".modulation" >= n) return LORA_NONE;
    if (lora_key_method(key)) return LORA_FOREIGN;
    snprintf(module, n, "%s", key);
    cut_prefixes(module);
    cut_default(module);
    if (cut_end(module, ".diff_m")) {
        put_end(module, n, ".modulation");
        return LORA_DIFF;
    }
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (cut_end(module, suffixes[i].text)) return suffixes[i].role;
    return LORA_NONE;
}

const char *lora_key_method(const char *key)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (strstr(key, foreign[i].part)) return foreign[i].method;
    return NULL;
}

enum lora_role lora_key_published(const char *key, char *target, char *up, size_t n)
{
    static const char prefix[] = "diffusion_model.";
    const size_t m = sizeof prefix - 1;
    if (strncmp(key, prefix, m) != 0 || strlen(key) + sizeof ".weight" >= n) return LORA_NONE;
    snprintf(target, n, "%s", key + m);
    if (cut_end(target, "lora_down.weight")) {
        snprintf(up, n, "%s%slora_up.weight", prefix, target);
        put_end(target, n, "weight");
        return LORA_DOWN;
    }
    if (cut_end(target, "diff_b")) {
        put_end(target, n, "bias");
        return LORA_DIFF_B;
    }
    if (cut_end(target, "diff")) {
        put_end(target, n, "weight");
        return LORA_DIFF;
    }
    return LORA_NONE;
}
