// Counting instead of computing.
//
// The reference table with every slot taken by one that counts. A slot knows its op's tensors; what is an input and
// what an output, and how often an output is read as well, stands in the call of `note`. Ops that no network's step
// calls are left as they are, since nothing would call them.
#include "bench/tally.h"

#include "kernels/table.h"

#include <stdio.h>
#include <string.h>

// ---- writing down

static double bytes_of(tensor t) { return tensor_is_none(t) ? 0 : (double)tensor_bytes(t); }

static void note(struct dev *d, const char *op, tensor shown, double work, double bytes, const char *more)
{
    struct tally *t = d->backend;
    char shape[64];
    size_t at = 0;
    for (int i = 0; i < shown.n; i++)
        at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%lld", i ? "x" : "", (long long)shown.shape[i]);
    snprintf(shape + at, sizeof shape - at, "%s", more);
    for (int i = 0; i < t->n; i++) {
        struct tally_row *r = &t->row[i];
        if (strcmp(r->op, op) != 0 || strcmp(r->shape, shape) != 0 || r->work != work || r->bytes != bytes) continue;
        r->calls++;
        return;
    }
    BUG_IF(t->n == TALLY_ROWS, "more than %d kinds of calls", TALLY_ROWS);
    struct tally_row *r = &t->row[t->n++];
    *r = (struct tally_row){.op = op, .calls = 1, .work = work, .bytes = bytes, .dtype = shown.dtype};
    memcpy(r->shape, shape, sizeof shape);
}

// ---- slots

static tensor count_pack(struct dev *d, struct dev_arena *a, tensor w, enum pack_use use)
{
    (void)d, (void)a, (void)use;
    return w;
}

static void count_linear(struct dev *d, tensor y, tensor x, tensor w, tensor b, enum act act)
{
    char more[32];
    double rows = (double)(tensor_count(y) / w.shape[0]);
    (void)act;
    snprintf(more, sizeof more, " of %lld", (long long)w.shape[1]);
    note(d, "linear", y, 2 * rows * (double)tensor_count(w), bytes_of(y) + bytes_of(x) + bytes_of(w) + bytes_of(b),
         more);
}

static double scores(tensor q, tensor k, tensor v)
{
    return 2 * (double)(q.shape[0] * q.shape[1] * q.shape[2] * k.shape[1]) * (double)(q.shape[3] + v.shape[3]);
}

static void count_attention(struct dev *d, tensor y, tensor q, tensor k, tensor v, struct attn a)
{
    char more[32];
    snprintf(more, sizeof more, " keys %lld", (long long)k.shape[1]);
    note(d, "attention", y, scores(q, k, v), bytes_of(y) + bytes_of(q) + bytes_of(k) + bytes_of(v) + bytes_of(a.bias),
         more);
}

static double norm_bytes(struct norm n)
{
    return bytes_of(n.gain) + bytes_of(n.bias) + bytes_of(n.shift) + bytes_of(n.scale);
}

static void count_norm(struct dev *d, tensor h, tensor x, struct norm n)
{
    note(d, "norm", h, 0, bytes_of(h) + bytes_of(x) + norm_bytes(n), "");
}

static void count_add_norm(struct dev *d, tensor h, tensor x, tensor y, tensor gate, struct norm n)
{
    note(d, "add_norm", h, 0, bytes_of(h) + 2 * bytes_of(x) + bytes_of(y) + bytes_of(gate) + norm_bytes(n), "");
}

static void count_gate_add(struct dev *d, tensor x, tensor y, tensor gate)
{
    note(d, "gate_add", x, 0, 2 * bytes_of(x) + bytes_of(y) + bytes_of(gate), "");
}

static void count_rms_norm(struct dev *d, tensor y, tensor x, tensor gain, float eps)
{
    (void)eps;
    note(d, "rms_norm", y, 0, bytes_of(y) + bytes_of(x) + bytes_of(gain), "");
}

static void count_qk_norm_rope(struct dev *d, tensor q, tensor k, tensor q_gain, tensor k_gain, float eps, tensor table)
{
    (void)eps;
    note(d, "qk_norm_rope", q, 0,
         2 * (bytes_of(q) + bytes_of(k)) + bytes_of(q_gain) + bytes_of(k_gain) + bytes_of(table), "");
}

static void count_rope_grid(struct dev *d, tensor table, int64_t first, int64_t gt, int64_t gh, int64_t gw)
{
    (void)first, (void)gt, (void)gh, (void)gw;
    note(d, "rope_grid", table, 0, bytes_of(table), "");
}

static void count_copy(struct dev *d, tensor y, tensor x) { note(d, "copy", y, 0, bytes_of(y) + bytes_of(x), ""); }

static void count_fill(struct dev *d, tensor y, float v)
{
    (void)v;
    note(d, "fill", y, 0, bytes_of(y), "");
}

static void count_act(struct dev *d, tensor y, tensor x, enum act act)
{
    (void)act;
    note(d, "act", y, 0, bytes_of(y) + bytes_of(x), "");
}

static void count_axpby(struct dev *d, tensor y, float a, tensor x, float b, tensor z)
{
    (void)a, (void)b;
    note(d, "axpby", y, 0, bytes_of(y) + bytes_of(x) + bytes_of(z), "");
}

// ---- the device

int tally_open(struct tally *t, struct err *e)
{
    memset(t, 0, sizeof *t);
    int rc = dev_open(&t->dev, "ref", 1, e);
    if (rc < 0) return rc;
    struct ops *o = &t->dev->ops;
    t->dev->backend = t;
    o->pack = count_pack;
    o->linear = count_linear;
    o->attention = count_attention;
    o->norm = count_norm;
    o->add_norm = count_add_norm;
    o->gate_add = count_gate_add;
    o->rms_norm = count_rms_norm;
    o->qk_norm_rope = count_qk_norm_rope;
    o->rope_grid = count_rope_grid;
    o->copy = count_copy;
    o->fill = count_fill;
    o->act = count_act;
    o->axpby = count_axpby;
    return 0;
}

void tally_close(struct tally *t) { dev_close(&t->dev); }
void tally_forget(struct tally *t) { t->n = 0; }
