// The ops: one computation as a model calls it. ops.c checks the contract of each, once, ahead of every backend; a
// misuse is BUG(). An op cannot fail and returns nothing. `d` is the device whose table does the work.
//
// Conventions
//  - Activations are F32 or BF16; an op's activation tensors share one dtype unless stated. Sums are kept in F32 (or
//  wider).
//    In BF16 an op rounds exactly where it stores, plus where "R" stands in its formula; fused backends may skip the
//    inner R.
//  - Weights may be F32, BF16 or F16 whatever the activations are. Vectors such as gains, biases, gates, shifts,
//  scales,
//    tables are F32 or the activation's dtype.
//  - "rows": the last axis is contiguous, the axes before it have any strides. "dense": contiguous.
//  - Output may alias an input only where said.
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include "kernels/dev.h"

enum act { ACT_NONE, ACT_GELU_TANH, ACT_GELU_ERF, ACT_SILU, ACT_RELU };

// ---- linear.c
// Prepares a weight once at load: returns `w` with .packed set to the backend's layout, taken from arena `a` (or w as
// is). `use`: PACK_LINEAR for [out, in], PACK_CONV for [co, ci/groups, kt, kh, kw].
enum pack_use { PACK_LINEAR, PACK_CONV };
tensor op_pack(struct dev *d, struct dev_arena *a, tensor w, enum pack_use use);
// The same for a `w` that lies at `mark` as the last of the arena and that nobody else needs: where the backend works
// on packed weights alone, the packed one takes its place and .data is NULL, so that memory holds one copy.
tensor op_pack_take(struct dev *d, struct dev_arena *a, int64_t mark, tensor w, enum pack_use use);

// For who keeps packed weights of [out, in] himself, moves them, and has one of them a piece at a time: what the packed
// form takes, and how many rows of w make a piece of it, the pieces lying in order. Of w only dtype and shape are
// looked at. bytes 0: the backend takes a weight as it is, or has no form that comes in pieces. Two devices whose forms
// are equal, `order` too, can use each other's bytes.
struct pack_form {
    int64_t bytes, rows;
    uint64_t order;
};
struct pack_form op_packed_form(struct dev *d, tensor w);
// Rows [first, first + n) of w, which lie dense at `rows` in the host's memory, to their pieces, which begin at `dst`
// there. `first` is at the beginning of a piece, the last row at the end of one or of w.
void op_pack_rows(struct dev *d, void *dst, tensor w, int64_t first, int64_t n, const void *rows);
// w, packed: the bytes of its form are, or will be, at `bytes`. The little that is kept of it comes from `a`.
tensor op_packed_at(struct dev *d, struct dev_arena *a, tensor w, const void *bytes);

// y[.., out] = act(R(x[.., in] w^T + b)). x, y rows; w dense [out, in]; b [out] or none. y must not alias x.
// A quantised w (w.scale is not NULL) is op_linear_scaled's affair.
void op_linear(struct dev *d, tensor y, tensor x, tensor w, tensor b, enum act act);

// The same with w F8_E4M3 or I8 and scale F32 [out]: each row of x is quantised to w's format on the way, by the factor
// s = largest |x| / 448 (e4m3) or / 127 (int8), to nearest even: y = act(R(s scale (q(x) w^T) + b)). Sums of int8 are
// exact.
void op_linear_scaled(struct dev *d, tensor y, tensor x, tensor w, tensor scale, tensor b, enum act act);
// Whether quantised weights may stay quantised: else they are better widened when they are loaded.
bool op_keeps_quantised(const struct dev *d);

// ---- attention.c
struct attn {
    float scale; // of q.k; 0 means 1/sqrt(head width); T5 passes 1
    tensor bias; // F32 [h, nq, nk] added to the scaled scores, or none
    // BF16 all the way to F32 and only then to work, where the backend has a way that rounds the softmax's weights to
    // BF16 for speed. One that multiplies on tensor cores has no other way: its sums are F32, its weights stay BF16.
    bool wide;
};
// y[b,nq,h,dv] = softmax_over_keys(scale q.k + bias) v. q [b,nq,h,d], k [b,nk,h,d], v [b,nk,h,dv]; last axes
// contiguous, the others of any stride. Softmax and sums in F32. y must not alias q, k, v.
void op_attention(struct dev *d, tensor y, tensor q, tensor k, tensor v, struct attn a);

// The same over keys that come in runs, in any order: sum F32 [b,nq,h,dv] and state F32 [b,nq,h,2] (largest score,
// sum of exponentials below it) carry an unfinished softmax from call to call; `first` starts them, no bias. Then
// op_attention_done: y = sum / exponentials. Both dense. Equal to op_attention up to the order of sums.
void op_attention_more(struct dev *d, tensor sum, tensor state, tensor q, tensor k, tensor v, struct attn a,
                       bool first);
void op_attention_done(struct dev *d, tensor y, tensor sum, tensor state);

// Reference-attention map of dit.md section 5: map[c,n] = mean over heads of
// sum_r softmax_r(q[n,h].k[r,h]/sqrt(d)) mask[c,r] / area_c, area_c = sum_r mask[c,r].
// q [n,h,d], k [s,h,d], mask F32 [c,s], map F32 [c,n] (values rounded to BF16 when q is BF16). `published` true keeps
// the published 0/0 = NaN of an empty class, false divides by max(1, area).
void op_attention_map(struct dev *d, tensor map, tensor q, tensor k, tensor mask, bool published);

// ---- norm.c
struct norm {
    tensor gain, bias;   // affine, inside the same rounding; or none
    tensor shift, scale; // then h = R(h (1 + scale) + shift); or none. F32 [D]
    float eps;
    bool wide; // the modulated result is not rounded: h is F32 whatever x is (head of the DiT)
};
// h = layer norm of x over the last axis (population variance) as `n` says. Rows. h may alias x.
void op_norm(struct dev *d, tensor h, tensor x, struct norm n);
// x = R(x + y gate) (gate F32 [D] or none), then h = norm(x). One op so that a backend may fuse. h aliases neither.
void op_add_norm(struct dev *d, tensor h, tensor x, tensor y, tensor gate, struct norm n);
// x = R(x + y gate).
void op_gate_add(struct dev *d, tensor x, tensor y, tensor gate);
// y = R(R(x / sqrt(mean(x^2) + eps)) gain) over the last axis. Rows. y may alias x.
void op_rms_norm(struct dev *d, tensor y, tensor x, tensor gain, float eps);
// VAE: y = act(x / max(||x||_2, 1e-12) sqrt(C) gain) over the last axis; gain [C]; act NONE or SILU. y may alias x.
void op_l2_norm(struct dev *d, tensor y, tensor x, tensor gain, enum act act);
// Over axis 0 of x [n, c]: adds to F64 sums[2, c] = (sum x, sum x^2). wav2vec2's first layer, in passes.
void op_col_sums(struct dev *d, tensor sums, tensor x);
// y[n,c] = act((x - mean[c]) rstd[c] gain[c] + bias[c]); all four F32 [c]. y may alias x.
void op_col_norm(struct dev *d, tensor y, tensor x, tensor mean, tensor rstd, tensor gain, tensor bias, enum act act);

// ---- rope.c
// Tables are F32 [n, d/2, 2] = (cos, sin) per row and pair; pairs are adjacent channels (2j, 2j+1).
// 3D table (dit.md 3.10) for rows [first, first + n) of a grid gt x gh x gw; angles and cos/sin formed in F64.
void op_rope_grid(struct dev *d, tensor table, int64_t first, int64_t gt, int64_t gh, int64_t gw);
// 1D table from positions F32 [n]: angle = pos / 10000^(2j/d), formed in F32.
void op_rope_line(struct dev *d, tensor table, tensor pos);
// x [.., n, h, d] rotated in place by table rows n.
void op_rope(struct dev *d, tensor x, tensor table);
// q and k [n, h, d] in place: RMS norm over the whole row (h d; gains [h d], eps), then rope, then R.
void op_qk_norm_rope(struct dev *d, tensor q, tensor k, tensor q_gain, tensor k_gain, float eps, tensor table);
// lohi F32 [c, 2] = min and max of map [c, n] rows (published: NaN wins).
void op_row_range(struct dev *d, tensor lohi, tensor map);
// Two-speaker positions of dit.md 3.13: pos F32 [n] from map [3, n] and lohi; rounds to BF16 at each step when `bf16`.
void op_class_pos(struct dev *d, tensor pos, tensor map, tensor lohi, bool bf16);

// ---- conv.c
struct conv {
    int stride[3]; // t, h, w; 0 means 1
    int pad[3][2]; // before and after, per axis, zeros
    int groups;    // 0 means 1
};
// Channels-last convolution: x [t, h, w, ci] dense, w [co, ci/groups, kt, kh, kw] dense (packed or not), b [co] or
// none, y [to, ho, wo, co] dense. y = act(R(conv)). 1D and 2D are the same with axes of 1.
void op_conv(struct dev *d, tensor y, tensor x, tensor w, tensor b, struct conv c, enum act act);
// y [t, 2h, 2w, c] = x [t, h, w, c], nearest. Dense.
void op_upsample2(struct dev *d, tensor y, tensor x);

// ---- layout.c
// y = x, element by element, any strides up to 8 axes, same shape; casts dtypes (also from U8 and I32).
void op_copy(struct dev *d, tensor y, tensor x);
void op_fill(struct dev *d, tensor y, float v);
// y[n, c] = table[ids[n], c]; ids I32 [n], each inside the table (BUG otherwise).
void op_embed(struct dev *d, tensor y, tensor table, tensor ids);
// y[i] = x[p] (1-w) + x[p+1] w at position p+w = first + i step (F64), clamped to the last row; x [n,c], y [m,c].
void op_lerp_rows(struct dev *d, tensor y, tensor x, double first, double step);

// ---- pointwise.c
void op_act(struct dev *d, tensor y, tensor x, enum act act); // y may alias x
void op_mul(struct dev *d, tensor y, tensor a, tensor b);     // y = R(a b), same shape; y may alias
void op_axpby(struct dev *d, tensor y, float a, tensor x, float b,
              tensor z); // y = R(a x + b z); y may alias; F32 inside
// APG (dit.md 6.3, pipeline.md 5.5) over all elements, F32 tensors: g = diff min(1, limit/||diff||) (limit <= 0: g =
// diff), y = g - <g,u> u with u = cond / max(||cond||, 1e-12); sums and the projection in F64.
void op_project_out(struct dev *d, tensor y, tensor diff, tensor cond, float limit);
// out F64 [2] = (mean |a - b|, mean |b|). TeaCache's relative change.
void op_mean_change(struct dev *d, tensor out, tensor a, tensor b);

// ---- pixels.c (F32, channels-last [t, h, w, 3], RGB in -1..1)
// Bicubic without antialiasing, a = -0.75, half-pixel centres, edge clamp: y [ho, wo, c] from x [h, w, c].
void op_resize_cubic(struct dev *d, tensor y, tensor x);
// stats F64 [t, 3, 2] = population mean and deviation of L, a, b per frame, after clamping (x+1)/2 to 0..1
// (dit.md 6.4).
void op_lab_stats(struct dev *d, tensor stats, tensor x);
// y = 2 out - 1, out = (1 - strength) v + strength rgb(lab(v) moved from src stats [t,3,2] to ref stats [3,2]);
// strength 0 only clamps. May alias.
void op_lab_match(struct dev *d, tensor y, tensor x, tensor src, tensor ref, float strength);
// 8-bit planar 4:2:0, BT.709 limited, rounded to nearest, chroma the mean of its 2x2 (left-sited phase ignored):
// per frame h w + 2 (h/2)(w/2) bytes; out U8 [t, h w 3/2] dense; h and w even. Input clamped to -1..1.
void op_yuv420(struct dev *d, tensor out, tensor x);

// One backend: a slot per op above, same order, same arguments. kernels/cpu fills it; a later table overlays slots.
// An empty slot is refused by dev_open, by name.
#define OPS_LIST(X)                                                                                                    \
    X(linear)                                                                                                          \
    X(linear_scaled)                                                                                                   \
    X(attention)                                                                                                       \
    X(attention_more)                                                                                                  \
    X(attention_done)                                                                                                  \
    X(attention_map)                                                                                                   \
    X(norm)                                                                                                            \
    X(add_norm)                                                                                                        \
    X(gate_add)                                                                                                        \
    X(rms_norm)                                                                                                        \
    X(l2_norm)                                                                                                         \
    X(col_sums)                                                                                                        \
    X(col_norm)                                                                                                        \
    X(rope_grid) X(rope_line) X(rope) X(qk_norm_rope) X(row_range) X(class_pos) X(conv) X(upsample2) X(copy) X(fill)   \
        X(embed) X(lerp_rows) X(act) X(mul) X(axpby) X(project_out) X(mean_change) X(resize_cubic) X(lab_stats)        \
            X(lab_match) X(yuv420)

#endif
