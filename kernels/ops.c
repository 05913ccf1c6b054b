// The contract of every op, once, ahead of every backend.
//
// A call that breaks it is a broken invariant of the caller (BUG), never a run-time error: shapes come from weights and
// orders that were checked when they were read. After the checks the device's table works, unless this is a dry run or
// the device has a fault; then nothing is computed and dev_sync tells.
#include "kernels/ops.h"

#include "kernels/table.h"

#include <string.h>

#define NEED(cond)                                                                                                     \
    do {                                                                                                               \
        if (__builtin_expect(!(cond), 0)) misuse(__func__, #cond);                                                     \
    } while (0)
#define RUN(op, ...)                                                                                                   \
    do {                                                                                                               \
        if (!d->dry && d->fault.code == 0) d->ops.op(d, __VA_ARGS__);                                                  \
    } while (0)

static void __attribute__((noreturn)) misuse(const char *op, const char *what) { BUG("%s: needs %s", op, what); }

static bool is_float(tensor t) { return t.dtype == DT_F32 || t.dtype == DT_BF16; }
static bool is_weight(tensor t) { return is_float(t) || t.dtype == DT_F16; }
static bool is_f32(tensor t) { return t.dtype == DT_F32; }
static bool is_dense(tensor t) { return tensor_is_contiguous(t); }
static bool has_rows(tensor t) { return t.n > 0 && (t.stride[t.n - 1] == 1 || t.shape[t.n - 1] == 1); }
static int64_t last(tensor t) { return t.shape[t.n - 1]; }
static bool none(tensor t) { return tensor_is_none(t); }

// Same axes but the last.
static bool same_outer(tensor a, tensor b)
{
    if (a.n != b.n) return false;
    for (int i = 0; i < a.n - 1; i++)
        if (a.shape[i] != b.shape[i]) return false;
    return true;
}

// A vector of n elements, or none.
static bool is_vector(tensor v, int64_t n) { return none(v) || (tensor_count(v) == n && is_weight(v) && has_rows(v)); }

static void need_norm(tensor h, tensor x, struct norm n, const char *op)
{
    int64_t w = last(x);
    bool fits = tensor_same_shape(h, x) && has_rows(h) && has_rows(x) && is_float(h) && is_float(x);
    fits = fits && is_vector(n.gain, w) && is_vector(n.bias, w) && is_vector(n.shift, w) && is_vector(n.scale, w);
    fits = fits && none(n.shift) == none(n.scale) && (n.wide ? is_f32(h) : h.dtype == x.dtype);
    if (!fits) misuse(op, "rows of one shape, vectors of their width, shift with scale");
}

// ---- linear

tensor op_pack(struct dev *d, struct dev_arena *a, tensor w, enum pack_use use)
{
    NEED(is_weight(w) && is_dense(w));
    NEED(use == PACK_LINEAR ? w.n == 2 : w.n == 5);
    return d->ops.pack(d, a, w, use);
}

tensor op_pack_take(struct dev *d, struct dev_arena *a, int64_t mark, tensor w, enum pack_use use)
{
    int64_t end = dev_arena_mark(a);
    void *plain = w.data;
    if (!plain) return w; // the arena is full: a fault, and told
    NEED(end >= mark + tensor_bytes(w));
    w = op_pack(d, a, w, use);
    int64_t bytes = dev_arena_mark(a) - end;
    if (d->dry && bytes > 0 && d->packed_alone) dev_arena_reset(a, mark + bytes); // counts what would stay
    if (!w.packed || !d->packed_alone) return w;
    memmove(plain, w.packed, (size_t)bytes);
    w.packed = plain;
    w.data = NULL;
    dev_arena_reset(a, mark + bytes);
    return w;
}

struct pack_form op_packed_form(struct dev *d, tensor w)
{
    NEED(w.n == 2);
    return d->ops.packed_form ? d->ops.packed_form(d, w) : (struct pack_form){0};
}

void op_pack_rows(struct dev *d, void *dst, tensor w, int64_t first, int64_t n, const void *rows)
{
    struct pack_form f = op_packed_form(d, w);
    NEED(f.bytes > 0 && first >= 0 && n > 0 && first % f.rows == 0);
    NEED(first + n == w.shape[0] || (first + n < w.shape[0] && n % f.rows == 0));
    d->ops.pack_rows(d, dst, w, first, n, rows);
}

tensor op_packed_at(struct dev *d, struct dev_arena *a, tensor w, const void *bytes)
{
    NEED(op_packed_form(d, w).bytes > 0);
    return d->ops.packed_at(d, a, w, bytes);
}

void op_linear_scaled(struct dev *d, tensor y, tensor x, tensor w, tensor scale, tensor b, enum act act)
{
    NEED(w.n == 2 && (w.dtype == DT_F8_E4M3 || w.dtype == DT_I8) && is_dense(w));
    NEED(is_f32(scale) && is_dense(scale) && tensor_count(scale) == w.shape[0]);
    NEED(is_float(x) && y.dtype == x.dtype && has_rows(x) && has_rows(y));
    NEED(same_outer(y, x) && last(x) == w.shape[1] && last(y) == w.shape[0]);
    NEED(is_vector(b, w.shape[0]));
    NEED(!tensor_overlaps(y, x));
    RUN(linear_scaled, y, x, w, scale, b, act);
}

bool op_keeps_quantised(const struct dev *d) { return d->quantised; }

void op_linear(struct dev *d, tensor y, tensor x, tensor w, tensor b, enum act act)
{
    if (w.scale) {
        op_linear_scaled(d, y, x, w, tensor_of((void *)w.scale, DT_F32, SHAPE(w.shape[0])), b, act);
        return;
    }
    NEED(w.n == 2 && is_weight(w) && is_dense(w));
    NEED(is_float(x) && y.dtype == x.dtype && has_rows(x) && has_rows(y));
    NEED(same_outer(y, x) && last(x) == w.shape[1] && last(y) == w.shape[0]);
    NEED(is_vector(b, w.shape[0]));
    NEED(!tensor_overlaps(y, x));
    RUN(linear, y, x, w, b, act);
}

// ---- attention

void op_attention(struct dev *d, tensor y, tensor q, tensor k, tensor v, struct attn a)
{
    NEED(y.n == 4 && q.n == 4 && k.n == 4 && v.n == 4);
    NEED(is_float(q) && q.dtype == k.dtype && q.dtype == v.dtype && q.dtype == y.dtype);
    NEED(has_rows(y) && has_rows(q) && has_rows(k) && has_rows(v));
    NEED(q.shape[0] == k.shape[0] && k.shape[0] == v.shape[0] && y.shape[0] == q.shape[0]);
    NEED(q.shape[2] == k.shape[2] && k.shape[2] == v.shape[2] && y.shape[2] == q.shape[2]);
    NEED(y.shape[1] == q.shape[1] && k.shape[1] == v.shape[1] && k.shape[1] > 0);
    NEED(q.shape[3] == k.shape[3] && y.shape[3] == v.shape[3]);
    NEED(none(a.bias) || (is_f32(a.bias) && is_dense(a.bias) && a.bias.n == 3 && a.bias.shape[0] == q.shape[2] &&
                          a.bias.shape[1] == q.shape[1] && a.bias.shape[2] == k.shape[1]));
    NEED(!tensor_overlaps(y, q) && !tensor_overlaps(y, k) && !tensor_overlaps(y, v));
    RUN(attention, y, q, k, v, a);
}

static void need_running(tensor sum, tensor state, const char *op)
{
    bool fits = sum.n == 4 && state.n == 4 && is_f32(sum) && is_f32(state) && is_dense(sum) && is_dense(state);
    for (int i = 0; fits && i < 3; i++) fits = sum.shape[i] == state.shape[i];
    if (!fits || last(state) != 2) misuse(op, "sum [b, nq, h, dv] and state [b, nq, h, 2], F32 and dense");
}

void op_attention_more(struct dev *d, tensor sum, tensor state, tensor q, tensor k, tensor v, struct attn a, bool first)
{
    need_running(sum, state, __func__);
    NEED(q.n == 4 && k.n == 4 && v.n == 4 && none(a.bias));
    NEED(is_float(q) && q.dtype == k.dtype && q.dtype == v.dtype && has_rows(q) && has_rows(k) && has_rows(v));
    NEED(q.shape[0] == k.shape[0] && k.shape[0] == v.shape[0] && sum.shape[0] == q.shape[0]);
    NEED(q.shape[2] == k.shape[2] && k.shape[2] == v.shape[2] && sum.shape[2] == q.shape[2]);
    NEED(sum.shape[1] == q.shape[1] && k.shape[1] == v.shape[1] && k.shape[1] > 0);
    NEED(q.shape[3] == k.shape[3] && sum.shape[3] == v.shape[3]);
    RUN(attention_more, sum, state, q, k, v, a, first);
}

void op_attention_done(struct dev *d, tensor y, tensor sum, tensor state)
{
    need_running(sum, state, __func__);
    NEED(tensor_same_shape(y, sum) && is_float(y) && has_rows(y));
    RUN(attention_done, y, sum, state);
}

void op_attention_map(struct dev *d, tensor map, tensor q, tensor k, tensor mask, bool published)
{
    NEED(q.n == 3 && k.n == 3 && mask.n == 2 && map.n == 2);
    NEED(is_float(q) && k.dtype == q.dtype && is_f32(mask) && is_f32(map));
    NEED(has_rows(q) && has_rows(k) && is_dense(mask) && has_rows(map));
    NEED(q.shape[1] == k.shape[1] && q.shape[2] == k.shape[2] && mask.shape[1] == k.shape[0]);
    NEED(map.shape[0] == mask.shape[0] && map.shape[1] == q.shape[0] && mask.shape[0] <= TENSOR_DIMS);
    RUN(attention_map, map, q, k, mask, published);
}

// ---- norm

void op_norm(struct dev *d, tensor h, tensor x, struct norm n)
{
    need_norm(h, x, n, __func__);
    RUN(norm, h, x, n);
}

void op_gate_add(struct dev *d, tensor x, tensor y, tensor gate)
{
    NEED(tensor_same_shape(x, y) && is_float(x) && x.dtype == y.dtype && has_rows(x) && has_rows(y));
    NEED(is_vector(gate, last(x)));
    RUN(gate_add, x, y, gate);
}

void op_add_norm(struct dev *d, tensor h, tensor x, tensor y, tensor gate, struct norm n)
{
    need_norm(h, x, n, __func__);
    NEED(tensor_same_shape(x, y) && x.dtype == y.dtype && has_rows(y) && is_vector(gate, last(x)));
    NEED(!tensor_overlaps(h, x) && !tensor_overlaps(h, y));
    RUN(add_norm, h, x, y, gate, n);
}

void op_rms_norm(struct dev *d, tensor y, tensor x, tensor gain, float eps)
{
    NEED(tensor_same_shape(y, x) && is_float(x) && y.dtype == x.dtype && has_rows(x) && has_rows(y));
    NEED(is_vector(gain, last(x)));
    RUN(rms_norm, y, x, gain, eps);
}

void op_l2_norm(struct dev *d, tensor y, tensor x, tensor gain, enum act act)
{
    NEED(tensor_same_shape(y, x) && is_float(x) && y.dtype == x.dtype && has_rows(x) && has_rows(y));
    NEED(is_vector(gain, last(x)) && (act == ACT_NONE || act == ACT_SILU));
    RUN(l2_norm, y, x, gain, act);
}

void op_col_sums(struct dev *d, tensor sums, tensor x)
{
    NEED(x.n == 2 && is_float(x) && has_rows(x));
    NEED(sums.n == 2 && sums.dtype == DT_F64 && is_dense(sums) && sums.shape[0] == 2 && sums.shape[1] == x.shape[1]);
    RUN(col_sums, sums, x);
}

void op_col_norm(struct dev *d, tensor y, tensor x, tensor mean, tensor rstd, tensor gain, tensor bias, enum act act)
{
    NEED(x.n == 2 && tensor_same_shape(y, x) && is_float(x) && y.dtype == x.dtype && has_rows(x) && has_rows(y));
    NEED(is_f32(mean) && is_f32(rstd) && is_f32(gain) && is_f32(bias));
    NEED(is_vector(mean, last(x)) && is_vector(rstd, last(x)) && is_vector(gain, last(x)) && is_vector(bias, last(x)));
    RUN(col_norm, y, x, mean, rstd, gain, bias, act);
}

// ---- rope

static bool is_table(tensor t) { return t.n == 3 && is_f32(t) && is_dense(t) && t.shape[2] == 2; }

void op_rope_grid(struct dev *d, tensor table, int64_t first, int64_t gt, int64_t gh, int64_t gw)
{
    NEED(is_table(table) && table.shape[1] >= 3);
    NEED(first >= 0 && first + table.shape[0] <= gt * gh * gw);
    RUN(rope_grid, table, first, gt, gh, gw);
}

void op_rope_line(struct dev *d, tensor table, tensor pos)
{
    NEED(is_table(table) && pos.n == 1 && is_f32(pos) && pos.shape[0] == table.shape[0]);
    RUN(rope_line, table, pos);
}

void op_rope(struct dev *d, tensor x, tensor table)
{
    NEED(x.n >= 3 && is_float(x) && has_rows(x) && is_table(table));
    NEED(x.shape[x.n - 3] == table.shape[0] && last(x) == 2 * table.shape[1]);
    RUN(rope, x, table);
}

void op_qk_norm_rope(struct dev *d, tensor q, tensor k, tensor q_gain, tensor k_gain, float eps, tensor table)
{
    NEED(q.n == 3 && tensor_same_shape(q, k) && is_float(q) && q.dtype == k.dtype && is_table(table));
    NEED(has_rows(q) && has_rows(k) && q.stride[1] == q.shape[2] && k.stride[1] == k.shape[2]);
    NEED(table.shape[0] == q.shape[0] && 2 * table.shape[1] == q.shape[2]);
    NEED(!none(q_gain) && is_vector(q_gain, q.shape[1] * q.shape[2]));
    NEED(!none(k_gain) && is_vector(k_gain, q.shape[1] * q.shape[2]));
    RUN(qk_norm_rope, q, k, q_gain, k_gain, eps, table);
}

void op_row_range(struct dev *d, tensor lohi, tensor map)
{
    NEED(map.n == 2 && is_f32(map) && has_rows(map) && map.shape[1] > 0);
    NEED(lohi.n == 2 && is_f32(lohi) && is_dense(lohi) && lohi.shape[0] == map.shape[0] && lohi.shape[1] == 2);
    RUN(row_range, lohi, map);
}

void op_class_pos(struct dev *d, tensor pos, tensor map, tensor lohi, bool bf16)
{
    NEED(map.n == 2 && map.shape[0] == 3 && is_f32(map) && has_rows(map));
    NEED(is_f32(lohi) && is_dense(lohi) && lohi.shape[0] >= 2 && lohi.shape[1] == 2);
    NEED(pos.n == 1 && is_f32(pos) && is_dense(pos) && pos.shape[0] == map.shape[1]);
    RUN(class_pos, pos, map, lohi, bf16);
}

// ---- conv

static int64_t conv_length(int64_t n, int64_t k, int stride, const int pad[2])
{
    return (n + pad[0] + pad[1] - k) / (stride ? stride : 1) + 1;
}

void op_conv(struct dev *d, tensor y, tensor x, tensor w, tensor b, struct conv c, enum act act)
{
    NEED(x.n == 4 && y.n == 4 && w.n == 5);
    NEED(is_float(x) && y.dtype == x.dtype && is_weight(w) && is_dense(x) && is_dense(y) && is_dense(w));
    for (int i = 0; i < 3; i++) NEED(y.shape[i] == conv_length(x.shape[i], w.shape[i + 2], c.stride[i], c.pad[i]));
    int groups = c.groups ? c.groups : 1;
    NEED(x.shape[3] == w.shape[1] * groups && y.shape[3] == w.shape[0] && w.shape[0] % groups == 0);
    NEED(is_vector(b, w.shape[0]) && !tensor_overlaps(y, x));
    RUN(conv, y, x, w, b, c, act);
}

void op_upsample2(struct dev *d, tensor y, tensor x)
{
    NEED(x.n == 4 && y.n == 4 && is_float(x) && y.dtype == x.dtype && is_dense(x) && is_dense(y));
    NEED(y.shape[0] == x.shape[0] && y.shape[1] == 2 * x.shape[1] && y.shape[2] == 2 * x.shape[2] &&
         y.shape[3] == x.shape[3]);
    RUN(upsample2, y, x);
}

// ---- layout

void op_copy(struct dev *d, tensor y, tensor x)
{
    NEED(tensor_same_shape(y, x));
    NEED(y.dtype == x.dtype || is_weight(y) || y.dtype == DT_F64);
    if (tensor_count(y) == 0) return;
    RUN(copy, y, x);
}

void op_fill(struct dev *d, tensor y, float v)
{
    NEED(is_weight(y) || y.dtype == DT_F64);
    RUN(fill, y, v);
}

void op_embed(struct dev *d, tensor y, tensor table, tensor ids)
{
    NEED(y.n == 2 && table.n == 2 && ids.n == 1 && ids.dtype == DT_I32 && is_dense(ids));
    NEED(is_float(y) && is_weight(table) && is_dense(table) && has_rows(y));
    NEED(y.shape[0] == ids.shape[0] && y.shape[1] == table.shape[1]);
    RUN(embed, y, table, ids);
}

void op_lerp_rows(struct dev *d, tensor y, tensor x, double first, double step)
{
    NEED(y.n == 2 && x.n == 2 && y.shape[1] == x.shape[1] && x.shape[0] > 0);
    NEED(is_float(x) && is_float(y) && has_rows(x) && has_rows(y) && !tensor_overlaps(y, x));
    RUN(lerp_rows, y, x, first, step);
}

// ---- pointwise

static bool alike(tensor a, tensor b) { return tensor_same_shape(a, b) && is_float(b) && is_dense(b); }

void op_act(struct dev *d, tensor y, tensor x, enum act act)
{
    NEED(alike(y, x) && alike(x, y) && y.dtype == x.dtype);
    RUN(act, y, x, act);
}

void op_mul(struct dev *d, tensor y, tensor a, tensor b)
{
    NEED(alike(y, a) && alike(y, b) && alike(a, y));
    RUN(mul, y, a, b);
}

void op_axpby(struct dev *d, tensor y, float a, tensor x, float b, tensor z)
{
    NEED(alike(y, x) && alike(y, z) && alike(x, y));
    RUN(axpby, y, a, x, b, z);
}

void op_project_out(struct dev *d, tensor y, tensor diff, tensor cond, float limit)
{
    NEED(alike(y, diff) && alike(y, cond) && alike(diff, y) && is_f32(y) && is_f32(diff) && is_f32(cond));
    RUN(project_out, y, diff, cond, limit);
}

void op_mean_change(struct dev *d, tensor out, tensor a, tensor b)
{
    NEED(alike(a, b) && alike(b, a) && is_f32(a) && is_f32(b) && tensor_count(a) > 0);
    NEED(out.dtype == DT_F64 && tensor_count(out) == 2 && is_dense(out));
    RUN(mean_change, out, a, b);
}

// ---- pixels

static bool is_film(tensor t) { return t.n == 4 && t.shape[3] == 3 && is_f32(t) && is_dense(t); }
static bool is_stats(tensor t, int64_t frames)
{
    return t.dtype == DT_F64 && is_dense(t) && tensor_count(t) == frames * 6;
}

void op_resize_cubic(struct dev *d, tensor y, tensor x)
{
    NEED(y.n == 3 && x.n == 3 && y.shape[2] == x.shape[2] && is_f32(x) && is_f32(y) && is_dense(x) && is_dense(y));
    NEED(x.shape[0] > 0 && x.shape[1] > 0);
    RUN(resize_cubic, y, x);
}

void op_lab_stats(struct dev *d, tensor stats, tensor x)
{
    NEED(is_film(x) && is_stats(stats, x.shape[0]));
    RUN(lab_stats, stats, x);
}

void op_lab_match(struct dev *d, tensor y, tensor x, tensor src, tensor ref, float strength)
{
    NEED(is_film(x) && is_film(y) && tensor_same_shape(x, y) && is_stats(src, x.shape[0]) && is_stats(ref, 1));
    NEED(strength >= 0 && strength <= 1);
    RUN(lab_match, y, x, src, ref, strength);
}

void op_yuv420(struct dev *d, tensor out, tensor x)
{
    NEED(is_film(x) && x.shape[1] % 2 == 0 && x.shape[2] % 2 == 0);
    NEED(out.n == 2 && out.dtype == DT_U8 && is_dense(out) && out.shape[0] == x.shape[0] &&
         out.shape[1] == x.shape[1] * x.shape[2] * 3 / 2);
    RUN(yuv420, out, x);
}
