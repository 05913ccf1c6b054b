// apg, match_and_blend_colors, tables: the small formulas.
#include "tests/goldenrun/golden.h"
#include "worker/guide.h"
#include "worker/models/dit.h"
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
    golden_check_all_used(g);
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

// Frame 0 to Lab and back. A film of pictures of one pixel has that pixel's Lab values for its means; a frame moved to
// its own statistics is the way there and back.
static void frame_alone(struct golden *g, tensor x)
{
    tensor frame = tensor_slice(x, 0, 0, 1);
    int64_t h = x.shape[1], w = x.shape[2];
    tensor stats = dev_tensor(g->arena, DT_F64, SHAPE(h * w, 3, 2));
    op_lab_stats(g->dev, stats, tensor_reshape(frame, SHAPE(h * w, 1, 1, 3)));
    tensor lab = tensor_slice(tensor_split(stats, 0, h, w), 3, 0, 1);
    tensor mean = dev_tensor(g->arena, DT_F32, SHAPE(h, w, 3, 1));
    op_copy(g->dev, mean, lab);
    golden_check(g, "frame0.lab", tensor_reshape(mean, SHAPE(h, w, 3)), GOLDEN_COLOR_MEAN);
    tensor own = dev_tensor(g->arena, DT_F64, SHAPE(1, 3, 2)), back = dev_tensor(g->arena, DT_F32, SHAPE(1, h, w, 3)),
           half = dev_tensor(g->arena, DT_F32, SHAPE(1, h, w, 3));
    op_lab_stats(g->dev, own, frame);
    op_lab_match(g->dev, back, frame, own, own, 1);
    op_fill(g->dev, half, 0.5f);
    op_axpby(g->dev, back, 0.5f, back, 1, half); // from -1..1 to 0..1
    golden_check_color(g, "frame0.lab_to_rgb", tensor_at(back, 0));
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
    frame_alone(g, x);
    golden_check_all_used(g);
}

// ---- tables

static void times(struct golden *g, const char *key)
{
    double shift;
    int steps;
    const char *behind = strstr(key, ".steps"); // "7.steps8" reads as the number "7."
    if (!behind || sscanf(behind, ".steps%d", &steps) != 1 || sscanf(key, "timesteps.shift%lf", &shift) != 1) return;
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

static void given(struct golden *g, const char *key)
{
    int frames;
    if (sscanf(key, "mask.frames%d", &frames) != 1) return;
    tensor ref = tensor_at(golden_get(g, key), 0);
    BUG_IF(ref.n != 4, "%s has %d axes", key, ref.n);
    tensor mask = dev_tensor(g->arena, DT_F32, SHAPE(ref.shape[0], 1 + (frames - 1) / 4, ref.shape[2], ref.shape[3]));
    dit_given(g->dev, mask);
    golden_check(g, key, mask, GOLDEN_EXACT);
}

static void waves(struct golden *g, const char *key)
{
    char times[64];
    int dim, end = 0;
    if (sscanf(key, "sinusoid.dim%d%n", &dim, &end) != 1 || key[end]) return;
    snprintf(times, sizeof times, "%s.t", key);
    tensor t = golden_get(g, times);
    if (tensor_is_none(t)) return;
    tensor y = dev_tensor(g->arena, DT_F32, SHAPE(t.shape[0], dim));
    for (int64_t i = 0; i < t.shape[0]; i++) dit_waves((float *)y.data + i * dim, dim, ((const float *)t.data)[i]);
    golden_check(g, key, y, GOLDEN_INPUT);
}

void golden_tables(struct golden *g)
{
    for (int64_t i = 0; i < weights_count(g->file); i++) {
        const char *key = weights_name(g->file, i);
        times(g, key);
        rope(g, key);
        given(g, key);
        waves(g, key);
    }
    golden_check_all_used(g);
}
