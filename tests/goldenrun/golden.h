// The golden runner: reads every golden file of a folder, runs our code on the inputs, compares key by key.
//
// A case file handles one kind of golden file and lists itself in golden_kinds (main.c). A kind is recognised by its
// file name's stem prefix (dit_, vae_encode, pipe_, ...); sizes come from the file's metadata and tensor shapes only.
// Each case is run once per table ("ref", "cpu").
#ifndef TESTS_GOLDENRUN_GOLDEN_H
#define TESTS_GOLDENRUN_GOLDEN_H

#include "kernels/ops.h"
#include "kernels/tap.h"
#include "proto/json.h"
#include "worker/weights/weights.h"

struct golden {
    const char *dir;         // folder of the set
    const char *stem;        // "dit_single"
    const char *table;       // "ref" or "cpu"
    struct dev *dev;         // open on that table
    struct dev_arena *arena; // scratch, reset after each case
    struct weights *file;    // the golden file itself
    bool *used;              // per key of the file: fetched or compared
    int n_passed, n_failed;
};

// Bounds of the README's float32 advice.
#define GOLDEN_MODULE     2e-5 // one module or forward pass; of the largest absolute value
#define GOLDEN_LOOP       5e-4 // latents and predictions inside a clip loop
#define GOLDEN_INPUT      1e-5 // y, cond_image, audio windows, time steps
#define GOLDEN_DECODED    5e-4
#define GOLDEN_COLOR_MAX  5e-3
#define GOLDEN_COLOR_MEAN 2e-4
#define GOLDEN_EXACT      0.0

// The tensor `key` of the golden file as contiguous F32 host memory in the arena (BUG-free: a missing key counts as a
// failure and returns NO_TENSOR).
tensor golden_get(struct golden *g, const char *key);
bool golden_has(const struct golden *g, const char *key);
// Opens weights_<name>.safetensors of the set; the caller frees. `config` (optional) receives its metadata "config".
struct weights *golden_weights(struct golden *g, const char *name, json_t **config);
// Metadata of the golden file, parsed; NULL when absent.
json_t *golden_meta(struct golden *g, const char *key);

// Compares our tensor (device, any strides, any float dtype) with key `key`: largest absolute difference over the
// largest absolute reference value; prints "PASS|FAIL table stem key error bound"; counts. Shapes must agree up to axes
// of 1.
void golden_check(struct golden *g, const char *key, tensor ours, double bound);
// The same with the mean absolute difference bounded too (colour-matched pictures).
void golden_check_color(struct golden *g, const char *key, tensor ours);
// The same against a part of a reference tensor, or one derived from it, called `what`.
void golden_check_part(struct golden *g, const char *what, tensor ref, tensor ours, double bound);
// Fails for every key of the file that was neither fetched nor compared: a case that means to know its file ends with
// it.
void golden_check_all_used(struct golden *g);
// For values that are no tensors.
void golden_expect(struct golden *g, const char *what, bool ok, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

// A tap that golden_checks every value whose name (with `prefix` before it) is a key of the file.
struct golden_tap {
    struct golden *g;
    const char *prefix;
    double bound;
};
struct tap golden_tap_of(struct golden_tap *t);

typedef void golden_fn(struct golden *g);
golden_fn golden_dit, golden_dit_teacache, golden_audio_proj, golden_vae_encode, golden_vae_decode, golden_t5,
    golden_clip, golden_wav2vec2, golden_apg, golden_colors, golden_tables, golden_resize, golden_lora, golden_pipe;

#endif
