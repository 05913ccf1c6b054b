// Laying a case out, running it, comparing: a branch an op, in the order of ops.h.
#include "kernels/trial.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- laying out

static double uniform(struct trial *b) // -1..1
{
    b->seed += 0x9e3779b97f4a7c15u;
    uint64_t z = b->seed;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
}

static void put(tensor t, int64_t i, double v)
{
    switch (t.dtype) {
    case DT_F32:
        ((float *)t.data)[i] = (float)v;
        break;
    case DT_BF16:
        ((uint16_t *)t.data)[i] = f32_to_bf16((float)v);
        break;
    case DT_F16:
        ((uint16_t *)t.data)[i] = f32_to_f16((float)v);
        break;
    case DT_F64:
        ((double *)t.data)[i] = v;
        break;
    case DT_I32:
        ((int32_t *)t.data)[i] = (int32_t)(v * 1000);
        break;
    case DT_I8:
        ((int8_t *)t.data)[i] = (int8_t)(v * 127);
        break;
    case DT_F8_E4M3:
        ((uint8_t *)t.data)[i] = f32_to_f8_e4m3((float)v * 100);
        break;
    default:
        ((uint8_t *)t.data)[i] = (uint8_t)(v * 100 + 100);
    }
}

tensor trial_tensor(struct trial *b, enum dtype t, double reach, int n, const int64_t *shape)
{
    tensor x = tensor_of(b->block + b->used, t, n, shape);
    b->used += ((size_t)tensor_bytes(x) + 63) / 64 * 64 + 64;
    BUG_IF(b->used > b->size || b->n_runs == TRIAL_RUNS, "a trial larger than its block");
    b->run[b->n_runs].at = (size_t)((char *)x.data - b->block);
    b->run[b->n_runs++].bytes = (size_t)tensor_bytes(x);
    for (int64_t i = 0; i < tensor_count(x); i++) put(x, i, uniform(b) * reach);
    return x;
}

// Rows: with gaps when the case wants strides.
static tensor rows(struct trial *b, const struct op_case *c, enum dtype t, double reach, int n, const int64_t *shape)
{
    if (!(c->how & HOW_STRIDED)) return trial_tensor(b, t, reach, n, shape);
    int64_t wide[TENSOR_DIMS];
    memcpy(wide, shape, sizeof *wide * (size_t)n);
    int64_t before = c->how & HOW_EVEN ? 8 : 3;
    wide[n - 1] += before + (c->how & HOW_EVEN ? 8 : 2);
    return tensor_slice(trial_tensor(b, t, reach, n, wide), n - 1, before, before + shape[n - 1]);
}

// [b, n, h, d]; strided: heads before rows, as a slice of something larger.
static tensor heads(struct trial *b, const struct op_case *c, double reach, const int64_t s[4])
{
    if (!(c->how & HOW_STRIDED)) return trial_tensor(b, c->t, reach, 4, s);
    tensor t = trial_tensor(b, c->t, reach, SHAPE(s[0], s[2], s[1] + 1, s[3] + (c->how & HOW_EVEN ? 8 : 3)));
    t = tensor_permute(tensor_slice(tensor_slice(t, 2, 1, s[1] + 1), 3, 0, s[3]), (int[]){0, 2, 1, 3});
    return t;
}

static void give(struct trial *b, bool out, tensor t)
{
    b->set.t[b->set.n++] = t;
    if (out) b->set.n_out = b->set.n;
}

static tensor vector_if(struct trial *b, bool wanted, double reach, int64_t n)
{
    return wanted ? trial_tensor(b, DT_F32, reach, SHAPE(n)) : NO_TENSOR;
}

static enum dtype weight_type(const struct op_case *c) { return c->wt ? c->wt : c->t; }

static bool is(const struct op_case *c, const char *op) { return strcmp(c->op, op) == 0; }

// Output length of a conv axis, with the padding of the row's kind.
static int64_t conv_axis(const struct op_case *c, int i, int pad[2])
{
    int64_t k = c->s[5 + i], kind = c->s[11], stride = c->s[8 + i];
    pad[0] = kind == 0 || kind == 3 ? 0 : kind == 2 && i == 0 ? (int)k - 1 : (int)k / 2;
    pad[1] = kind == 0 || (kind == 2 && i == 0) ? 0 : kind == 3 ? (k > 1) : (int)(k - 1) / 2;
    return (c->s[i] + pad[0] + pad[1] - k) / stride + 1;
}

void trial_lay(struct trial *b, const struct op_case *c)
{
    const int64_t *s = c->s;
    bool affine = c->how & HOW_BIAS, mod = c->how & HOW_MODULATED;
    if (is(c, "linear")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[0], s[1])));
        give(b, false, rows(b, c, c->t, 1, SHAPE(s[0], s[2])));
        give(b, false, trial_tensor(b, weight_type(c), 1, SHAPE(s[1], s[2])));
        give(b, false, vector_if(b, affine, 2, s[1]));
    } else if (is(c, "linear_scaled")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[0], s[1])));
        tensor x = rows(b, c, c->t, 1, SHAPE(s[0], s[2]));
        if (s[0] > 1 && s[2] > 0)
            memset(trial_element(x, s[2]), 0, (size_t)(s[2] * dtype_size(c->t))); // a row of zeros
        give(b, false, x);
        give(b, false, trial_tensor(b, weight_type(c), 1, SHAPE(s[1], s[2])));
        give(b, false, trial_tensor(b, DT_F32, 0.1, SHAPE(s[1])));
        give(b, false, vector_if(b, affine, 2, s[1]));
    } else if (is(c, "attention") || is(c, "attention_more")) {
        bool more = is(c, "attention_more");
        give(b, true, heads(b, c, 1, (int64_t[]){s[0], s[1], s[2], s[5]}));
        if (more) {
            give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[0], s[1], s[2], s[5])));
            give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[0], s[1], s[2], 2)));
        }
        double reach = c->how & HOW_MILD ? 0.5 : 3;
        give(b, false, heads(b, c, reach, (int64_t[]){s[0], s[1], s[2], s[4]}));
        give(b, false, heads(b, c, reach, (int64_t[]){s[0], s[3], s[2], s[4]}));
        give(b, false, heads(b, c, 1, (int64_t[]){s[0], s[3], s[2], s[5]}));
        if (more) return;
        tensor bias = affine ? trial_tensor(b, DT_F32, 2, SHAPE(s[2], s[1], s[3])) : NO_TENSOR;
        for (int64_t i = 0; affine && (c->how & HOW_MASKED) && i < tensor_count(bias); i++)
            if (i % s[3] < 600) ((float *)bias.data)[i] = -INFINITY;
        give(b, false, bias);
    } else if (is(c, "attention_map")) {
        give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[4], s[0])));
        give(b, false, rows(b, c, c->t, 3, SHAPE(s[0], s[1], s[2])));
        give(b, false, rows(b, c, c->t, 3, SHAPE(s[3], s[1], s[2])));
        tensor mask = trial_tensor(b, DT_F32, 1, SHAPE(s[4], s[3]));
        // Classes by turns; of three, the published row's last is empty.
        for (int64_t i = 0; i < tensor_count(mask); i++)
            ((float *)mask.data)[i] = (float)(i % s[3] % (s[4] == 3 ? 2 : 3) == i / s[3]);
        give(b, false, mask);
    } else if (is(c, "norm") || is(c, "add_norm")) {
        bool add = is(c, "add_norm");
        tensor x = rows(b, c, c->t, 3, SHAPE(s[0], s[1]));
        bool same = c->how & HOW_INPLACE;
        give(b, true, same ? x : rows(b, c, c->how & HOW_WIDE ? DT_F32 : c->t, 1, SHAPE(s[0], s[1])));
        give(b, add, x);
        give(b, false, add ? rows(b, c, c->t, 1, SHAPE(s[0], s[1])) : NO_TENSOR);
        give(b, false, vector_if(b, c->how & HOW_GATE, 2, s[1]));
        give(b, false, vector_if(b, affine, 2, s[1]));
        give(b, false, vector_if(b, affine, 1, s[1]));
        give(b, false, vector_if(b, mod, 1, s[1]));
        give(b, false, vector_if(b, mod, 1, s[1]));
    } else if (is(c, "gate_add")) {
        give(b, true, rows(b, c, c->t, 3, SHAPE(s[0], s[1])));
        give(b, false, rows(b, c, c->t, 3, SHAPE(s[0], s[1])));
        give(b, false, vector_if(b, c->how & HOW_GATE, 2, s[1]));
    } else if (is(c, "rms_norm") || is(c, "l2_norm")) {
        tensor x = rows(b, c, c->t, 3, SHAPE(s[0], s[1]));
        give(b, true, c->how & HOW_INPLACE ? x : rows(b, c, c->t, 3, SHAPE(s[0], s[1])));
        give(b, false, x);
        give(b, false, trial_tensor(b, DT_F32, 2, SHAPE(s[1])));
    } else if (is(c, "col_sums")) {
        give(b, true, trial_tensor(b, DT_F64, 2, SHAPE(2, s[1])));
        give(b, false, rows(b, c, c->t, 3, SHAPE(s[0], s[1])));
    } else if (is(c, "col_norm")) {
        tensor x = rows(b, c, c->t, 3, SHAPE(s[0], s[1]));
        give(b, true, c->how & HOW_INPLACE ? x : rows(b, c, c->t, 3, SHAPE(s[0], s[1])));
        give(b, false, x);
        for (int i = 0; i < 4; i++) give(b, false, trial_tensor(b, DT_F32, 1, SHAPE(s[1])));
    } else if (is(c, "rope_grid")) {
        give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[4], s[5] / 2, 2)));
    } else if (is(c, "rope_line")) {
        give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[0], s[1] / 2, 2)));
        give(b, false, trial_tensor(b, DT_F32, 30, SHAPE(s[0])));
    } else if (is(c, "rope")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[0], s[1], s[2], s[3])));
        give(b, false, trial_tensor(b, DT_F32, 1, SHAPE(s[1], s[3] / 2, 2)));
    } else if (is(c, "qk_norm_rope")) {
        for (int i = 0; i < 2; i++)
            give(b, true, tensor_split(rows(b, c, c->t, 3, SHAPE(s[0], s[1] * s[2])), 1, s[1], s[2]));
        for (int i = 0; i < 2; i++) give(b, false, trial_tensor(b, DT_F32, 2, SHAPE(s[1] * s[2])));
        give(b, false, trial_tensor(b, DT_F32, 1, SHAPE(s[0], s[2] / 2, 2)));
    } else if (is(c, "row_range")) {
        give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[0], 2)));
        give(b, false, rows(b, c, DT_F32, 1, SHAPE(s[0], s[1])));
    } else if (is(c, "class_pos")) {
        give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[1])));
        give(b, false, trial_tensor(b, DT_F32, 1, SHAPE(s[0], s[1])));
        tensor lohi = trial_tensor(b, DT_F32, 1, SHAPE(s[0], 2));
        for (int i = 0; i < 6; i++) ((float *)lohi.data)[i] = i % 2 ? 1 : -1;
        give(b, false, lohi);
    } else if (is(c, "conv")) {
        int pad[2];
        int64_t o[3];
        for (int i = 0; i < 3; i++) o[i] = conv_axis(c, i, pad);
        give(b, true, trial_tensor(b, c->t, 1, SHAPE(o[0], o[1], o[2], s[4])));
        give(b, false, trial_tensor(b, c->t, 1, SHAPE(s[0], s[1], s[2], s[3])));
        give(b, false, trial_tensor(b, weight_type(c), 1, SHAPE(s[4], s[3] / s[12], s[5], s[6], s[7])));
        give(b, false, vector_if(b, affine, 2, s[4]));
    } else if (is(c, "upsample2")) {
        give(b, true, trial_tensor(b, c->t, 1, SHAPE(s[0], 2 * s[1], 2 * s[2], s[3])));
        give(b, false, trial_tensor(b, c->t, 1, SHAPE(s[0], s[1], s[2], s[3])));
    } else if (is(c, "copy") || is(c, "fill")) {
        tensor y = rows(b, c, weight_type(c), 1, SHAPE(s[0], s[1], s[2]));
        give(b, true, y);
        if (c->how & HOW_STRIDED)
            give(b, false, tensor_permute(trial_tensor(b, c->t, 1, SHAPE(s[2], s[0], s[1])), (int[]){1, 2, 0}));
        else
            give(b, false, trial_tensor(b, c->t, 1, SHAPE(s[0], s[1], s[2])));
    } else if (is(c, "embed")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[0], s[1])));
        give(b, false, trial_tensor(b, weight_type(c), 1, SHAPE(s[2], s[1])));
        tensor ids = trial_tensor(b, DT_I32, 1, SHAPE(s[0]));
        for (int64_t i = 0; i < s[0]; i++) ((int32_t *)ids.data)[i] = (int32_t)(i * 5 % s[2]);
        give(b, false, ids);
    } else if (is(c, "lerp_rows")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[1], s[2])));
        give(b, false, rows(b, c, c->t, 1, SHAPE(s[0], s[2])));
    } else if (is(c, "act") || is(c, "mul") || is(c, "axpby") || is(c, "project_out")) {
        tensor x = trial_tensor(b, c->t, 4, SHAPE(s[0]));
        give(b, true, c->how & HOW_INPLACE ? x : trial_tensor(b, c->t, 1, SHAPE(s[0])));
        give(b, false, x);
        give(b, false, trial_tensor(b, c->t, 2, SHAPE(s[0])));
    } else if (is(c, "mean_change")) {
        give(b, true, trial_tensor(b, DT_F64, 1, SHAPE(2)));
        for (int i = 0; i < 2; i++) give(b, false, trial_tensor(b, DT_F32, 1, SHAPE(s[0])));
    } else if (is(c, "resize_cubic")) {
        give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[2], s[3], s[4])));
        give(b, false, trial_tensor(b, DT_F32, 1, SHAPE(s[0], s[1], s[4])));
    } else if (is(c, "lab_stats")) {
        give(b, true, trial_tensor(b, DT_F64, 1, SHAPE(s[0], 3, 2)));
        give(b, false, trial_tensor(b, DT_F32, 1.2, SHAPE(s[0], s[1], s[2], 3)));
    } else if (is(c, "lab_match")) {
        give(b, true, trial_tensor(b, DT_F32, 1, SHAPE(s[0], s[1], s[2], 3)));
        give(b, false, trial_tensor(b, DT_F32, 1.2, SHAPE(s[0], s[1], s[2], 3)));
        for (int i = 0; i < 2; i++) {
            tensor stats = trial_tensor(b, DT_F64, 1, SHAPE(i ? 1 : s[0], 3, 2));
            for (int64_t k = 0; k < tensor_count(stats); k++) ((double *)stats.data)[k] = 10 + (double)(k + i);
            give(b, false, stats);
        }
    } else if (is(c, "yuv420")) {
        give(b, true, trial_tensor(b, DT_U8, 1, SHAPE(s[0], s[1] * s[2] * 3 / 2)));
        give(b, false, trial_tensor(b, DT_F32, 1.2, SHAPE(s[0], s[1], s[2], 3)));
    } else
        BUG("no layout for op_%s", c->op);
}

// ---- what an op must do at least

double trial_work(const struct op_case *c)
{
    const int64_t *s = c->s;
    if (is(c, "linear") || is(c, "linear_scaled")) return 2.0 * (double)(s[0] * s[1] * s[2]);
    if (strncmp(c->op, "attention", 9) == 0 && !is(c, "attention_map"))
        return 2.0 * (double)(s[0] * s[1] * s[2] * s[3] * (s[4] + s[5]));
    if (is(c, "attention_map")) return 2.0 * (double)(s[0] * s[1] * s[2] * s[3]);
    if (is(c, "conv")) // causal and same padding, stride 1: as many positions as the input has
        return 2.0 * (double)(s[0] * s[1] * s[2] * s[3] * s[4] * s[5] * s[6] * s[7]);
    return 0;
}

double trial_bytes(const struct op_case *c, const struct trial_set *set)
{
    double n = 0;
    for (int k = 0; k < set->n; k++)
        n += (double)tensor_bytes(set->t[k]) * (k < set->n_out && trial_reads(c, k) ? 2 : 1);
    return n;
}

// ---- running

static void run_more(struct dev *d, const tensor *t)
{
    int64_t n = t[4].shape[1], cut[4] = {0, n / 3, n / 3 + 1, n};
    for (int i = 0; i < 3; i++)
        op_attention_more(d, t[1], t[2], t[3], tensor_slice(t[4], 1, cut[i], cut[i + 1]),
                          tensor_slice(t[5], 1, cut[i], cut[i + 1]), (struct attn){0}, i == 0);
    op_attention_done(d, t[0], t[1], t[2]);
}

void trial_run(struct dev *d, struct dev_arena *a, const struct op_case *c, struct trial_set *set)
{
    tensor *t = set->t;
    const int64_t *s = c->s;
    struct norm n = {.eps = 1e-6f, .wide = c->how & HOW_WIDE};
    enum pack_use use = is(c, "conv") ? PACK_CONV : PACK_LINEAR;
    if (c->how & HOW_PACKED) t[2] = op_pack(d, a, t[2], use);
    if ((c->how & HOW_TAKEN) && a) {
        int64_t mark = dev_arena_mark(a);
        tensor own = dev_tensor(a, t[2].dtype, t[2].n, t[2].shape);
        op_copy(d, own, t[2]);
        t[2] = op_pack_take(d, a, mark, own, use);
    }
    if (is(c, "linear"))
        op_linear(d, t[0], t[1], t[2], t[3], c->act);
    else if (is(c, "linear_scaled"))
        op_linear_scaled(d, t[0], t[1], t[2], t[3], t[4], c->act);
    else if (is(c, "attention"))
        op_attention(d, t[0], t[1], t[2], t[3], (struct attn){.bias = t[4], .scale = c->how & HOW_BIAS ? 0.5f : 0});
    else if (is(c, "attention_more"))
        run_more(d, t);
    else if (is(c, "attention_map"))
        op_attention_map(d, t[0], t[1], t[2], t[3], c->how & HOW_PUBLISHED);
    else if (is(c, "norm") || is(c, "add_norm")) {
        n.gain = t[4], n.bias = t[5], n.shift = t[6], n.scale = t[7];
        if (is(c, "norm"))
            op_norm(d, t[0], t[1], n);
        else
            op_add_norm(d, t[0], t[1], t[2], t[3], n);
    } else if (is(c, "gate_add"))
        op_gate_add(d, t[0], t[1], t[2]);
    else if (is(c, "rms_norm"))
        op_rms_norm(d, t[0], t[1], t[2], 1e-6f);
    else if (is(c, "l2_norm"))
        op_l2_norm(d, t[0], t[1], t[2], c->act);
    else if (is(c, "col_sums"))
        op_col_sums(d, t[0], t[1]);
    else if (is(c, "col_norm"))
        op_col_norm(d, t[0], t[1], t[2], t[3], t[4], t[5], c->act);
    else if (is(c, "rope_grid"))
        op_rope_grid(d, t[0], s[3], s[0], s[1], s[2]);
    else if (is(c, "rope_line"))
        op_rope_line(d, t[0], t[1]);
    else if (is(c, "rope"))
        op_rope(d, t[0], t[1]);
    else if (is(c, "qk_norm_rope"))
        op_qk_norm_rope(d, t[0], t[1], t[2], t[3], 1e-6f, t[4]);
    else if (is(c, "row_range"))
        op_row_range(d, t[0], t[1]);
    else if (is(c, "class_pos"))
        op_class_pos(d, t[0], t[1], t[2], c->t == DT_BF16);
    else if (is(c, "conv")) {
        struct conv v = {.groups = (int)s[12]};
        for (int i = 0; i < 3; i++) {
            conv_axis(c, i, v.pad[i]);
            v.stride[i] = (int)s[8 + i];
        }
        op_conv(d, t[0], t[1], t[2], t[3], v, c->act);
    } else if (is(c, "upsample2"))
        op_upsample2(d, t[0], t[1]);
    else if (is(c, "copy"))
        op_copy(d, t[0], t[1]);
    else if (is(c, "fill"))
        op_fill(d, t[0], 1.3f);
    else if (is(c, "embed"))
        op_embed(d, t[0], t[1], t[2]);
    else if (is(c, "lerp_rows"))
        op_lerp_rows(d, t[0], t[1], -0.3, 0.47);
    else if (is(c, "act"))
        op_act(d, t[0], t[1], c->act);
    else if (is(c, "mul"))
        op_mul(d, t[0], t[1], t[2]);
    else if (is(c, "axpby"))
        op_axpby(d, t[0], 1.7f, t[1], -0.6f, t[2]);
    else if (is(c, "project_out"))
        op_project_out(d, t[0], t[1], t[2], c->how & HOW_GATE ? 3 : 0);
    else if (is(c, "mean_change"))
        op_mean_change(d, t[0], t[1], t[2]);
    else if (is(c, "resize_cubic"))
        op_resize_cubic(d, t[0], t[1]);
    else if (is(c, "lab_stats"))
        op_lab_stats(d, t[0], t[1]);
    else if (is(c, "lab_match"))
        op_lab_match(d, t[0], t[1], t[2], t[3], 0.8f);
    else if (is(c, "yuv420"))
        op_yuv420(d, t[0], t[1]);
}

// ---- comparing

void *trial_element(tensor t, int64_t i)
{
    int64_t at = 0;
    for (int k = t.n - 1; k >= 0; k--) {
        at += i % t.shape[k] * t.stride[k];
        i /= t.shape[k];
    }
    return (char *)t.data + at * dtype_size(t.dtype);
}

static double value(tensor t, int64_t i)
{
    const void *p = trial_element(t, i);
    switch (t.dtype) {
    case DT_F32:
        return (double)*(const float *)p;
    case DT_BF16:
        return (double)bf16_to_f32(*(const uint16_t *)p);
    case DT_F16:
        return (double)f16_to_f32(*(const uint16_t *)p);
    case DT_F64:
        return *(const double *)p;
    default:
        return *(const uint8_t *)p;
    }
}

double trial_error(tensor got, tensor want)
{
    double worst = 0, size = 0;
    for (int64_t i = 0; i < tensor_count(want); i++) {
        double g = value(got, i), w = value(want, i);
        if (isnan(g) && isnan(w)) continue;
        if (fabs(w) > size) size = fabs(w);
        if (!(fabs(g - w) <= worst)) worst = isnan(g - w) ? (double)INFINITY : fabs(g - w);
    }
    return worst / (size > 0 ? size : 1);
}

const char *trial_text(const struct op_case *c, char *text, size_t n)
{
    size_t at = (size_t)snprintf(text, n, "%s %s/%s how %u act %d {", c->op, dtype_table[c->t].name,
                                 dtype_table[weight_type(c)].name, c->how, (int)c->act);
    for (int i = 0; i < 13 && at < n; i++) at += (size_t)snprintf(text + at, n - at, i ? ", %d" : "%d", (int)c->s[i]);
    if (at < n) snprintf(text + at, n - at, "}");
    return text;
}

double trial_bound(const struct op_case *c)
{
    if (c->bound > 0) return c->bound;
    bool half = c->t == DT_BF16 || (c->wt == DT_BF16 && is(c, "copy"));
    return half ? 1e-2 : 1e-5;
}

bool trial_reads(const struct op_case *c, int k)
{
    return (c->how & HOW_INPLACE) || is(c, "rope") || is(c, "qk_norm_rope") || is(c, "col_sums") || is(c, "gate_add") ||
           (is(c, "add_norm") && k == 1);
}

// Ops that round only where the contract puts it: in BF16 nearly all of their results are the reference's own.
static bool rounds_alike(const struct op_case *c)
{
    static const char *const ops[] = {"norm", "add_norm", "gate_add", "rms_norm",     "l2_norm", "col_norm",
                                      "rope", "act",      "mul",      "qk_norm_rope", "axpby",   "lerp_rows"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (is(c, ops[i])) return c->t == DT_BF16 && !(c->how & HOW_WIDE);
    return false;
}

double trial_unlike(const struct op_case *c, tensor got, tensor want)
{
    int64_t n = tensor_count(want), unlike = 0;
    for (int64_t i = 0; i < n; i++) unlike += value(got, i) != value(want, i);
    return n < 200 || !rounds_alike(c) ? 0 : (double)unlike / (double)n;
}
