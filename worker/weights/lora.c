// LoRA, merged once at load.
//
// First the keys are sorted by the tensor that each changes (struct change), which finds everything that does not fit
// before anything is written; then each changed tensor is made row by row:
//
//   right      W' = round(W + scale (alpha/rank up down + diff))
//   published  W' = round(round(W) + round(scale round(up down)))     no alpha; the last of a pair and a diff counts
//
// with `round` to the model's dtype, once per tensor in the right way, at every step in the published one. `alpha` is a
// tensor beside the pair; in files without any it may stand in the metadata (kohya: ss_network_alpha; peft:
// adapter_config.json, which may ask for the root of the rank).
//
// A change of the patch embedding made for text-to-video has 16 input channels where this model takes more: it is
// passed over with a warning, as everybody does; everything else that does not fit is refused by name.
#include "worker/weights/lora.h"

#include "proto/base/log.h"
#include "proto/json.h"
#include "worker/weights/lora_key.h"
#include "worker/weights/names.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_MAX = 4200 };

// All that one file does to one tensor. Keys name what is there; NULL: it is not.
struct change {
    const char *target, *down, *up, *alpha, *diff;
    tensor w;
};

struct merge {
    struct weights *w, *file;
    struct names *names;
    const char *path;
    bool published;
    struct arena host;
    struct change *change;
    int64_t n, capacity;
    enum dtype dtype;
    double ratio; // of pairs without an alpha of their own
    int n_ignored, n_alphas;
};

// ---- sorting keys

static struct change *change_of(struct merge *m, const char *target)
{
    for (int64_t i = m->n; i-- > 0;) // keys of a module stand together
        if (strcmp(m->change[i].target, target) == 0) return &m->change[i];
    if (m->n == m->capacity) {
        m->capacity = m->capacity ? 2 * m->capacity : 256;
        m->change = realloc(m->change, (size_t)m->capacity * sizeof *m->change);
        BUG_IF(!m->change, "no memory for %lld changes", (long long)m->capacity);
    }
    m->change[m->n] = (struct change){.target = arena_strdup(&m->host, target)};
    return &m->change[m->n++];
}

static int put_once(const struct merge *m, const char **slot, const char *key, struct err *e)
{
    if (*slot) return err_set(e, E_INPUT, "%s: '%s' and '%s' say the same thing twice", m->path, *slot, key);
    *slot = key;
    return 0;
}

// The tensor that a change of `module` by `role` means, or NULL.
static const char *target_of(const struct merge *m, const char *module, enum lora_role role, char *buf, size_t n)
{
    const char *ours = names_find(m->names, module);
    if (!ours) return NULL;
    bool table = role != LORA_DIFF_B && weights_has(m->w, ours); // a modulation table is a tensor by itself
    snprintf(buf, n, "%s%s", ours, table ? "" : role == LORA_DIFF_B ? ".bias" : ".weight");
    return weights_has(m->w, buf) ? buf : NULL;
}

static int take_key(struct merge *m, const char *key, struct err *e)
{
    char module[KEY_MAX], target[KEY_MAX + 16];
    enum lora_role role = lora_key_split(key, module, sizeof module);
    if (role == LORA_FOREIGN)
        return err_set(e, E_INPUT, "%s is no LoRA but %s (%s), which cannot be merged here; convert it to a LoRA first",
                       m->path, lora_key_method(key), key);
    if (role == LORA_NONE) {
        log_debug("lora.ignored", "file=%s key=%s", m->path, key);
        m->n_ignored++;
        return 0;
    }
    if (!target_of(m, module, role, target, sizeof target))
        return err_set(e, E_INPUT,
                       "%s: '%s' changes '%s', which the model does not have; is this LoRA made for Wan2.1 14B?",
                       m->path, key, module);
    struct change *c = change_of(m, target);
    switch (role) {
    case LORA_DOWN:
        return put_once(m, &c->down, key, e);
    case LORA_UP:
        return put_once(m, &c->up, key, e);
    case LORA_ALPHA:
        m->n_alphas++;
        return put_once(m, &c->alpha, key, e);
    default:
        return put_once(m, &c->diff, key, e);
    }
}

static int take_key_published(struct merge *m, const char *key, struct err *e)
{
    char target[KEY_MAX], up[KEY_MAX];
    enum lora_role role = lora_key_published(key, target, up, sizeof target);
    if (role == LORA_NONE || (role == LORA_DOWN && !weights_has(m->file, up))) {
        m->n_ignored++;
        return 0;
    }
    if (!weights_has(m->w, target))
        return err_set(e, E_INPUT, "%s: '%s' changes '%s', which the model does not have", m->path, key, target);
    struct change *c = change_of(m, target);
    bool pair = role == LORA_DOWN;
    c->down = pair ? key : NULL;
    c->up = pair ? arena_strdup(&m->host, up) : NULL;
    c->diff = pair ? NULL : key;
    return 0;
}

static bool is_up_of_a_pair(const struct merge *m, const char *key)
{
    char down[KEY_MAX];
    const char *at = strstr(key, "lora_up.weight");
    if (!at || at[14] || strlen(key) + 8 >= sizeof down) return false;
    snprintf(down, sizeof down, "%.*slora_down.weight", (int)(at - key), key);
    return weights_has(m->file, down);
}

static int take_keys(struct merge *m, struct err *e)
{
    int rc = 0;
    bool whole = weights_has(m->file, "blocks.0.self_attn.q.weight");
    if (whole) return err_set(e, E_INPUT, "%s is a whole model, not a LoRA", m->path);
    for (int64_t i = 0; i < weights_count(m->file) && rc == 0; i++) {
        const char *key = weights_name(m->file, i);
        if (!m->published)
            rc = take_key(m, key, e);
        else if (strncmp(key, "diffusion_model.", 16) != 0 || !is_up_of_a_pair(m, key))
            rc = take_key_published(m, key, e);
    }
    return rc;
}

// ---- alpha of a whole file

static int read_config(struct merge *m, struct err *e)
{
    static const char name[] = "adapter_model.safetensors";
    char path[KEY_MAX];
    size_t n = strlen(m->path), k = sizeof name - 1;
    if (n < k || strcmp(m->path + n - k, name) != 0 || n + 8 >= sizeof path) return 0;
    snprintf(path, sizeof path, "%.*sadapter_config.json", (int)(n - k), m->path);
    if (access(path, F_OK) < 0) return 0;
    json_t *j = NULL;
    int rc = json_read(&j, path, e);
    double alpha = json_number_value(json_object_get(j, "lora_alpha")),
           rank = json_number_value(json_object_get(j, "r"));
    if (rc == 0 && alpha > 0 && rank > 0)
        m->ratio = alpha / (json_is_true(json_object_get(j, "use_rslora")) ? sqrt(rank) : rank);
    json_decref(j);
    return rc;
}

static int find_ratio(struct merge *m, struct err *e)
{
    const char *alpha = weights_meta(m->file, "ss_network_alpha"), *rank = weights_meta(m->file, "ss_network_dim");
    m->ratio = 1;
    if (m->published || m->n_alphas > 0) return 0;
    if (alpha && rank) {
        double ratio = strtod(alpha, NULL) / strtod(rank, NULL);
        if (isfinite(ratio) && ratio > 0) m->ratio = ratio;
    }
    return read_config(m, e);
}

// ---- shapes

static bool is_float(tensor t)
{
    return t.dtype == DT_F32 || t.dtype == DT_BF16 || t.dtype == DT_F16 || t.dtype == DT_F64;
}

static int misfit(const struct merge *m, const struct change *c, const char *key, tensor t, struct err *e)
{
    char have[96], want[96];
    return err_set(e, E_INPUT, "%s: '%s' %s does not fit '%s' %s", m->path, key, tensor_text(t, have, sizeof have),
                   c->target, tensor_text(c->w, want, sizeof want));
}

static int64_t row_of(tensor t) { return t.n > 0 && t.shape[0] > 0 ? tensor_count(t) / t.shape[0] : 1; }

// For fewer input channels than the model's, as in what is made for text-to-video.
static bool is_for_other_patches(const struct change *c, const char *key, tensor t)
{
    bool patch = strcmp(c->target, "patch_embedding.weight") == 0 && t.n > 1 && c->w.n > 1;
    if (!patch || t.shape[1] >= c->w.shape[1]) return false;
    log_warn("lora.passed_over", "key=%s channels=%lld model=%lld", key, (long long)t.shape[1],
             (long long)c->w.shape[1]);
    return true;
}

static int check_pair(struct merge *m, struct change *c, struct err *e)
{
    tensor down = NO_TENSOR, up = NO_TENSOR;
    if (!c->down || !c->up)
        return err_set(e, E_INPUT, "%s: '%s' has no other half", m->path, c->down ? c->down : c->up);
    int rc = weights_get(m->file, c->down, &down, e);
    if (rc == 0) rc = weights_get(m->file, c->up, &up, e);
    if (rc < 0) return rc;
    if (is_for_other_patches(c, c->down, down)) {
        c->down = c->up = NULL;
        return 0;
    }
    if (down.n < 2 || up.n < 2 || row_of(up) != down.shape[0] || down.shape[0] == 0)
        return err_set(e, E_INPUT, "%s: '%s' and '%s' have different ranks", m->path, c->down, c->up);
    if (row_of(down) != row_of(c->w)) return misfit(m, c, c->down, down, e);
    if (up.shape[0] != c->w.shape[0]) return misfit(m, c, c->up, up, e);
    return 0;
}

static int check_change(struct merge *m, struct change *c, struct err *e)
{
    tensor diff = NO_TENSOR;
    int rc = weights_get(m->w, c->target, &c->w, e);
    if (rc == 0 && !is_float(c->w))
        rc = err_set(e, E_INPUT, "%s changes '%s', which is stored as %s; a LoRA is merged into floats only", m->path,
                     c->target, dtype_table[c->w.dtype].name);
    if (rc == 0 && (c->down || c->up)) rc = check_pair(m, c, e);
    if (rc < 0 || !c->diff) return rc;
    rc = weights_get(m->file, c->diff, &diff, e);
    if (rc < 0) return rc;
    if (is_for_other_patches(c, c->diff, diff)) {
        c->diff = NULL;
        return 0;
    }
    if (!tensor_same_shape(tensor_squeeze(diff), tensor_squeeze(c->w))) return misfit(m, c, c->diff, diff, e);
    return 0;
}

// ---- values

// Where element i of a tensor lies.
static int64_t place_of(tensor t, int64_t i)
{
    int64_t at = 0;
    for (int k = t.n - 1; k >= 0; k--) {
        at += i % t.shape[k] * t.stride[k];
        i /= t.shape[k];
    }
    return at;
}

static float value_at(tensor t, int64_t at)
{
    switch (t.dtype) {
    case DT_F32:
        return ((const float *)t.data)[at];
    case DT_BF16:
        return bf16_to_f32(((const uint16_t *)t.data)[at]);
    case DT_F16:
        return f16_to_f32(((const uint16_t *)t.data)[at]);
    case DT_F64:
        return (float)((const double *)t.data)[at];
    default:
        return NAN;
    }
}

static float round_to(enum dtype t, float v)
{
    return t == DT_BF16 ? bf16_to_f32(f32_to_bf16(v)) : t == DT_F16 ? f16_to_f32(f32_to_f16(v)) : v;
}

// The values of a tensor of the file; each must be a number.
static int fetch(const struct merge *m, const char *key, float **out, struct err *e)
{
    tensor t = NO_TENSOR;
    *out = NULL;
    if (!key) return 0;
    int rc = weights_get(m->file, key, &t, e);
    if (rc < 0) return rc;
    if (!is_float(t))
        return err_set(e, E_INPUT, "%s: '%s' is stored as %s; a LoRA is made of floats", m->path, key,
                       dtype_table[t.dtype].name);
    int64_t n = tensor_count(t);
    *out = calloc((size_t)n + 1, sizeof **out);
    if (!*out) return err_set(e, E_FATAL, "no memory for %s of %s", key, m->path);
    for (int64_t i = 0; i < n && rc == 0; i++) {
        (*out)[i] = value_at(t, place_of(t, i));
        if (!isfinite((*out)[i])) rc = err_set(e, E_INPUT, "%s: '%s' holds a value that is no number", m->path, key);
        if (m->published) (*out)[i] = round_to(m->dtype, (*out)[i]);
    }
    return rc;
}

static int read_ratio(const struct merge *m, const struct change *c, int64_t rank, float *ratio, struct err *e)
{
    float *alpha = NULL;
    *ratio = (float)m->ratio;
    if (!c->alpha || !c->down) return 0;
    tensor t = NO_TENSOR;
    int rc = weights_get(m->file, c->alpha, &t, e);
    if (rc == 0 && tensor_count(t) != 1) rc = err_set(e, E_INPUT, "%s: '%s' is not one number", m->path, c->alpha);
    if (rc == 0) rc = fetch(m, c->alpha, &alpha, e);
    if (rc == 0 && alpha[0] != 0) *ratio = alpha[0] / (float)rank;
    free(alpha);
    return rc;
}

struct sum {
    const struct change *c;
    const float *down, *up, *diff;
    int64_t rank, row;
    float scale, ratio;
    enum dtype dtype;
    bool published, plain; // plain: the tensor lies as its shape says
};

// Row o of the merged tensor.
static void merge_row(const struct sum *s, int64_t o, float *acc, void *out)
{
    int64_t n = s->row;
    enum dtype t = s->dtype;
    memset(acc, 0, (size_t)n * sizeof *acc);
    for (int64_t k = 0; k < s->rank; k++) {
        float u = s->up[o * s->rank + k];
        const float *d = s->down + k * n;
        for (int64_t i = 0; i < n; i++) acc[i] += u * d[i];
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t k = o * n + i;
        float w = value_at(s->c->w, s->plain ? k : place_of(s->c->w, k)), v;
        if (s->published) {
            float delta = round_to(t, s->diff ? s->diff[k] : acc[i]);
            v = round_to(t, w) + round_to(t, s->scale * delta);
        } else
            v = w + s->scale * (s->ratio * acc[i] + (s->diff ? s->diff[k] : 0));
        if (t == DT_F32)
            ((float *)out)[i] = v;
        else
            ((uint16_t *)out)[i] = t == DT_BF16 ? f32_to_bf16(v) : f32_to_f16(v);
    }
}

static void merge_rows(const struct sum *s, tensor out)
{
    int64_t rows = tensor_count(out) / s->row, bytes = s->row * dtype_size(out.dtype);
#pragma omp parallel
    {
        float *acc = malloc((size_t)s->row * sizeof *acc);
        BUG_IF(!acc, "no memory for a row of %lld values", (long long)s->row);
#pragma omp for
        for (int64_t o = 0; o < rows; o++) merge_row(s, o, acc, (char *)out.data + o * bytes);
        free(acc);
    }
}

static int apply(struct merge *m, const struct change *c, double scale, struct arena *a, struct err *e)
{
    float *down = NULL, *up = NULL, *diff = NULL;
    tensor first = NO_TENSOR;
    if (c->down) weights_get(m->file, c->down, &first, NULL);
    struct sum s = {.c = c,
                    .rank = c->down ? first.shape[0] : 0,
                    .row = row_of(c->w),
                    .scale = (float)scale,
                    .published = m->published,
                    .plain = tensor_is_contiguous(c->w),
                    .dtype = m->dtype};
    int rc = fetch(m, c->down, &down, e);
    if (rc == 0) rc = fetch(m, c->up, &up, e);
    if (rc == 0) rc = fetch(m, c->diff, &diff, e);
    if (rc == 0) rc = read_ratio(m, c, s.rank, &s.ratio, e);
    if (rc == 0) {
        tensor out = tensor_of(NULL, s.dtype, c->w.n, c->w.shape);
        out.data = arena_alloc(a, (size_t)tensor_bytes(out));
        s.down = down;
        s.up = up;
        s.diff = diff;
        merge_rows(&s, out);
        weights_put(m->w, c->target, out);
    }
    free(down);
    free(up);
    free(diff);
    return rc;
}

// ---- the file

static bool changes(const struct change *c) { return c->down || c->diff; }

static int merge_all(struct merge *m, struct arena *a, double scale, struct lora_report *r, struct err *e)
{
    int rc = take_keys(m, e);
    if (rc == 0) rc = find_ratio(m, e);
    for (int64_t i = 0; i < m->n && rc == 0; i++) {
        rc = check_change(m, &m->change[i], e);
        r->n_applied += changes(&m->change[i]);
    }
    r->n_ignored = m->n_ignored;
    if (rc == 0 && r->n_applied == 0)
        rc = err_set(e, E_INPUT, "%s changes nothing: none of its %lld keys is one of a LoRA %s", m->path,
                     (long long)weights_count(m->file),
                     m->published ? "as the published program reads it (diffusion_model. with lora_down and lora_up)"
                                  : "for this model");
    for (int64_t i = 0; i < m->n && rc == 0; i++)
        if (changes(&m->change[i])) rc = apply(m, &m->change[i], scale, a, e);
    if (rc == 0)
        log_info("lora.merged", "file=%s tensors=%d ignored=%d scale=%g", m->path, r->n_applied, r->n_ignored, scale);
    return rc;
}

int lora_merge(struct weights *w, struct arena *a, const char *path, double scale, enum dtype t, bool published,
               struct lora_report *r, struct err *e)
{
    struct merge m = {.w = w, .path = path, .dtype = t, .published = published};
    *r = (struct lora_report){0};
    int rc = weights_open(&m.file, path, e);
    if (rc == 0) {
        m.names = names_new(w);
        rc = merge_all(&m, a, scale, r, e);
        if (rc == E_INPUT && e && !strpbrk(e->text, ";?")) {
            size_t n = strlen(e->text);
            snprintf(e->text + n, sizeof e->text - n, "; choose another LoRA, or fetch it again");
        }
    }
    names_free(&m.names);
    weights_free(&m.file);
    arena_free(&m.host);
    free(m.change);
    return rc;
}
