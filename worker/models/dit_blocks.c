// The blocks of the DiT: one table of their tensors, and the two ways to hold them.
//
// Whole: every tensor is loaded and packed for the device. Shared by a group of ranks: a block's tensors lie in two
// flat runs (parallel/shard), one of what every step needs and one of what only makes keys and values of words, picture
// and voice, which the step loop never touches; a rank reads and keeps its share and gathers a block when it is used.
// Values are the same in both: matrices rounded to the model's dtype, vectors rounded to it and kept as F32.
//
// The trap: in a shared model taking a block is a collective call. All ranks of the group walk the blocks in one order.
#include "worker/models/dit_parts.h"

#include "proto/base/log.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum length { NONE, SIX, DIM, TWO_DIM, FFN, AUDIO };

struct row { // one tensor of a block
    size_t at;
    const char *name;
    enum length out, in; // [out, in], or [out]
    bool vector;         // F32, not packed
    bool context;        // not of the step loop
};

#define MATRIX(field, name, out, in, context)                                                                          \
    {offsetof(struct dit_block, field.w), name ".weight", out, in, false, context},                                    \
    {                                                                                                                  \
        offsetof(struct dit_block, field.b), name ".bias", out, NONE, true, context                                    \
    }
#define VECTOR(field, name, context)                                                                                   \
    {                                                                                                                  \
        offsetof(struct dit_block, field), name, DIM, NONE, true, context                                              \
    }

static const struct row rows[] = {
    {offsetof(struct dit_block, modulation), "modulation", SIX, DIM, true, false},
    MATRIX(q, "self_attn.q", DIM, DIM, false),
    MATRIX(k, "self_attn.k", DIM, DIM, false),
    MATRIX(v, "self_attn.v", DIM, DIM, false),
    MATRIX(o, "self_attn.o", DIM, DIM, false),
    VECTOR(norm_q, "self_attn.norm_q.weight", false),
    VECTOR(norm_k, "self_attn.norm_k.weight", false),
    VECTOR(norm3_w, "norm3.weight", false),
    VECTOR(norm3_b, "norm3.bias", false),
    MATRIX(cq, "cross_attn.q", DIM, DIM, false),
    MATRIX(ck, "cross_attn.k", DIM, DIM, true),
    MATRIX(cv, "cross_attn.v", DIM, DIM, true),
    MATRIX(co, "cross_attn.o", DIM, DIM, false),
    MATRIX(ck_img, "cross_attn.k_img", DIM, DIM, true),
    MATRIX(cv_img, "cross_attn.v_img", DIM, DIM, true),
    VECTOR(cnorm_q, "cross_attn.norm_q.weight", false),
    VECTOR(cnorm_k, "cross_attn.norm_k.weight", true),
    VECTOR(cnorm_k_img, "cross_attn.norm_k_img.weight", true),
    VECTOR(norm_x_w, "norm_x.weight", false),
    VECTOR(norm_x_b, "norm_x.bias", false),
    MATRIX(aq, "audio_cross_attn.q_linear", DIM, DIM, false),
    MATRIX(akv, "audio_cross_attn.kv_linear", TWO_DIM, AUDIO, true),
    MATRIX(ao, "audio_cross_attn.proj", DIM, DIM, false),
    MATRIX(ffn0, "ffn.0", FFN, DIM, false),
    MATRIX(ffn2, "ffn.2", DIM, FFN, false),
};
enum { N_ROWS = sizeof rows / sizeof rows[0], NAME_BYTES = 128 };

struct dit_share { // tensors of one kind, in the order of `rows`
    struct spread *spread;
    const struct row *row[N_ROWS];
    int n;
};

static int64_t length_of(const struct dit_config *c, enum length l)
{
    switch (l) {
    case SIX:
        return 6;
    case DIM:
        return c->dim;
    case TWO_DIM:
        return 2 * (int64_t)c->dim;
    case FFN:
        return c->ffn_dim;
    case AUDIO:
        return c->audio_dim;
    case NONE:
        break;
    }
    return 1;
}

static tensor *field_of(struct dit_block *b, const struct row *r) { return (tensor *)((char *)b + r->at); }

// ---- whole

static void load_row(struct load *l, const struct dit_config *c, struct dit_block *b, int i, const struct row *r)
{
    int64_t out = length_of(c, r->out), in = length_of(c, r->in);
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "blocks.%d.%s", i, r->name);
    if (r->vector) {
        tensor v = load_vector(l, out * in, "%s", name);
        if (l->rc == 0) *field_of(b, r) = r->in == NONE ? v : tensor_reshape(v, SHAPE(out, in));
    } else if (l->rc == 0)
        l->rc = weights_load_linear(l->w, l->arena, field_of(b, r), l->dtype, name, out, in, l->e);
}

void dit_blocks_load(struct load *l, struct dit *m)
{
    for (int i = 0; i < m->c.n_layers && l->rc == 0; i++)
        for (int k = 0; k < N_ROWS; k++) load_row(l, &m->c, &m->block[i], i, &rows[k]);
}

// ---- shared

static int share_open(struct dit_share **out, struct dit *m, const struct weights *w, struct comm *group, bool context,
                      bool streamed, struct err *e)
{
    struct dit_share *s = calloc(1, sizeof *s);
    struct spread_tensor tensors[N_ROWS];
    BUG_IF(!s, "no memory for shared weights");
    *out = s;
    for (int k = 0; k < N_ROWS; k++) {
        if (rows[k].context != context) continue;
        tensors[s->n] = (struct spread_tensor){.name = rows[k].name,
                                               .out = length_of(&m->c, rows[k].out),
                                               .in = rows[k].in == NONE ? 0 : length_of(&m->c, rows[k].in),
                                               .vector = rows[k].vector};
        s->row[s->n++] = &rows[k];
    }
    return spread_open(&s->spread, m->arena,
                       &(struct spread_for){.w = w,
                                            .n_blocks = m->c.n_layers,
                                            .n_tensors = s->n,
                                            .tensors = tensors,
                                            .dtype = m->dtype,
                                            .group = group,
                                            .streamed = streamed,
                                            .fetch_slot = context ? 2 : 0},
                       e);
}

int dit_blocks_share(struct dit *m, const struct weights *w, struct comm *group, bool streamed, struct err *e)
{
    int rc = share_open(&m->step, m, w, group, false, streamed, e);
    if (rc == 0) rc = share_open(&m->context, m, w, group, true, streamed, e);
    if (rc == 0)
        log_info(streamed ? "dit.streamed" : "dit.shared", "ranks=%d own_mb=%lld block_mb=%lld", comm_size(group),
                 (long long)((spread_own_bytes(m->step->spread) + spread_own_bytes(m->context->spread)) >> 20),
                 (long long)((spread_block_bytes(m->step->spread) + spread_block_bytes(m->context->spread)) >> 20));
    return rc;
}

static void share_free(struct dit_share **s)
{
    if (*s) spread_close(&(*s)->spread);
    free(*s);
    *s = NULL;
}

void dit_blocks_free(struct dit *m)
{
    share_free(&m->step);
    share_free(&m->context);
    free(m->block);
}

// ---- use

struct dit_block dit_block_take(const struct dit *m, int i, enum dit_use use)
{
    struct dit_share *s = use == DIT_CONTEXT ? m->context : m->step;
    struct dit_block b = m->block[i];
    if (!s) return b;
    const tensor *t = spread_take(s->spread, i);
    for (int k = 0; k < s->n; k++) *field_of(&b, s->row[k]) = t[k];
    return b;
}

void dit_block_give(const struct dit *m, int i, enum dit_use use)
{
    struct dit_share *s = use == DIT_CONTEXT ? m->context : m->step;
    if (s) spread_give(s->spread, i);
}

struct comm *dit_block_comm(const struct dit *m, enum dit_use use)
{
    struct dit_share *s = use == DIT_CONTEXT ? m->context : m->step;
    return s ? spread_comm(s->spread) : NULL;
}
