// The table that checks: every op runs on the reference and on the fast table, and the first whose results differ by
// more than its dtype allows is the device's fault, with its name, its shapes and the error.
//
// The reference runs first, in place, so that ops which read what they write need no special care: what the outputs
// held is put back before the fast table runs. The fast results stay.
#include "kernels/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    struct dev *ref, *fast;
};

enum { OUTS_MAX = 2 };

// The outputs of one call: what they held, and what the reference made of them, both dense.
struct look {
    struct dev *d, *ref;
    int n;
    tensor out[OUTS_MAX], held[OUTS_MAX], wanted[OUTS_MAX];
};

// Of the largest absolute value; U8 in counts.
static double bound_of(enum dtype t)
{
    return t == DT_F64 ? 1e-6 : t == DT_F32 ? 1e-4 : t == DT_BF16 || t == DT_F16 ? 2e-2 : 1;
}

// An F32 result of BF16 inputs is held to what BF16 allows.
static double bound_for(enum dtype out, int n_in, const tensor *in)
{
    double bound = bound_of(out);
    for (int i = 0; i < n_in && out == DT_F32; i++)
        if (bound_of(in[i].dtype) > bound && dtype_size(in[i].dtype) == 2) bound = bound_of(in[i].dtype);
    return bound;
}

static tensor copy_of(struct dev *ref, tensor t)
{
    tensor c = tensor_of(NULL, t.dtype, t.n, t.shape);
    c.data = calloc((size_t)tensor_bytes(c) + 1, 1);
    BUG_IF(!c.data, "no memory to check an op");
    if (tensor_count(t) > 0) ref->ops.copy(ref, c, t);
    return c;
}

static void look_open(struct look *l, struct dev *d, int n, const tensor *outs)
{
    *l = (struct look){.d = d, .ref = ((struct check *)d->backend)->ref, .n = n};
    for (int i = 0; i < n; i++) {
        l->out[i] = outs[i];
        l->held[i] = copy_of(l->ref, outs[i]);
    }
}

// Keeps the reference's results and puts back what was there.
static void look_turn(struct look *l)
{
    for (int i = 0; i < l->n; i++) l->wanted[i] = copy_of(l->ref, l->out[i]);
    for (int i = 0; i < l->n; i++)
        if (tensor_count(l->out[i]) > 0) l->ref->ops.copy(l->ref, l->out[i], l->held[i]);
}

static double value_at(tensor t, int64_t i)
{
    switch (t.dtype) {
    case DT_F64:
        return ((const double *)t.data)[i];
    case DT_F32:
        return (double)((const float *)t.data)[i];
    case DT_BF16:
        return (double)bf16_to_f32(((const uint16_t *)t.data)[i]);
    case DT_F16:
        return (double)f16_to_f32(((const uint16_t *)t.data)[i]);
    default:
        return ((const uint8_t *)t.data)[i];
    }
}

// Largest difference over the largest reference value (in counts for bytes); infinite where only one is finite.
static double drift(tensor got, tensor want)
{
    double worst = 0, size = 0;
    bool copied = dtype_size(want.dtype) == 1 || want.dtype == DT_I32 || want.dtype == DT_I64 || want.dtype == DT_I16;
    for (int64_t i = 0; i < tensor_count(want); i++) {
        double g = value_at(got, i), w = value_at(want, i);
        if (isfinite(w) && fabs(w) > size) size = fabs(w);
        if (isnan(g) && isnan(w)) continue;
        if (g == w) continue;
        double e = isfinite(g) && isfinite(w) ? fabs(g - w) : (double)INFINITY;
        if (e > worst) worst = e;
    }
    return copied ? worst : worst / (size > 0 ? size : 1);
}

static void look_close(struct look *l, const char *op, int n_in, const tensor *in)
{
    for (int i = 0; i < l->n; i++) {
        tensor got = copy_of(l->ref, l->out[i]);
        double error = drift(got, l->wanted[i]), bound = bound_for(got.dtype, n_in, in);
        if (!(error <= bound)) {
            char text[512], shape[96];
            int at = snprintf(text, sizeof text, "%s", tensor_text(got, shape, sizeof shape));
            for (int k = 0; k < n_in && at < (int)sizeof text; k++)
                at += snprintf(text + at, sizeof text - (size_t)at, "%s%s", k ? ", " : " of ",
                               tensor_text(in[k], shape, sizeof shape));
            dev_fault(l->d, "op_%s: output %d %s drifts by %.3g where %.3g is allowed", op, i, text, error, bound);
        }
        free(got.data);
        free(l->held[i].data);
        free(l->wanted[i].data);
    }
}

// Faults of the fast table are the device's.
static void pass_fault(struct dev *d, struct dev *fast)
{
    if (fast->fault.code < 0) dev_fault(d, "%s", fast->fault.text);
}

#define UNWRAP(...) __VA_ARGS__
// CHECK(op, its parameters, its outputs, its inputs for the message, its arguments)
#define CHECK(op, PARAMS, OUTS, INS, ...)                                                                              \
    static void check_##op PARAMS                                                                                      \
    {                                                                                                                  \
        struct check *c = d->backend;                                                                                  \
        struct look l;                                                                                                 \
        const tensor outs[] = {UNWRAP OUTS}, ins[] = {UNWRAP INS};                                                     \
        look_open(&l, d, (int)(sizeof outs / sizeof *outs), outs);                                                     \
        c->ref->ops.op(c->ref, __VA_ARGS__);                                                                           \
        look_turn(&l);                                                                                                 \
        c->fast->ops.op(c->fast, __VA_ARGS__);                                                                         \
        pass_fault(d, c->fast);                                                                                        \
        look_close(&l, #op, (int)(sizeof ins / sizeof *ins), ins);                                                     \
    }

CHECK(linear, (struct dev * d, tensor y, tensor x, tensor w, tensor b, enum act act), (y), (x, w), y, x, w, b, act)
CHECK(linear_scaled, (struct dev * d, tensor y, tensor x, tensor w, tensor scale, tensor b, enum act act), (y), (x, w),
      y, x, w, scale, b, act)
CHECK(attention, (struct dev * d, tensor y, tensor q, tensor k, tensor v, struct attn a), (y), (q, k, v), y, q, k, v, a)
CHECK(attention_more,
      (struct dev * d, tensor sum, tensor state, tensor q, tensor k, tensor v, struct attn a, bool first), (sum, state),
      (q, k, v), sum, state, q, k, v, a, first)
CHECK(attention_done, (struct dev * d, tensor y, tensor sum, tensor state), (y), (sum), y, sum, state)
CHECK(attention_map, (struct dev * d, tensor map, tensor q, tensor k, tensor mask, bool published), (map), (q, k, mask),
      map, q, k, mask, published)
CHECK(norm, (struct dev * d, tensor h, tensor x, struct norm n), (h), (x), h, x, n)
CHECK(add_norm, (struct dev * d, tensor h, tensor x, tensor y, tensor gate, struct norm n), (h, x), (x, y), h, x, y,
      gate, n)
CHECK(gate_add, (struct dev * d, tensor x, tensor y, tensor gate), (x), (y), x, y, gate)
CHECK(rms_norm, (struct dev * d, tensor y, tensor x, tensor gain, float eps), (y), (x), y, x, gain, eps)
CHECK(l2_norm, (struct dev * d, tensor y, tensor x, tensor gain, enum act act), (y), (x), y, x, gain, act)
CHECK(col_sums, (struct dev * d, tensor sums, tensor x), (sums), (x), sums, x)
CHECK(col_norm, (struct dev * d, tensor y, tensor x, tensor mean, tensor rstd, tensor gain, tensor bias, enum act act),
      (y), (x), y, x, mean, rstd, gain, bias, act)
CHECK(rope_grid, (struct dev * d, tensor table, int64_t first, int64_t gt, int64_t gh, int64_t gw), (table), (table),
      table, first, gt, gh, gw)
CHECK(rope_line, (struct dev * d, tensor table, tensor pos), (table), (pos), table, pos)
CHECK(rope, (struct dev * d, tensor x, tensor table), (x), (table), x, table)
CHECK(qk_norm_rope, (struct dev * d, tensor q, tensor k, tensor q_gain, tensor k_gain, float eps, tensor table), (q, k),
      (table), q, k, q_gain, k_gain, eps, table)
CHECK(row_range, (struct dev * d, tensor lohi, tensor map), (lohi), (map), lohi, map)
CHECK(class_pos, (struct dev * d, tensor pos, tensor map, tensor lohi, bool bf16), (pos), (map), pos, map, lohi, bf16)
CHECK(conv, (struct dev * d, tensor y, tensor x, tensor w, tensor b, struct conv c_, enum act act), (y), (x, w), y, x,
      w, b, c_, act)
CHECK(upsample2, (struct dev * d, tensor y, tensor x), (y), (x), y, x)
CHECK(copy, (struct dev * d, tensor y, tensor x), (y), (x), y, x)
CHECK(fill, (struct dev * d, tensor y, float v), (y), (y), y, v)
CHECK(embed, (struct dev * d, tensor y, tensor table, tensor ids), (y), (table, ids), y, table, ids)
CHECK(lerp_rows, (struct dev * d, tensor y, tensor x, double first, double step), (y), (x), y, x, first, step)
CHECK(act, (struct dev * d, tensor y, tensor x, enum act a), (y), (x), y, x, a)
CHECK(mul, (struct dev * d, tensor y, tensor a, tensor b), (y), (a, b), y, a, b)
CHECK(axpby, (struct dev * d, tensor y, float a, tensor x, float b, tensor z), (y), (x, z), y, a, x, b, z)
CHECK(project_out, (struct dev * d, tensor y, tensor diff, tensor cond, float limit), (y), (diff, cond), y, diff, cond,
      limit)
CHECK(mean_change, (struct dev * d, tensor out, tensor a, tensor b), (out), (a, b), out, a, b)
CHECK(resize_cubic, (struct dev * d, tensor y, tensor x), (y), (x), y, x)
CHECK(lab_stats, (struct dev * d, tensor stats, tensor x), (stats), (x), stats, x)
CHECK(lab_match, (struct dev * d, tensor y, tensor x, tensor src, tensor ref, float strength), (y), (x), y, x, src, ref,
      strength)
CHECK(yuv420, (struct dev * d, tensor out, tensor x), (out), (x), out, x)

static tensor check_pack(struct dev *d, struct dev_arena *a, tensor w, enum pack_use use)
{
    struct check *c = d->backend;
    c->fast->dry = d->dry;
    w = c->fast->ops.pack(c->fast, a, w, use);
    pass_fault(d, c->fast);
    return w;
}

struct dev *check_fast_of(struct dev *d) { return ((struct check *)d->backend)->fast; }

static void check_close(struct dev *d)
{
    struct check *c = d->backend;
    dev_close(&c->ref);
    dev_close(&c->fast);
    free(c);
    d->backend = NULL;
}

int check_open(struct dev *d, const char *most, struct err *e)
{
    struct check *c = calloc(1, sizeof *c);
    char fast[32];
    BUG_IF(!c, "no memory for the checking table");
    snprintf(fast, sizeof fast, most ? "cpu:%s" : "cpu", most);
    d->backend = c;
    d->close = check_close;
#define FILL_SLOT(slot) d->ops.slot = check_##slot;
    OPS_LIST(FILL_SLOT)
#undef FILL_SLOT
    d->ops.pack = check_pack;
    int rc = dev_open(&c->ref, "ref", d->n_threads, e);
    if (rc == 0) rc = dev_open(&c->fast, fast, d->n_threads, e);
    if (rc == 0) snprintf(d->name, sizeof d->name, "check %s", dev_name(c->fast));
    return rc;
}
