// Loading the VAE; vae_stream.c runs it.
//
// The structure is read off the names: a layer with `.residual` is a residual block, with `.time_conv` it resamples in
// time and space, with `.resample` alone in space only. Encoder: downsamples, then the middle; decoder: the middle,
// then upsamples.
//
// The 1x1x1 convolutions at the latent end are linear, so the latent statistics are folded into them:
//   encode  z = (w m + b - mean) / std          decode  conv2(z std + mean) = (w std) z + (b + w mean)
// which also drops the log-variance half that nobody reads.
//
// Going up, a 3x3 convolution follows the nearest enlargement, whose neighbours are twins: an even line sees one line
// of the small picture once and its own twice, an odd one the other way round. So there are four kernels of 2x2, one
// for each parity of line and column, with the twins' weights added up here: less than half of the products.
#include "worker/models/vae.h"

#include "worker/models/load.h"
#include "worker/models/vae_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float published_mean[16] = {-0.7571f, -0.7089f, -0.9113f, 0.1075f,  -0.1745f, 0.9653f,
                                         -0.1517f, 1.5508f,  0.4134f,  -0.0715f, 0.5517f,  -0.3632f,
                                         -0.1922f, -0.9497f, 0.2503f,  -0.2921f};
static const float published_std[16] = {2.8184f, 1.4541f, 2.3275f, 2.6558f, 1.2196f, 1.7708f, 2.6052f, 2.0743f,
                                        3.2687f, 2.1526f, 2.8652f, 1.5579f, 1.6382f, 1.1253f, 2.8251f, 1.9160f};

// <prefix>.weight as a linear layer; it is stored with trailing axes of 1.
static void load_pointwise(struct load *l, tensor *w, tensor *b, int64_t n_out, int64_t n_in, const char *prefix)
{
    char name[160];
    tensor stored = NO_TENSOR, t = NO_TENSOR;
    snprintf(name, sizeof name, "%s.weight", prefix);
    if (l->rc == 0) l->rc = weights_get(l->w, name, &stored, l->e);
    if (l->rc == 0 && (tensor_count(stored) != n_out * n_in || stored.shape[0] != n_out))
        l->rc = err_set(l->e, E_INPUT, "%s: %s does not hold %lld x %lld values", weights_file(l->w, name), name,
                        (long long)n_out, (long long)n_in);
    if (l->rc == 0) l->rc = weights_load(l->w, l->arena, &t, l->dtype, name, stored.n, stored.shape, l->e);
    if (l->rc == 0) *w = op_pack(l->dev, l->arena, tensor_reshape(t, SHAPE(n_out, n_in)), PACK_LINEAR);
    *b = load_vector(l, n_out, "%s.bias", prefix);
}

static bool has(const struct load *l, const char *prefix, const char *suffix)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return weights_has(l->w, name);
}

static int64_t axis_of(struct load *l, const char *prefix, const char *suffix, int axis)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return load_axis(l, name, axis);
}

static void load_conv3(struct load *l, struct vae_conv *c, int64_t co, int64_t ci, const char *prefix)
{
    load_conv(l, &c->w, &c->b, (int64_t[]){co, ci, 3, 3, 3}, "%s", prefix);
}

static void load_res(struct load *l, struct vae_layer *y, const char *prefix)
{
    char name[128];
    y->kind = VAE_RES;
    y->co = axis_of(l, prefix, ".residual.2.weight", 0);
    y->ci = axis_of(l, prefix, ".residual.2.weight", 1);
    y->gamma0 = load_vector(l, y->ci, "%s.residual.0.gamma", prefix);
    y->gamma3 = load_vector(l, y->co, "%s.residual.3.gamma", prefix);
    snprintf(name, sizeof name, "%s.residual.2", prefix);
    load_conv3(l, &y->conv2, y->co, y->ci, name);
    snprintf(name, sizeof name, "%s.residual.6", prefix);
    load_conv3(l, &y->conv6, y->co, y->co, name);
    snprintf(name, sizeof name, "%s.shortcut", prefix);
    if (y->ci != y->co) load_pointwise(l, &y->short_w, &y->short_b, y->co, y->ci, name);
}

static void load_attention(struct load *l, struct vae_layer *y, const char *prefix)
{
    char name[128];
    y->kind = VAE_ATTN;
    y->ci = y->co = axis_of(l, prefix, ".norm.gamma", 0);
    y->gamma0 = load_vector(l, y->ci, "%s.norm.gamma", prefix);
    snprintf(name, sizeof name, "%s.to_qkv", prefix);
    load_pointwise(l, &y->qkv_w, &y->qkv_b, 3 * y->ci, y->ci, name);
    snprintf(name, sizeof name, "%s.proj", prefix);
    load_pointwise(l, &y->proj_w, &y->proj_b, y->ci, y->ci, name);
}

// The four kernels of an upsampler, of <name> [co, ci, 3, 3] as it is stored.
static void load_phases(struct load *l, struct vae_layer *y, const char *name)
{
    int64_t n = y->co * y->ci, mark = dev_arena_mark(l->arena);
    tensor stored = NO_TENSOR, t = NO_TENSOR;
    if (l->rc == 0) l->rc = weights_get(l->w, name, &stored, l->e);
    if (l->rc == 0 && tensor_count(stored) != 9 * n)
        l->rc = err_set(l->e, E_INPUT, "%s: %s is no kernel of 3 x 3", weights_file(l->w, name), name);
    if (l->rc == 0) l->rc = weights_load(l->w, l->arena, &t, DT_F32, name, stored.n, stored.shape, l->e);
    if (l->rc < 0) return;
    float *w = malloc((size_t)(9 * n) * sizeof *w), *p = malloc((size_t)(4 * n) * sizeof *p);
    BUG_IF(!w || !p, "no memory for the kernels of %s", name);
    dev_download(l->dev, w, DT_F32, t);
    dev_arena_reset(l->arena, mark);
    for (int k = 0; k < 4; k++) {
        int a = k / 2, b = k % 2;
        for (int64_t i = 0; i < n; i++) {
            double sum[2][2] = {{0}};
            for (int r = 0; r < 3; r++)
                for (int c = 0; c < 3; c++) sum[(r + 1 - a) / 2][(c + 1 - b) / 2] += (double)w[i * 9 + r * 3 + c];
            for (int j = 0; j < 4; j++) p[i * 4 + j] = (float)sum[j / 2][j % 2];
        }
        mark = dev_arena_mark(l->arena);
        tensor kernel = dev_tensor(l->arena, DT_F32, SHAPE(y->co, y->ci, 1, 2, 2));
        dev_upload(l->dev, kernel, p, DT_F32);
        y->phase[a][b] = op_pack_take(l->dev, l->arena, mark, kernel, PACK_CONV);
    }
    free(w);
    free(p);
}

static void load_resample(struct load *l, struct vae_layer *y, const char *prefix, bool down)
{
    bool in_time = has(l, prefix, ".time_conv.weight");
    y->kind = down ? (in_time ? VAE_DOWN3 : VAE_DOWN2) : in_time ? VAE_UP3 : VAE_UP2;
    y->co = axis_of(l, prefix, ".resample.1.weight", 0);
    y->ci = axis_of(l, prefix, ".resample.1.weight", 1);
    if (down) {
        load_conv(l, &y->space.w, &y->space.b, (int64_t[]){y->co, y->ci, 1, 3, 3}, "%s.resample.1", prefix);
    } else {
        char name[160];
        snprintf(name, sizeof name, "%s.resample.1.weight", prefix);
        load_phases(l, y, name);
        y->space.b = load_vector(l, y->co, "%s.resample.1.bias", prefix);
    }
    if (in_time)
        load_conv(l, &y->time.w, &y->time.b, (int64_t[]){down ? y->co : 2 * y->ci, down ? y->co : y->ci, 3, 1, 1},
                  "%s.time_conv", prefix);
}

// The layers <half>.<part>.0, .1, ... as far as they go.
static void load_layers(struct load *l, struct vae_half *h, const char *half, const char *part)
{
    for (int i = 0; l->rc == 0; i++) {
        char prefix[96];
        snprintf(prefix, sizeof prefix, "%s.%s.%d", half, part, i);
        bool res = has(l, prefix, ".residual.2.weight"), sample = has(l, prefix, ".resample.1.weight");
        if (!res && !sample && !has(l, prefix, ".to_qkv.weight")) return;
        if (h->n_layers == VAE_LAYERS_MAX) {
            l->rc = err_set(l->e, E_INPUT, "the VAE has more than %d layers", VAE_LAYERS_MAX);
            return;
        }
        struct vae_layer *y = &h->layer[h->n_layers++];
        snprintf(y->name, sizeof y->name, "%s.%d", part, i);
        if (res)
            load_res(l, y, prefix);
        else if (sample)
            load_resample(l, y, prefix, strcmp(part, "downsamples") == 0);
        else
            load_attention(l, y, prefix);
    }
}

static void load_half(struct load *l, struct vae_half *h, const char *half, const char *first, const char *second)
{
    char name[96];
    snprintf(name, sizeof name, "%s.conv1", half);
    h->c1 = axis_of(l, name, ".weight", 0);
    h->c_in = axis_of(l, name, ".weight", 1);
    load_conv3(l, &h->conv1, h->c1, h->c_in, name);
    load_layers(l, h, half, first);
    load_layers(l, h, half, second);
    snprintf(name, sizeof name, "%s.head.2", half);
    h->c_out = axis_of(l, name, ".weight", 0);
    h->c_head = axis_of(l, name, ".weight", 1);
    h->head_gamma = load_vector(l, h->c_head, "%s.head.0.gamma", half);
    load_conv3(l, &h->head, h->c_out, h->c_head, name);
    int64_t c = h->c1;
    for (int i = 0; i < h->n_layers && l->rc == 0; i++) {
        if (h->layer[i].ci != c)
            l->rc = err_set(l->e, E_INPUT, "%s.%s takes %lld channels but gets %lld", half, h->layer[i].name,
                            (long long)h->layer[i].ci, (long long)c);
        c = h->layer[i].co;
    }
    if (l->rc == 0 && c != h->c_head)
        l->rc = err_set(l->e, E_INPUT, "%s.head takes %lld channels but gets %lld", half, (long long)h->c_head,
                        (long long)c);
}

// <name> [n_out, n_in] and its bias on the host.
static void fetch(struct load *l, float *w, float *b, int64_t n_out, int64_t n_in, const char *name)
{
    int64_t mark = dev_arena_mark(l->arena);
    tensor tw = NO_TENSOR, tb;
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    if (l->rc == 0) l->rc = weights_load(l->w, l->arena, &tw, DT_F32, full, SHAPE(n_out, n_in, 1, 1, 1), l->e);
    tb = load_vector(l, n_out, "%s.bias", name);
    if (l->rc == 0) {
        dev_download(l->dev, w, DT_F32, tw);
        dev_download(l->dev, b, DT_F32, tb);
    }
    dev_arena_reset(l->arena, mark);
}

static tensor put(struct load *l, const float *v, int n, const int64_t *shape)
{
    tensor t = dev_tensor(l->arena, DT_F32, n, shape);
    dev_upload(l->dev, t, v, DT_F32);
    return t;
}

// Folds mean and deviation into the two pointwise convolutions at the latent end.
static void fold_statistics(struct load *l, struct vae *v, const float *mean, const float *std)
{
    int64_t z = v->z_dim;
    float *w = calloc((size_t)(4 * z * z), sizeof *w), *b = calloc((size_t)(2 * z), sizeof *b);
    BUG_IF(!w || !b, "no memory for latent statistics");
    fetch(l, w, b, 2 * z, 2 * z, "conv1");
    if (l->rc == 0) {
        for (int64_t o = 0; o < z; o++) {
            for (int64_t i = 0; i < 2 * z; i++) w[o * 2 * z + i] /= std[o];
            b[o] = (b[o] - mean[o]) / std[o];
        }
        v->to_z_w = put(l, w, SHAPE(z, 2 * z));
        v->to_z_b = put(l, b, SHAPE(z));
    }
    fetch(l, w, b, z, z, "conv2");
    if (l->rc == 0) {
        for (int64_t o = 0; o < z; o++) {
            double sum = (double)b[o];
            for (int64_t i = 0; i < z; i++) {
                sum += (double)w[o * z + i] * (double)mean[i];
                w[o * z + i] *= std[i];
            }
            b[o] = (float)sum;
        }
        v->from_z_w = put(l, w, SHAPE(z, z));
        v->from_z_b = put(l, b, SHAPE(z));
    }
    free(w);
    free(b);
}

int vae_new(struct vae **out, struct dev *d, const struct weights *w, const float *mean, const float *std,
            struct err *e)
{
    struct vae *v = calloc(1, sizeof *v);
    if (!v) return err_set(e, E_FATAL, "no memory for the VAE");
    v->dev = d;
    v->arena = dev_arena_new(d, "vae", load_capacity(w));
    struct load l = {.w = w, .dev = d, .arena = v->arena, .dtype = DT_F32, .e = e};
    v->z_dim = load_axis(&l, "conv2.weight", 0);
    if (l.rc == 0 && !mean && v->z_dim != 16)
        l.rc = err_set(e, E_INPUT, "a VAE of %lld latent channels needs its own mean and std", (long long)v->z_dim);
    load_half(&l, &v->encoder, "encoder", "downsamples", "middle");
    load_half(&l, &v->decoder, "decoder", "middle", "upsamples");
    if (l.rc == 0 && (v->encoder.c_out != 2 * v->z_dim || v->decoder.c_in != v->z_dim || v->decoder.c_out != 3))
        l.rc =
            err_set(e, E_INPUT, "the VAE's encoder gives %lld and its decoder takes %lld channels, for latents of %lld",
                    (long long)v->encoder.c_out, (long long)v->decoder.c_in, (long long)v->z_dim);
    if (l.rc == 0) fold_statistics(&l, v, mean ? mean : published_mean, std ? std : published_std);
    if (l.rc == 0) l.rc = dev_sync(d, e);
    if (l.rc < 0)
        vae_free(&v);
    else
        *out = v;
    return l.rc;
}

void vae_free(struct vae **pv)
{
    if (!*pv) return;
    dev_arena_free(&(*pv)->arena);
    free(*pv);
    *pv = NULL;
}

int vae_latent_channels(const struct vae *v) { return (int)v->z_dim; }
void vae_share(struct vae *v, struct comm *c) { v->comm = c; }
