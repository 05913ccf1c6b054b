// A model folder's declaration: the published model, then config.json, then model.yaml, each over the one before.
//
// Keys of model.yaml, all optional (published values in brackets):
//
//   name             [infinitetalk-14b]  for people
//   range            [people]  or drawn: what pictures it has learnt; with drawn, a photograph is answered by a notice
//   sizes            list of tables, the first is the default size [infinitetalk-480, infinitetalk-720]:
//                      - name: tiny
//                        shift: 7
//                        buckets: [[0.67, 32, 48], [1.00, 48, 48]]     key (height/width as printed), height, width
//                        teacache: [0, 0, 0, 1, 0]     the step cache's polynomial [that of the nearest published size]
//   frame-num        [81]     frames a segment, 4n+1
//   motion-frame     [9]      of them carried over, 4k+1
//   steps            [40]
//   fps              [25]
//   text-scale       [5]      guidance
//   audio-scale      [4]
//   color-strength   [1]
//   dit adapter adapter2 text clip vae       a file, or a folder of shards
//   tokenizer voice                          a folder
//   dit-heads [40]  dit-eps [1e-6]  text-heads [64]  text-len [512]  clip-heads [16]  clip-image [224]
//
// An underscore serves as a dash. Paths are relative to the folder. Parts that model.yaml does not name are looked for
// under their published names, in the folder itself or beside and below it as the published repositories are unpacked
// (Wan2.1-I2V-14B-480P, InfiniteTalk, chinese-wav2vec2-base). A DiT file that already holds the audio weights is named
// as adapter too.
#include "proto/model.h"

#include "proto/base/opt.h"
#include "proto/file.h"
#include "proto/yaml.h"

#include <dirent.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- published values

static const struct bucket_table published_sizes[] = {
    {"infinitetalk-480",
     15,
     {{0.26, 320, 1216},
      {0.38, 384, 1024},
      {0.50, 448, 896},
      {0.67, 512, 768},
      {0.82, 576, 704},
      {1.00, 640, 640},
      {1.22, 704, 576},
      {1.50, 768, 512},
      {1.86, 832, 448},
      {2.00, 896, 448},
      {2.50, 960, 384},
      {2.83, 1088, 384},
      {3.60, 1152, 320},
      {3.80, 1216, 320},
      {4.00, 1280, 320}},
     7,
     {2.57151496e+05, -3.54229917e+04, 1.40286849e+03, -1.35890334e+01, 1.32517977e-01}},
    {"infinitetalk-720",
     21,
     {{0.22, 448, 2048}, {0.29, 512, 1792}, {0.36, 576, 1600}, {0.45, 640, 1408}, {0.55, 704, 1280}, {0.63, 768, 1216},
      {0.76, 832, 1088}, {0.88, 896, 1024}, {1.00, 960, 960},  {1.14, 1024, 896}, {1.31, 1088, 832}, {1.50, 1152, 768},
      {1.58, 1216, 768}, {1.82, 1280, 704}, {1.91, 1344, 704}, {2.20, 1408, 640}, {2.30, 1472, 640}, {2.67, 1536, 576},
      {2.89, 1664, 576}, {3.62, 1856, 512}, {3.75, 1920, 512}},
     11,
     {8.10705460e+03, 2.13393892e+03, -3.72934672e+02, 1.66203073e+01, -4.17769401e-02}},
};

static double largest_area(const struct bucket_table *t)
{
    double most = 0;
    for (int i = 0; i < t->n; i++) most = fmax(most, (double)t->bucket[i].h * t->bucket[i].w);
    return most;
}

static void set_published(struct model *m)
{
    *m = (struct model){.name = "infinitetalk-14b",
                        .n_sizes = 2,
                        .size = {published_sizes[0], published_sizes[1]},
                        .frame_num = 81,
                        .motion_frame = 9,
                        .steps = 40,
                        .fps = 25,
                        .text_scale = 5,
                        .audio_scale = 4,
                        .color_strength = 1,
                        .dit_heads = 40,
                        .dit_eps = 1e-6,
                        .text_heads = 64,
                        .text_len = 512,
                        .clip_heads = 16,
                        .clip_image = 224};
}

// ---- model.yaml

static int take_path(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                     struct err *e)
{
    (void)a;
    struct model *m = base;
    char path[2 * MODEL_PATH_MAX];
    bool absolute = text[0] == '/';
    int n = snprintf(path, sizeof path, "%s%s%s", absolute ? "" : m->dir, absolute ? "" : "/", text);
    if (!text[0]) return err_set(e, E_INPUT, "%s wants a path", from);
    if (n >= MODEL_PATH_MAX)
        return err_set(e, E_INPUT, "%s: a path of %d bytes is longer than %d", from, n, MODEL_PATH_MAX - 1);
    memcpy((char *)base + o->offset, path, (size_t)n + 1);
    return 0;
}

static int take_name(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                     struct err *e)
{
    (void)a;
    (void)o;
    struct model *m = base;
    if (!text[0] || strlen(text) >= sizeof m->name)
        return err_set(e, E_INPUT, "%s wants 1 to %zu bytes", from, sizeof m->name - 1);
    snprintf(m->name, sizeof m->name, "%s", text);
    return 0;
}

static int take_no_text(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                        struct err *e)
{
    (void)base;
    (void)a;
    (void)o;
    (void)text;
    return err_set(e, E_INPUT, "%s wants a list of {name, shift, buckets}", from);
}

static const char *const ranges[] = {[MODEL_PEOPLE] = "people", [MODEL_DRAWN] = "drawn", NULL};

#define AT(field) offsetof(struct model, field)
static const struct opt keys[] = {
    {.key = "name", .type = OPT_CALL, .set = take_name},
    {.key = "range", .type = OPT_NAME, .offset = AT(range), .names = ranges},
    {.key = "sizes", .type = OPT_CALL, .set = take_no_text},
    {.key = "frame-num", .type = OPT_INT, .offset = AT(frame_num), .min = 5, .max = 161},
    {.key = "motion-frame", .type = OPT_INT, .offset = AT(motion_frame), .min = 1, .max = 157},
    {.key = "steps", .type = OPT_INT, .offset = AT(steps), .min = 1, .max = 1000},
    {.key = "fps", .type = OPT_INT, .offset = AT(fps), .min = 1, .max = 120},
    {.key = "text-scale", .type = OPT_REAL, .offset = AT(text_scale), .min = 0, .max = 100},
    {.key = "audio-scale", .type = OPT_REAL, .offset = AT(audio_scale), .min = 0, .max = 100},
    {.key = "color-strength", .type = OPT_REAL, .offset = AT(color_strength), .min = 0, .max = 1},
    {.key = "dit", .type = OPT_CALL, .offset = AT(dit), .set = take_path},
    {.key = "adapter", .type = OPT_CALL, .offset = AT(adapter), .set = take_path},
    {.key = "adapter2", .type = OPT_CALL, .offset = AT(adapter2), .set = take_path},
    {.key = "text", .type = OPT_CALL, .offset = AT(text), .set = take_path},
    {.key = "tokenizer", .type = OPT_CALL, .offset = AT(tokenizer), .set = take_path},
    {.key = "clip", .type = OPT_CALL, .offset = AT(clip), .set = take_path},
    {.key = "vae", .type = OPT_CALL, .offset = AT(vae), .set = take_path},
    {.key = "voice", .type = OPT_CALL, .offset = AT(voice), .set = take_path},
    {.key = "dit-heads", .type = OPT_INT, .offset = AT(dit_heads), .min = 1, .max = 1024},
    {.key = "dit-eps", .type = OPT_REAL, .offset = AT(dit_eps), .min = 1e-12, .max = 0.1},
    {.key = "text-heads", .type = OPT_INT, .offset = AT(text_heads), .min = 1, .max = 1024},
    {.key = "text-len", .type = OPT_INT, .offset = AT(text_len), .min = 1, .max = 65536},
    {.key = "clip-heads", .type = OPT_INT, .offset = AT(clip_heads), .min = 1, .max = 1024},
    {.key = "clip-image", .type = OPT_INT, .offset = AT(clip_image), .min = 1, .max = 4096},
    {.key = NULL},
};

static int take_bucket(struct bucket *b, const char *from, const json_t *j, struct err *e)
{
    bool ok = json_is_array(j) && json_array_size(j) == 3 && json_is_number(json_array_get(j, 0)) &&
              json_is_integer(json_array_get(j, 1)) && json_is_integer(json_array_get(j, 2));
    if (!ok) return err_set(e, E_INPUT, "%s: a bucket is not [key, height, width]", from);
    json_int_t h = json_integer_value(json_array_get(j, 1)), w = json_integer_value(json_array_get(j, 2));
    double key = json_number_value(json_array_get(j, 0));
    if (h < 16 || w < 16 || h > 8192 || w > 8192 || h % 16 || w % 16)
        return err_set(e, E_INPUT, "%s: the bucket %lld x %lld is not made of multiples of 16 up to 8192", from,
                       (long long)h, (long long)w);
    if (!(key > 0)) return err_set(e, E_INPUT, "%s: a bucket's key %g is not a ratio of height to width", from, key);
    *b = (struct bucket){key, (int)h, (int)w};
    return 0;
}

static int take_teacache(struct bucket_table *t, const char *from, const json_t *j, struct err *e)
{
    memcpy(t->teacache, model_teacache(t->name, largest_area(t)), sizeof t->teacache);
    if (!j) return 0;
    bool ok = json_array_size(j) == MODEL_POLY;
    for (size_t i = 0; ok && i < MODEL_POLY; i++) {
        ok = json_is_number(json_array_get(j, i));
        t->teacache[i] = json_number_value(json_array_get(j, i));
        ok = ok && fabs(t->teacache[i]) <= 1e9;
    }
    if (ok) return 0;
    return err_set(e, E_INPUT, "%s: teacache of the size %s wants %d numbers, the highest power first", from, t->name,
                   MODEL_POLY);
}

static int take_size(struct bucket_table *t, const char *from, const json_t *j, struct err *e)
{
    static const char *const known[] = {"name", "shift", "buckets", "teacache"};
    const char *key, *name = json_string_value(json_object_get(j, "name"));
    json_t *v;
    if (!json_is_object(j) || !name || !name[0] || strlen(name) >= sizeof t->name)
        return err_set(e, E_INPUT, "%s: a size wants a name of 1 to %zu bytes", from, sizeof t->name - 1);
    json_object_foreach((json_t *)j, key, v)
    {
        bool ok = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok |= strcmp(key, known[i]) == 0;
        if (!ok)
            return err_set(e, E_INPUT, "%s: the size %s has '%s'; it knows name, shift, buckets, teacache", from, name,
                           key);
    }
    const json_t *shift = json_object_get(j, "shift"), *list = json_object_get(j, "buckets");
    size_t n = json_array_size(list);
    if (n < 1 || n > MODEL_BUCKETS_MAX)
        return err_set(e, E_INPUT, "%s: the size %s wants 1 to %d buckets", from, name, MODEL_BUCKETS_MAX);
    *t = (struct bucket_table){.n = (int)n, .shift = shift ? json_number_value(shift) : 7};
    snprintf(t->name, sizeof t->name, "%s", name);
    if (!(t->shift > 0)) return err_set(e, E_INPUT, "%s: the shift of the size %s is not above 0", from, name);
    for (size_t i = 0; i < n; i++)
        if (take_bucket(&t->bucket[i], from, json_array_get(list, i), e) < 0) return E_INPUT;
    return take_teacache(t, from, json_object_get(j, "teacache"), e);
}

static int take_sizes(struct model *m, const char *from, const json_t *j, struct err *e)
{
    const size_t most = sizeof m->size / sizeof *m->size;
    size_t n = json_array_size(j);
    if (n < 1 || n > most) return err_set(e, E_INPUT, "%s wants a list of 1 to %zu sizes", from, most);
    for (size_t i = 0; i < n; i++) {
        if (take_size(&m->size[i], from, json_array_get(j, i), e) < 0) return E_INPUT;
        for (size_t k = 0; k < i; k++)
            if (strcmp(m->size[k].name, m->size[i].name) == 0)
                return err_set(e, E_INPUT, "%s: the size %s stands twice", from, m->size[i].name);
    }
    m->n_sizes = (int)n;
    return 0;
}

static int take_key(struct model *m, const char *path, const char *key, const json_t *v, struct err *e)
{
    char from[MODEL_PATH_MAX + 64], number[64];
    const char *text = number;
    snprintf(from, sizeof from, "%s: %s", path, key);
    const struct opt *o = opt_find(keys, key);
    if (!o) {
        int rc = opt_unknown(keys, "key", key, e);
        return e ? err_wrap(e, "%s", path) : rc;
    }
    if (strcmp(o->key, "sizes") == 0 && json_is_array(v)) return take_sizes(m, from, v, e);
    if (json_is_string(v))
        text = json_string_value(v);
    else if (json_is_integer(v))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        snprintf(number, sizeof number, "%.17g", json_real_value(v));
    else
        return err_set(e, E_INPUT, "%s wants one value", from);
    return opt_set(o, m, NULL, from, text, e);
}

static int check_frames(const struct model *m, const char *path, struct err *e)
{
    if (m->frame_num % 4 != 1 || m->motion_frame % 4 != 1)
        return err_set(e, E_INPUT, "%s: frame-num %d and motion-frame %d must each be a multiple of 4 and 1", path,
                       m->frame_num, m->motion_frame);
    if (m->motion_frame < m->frame_num) return 0;
    return err_set(e, E_INPUT, "%s: motion-frame %d leaves nothing new of frame-num %d", path, m->motion_frame,
                   m->frame_num);
}

static int read_yaml(struct model *m, struct err *e)
{
    char path[MODEL_PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/model.yaml", m->dir);
    if (access(path, F_OK) < 0) return 0;
    json_t *tree = NULL;
    int rc = yaml_read(&tree, path, e);
    if (rc == 0 && !json_is_object(tree) && !json_is_null(tree))
        rc = err_set(e, E_INPUT, "%s is not a list of keys and values", path);
    const char *key;
    json_t *v;
    json_object_foreach(tree, key, v)
    {
        if (rc == 0) rc = take_key(m, path, key, v, e);
    }
    json_decref(tree);
    if (rc == 0) rc = check_frames(m, path, e);
    return rc == E_INPUT ? file_way(path, e) : rc;
}

// ---- config.json of the base model: what no tensor's shape tells

static int take_config(struct model *m, const char *path, const json_t *j, struct err *e)
{
    const json_t *type = json_object_get(j, "model_type"), *heads = json_object_get(j, "num_heads"),
                 *eps = json_object_get(j, "eps"), *len = json_object_get(j, "text_len");
    if (!json_is_object(j)) return err_set(e, E_INPUT, "%s is not an object", path);
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "i2v") != 0))
        return err_set(e, E_INPUT, "%s: model_type is %s; an image-to-video model (\"i2v\") is needed", path,
                       json_is_string(type) ? json_string_value(type) : "no text");
    struct {
        const json_t *j;
        const char *name;
        int *field;
    } whole[] = {{heads, "num_heads", &m->dit_heads}, {len, "text_len", &m->text_len}};
    for (size_t i = 0; i < 2; i++) {
        if (!whole[i].j) continue;
        json_int_t v = json_integer_value(whole[i].j);
        if (v < 1 || v > 65536) return err_set(e, E_INPUT, "%s: %s is not between 1 and 65536", path, whole[i].name);
        *whole[i].field = (int)v;
    }
    if (eps) m->dit_eps = json_number_value(eps);
    if (!(m->dit_eps > 0 && m->dit_eps < 0.1)) return err_set(e, E_INPUT, "%s: eps is not between 0 and 0.1", path);
    return 0;
}

static int read_config(struct model *m, const char *root, struct err *e)
{
    char path[MODEL_PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/config.json", root);
    if (access(path, F_OK) < 0) return 0;
    json_t *j = NULL;
    int rc = json_read(&j, path, e);
    if (rc == 0) rc = take_config(m, path, j, e);
    json_decref(j);
    return rc == E_INPUT ? err_way(e, "copy or fetch it again") : rc;
}

// ---- parts under their published names

static bool exists(const char *path) { return access(path, F_OK) == 0; }

// Takes the first of `names` (NULL-terminated) that exists under `root`, unless the part is known already.
static void find_part(char part[MODEL_PATH_MAX], const char *root, const char *const *names)
{
    char path[2 * MODEL_PATH_MAX];
    for (; !part[0] && *names; names++) {
        int n = snprintf(path, sizeof path, "%s/%s", root, *names);
        if (n < MODEL_PATH_MAX && exists(path)) memcpy(part, path, (size_t)n + 1);
    }
}

#define NAMES(...)                                                                                                     \
    (const char *const[]) { __VA_ARGS__, NULL }

static bool has_shards(const char *root)
{
    DIR *dir = opendir(root);
    bool found = false;
    if (!dir) return false;
    for (struct dirent *d; !found && (d = readdir(dir));)
        found = strncmp(d->d_name, "diffusion_pytorch_model-0", 25) == 0;
    closedir(dir);
    return found;
}

static void find_base(struct model *m, const char *root)
{
    find_part(m->dit, root,
              NAMES("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors"));
    if (!m->dit[0] && has_shards(root)) snprintf(m->dit, sizeof m->dit, "%s", root);
    find_part(m->dit, root, NAMES("transformer/diffusion_pytorch_model.safetensors.index.json"));
    find_part(m->text, root,
              NAMES("models_t5_umt5-xxl-enc-bf16.pth", "models_t5_umt5-xxl-enc-bf16.safetensors",
                    "umt5_xxl_fp16.safetensors"));
    find_part(m->tokenizer, root, NAMES("google/umt5-xxl", "tokenizer"));
    find_part(m->clip, root,
              NAMES("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
                    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors", "clip_vision_h.safetensors"));
    find_part(m->vae, root, NAMES("Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors", "wan_2.1_vae.safetensors"));
}

static void find_voice(struct model *m, const char *root)
{
    find_part(m->adapter, root,
              NAMES("InfiniteTalk/single/infinitetalk.safetensors", "single/infinitetalk.safetensors",
                    "infinitetalk.safetensors"));
    find_part(m->adapter2, root,
              NAMES("InfiniteTalk/multi/infinitetalk.safetensors", "multi/infinitetalk.safetensors"));
    find_part(m->voice, root, NAMES("chinese-wav2vec2-base", "wav2vec2"));
}

// The folder's absolute path; symbolic links stay, so that messages name what the user wrote.
static int set_dir(struct model *m, const char *dir, struct err *e)
{
    struct stat st;
    char here[MODEL_PATH_MAX] = "";
    if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, E_INPUT, "there is no model folder %s; give --model FOLDER", dir);
    if (dir[0] != '/' && !getcwd(here, sizeof here)) here[0] = 0;
    int n = snprintf(m->dir, sizeof m->dir, "%s%s%s", here, here[0] ? "/" : "", dir);
    if (n < MODEL_PATH_MAX / 2) return 0;
    return err_set(e, E_INPUT, "the model folder's path has %d bytes; at most %d are allowed", n,
                   MODEL_PATH_MAX / 2 - 1);
}

int model_open(struct model *m, const char *dir, struct err *e)
{
    static const char *const below[] = {"", "/Wan2.1-I2V-14B-480P", "/Wan2.1-I2V-14B-720P"};
    char root[MODEL_PATH_MAX + 64];
    set_published(m);
    int rc = set_dir(m, dir, e);
    for (int i = 2; i >= 0 && rc == 0; i--) { // the folder's own file speaks last
        snprintf(root, sizeof root, "%s%s", m->dir, below[i]);
        rc = read_config(m, root, e);
    }
    if (rc == 0) rc = read_yaml(m, e);
    if (rc < 0) return rc;
    bool alone = m->adapter[0] && !m->adapter2[0]; // a declared adapter serves both unless adapter2 is declared too
    for (int i = 0; i < 3; i++) {
        snprintf(root, sizeof root, "%s%s", m->dir, below[i]);
        find_base(m, root);
    }
    snprintf(root, sizeof root, "%s/..", m->dir);
    find_voice(m, m->dir);
    find_voice(m, root);
    if (alone) m->adapter2[0] = 0;
    return 0;
}

int model_missing(const struct model *m, struct err *e)
{
    const struct {
        const char *key, *path, *published;
    } part[] = {
        {"dit", m->dit, "diffusion_pytorch_model.safetensors.index.json and its shards"},
        {"adapter", m->adapter, "InfiniteTalk/single/infinitetalk.safetensors"},
        {"text", m->text, "models_t5_umt5-xxl-enc-bf16.pth"},
        {"tokenizer", m->tokenizer, "google/umt5-xxl"},
        {"clip", m->clip, "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"},
        {"vae", m->vae, "Wan2.1_VAE.pth"},
        {"voice", m->voice, "chinese-wav2vec2-base"},
    };
    char list[900] = "";
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        if (part[i].path[0] && exists(part[i].path)) continue;
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s (%s)", n ? ", " : "", part[i].key,
                 part[i].path[0] ? part[i].path : part[i].published);
    }
    if (m->adapter2[0] && !exists(m->adapter2)) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%sadapter2 (%s)", n ? ", " : "", m->adapter2);
    }
    if (!list[0]) return 0;
    return err_set(e, E_INPUT, "the model folder %s lacks %s; fetch them or name them in model.yaml", m->dir, list);
}

// ---- sizes

const double *model_teacache(const char *name, double area)
{
    const size_t n = sizeof published_sizes / sizeof *published_sizes;
    const struct bucket_table *nearest = &published_sizes[0];
    for (size_t i = 0; i < n; i++) {
        const struct bucket_table *t = &published_sizes[i];
        if (strcmp(t->name, name) == 0) return t->teacache;
        if (fabs(log(area / largest_area(t))) < fabs(log(area / largest_area(nearest)))) nearest = t;
    }
    return nearest->teacache;
}

int model_size(const struct model *m, const char *size, const struct bucket_table **out, struct err *e)
{
    char list[256] = "";
    for (int i = 0; i < m->n_sizes; i++) {
        if (strcmp(m->size[i].name, size) == 0) {
            *out = &m->size[i];
            return 0;
        }
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", m->size[i].name);
    }
    return err_set(e, E_INPUT, "the model has no size '%s'; it has %s", size, list);
}

const struct bucket *model_bucket(const struct bucket_table *t, int src_h, int src_w)
{
    double ratio = (double)src_h / src_w;
    const struct bucket *best = &t->bucket[0];
    for (int i = 1; i < t->n; i++)
        if (fabs(t->bucket[i].key - ratio) < fabs(best->key - ratio)) best = &t->bucket[i];
    return best;
}
