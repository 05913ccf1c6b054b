// apg, match_and_blend_colors, tables: the small formulas.
#include "tests/goldenrun/golden.h"
#include "worker/guide.h"
#include "worker/sampler.h"

#include <stdlib.h>
#include <string.h>

// ---- adaptive guidance

static double real(struct golden *g, const char *key)
{
    json_t *j = golden_meta(g, key);
    double v = json_number_value(j);
    json_decref(j);
    return v;
}

static void apg_run(struct golden *g, const char *name, double limit, double momentum)
{
    tensor first = golden_get(g, "in.diff0");
    struct guide guide = {.dev = g->dev, .momentum = (float)momentum, .limit = (float)limit};
    tensor sum = dev_tensor(g->arena, DT_F32, first.n, first.shape),
           y = dev_tensor(g->arena, DT_F32, first.n, first.shape);
    op_fill(g->dev, sum, 0);
    for (int i = 0;; i++) {
        char diff[32], cond[32], out[48];
        snprintf(diff, sizeof diff, "in.diff%d", i);
        snprintf(cond, sizeof cond, "in.cond%d", i);
        snprintf(out, sizeof out, "%s.out%d", name, i);
        if (!golden_has(g, out)) break;
        guide_project(&guide, y, sum, golden_get(g, diff), golden_get(g, cond));
        golden_check(g, out, y, GOLDEN_MODULE);
    }
}

void golden_apg(struct golden *g)
{
    double limit = real(g, "norm_threshold"), momentum = real(g, "momentum");
    apg_run(g, "default", limit, momentum);
    apg_run(g, "tight", real(g, "tight_threshold"), momentum);
    apg_run(g, "off", 0, momentum);
    apg_run(g, "no_momentum", limit, 0);
}

// ---- colours

// A film [1, 3, t, h, w] as pixels [t, h, w, 3].
static tensor pixels_of(struct golden *g, tensor film)
{
    tensor last = tensor_permute(tensor_at(film, 0), (int[]){1, 2, 3, 0});
    tensor p = dev_tensor(g->arena, DT_F32, last.n, last.shape);
    op_copy(g->dev, p, last);
    return p;
}

void golden_colors(struct golden *g)
{
    tensor x = pixels_of(g, golden_get(g, "in.source")), ref = pixels_of(g, golden_get(g, "in.reference"));
    tensor from = dev_tensor(g->arena, DT_F64, SHAPE(x.shape[0], 3, 2)),
           to = dev_tensor(g->arena, DT_F64, SHAPE(1, 3, 2));
    tensor y = dev_tensor(g->arena, DT_F32, x.n, x.shape);
    op_lab_stats(g->dev, from, x);
    op_lab_stats(g->dev, to, ref);
    json_t *strengths = golden_meta(g, "strengths"), *s;
    size_t i;
    json_array_foreach(strengths, i, s)
    {
        char key[32];
        double strength = json_number_value(s);
        snprintf(key, sizeof key, "strength_%g", strength);
        if (strength == 0) { // the published program returns its input, which here leaves the range: only clamped
            tensor want = pixels_of(g, golden_get(g, key));
            op_lab_match(g->dev, want, want, from, to, 0);
            op_lab_match(g->dev, y, x, from, to, 0);
            double mean[2];
            tensor change = dev_tensor(g->arena, DT_F64, SHAPE(2));
            op_mean_change(g->dev, change, y, want);
            dev_download(g->dev, mean, DT_F64, change);
            golden_expect(g, key, mean[0] == 0, "differs by %g in the mean", mean[0]);
            continue;
        }
        op_lab_match(g->dev, y, x, from, to, (float)strength);
        golden_check_color(g, key, tensor_permute(y, (int[]){3, 0, 1, 2}));
    }
    json_decref(strengths);
    // the statistics of one frame against those of its Lab picture
    tensor lab = golden_get(g, "frame0.lab");
    double stats[6] = {0}, ours[64 * 6];
    int64_t n = lab.shape[0] * lab.shape[1];
    for (int64_t k = 0; k < n * 3; k++) stats[k % 3 * 2] += (double)((float *)lab.data)[k] / (double)n;
    dev_download(g->dev, ours, DT_F64, from);
    for (int c = 0; c < 3; c++)
        golden_expect(g, "frame0.lab", stats[2 * c] - ours[2 * c] < 1e-4 && ours[2 * c] - stats[2 * c] < 1e-4,
                      "mean of channel %d is %g, ours %g", c, stats[2 * c], ours[2 * c]);
}

// ---- tables

static void times(struct golden *g, const char *key)
{
    double shift;
    int steps;
    if (sscanf(key, "timesteps.shift%lf.steps%d", &shift, &steps) != 2) return;
    tensor t = dev_tensor(g->arena, DT_F32, SHAPE(steps + 1));
    sampler_times(t.data, steps, shift);
    golden_check(g, key, t, GOLDEN_INPUT);
}

static void rope(struct golden *g, const char *key)
{
    char in[64];
    int d;
    long long gt, gh, gw;
    if (sscanf(key, "rope.hd%d.grid_%lldx%lldx%lld", &d, &gt, &gh, &gw) == 4) {
        snprintf(in, sizeof in, "rope.hd%d.in", d);
        tensor x = tensor_at(golden_get(g, in), 0), table = dev_tensor(g->arena, DT_F32, SHAPE(gt * gh * gw, d / 2, 2));
        op_rope_grid(g->dev, table, 0, gt, gh, gw);
        op_rope(g->dev, x, table);
        golden_check(g, key, x, GOLDEN_MODULE);
    } else if (sscanf(key, "rope1d.hd%d.ou%1[t]", &d, in) == 2) {
        snprintf(in, sizeof in, "rope1d.hd%d.pos", d);
        tensor pos = golden_get(g, in), table = dev_tensor(g->arena, DT_F32, SHAPE(pos.shape[0], d / 2, 2));
        snprintf(in, sizeof in, "rope1d.hd%d.in", d);
        tensor x = tensor_at(golden_get(g, in), 0); // [heads, tokens, d]
        tensor y = dev_tensor(g->arena, DT_F32, SHAPE(x.shape[1], x.shape[0], d));
        op_copy(g->dev, y, tensor_permute(x, (int[]){1, 0, 2}));
        op_rope_line(g->dev, table, pos);
        op_rope(g->dev, y, table);
        golden_check(g, key, tensor_permute(y, (int[]){1, 0, 2}), GOLDEN_MODULE);
    }
}

void golden_tables(struct golden *g)
{
    for (int64_t i = 0; i < weights_count(g->file); i++) {
        const char *key = weights_name(g->file, i);
        times(g, key);
        rope(g, key);
    }
}
