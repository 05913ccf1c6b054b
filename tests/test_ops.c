// Every row of op_cases.h on the fast table against the reference, and the contracts that stand above all tables.
//
// A case lays its tensors in one block of memory; the block is doubled, the reference works on the first and the table
// under test on the second. Outputs must agree within the bound, and every other byte (inputs, gaps between rows, what
// lies beside) must be the same in both: a write out of bounds or into an input shows.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/table.h"
#include "tests/op_cases.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { T_MAX = 8, BLOCK = 48 << 20, SEED = 20240607 };

// The tensors of a case; the first n_out are written.
struct set {
    tensor t[T_MAX];
    int n, n_out;
};

struct bench {
    char *block;
    size_t used;
    uint64_t seed;
    struct set set;
};

// ---- laying out

static double uniform(struct bench *b) // -1..1
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
    default:
        ((uint8_t *)t.data)[i] = (uint8_t)(v * 100 + 100);
    }
}

// A contiguous tensor of random values around 0 with the given reach.
static tensor lay(struct bench *b, enum dtype t, double reach, int n, const int64_t *shape)
{
    tensor x = tensor_of(b->block + b->used, t, n, shape);
    b->used += ((size_t)tensor_bytes(x) + 63) / 64 * 64 + 64;
    assert_true(b->used <= BLOCK);
    for (int64_t i = 0; i < tensor_count(x); i++) put(x, i, uniform(b) * reach);
    return x;
}

// Rows: with gaps when the case wants strides.
static tensor rows(struct bench *b, const struct op_case *c, enum dtype t, double reach, int n, const int64_t *shape)
{
    if (!(c->how & HOW_STRIDED)) return lay(b, t, reach, n, shape);
    int64_t wide[TENSOR_DIMS];
    memcpy(wide, shape, sizeof *wide * (size_t)n);
    wide[n - 1] += 5;
    return tensor_slice(lay(b, t, reach, n, wide), n - 1, 3, 3 + shape[n - 1]);
}

// [b, n, h, d]; strided: heads before rows, as a slice of something larger.
static tensor heads(struct bench *b, const struct op_case *c, double reach, const int64_t s[4])
{
    if (!(c->how & HOW_STRIDED)) return lay(b, c->t, reach, 4, s);
    tensor t = lay(b, c->t, reach, SHAPE(s[0], s[2], s[1] + 1, s[3] + 3));
    t = tensor_permute(tensor_slice(tensor_slice(t, 2, 1, s[1] + 1), 3, 0, s[3]), (int[]){0, 2, 1, 3});
    return t;
}

static void give(struct bench *b, bool out, tensor t)
{
    b->set.t[b->set.n++] = t;
    if (out) b->set.n_out = b->set.n;
}

static tensor vector_if(struct bench *b, bool wanted, double reach, int64_t n)
{
    return wanted ? lay(b, DT_F32, reach, SHAPE(n)) : NO_TENSOR;
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

static void lay_case(struct bench *b, const struct op_case *c)
{
    const int64_t *s = c->s;
    bool affine = c->how & HOW_BIAS, mod = c->how & HOW_MODULATED;
    if (is(c, "linear")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[0], s[1])));
        give(b, false, rows(b, c, c->t, 1, SHAPE(s[0], s[2])));
        give(b, false, lay(b, weight_type(c), 1, SHAPE(s[1], s[2])));
        give(b, false, vector_if(b, affine, 2, s[1]));
    } else if (is(c, "attention") || is(c, "attention_more")) {
        bool more = is(c, "attention_more");
        give(b, true, heads(b, c, 1, (int64_t[]){s[0], s[1], s[2], s[5]}));
        if (more) {
            give(b, true, lay(b, DT_F32, 1, SHAPE(s[0], s[1], s[2], s[5])));
            give(b, true, lay(b, DT_F32, 1, SHAPE(s[0], s[1], s[2], 2)));
        }
        give(b, false, heads(b, c, 3, (int64_t[]){s[0], s[1], s[2], s[4]}));
        give(b, false, heads(b, c, 3, (int64_t[]){s[0], s[3], s[2], s[4]}));
        give(b, false, heads(b, c, 1, (int64_t[]){s[0], s[3], s[2], s[5]}));
        if (more) return;
        tensor bias = affine ? lay(b, DT_F32, 2, SHAPE(s[2], s[1], s[3])) : NO_TENSOR;
        for (int64_t i = 0; (c->how & HOW_MASKED) && i < tensor_count(bias); i++)
            if (i % s[3] < 600) ((float *)bias.data)[i] = -INFINITY;
        give(b, false, bias);
    } else if (is(c, "attention_map")) {
        give(b, true, lay(b, DT_F32, 1, SHAPE(s[4], s[0])));
        give(b, false, rows(b, c, c->t, 3, SHAPE(s[0], s[1], s[2])));
        give(b, false, rows(b, c, c->t, 3, SHAPE(s[3], s[1], s[2])));
        tensor mask = lay(b, DT_F32, 1, SHAPE(s[4], s[3]));
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
        give(b, false, lay(b, DT_F32, 2, SHAPE(s[1])));
    } else if (is(c, "col_sums")) {
        give(b, true, lay(b, DT_F64, 2, SHAPE(2, s[1])));
        give(b, false, rows(b, c, c->t, 3, SHAPE(s[0], s[1])));
    } else if (is(c, "col_norm")) {
        tensor x = rows(b, c, c->t, 3, SHAPE(s[0], s[1]));
        give(b, true, c->how & HOW_INPLACE ? x : rows(b, c, c->t, 3, SHAPE(s[0], s[1])));
        give(b, false, x);
        for (int i = 0; i < 4; i++) give(b, false, lay(b, DT_F32, 1, SHAPE(s[1])));
    } else if (is(c, "rope_grid")) {
        give(b, true, lay(b, DT_F32, 1, SHAPE(s[4], s[5] / 2, 2)));
    } else if (is(c, "rope_line")) {
        give(b, true, lay(b, DT_F32, 1, SHAPE(s[0], s[1] / 2, 2)));
        give(b, false, lay(b, DT_F32, 30, SHAPE(s[0])));
    } else if (is(c, "rope")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[0], s[1], s[2], s[3])));
        give(b, false, lay(b, DT_F32, 1, SHAPE(s[1], s[3] / 2, 2)));
    } else if (is(c, "qk_norm_rope")) {
        for (int i = 0; i < 2; i++)
            give(b, true, tensor_split(rows(b, c, c->t, 3, SHAPE(s[0], s[1] * s[2])), 1, s[1], s[2]));
        for (int i = 0; i < 2; i++) give(b, false, lay(b, DT_F32, 2, SHAPE(s[1] * s[2])));
        give(b, false, lay(b, DT_F32, 1, SHAPE(s[0], s[2] / 2, 2)));
    } else if (is(c, "row_range")) {
        give(b, true, lay(b, DT_F32, 1, SHAPE(s[0], 2)));
        give(b, false, rows(b, c, DT_F32, 1, SHAPE(s[0], s[1])));
    } else if (is(c, "class_pos")) {
        give(b, true, lay(b, DT_F32, 1, SHAPE(s[1])));
        give(b, false, lay(b, DT_F32, 1, SHAPE(s[0], s[1])));
        tensor lohi = lay(b, DT_F32, 1, SHAPE(s[0], 2));
        for (int i = 0; i < 6; i++) ((float *)lohi.data)[i] = i % 2 ? 1 : -1;
        give(b, false, lohi);
    } else if (is(c, "conv")) {
        int pad[2];
        int64_t o[3];
        for (int i = 0; i < 3; i++) o[i] = conv_axis(c, i, pad);
        give(b, true, lay(b, c->t, 1, SHAPE(o[0], o[1], o[2], s[4])));
        give(b, false, lay(b, c->t, 1, SHAPE(s[0], s[1], s[2], s[3])));
        give(b, false, lay(b, weight_type(c), 1, SHAPE(s[4], s[3] / s[12], s[5], s[6], s[7])));
        give(b, false, vector_if(b, affine, 2, s[4]));
    } else if (is(c, "upsample2")) {
        give(b, true, lay(b, c->t, 1, SHAPE(s[0], 2 * s[1], 2 * s[2], s[3])));
        give(b, false, lay(b, c->t, 1, SHAPE(s[0], s[1], s[2], s[3])));
    } else if (is(c, "copy") || is(c, "fill")) {
        tensor y = rows(b, c, weight_type(c), 1, SHAPE(s[0], s[1], s[2]));
        give(b, true, y);
        if (c->how & HOW_STRIDED)
            give(b, false, tensor_permute(lay(b, c->t, 1, SHAPE(s[2], s[0], s[1])), (int[]){1, 2, 0}));
        else
            give(b, false, lay(b, c->t, 1, SHAPE(s[0], s[1], s[2])));
    } else if (is(c, "embed")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[0], s[1])));
        give(b, false, lay(b, weight_type(c), 1, SHAPE(s[2], s[1])));
        tensor ids = lay(b, DT_I32, 1, SHAPE(s[0]));
        for (int64_t i = 0; i < s[0]; i++) ((int32_t *)ids.data)[i] = (int32_t)(i * 5 % s[2]);
        give(b, false, ids);
    } else if (is(c, "lerp_rows")) {
        give(b, true, rows(b, c, c->t, 1, SHAPE(s[1], s[2])));
        give(b, false, rows(b, c, c->t, 1, SHAPE(s[0], s[2])));
    } else if (is(c, "act") || is(c, "mul") || is(c, "axpby") || is(c, "project_out")) {
        tensor x = lay(b, c->t, 4, SHAPE(s[0]));
        give(b, true, c->how & HOW_INPLACE ? x : lay(b, c->t, 1, SHAPE(s[0])));
        give(b, false, x);
        give(b, false, lay(b, c->t, 2, SHAPE(s[0])));
    } else if (is(c, "mean_change")) {
        give(b, true, lay(b, DT_F64, 1, SHAPE(2)));
        for (int i = 0; i < 2; i++) give(b, false, lay(b, DT_F32, 1, SHAPE(s[0])));
    } else if (is(c, "resize_cubic")) {
        give(b, true, lay(b, DT_F32, 1, SHAPE(s[2], s[3], s[4])));
        give(b, false, lay(b, DT_F32, 1, SHAPE(s[0], s[1], s[4])));
    } else if (is(c, "lab_stats")) {
        give(b, true, lay(b, DT_F64, 1, SHAPE(s[0], 3, 2)));
        give(b, false, lay(b, DT_F32, 1.2, SHAPE(s[0], s[1], s[2], 3)));
    } else if (is(c, "lab_match")) {
        give(b, true, lay(b, DT_F32, 1, SHAPE(s[0], s[1], s[2], 3)));
        give(b, false, lay(b, DT_F32, 1.2, SHAPE(s[0], s[1], s[2], 3)));
        for (int i = 0; i < 2; i++) {
            tensor stats = lay(b, DT_F64, 1, SHAPE(i ? 1 : s[0], 3, 2));
            for (int64_t k = 0; k < tensor_count(stats); k++) ((double *)stats.data)[k] = 10 + (double)(k + i);
            give(b, false, stats);
        }
    } else if (is(c, "yuv420")) {
        give(b, true, lay(b, DT_U8, 1, SHAPE(s[0], s[1] * s[2] * 3 / 2)));
        give(b, false, lay(b, DT_F32, 1.2, SHAPE(s[0], s[1], s[2], 3)));
    } else
        fail_msg("no layout for %s", c->op);
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

static void run_case(struct dev *d, struct dev_arena *a, const struct op_case *c, struct set *set)
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

static double value(tensor t, int64_t i)
{
    int64_t at = 0;
    for (int k = t.n - 1; k >= 0; k--) {
        at += i % t.shape[k] * t.stride[k];
        i /= t.shape[k];
    }
    switch (t.dtype) {
    case DT_F32:
        return (double)((float *)t.data)[at];
    case DT_BF16:
        return (double)bf16_to_f32(((uint16_t *)t.data)[at]);
    case DT_F16:
        return (double)f16_to_f32(((uint16_t *)t.data)[at]);
    case DT_F64:
        return ((double *)t.data)[at];
    default:
        return ((uint8_t *)t.data)[at];
    }
}

static double error_of(tensor got, tensor want)
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

// Ops that round only where the contract puts it: in BF16 nearly all of their results are the reference's own.
static bool rounds_alike(const struct op_case *c)
{
    static const char *const ops[] = {"norm", "add_norm", "gate_add", "rms_norm",     "l2_norm", "col_norm",
                                      "rope", "act",      "mul",      "qk_norm_rope", "axpby",   "lerp_rows"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (is(c, ops[i])) return c->t == DT_BF16 && !(c->how & HOW_WIDE);
    return false;
}

static double part_unlike(tensor got, tensor want)
{
    int64_t n = tensor_count(want), unlike = 0;
    for (int64_t i = 0; i < n; i++) unlike += value(got, i) != value(want, i);
    return n < 200 ? 0 : (double)unlike / (double)n;
}

static void wipe(tensor t)
{
    for (int64_t i = 0; i < tensor_count(t); i++) {
        int64_t at = 0, r = i;
        for (int k = t.n - 1; k >= 0; k--) {
            at += r % t.shape[k] * t.stride[k];
            r /= t.shape[k];
        }
        memset((char *)t.data + at * dtype_size(t.dtype), 0, (size_t)dtype_size(t.dtype));
    }
}

static const char *describe(const struct op_case *c, char *text, size_t n)
{
    size_t at = (size_t)snprintf(text, n, "%s %s/%s how %u act %d {", c->op, dtype_table[c->t].name,
                                 dtype_table[weight_type(c)].name, c->how, (int)c->act);
    for (int i = 0; i < 13 && at < n; i++) at += (size_t)snprintf(text + at, n - at, i ? ", %d" : "%d", (int)c->s[i]);
    if (at < n) snprintf(text + at, n - at, "}");
    return text;
}

static double bound_of(const struct op_case *c)
{
    if (c->bound > 0) return c->bound;
    bool half = c->t == DT_BF16 || (c->wt == DT_BF16 && is(c, "copy"));
    return half ? 1e-2 : 1e-5;
}

static tensor moved(tensor t, ptrdiff_t by)
{
    if (t.data) t.data = (char *)t.data + by;
    return t;
}

// All rows on `table`, each against the reference.
static void try_table(const char *table, int n_threads)
{
    struct dev *ref, *d;
    struct err e = {0};
    assert_int_equal(dev_open(&ref, "ref", 1, &e), 0);
    if (dev_open(&d, table, n_threads, &e) < 0) fail_msg("%s", e.text);
    struct dev_arena *a = dev_arena_new(d, "ops", 0);
    char *blocks = aligned_alloc(64, 2 * (size_t)BLOCK), text[200];
    assert_non_null(blocks);
    print_message("table %s, seed %d\n", dev_name(d), SEED);
    int n_bad = 0;
    for (size_t i = 0; i < sizeof op_cases / sizeof *op_cases; i++) {
        const struct op_case *c = &op_cases[i];
        struct bench b = {.block = blocks, .seed = SEED + i};
        lay_case(&b, c);
        struct set ours = b.set;
        memcpy(blocks + BLOCK, blocks, b.used);
        for (int k = 0; k < ours.n; k++) ours.t[k] = moved(ours.t[k], BLOCK);
        run_case(ref, NULL, c, &b.set);
        run_case(d, a, c, &ours);
        if (dev_sync(d, &e) < 0) fail_msg("%s: %s", describe(c, text, sizeof text), e.text);
        for (int k = 0; k < ours.n_out; k++) {
            double error = error_of(ours.t[k], b.set.t[k]);
            if (!(error <= bound_of(c))) {
                print_error("%s: output %d is off by %.3g, bound %.3g\n", describe(c, text, sizeof text), k, error,
                            bound_of(c));
                n_bad++;
            }
            double unlike = rounds_alike(c) ? part_unlike(ours.t[k], b.set.t[k]) : 0;
            if (unlike > 0.01) {
                print_error("%s: %.3g of output %d is rounded otherwise\n", describe(c, text, sizeof text), unlike, k);
                n_bad++;
            }
            wipe(ours.t[k]);
            wipe(b.set.t[k]);
        }
        if (memcmp(blocks, blocks + BLOCK, b.used) != 0) {
            print_error("%s: wrote beside its output\n", describe(c, text, sizeof text));
            n_bad++;
        }
        dev_arena_reset(a, 0);
    }
    free(blocks);
    dev_arena_free(&a);
    dev_close(&d);
    dev_close(&ref);
    assert_int_equal(n_bad, 0);
}

static void cpu_agrees_with_ref(void **state)
{
    (void)state;
    try_table("cpu", 2);
}

static void cpu_agrees_on_one_thread(void **state)
{
    (void)state;
    try_table("cpu", 1);
}

// Lesser instruction sets, where the CPU has them: what a table for a better one falls back to elsewhere.
static void lesser_sets_agree(void **state)
{
    (void)state;
    static const char *const tables[] = {"cpu:plain", "cpu:avx2", "cpu:avx512"};
    for (int i = 0; i < 3; i++) {
        struct dev *d = NULL;
        struct err e = {0};
        if (dev_open(&d, tables[i], 1, &e) < 0) {
            assert_int_equal(e.code, E_INPUT);
            print_message("skipped: %s\n", e.text);
            continue;
        }
        dev_close(&d);
        try_table(tables[i], 2);
    }
}

static void check_runs_every_op(void **state)
{
    (void)state;
    try_table("check", 2);
}

// Every op of the table has a row.
static void every_op_has_a_case(void **state)
{
    (void)state;
    const char *done = "attention_done"; // ends each attention_more row
    int found;
#define LOOK(name)                                                                                                     \
    found = strcmp(#name, done) == 0;                                                                                  \
    for (size_t i = 0; i < sizeof op_cases / sizeof *op_cases; i++) found |= strcmp(op_cases[i].op, #name) == 0;       \
    if (!found) fail_msg("no row for op_%s", #name);
    OPS_LIST(LOOK)
#undef LOOK
}

// ---- contracts

// Runs f in a child; true when it ended by BUG().
static bool is_refused(void (*f)(struct dev *d))
{
    pid_t pid = fork();
    if (pid == 0) {
        struct dev *d;
        struct err e = {0};
        if (!freopen("/dev/null", "w", stderr) || dev_open(&d, "ref", 1, &e) < 0) _exit(3);
        signal(SIGABRT, SIG_DFL);
        f(d);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static float memory[256];
static tensor of(int64_t a, int64_t b) { return tensor_of(memory, DT_F32, SHAPE(a, b)); }
static tensor at(int from, int64_t a, int64_t b) { return tensor_of(memory + from, DT_F32, SHAPE(a, b)); }

static void overlap(struct dev *d) { op_linear(d, of(2, 4), of(2, 4), at(32, 4, 4), NO_TENSOR, ACT_NONE); }
static void wrong_width(struct dev *d) { op_linear(d, of(2, 4), at(32, 2, 5), at(64, 4, 4), NO_TENSOR, ACT_NONE); }
static void wrong_bias(struct dev *d)
{
    op_linear(d, of(2, 4), at(32, 2, 4), at(64, 4, 4), tensor_of(memory, DT_F32, SHAPE(3)), ACT_NONE);
}
static void no_keys(struct dev *d)
{
    tensor q = tensor_of(memory, DT_F32, SHAPE(1, 2, 1, 4)), y = tensor_of(memory + 32, DT_F32, SHAPE(1, 2, 1, 4));
    tensor k = tensor_of(memory + 64, DT_F32, SHAPE(1, 0, 1, 4));
    op_attention(d, y, q, k, k, (struct attn){0});
}
static void mixed_dtypes(struct dev *d)
{
    op_mul(d, of(2, 4), at(32, 2, 4), tensor_of(memory + 64, DT_BF16, SHAPE(2, 4)));
    op_norm(d, of(2, 4), tensor_of(memory + 64, DT_BF16, SHAPE(2, 4)), (struct norm){.eps = 1});
}
static void odd_picture(struct dev *d)
{
    op_yuv420(d, tensor_of(memory + 64, DT_U8, SHAPE(1, 9)), tensor_of(memory, DT_F32, SHAPE(1, 3, 2, 3)));
}
static void good_call(struct dev *d) { op_linear(d, of(2, 4), at(32, 2, 4), at(64, 4, 4), NO_TENSOR, ACT_NONE); }

static void misuse_is_refused(void **state)
{
    (void)state;
    assert_true(is_refused(overlap));
    assert_true(is_refused(wrong_width));
    assert_true(is_refused(wrong_bias));
    assert_true(is_refused(no_keys));
    assert_true(is_refused(mixed_dtypes));
    assert_true(is_refused(odd_picture));
    assert_false(is_refused(good_call));
}

static void dry_run_counts_and_computes_nothing(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 1, &e), 0);
    dev_set_dry(d, true);
    struct dev_arena *a = dev_arena_new(d, "dry", 1 << 20);
    tensor w = dev_tensor(a, DT_F32, SHAPE(64, 64));
    int64_t before = dev_arena_peak(a);
    memory[0] = 7;
    w = op_pack(d, a, w, PACK_LINEAR);
    op_fill(d, of(2, 4), 1);
    assert_true(memory[0] == 7);
    assert_true(dev_arena_peak(a) >= before);
    assert_int_equal(dev_sync(d, &e), 0);
    dev_arena_free(&a);
    dev_close(&d);
}

static void a_fault_stops_the_ops_and_stays(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 1, &e), 0);
    struct dev_arena *a = dev_arena_new(d, "small", 4096);
    tensor t = dev_tensor(a, DT_F32, SHAPE(1 << 20));
    assert_null(t.data);
    op_fill(d, t, 1); // would crash if it ran
    dev_fault(d, "second");
    assert_int_equal(dev_sync(d, &e), E_FATAL);
    assert_non_null(strstr(e.text, "arena small"));
    dev_arena_free(&a);
    dev_close(&d);
}

static void wrong_mul(struct dev *d, tensor y, tensor a, tensor b)
{
    (void)d, (void)b;
    for (int64_t i = 0; i < tensor_count(y); i++) ((float *)y.data)[i] = ((float *)a.data)[i];
}

static void check_names_the_op_that_drifts(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "check", 1, &e), 0);
    for (int i = 0; i < 64; i++) memory[i] = (float)(i + 1);
    op_mul(d, at(128, 2, 4), of(2, 4), at(32, 2, 4));
    assert_int_equal(dev_sync(d, &e), 0);
    check_fast_of(d)->ops.mul = wrong_mul;
    op_mul(d, at(128, 2, 4), of(2, 4), at(32, 2, 4));
    assert_int_equal(dev_sync(d, &e), E_FATAL);
    assert_non_null(strstr(e.text, "op_mul"));
    assert_non_null(strstr(e.text, "[2, 4] F32"));
    dev_close(&d);
}

static void tables_are_named(void **state)
{
    (void)state;
    struct dev *d = NULL;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "gpu9", 1, &e), E_INPUT);
    assert_non_null(strstr(e.text, "gpu9"));
    assert_int_equal(dev_open(&d, "cpu:mmx", 1, &e), E_INPUT);
    assert_non_null(strstr(e.text, "avx2"));
    assert_null(d);
    assert_int_equal(dev_open(&d, "cpu", 3, &e), 0);
    assert_int_equal(dev_threads(d), 3);
    assert_non_null(strstr(dev_name(d), "x3"));
    dev_close(&d);
    assert_null(d);
    assert_int_equal(dev_open(&d, "cpu", 0, &e), 0);
    assert_true(dev_threads(d) >= 1);
    dev_close(&d);
}

// The same call gives the same bytes, whatever ran between.
static void ops_repeat_exactly(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 2, &e), 0);
    struct bench b = {.block = aligned_alloc(64, BLOCK), .seed = SEED};
    assert_non_null(b.block);
    tensor q = lay(&b, DT_BF16, 2, SHAPE(1, 333, 2, 64)), w = lay(&b, DT_BF16, 1, SHAPE(200, 128));
    tensor x = tensor_reshape(q, SHAPE(333, 128));
    tensor y[2], z[2];
    for (int i = 0; i < 2; i++) {
        y[i] = lay(&b, DT_BF16, 1, SHAPE(1, 333, 2, 64));
        z[i] = lay(&b, DT_BF16, 1, SHAPE(333, 200));
        op_attention(d, y[i], q, q, q, (struct attn){0});
        op_linear(d, z[i], x, w, NO_TENSOR, ACT_GELU_TANH);
        op_linear(d, lay(&b, DT_BF16, 1, SHAPE(10, 200)), tensor_slice(x, 0, 0, 10), w, NO_TENSOR, ACT_NONE);
    }
    assert_memory_equal(y[0].data, y[1].data, tensor_bytes(y[0]));
    assert_memory_equal(z[0].data, z[1].data, tensor_bytes(z[0]));
    free(b.block);
    dev_close(&d);
}

// A weight that is taken leaves one copy in the arena.
static void a_taken_weight_is_held_once(void **state)
{
    (void)state;
    struct dev *d;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 1, &e), 0);
    struct dev_arena *a = dev_arena_new(d, "weights", 0);
    tensor w = dev_tensor(a, DT_F32, SHAPE(512, 512));
    op_fill(d, w, 1);
    int64_t plain = dev_arena_mark(a);
    w = op_pack_take(d, a, 0, w, PACK_LINEAR);
    assert_true(dev_arena_mark(a) < plain + plain / 4);
    assert_true(w.packed ? w.data == NULL : w.data != NULL);
    dev_arena_free(&a);
    dev_close(&d);
}

// More shapes than the library's primitives are kept for.
static void many_shapes_stay_right(void **state)
{
    (void)state;
    struct dev *d, *ref;
    struct err e = {0};
    assert_int_equal(dev_open(&d, "cpu", 1, &e), 0);
    assert_int_equal(dev_open(&ref, "ref", 1, &e), 0);
    struct bench b = {.block = aligned_alloc(64, BLOCK), .seed = SEED};
    assert_non_null(b.block);
    tensor x = lay(&b, DT_F32, 1, SHAPE(150, 16)), w = lay(&b, DT_F32, 1, SHAPE(8, 16));
    tensor y = lay(&b, DT_F32, 1, SHAPE(150, 8)), z = lay(&b, DT_F32, 1, SHAPE(150, 8));
    for (int round = 0; round < 2; round++)
        for (int64_t n = 1; n <= 150; n++) {
            op_linear(d, tensor_slice(y, 0, 0, n), tensor_slice(x, 0, 0, n), w, NO_TENSOR, ACT_NONE);
            op_linear(ref, tensor_slice(z, 0, 0, n), tensor_slice(x, 0, 0, n), w, NO_TENSOR, ACT_NONE);
            assert_true(error_of(tensor_slice(y, 0, 0, n), tensor_slice(z, 0, 0, n)) < 1e-5);
        }
    free(b.block);
    dev_close(&d);
    dev_close(&ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_has_a_case),
        cmocka_unit_test(cpu_agrees_with_ref),
        cmocka_unit_test(cpu_agrees_on_one_thread),
        cmocka_unit_test(lesser_sets_agree),
        cmocka_unit_test(check_runs_every_op),
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(dry_run_counts_and_computes_nothing),
        cmocka_unit_test(a_fault_stops_the_ops_and_stays),
        cmocka_unit_test(check_names_the_op_that_drifts),
        cmocka_unit_test(tables_are_named),
        cmocka_unit_test(ops_repeat_exactly),
        cmocka_unit_test(a_taken_weight_is_held_once),
        cmocka_unit_test(many_shapes_stay_right),
    };
    return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
