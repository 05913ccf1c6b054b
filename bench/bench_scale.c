// bench_scale: the planner's predictions carried to 8, 16 and 64 devices, and what published runs say of them.
//
// The same formulas as `longtake plan` (parallel/plan.h), with rates calibrated on one device alone. Before they are
// believed for ours they are held against the seconds of a step that LightX2V's page of 2025-12 gives for four programs
// on one and on eight H100 (Wan2.1-I2V-14B, 480x832, 81 frames, so without the voice part). Each program's time on one
// sets its rates; its time on eight is what is foretold, and the verdict is on that.
//
// The formulas know arithmetic and wires. A program that also repeats work on every rank, or waits for its host, takes
// longer than they say; how much at most is printed too: all that it takes above the fastest program's time on one
// device, once per rank. The middle of the two is no check of anything: it was looked at with the published times at
// hand.
//
// How a program shared its work was not always published with its times. So the slowest legal reading is printed as
// well: any layout, weights whole or gathered for every block, no transfer hidden behind compute. A time beyond it is
// no matter of reading the run otherwise. Ours are called believed only when all three held-out times are met.
#include "parallel/plan.h"
#include "proto/base/err.h"
#include "worker/plan/rates.h"
#include "worker/plan/sizes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 512 };
static const double within = 0.15;

// Seconds of a step on one H100 and on eight, as published together; 0: not told.
struct published {
    const char *name;
    int branches;
    double one, eight;
    struct mesh_shape shape; // what the program is taken to have done
    bool held_out;           // one of the three to be met
};
static const struct published published[] = {
    {"LightX2V, 2 branches", 2, 5.18, 0.75, {2, 1, 4}, true},
    {"SGL-Diffusion, 2 branches", 2, 6.13, 1.19, {1, 1, 8}, true},
    {"xDiT, 2 branches", 2, 8.93, 2.70, {1, 1, 8}, true},
    {"FastVideo, 2 branches", 2, 7.35, 2.94, {1, 1, 8}, false},
    {"LightX2V, 1 branch", 1, 5.18 / 2, /* half of its two */ 0.39, {1, 1, 8}, false},
};
enum { N_PUBLISHED = sizeof published / sizeof *published };

static struct plan_job job_of(int branches, int h, int w)
{
    return (struct plan_job){.frames = 21,
                             .gh = h / 16,
                             .gw = w / 16,
                             .pictures = 81,
                             .motion = 9,
                             .branches = branches,
                             .texts = branches > 1 ? 2 : 1,
                             .speakers = 1,
                             .steps = 40,
                             .silence = branches > 1};
}

// ---- the check

// Rates of a program that takes `one` seconds: the device's, all slowed down alike.
static struct plan_rates slowed(const struct plan_model *m, const struct plan_job *j, const struct plan_rates *r,
                                double one)
{
    struct plan_rates y = *r;
    double part = plan_predict(m, j, r, (struct mesh_shape){1, 1, 1}, PLAN_WHOLE).step / one;
    y.linear *= part;
    y.attention *= part;
    y.copy *= part;
    return y;
}

static double fastest_one(int branches)
{
    double least = INFINITY;
    for (int i = 0; i < N_PUBLISHED; i++)
        if (published[i].branches == branches && published[i].one < least) least = published[i].one;
    return least;
}

// Of all layouts, weights spread or not, nothing hidden.
static double slowest_reading(const struct plan_model *m, const struct plan_job *j, struct plan_rates r, char *text,
                              size_t n)
{
    struct plan_row *rows = calloc(ROWS, sizeof *rows);
    BUG_IF(!rows, "no memory for layouts");
    r.hides = false;
    r.memory = INT64_MAX;
    int count = plan_list(rows, ROWS, 8, m, j, &r);
    struct plan_row *worst = rows;
    for (int i = 1; i < count; i++)
        if (rows[i].step > worst->step) worst = &rows[i];
    double step = worst->step;
    plan_text(worst, text, n);
    free(rows);
    return step;
}

static bool check(const struct published *p, const struct plan_model *m, const struct plan_rates *device)
{
    struct plan_job j = job_of(p->branches, 480, 832);
    double floor = fastest_one(p->branches);
    struct plan_rates own = slowed(m, &j, device, p->one), swift = slowed(m, &j, device, floor);
    double told = plan_predict(m, &j, &own, p->shape, PLAN_WHOLE).step, off = told / p->eight - 1;
    double most = plan_predict(m, &j, &swift, p->shape, PLAN_WHOLE).step + (p->one - floor);
    bool good = fabs(off) <= within;
    char reading[32];
    double slowest = slowest_reading(m, &j, own, reading, sizeof reading);
    printf("%-26s %6.2f  %dx%dx%d  %8.2f  %8.2f  %+5.0f %%  %-14s %8.2f %-10s %8.2f %8.2f\n", p->name, p->one,
           p->shape.guide, p->shape.ring, p->shape.heads, p->eight, told, 100 * off,
           good ? "within 15 %" : "NOT within", slowest, reading, most, (told + most) / 2);
    return good;
}

// Whether all held-out times are met.
static bool check_all(const struct plan_model *m, const struct plan_rates *device)
{
    int good[2] = {0}, all[2] = {0};
    // without the voice part: two products of the width less, and no voice keys
    struct plan_model bare = *m;
    bare.ffn -= bare.dim;
    bare.voice = 0;
    printf("Held-out check: seconds of a step on eight H100, foretold from one\n%-26s %6s  %5s  %8s  %8s  %7s  %-14s "
           "%8s %-10s %8s %8s\n",
           "published", "on one", "split", "on eight", "foretold", "off", "verdict", "slowest", "reading", "at most",
           "(middle)");
    for (int i = 0; i < N_PUBLISHED; i++) {
        bool ok = check(&published[i], &bare, device);
        good[published[i].held_out] += ok;
        all[published[i].held_out]++;
    }
    bool believed = good[1] == all[1];
    printf("Met: %d of the %d (0.75, 1.19 and 2.70), and %d of %d others.\n", good[1], all[1], good[0], all[0]);
    if (!believed)
        printf(
            "NOT BELIEVED FOR OURS YET. The fastest program is foretold. The others take longer on eight devices than "
            "even the slowest\nreading of their runs (any layout, weights gathered for every block, nothing hidden). "
            "Ranks that repeat a part of what they take\nabove the fastest would explain it (at most: all of it), but "
            "how large a part, times on one device cannot tell. So the figures\nbelow are what is left when a program "
            "loses nothing else: a bound, not a promise.\n");
    printf("\n");
    return believed;
}

// ---- ours

static void predict(const struct plan_model *m, const struct plan_rates *r, int branches, int h, int w)
{
    static const int counts[] = {1, 8, 16, 64};
    struct plan_row *rows = calloc(ROWS, sizeof *rows);
    struct plan_job j = job_of(branches, h, w);
    double alone = 0;
    BUG_IF(!rows, "no memory for layouts");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char text[32];
        int n = plan_list(rows, ROWS, counts[i], m, &j, r);
        if (n == 0) continue;
        const struct plan_row *y = rows;
        if (i == 0) alone = y->step;
        double waits = y->exchange + y->ring + y->gather + y->weights;
        printf("%4dx%-5d %8d %5d  %-12s %8.3f %8.3f %7.1f %%  %6.1f %%  %7.1f  %8.2f\n", h, w, branches, counts[i],
               plan_text(y, text, sizeof text), y->step, waits, 100 * waits / y->step,
               100 * alone / y->step / counts[i], (double)y->memory / 1e9, y->edges);
    }
    free(rows);
}

static void predict_all(const struct plan_model *m, const struct plan_rates *r, bool believed)
{
    printf("Ours, predicted%s: seconds of a step of the whole model, voice part included\n",
           believed ? "" : ", not believed yet");
    printf("%10s %8s %5s  %-12s %8s %8s %9s  %8s  %7s  %8s\n", "picture", "branches", "ranks", "layout", "step s",
           "waits s", "of it", "scaling", "GB", "edges s");
    for (int branches = 3; branches >= 1; branches--) predict(m, r, branches, 480, 832);
    predict(m, r, 3, 704, 1280);
}

// A figure for each op and each link, of the forward that one rank of a layout does.
static void per_op(const struct plan_model *m, const struct plan_rates *r)
{
    static const struct mesh_shape shapes[] = {{1, 1, 1}, {1, 1, 8}, {1, 2, 8}, {1, 8, 8}};
    struct plan_job j = job_of(1, 480, 832);
    printf("Per rank and forward, one branch at 480x832\n%-10s %10s %10s %8s %10s %10s %10s %10s\n", "layout",
           "products", "attention", "moves", "heads GB", "heads s", "ring GB", "ring s");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char text[32];
        struct plan_row y = plan_predict(m, &j, r, shapes[i], PLAN_WHOLE);
        printf("%-10s %8.4f s %8.4f s %6.4f s %10.2f %10.4f %10.2f %10.4f\n", plan_text(&y, text, sizeof text),
               y.linear, y.attention, y.small, (double)y.exchange_bytes / 1e9, y.exchange, (double)y.ring_bytes / 1e9,
               y.ring);
    }
    printf("\n");
}

int main(void)
{
    const struct rates_device *d = NULL;
    struct plan_model m;
    struct err e = {0};
    if (rates_stated(&d, "h100", &e) < 0) {
        fprintf(stderr, "bench_scale: %s\n", e.text);
        return EXIT_FAILURE;
    }
    sizes_of_list(&m, &synth_published, 2);
    printf(
        "Assumed of an H100 (not measured by this program on a device): %s;\n%.0f TFLOP/s products, %.0f attention, "
        "%.0f convolutions, %.1f TB/s memory, %.0f us an exchange, %.0f GB/s in a node of %d, %.0f between nodes\n\n",
        d->from, d->rates.linear / 1e12, d->rates.attention / 1e12, d->rates.conv / 1e12, d->rates.copy / 1e12,
        d->rates.latency * 1e6, d->rates.near / 1e9, d->rates.node, d->rates.far / 1e9);
    bool believed = check_all(&m, &d->rates);
    per_op(&m, &d->rates);
    predict_all(&m, &d->rates, believed);
    return EXIT_SUCCESS;
}
