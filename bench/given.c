// The conditions of one forward. What they say does not matter to its time and memory, only their shapes do.
#include "bench/given.h"

void given_new(struct given *g, struct dev *d, const struct dit *m, struct dev_arena *a, int frames, int h, int w)
{
    const struct dit_config *c = dit_config_of(m);
    int64_t t = 1 + (frames - 1) / 4, lh = h / 8, lw = w / 8;
    tensor text = dev_tensor(a, DT_F32, SHAPE(c->text_len, c->text_dim));
    tensor clip = dev_tensor(a, DT_F32, SHAPE(c->clip_tokens, c->clip_dim));
    tensor x = dev_tensor(a, DT_F32, SHAPE(c->out_dim, t, lh, lw));
    g->out = dev_tensor(a, DT_F32, x.n, x.shape);
    tensor y = dev_tensor(a, DT_F32, SHAPE(c->in_dim - c->out_dim, t, lh, lw));
    tensor inputs[] = {text, clip, x, y};
    for (int i = 0; i < 4; i++) op_fill(d, inputs[i], 0.5f);
    g->words = dit_words_new(m, a, text, NULL);
    g->picture = dit_picture_new(m, a, clip, NULL);
    g->voice = dit_voice_null(m, a, t);
    g->in = (struct dit_in){.x = x,
                            .y = y,
                            .time = dit_time_new(m, a, 500, NULL),
                            .words = &g->words,
                            .picture = &g->picture,
                            .voice = &g->voice};
}
