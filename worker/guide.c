// Guidance.
//
//   text scale 1:  cond (words, voice), drop_audio (words, none)
//                  v = drop + a (cond - drop)
//   else:          cond, drop_text (negative, voice), uncond (negative, none)
//                  v = uncond + t (cond - drop_text) + a (drop_text - uncond)
//   adaptive:      v = cond + (t - 1) P(cond - drop_text) + (a - 1) P(drop_text - uncond)
//
// Without APG the result is linear in the predictions, so a branch whose weight is 0 is never evaluated: weights are
// (a, 1 - a) and (t, a - t, 1 - a). The branch without voice has one speaker whatever the job has. The published
// program evaluates all of its two or three branches, and a parity run does too.
#include "worker/guide.h"

#include <math.h>

static bool is_one(double v) { return fabs(v - 1) <= 1e-9; }

static void add_branch(struct guide *g, bool negative, bool silent, int slot, double weight, bool needed)
{
    if (!needed) return;
    g->branch[g->n] = (struct guide_branch){.negative_words = negative, .no_voice = silent, .slot = slot};
    g->weight[g->n++] = (float)weight;
}

void guide_plan(struct guide *g, const struct spec_render *s)
{
    double t = s->text_scale, v = s->audio_scale;
    bool two = is_one(t), all = s->parity == SPEC_PARITY_PUBLISHED;
    *g = (struct guide){.apg = s->apg,
                        .text_scale = (float)t,
                        .audio_scale = (float)v,
                        .momentum = (float)s->apg_momentum,
                        .limit = (float)s->apg_norm_threshold};
    bool silent = all || !is_one(v);
    if (two) {
        add_branch(g, false, false, 0, v, all || s->apg || v != 0);
        add_branch(g, false, true, 1, 1 - v, silent);
    } else {
        bool text = all || s->apg || v != t;
        add_branch(g, false, false, 0, t, all || s->apg || t != 0);
        add_branch(g, true, false, 1, v - t, text);
        add_branch(g, true, true, 2, 1 - v, silent);
    }
}

void guide_init(struct guide *g, struct dev_arena *a, const struct spec_render *s, tensor x)
{
    guide_plan(g, s);
    g->dev = dev_arena_dev(a);
    if (!g->apg) return;
    g->text_sum = dev_tensor(a, DT_F32, x.n, x.shape);
    g->audio_sum = dev_tensor(a, DT_F32, x.n, x.shape);
}

void guide_reset(struct guide *g)
{
    if (!g->apg) return;
    op_fill(g->dev, g->text_sum, 0);
    op_fill(g->dev, g->audio_sum, 0);
}

const char *guide_branch_name(const struct guide_branch *b)
{
    if (b->negative_words) return b->no_voice ? "negative words and no voice" : "negative words and voice";
    return b->no_voice ? "words and no voice" : "words and voice";
}

bool guide_wants_negative(const struct guide *g)
{
    for (int i = 0; i < g->n; i++)
        if (g->branch[i].negative_words) return true;
    return false;
}

bool guide_wants_silence(const struct guide *g)
{
    for (int i = 0; i < g->n; i++)
        if (g->branch[i].no_voice) return true;
    return false;
}

void guide_project(struct guide *g, tensor y, tensor sum, tensor diff, tensor cond)
{
    op_axpby(g->dev, sum, 1, diff, g->momentum, sum);
    op_project_out(g->dev, y, sum, cond, g->limit);
}

// v += (scale - 1) P(from - to).
static void add_projected(struct guide *g, struct dev_arena *a, tensor v, float scale, tensor sum, tensor from,
                          tensor to, tensor cond)
{
    int64_t mark = dev_arena_mark(a);
    tensor y = dev_tensor(a, DT_F32, v.n, v.shape), diff = dev_tensor(a, DT_F32, v.n, v.shape);
    op_axpby(g->dev, diff, 1, from, -1, to);
    guide_project(g, y, sum, diff, cond);
    op_axpby(g->dev, v, 1, v, scale - 1, y);
    dev_arena_reset(a, mark);
}

static void combine_adaptive(struct guide *g, struct dev_arena *a, tensor v, const tensor *p)
{
    bool three = g->n > 1 && g->branch[1].negative_words;
    op_copy(g->dev, v, p[0]);
    if (three) add_projected(g, a, v, g->text_scale, g->text_sum, p[0], p[1], p[0]);
    int last = three ? 2 : 1;
    if (g->n > last) add_projected(g, a, v, g->audio_scale, g->audio_sum, p[last - 1], p[last], p[0]);
}

void guide_combine(struct guide *g, struct dev_arena *a, tensor v, const tensor *p)
{
    if (g->apg) {
        combine_adaptive(g, a, v, p);
        return;
    }
    op_axpby(g->dev, v, g->weight[0], p[0], 0, p[0]);
    for (int i = 1; i < g->n; i++) op_axpby(g->dev, v, 1, v, g->weight[i], p[i]);
}
