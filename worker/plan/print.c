// Printing a plan: the rates it rests on, a line per layout, then sentences.
//
// Fewer ranks are only spoken of where they win by more than the prediction can be trusted to tell apart.
#include "worker/plan/print.h"

#include <jansson.h>
#include <string.h>

enum { FPS = 25 };

static int ranks_of(const struct plan_row *y) { return y->shape.guide * y->shape.ring * y->shape.heads; }

// Seconds of video that a segment adds.
static double added(const struct plan_report *r) { return (double)(r->job.pictures - r->job.motion) / FPS; }

static bool fewer_win(const struct plan_report *r)
{
    return r->has_fewer && (r->n_rows == 0 || !r->rows->fits || plan_is_faster(&r->fewer, r->rows));
}

static void print_rate(FILE *to, const char *what, double v, const char *unit)
{
    static const struct {
        double from;
        const char *name;
    } steps[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {0, ""}};
    int i = 0;
    while (v < steps[i].from) i++;
    fprintf(to, "%s %.3g %s%s", what, v / (steps[i].from > 0 ? steps[i].from : 1), steps[i].name, unit);
}

static void print_rates(const struct plan_report *r, FILE *to)
{
    const struct plan_rates *y = &r->rates;
    fprintf(to, "rates: %s\n", r->from);
    print_rate(to, "of a rank: products", y->linear, "FLOP/s");
    print_rate(to, ", attention", y->attention, "FLOP/s");
    print_rate(to, ", convolutions", y->conv, "FLOP/s");
    print_rate(to, ", moves", y->copy, "B/s");
    fprintf(to, ", memory %.3g GB\n", (double)y->memory / 1e9);
    if (r->n == 1) return;
    if (y->node > 1) print_rate(to, "of its wires: sends", y->near, "B/s in a node");
    if (y->node < r->n) print_rate(to, y->node > 1 ? "," : "of its wires: sends", y->far, "B/s between nodes");
    fprintf(to, ", %.0f us an exchange, %s\n", y->latency * 1e6,
            y->hides ? "while it computes" : "instead of computing");
}

static void print_row(const struct plan_row *y, FILE *to)
{
    char layout[32];
    struct plan_row bare = *y;
    bare.sharers = 1;
    fprintf(to, "%-9s %-6s %8lld %8.3g  %9.4g %8.3g %8.3g %8.3g %8.3g  %9.4g %9.4g%s\n",
            plan_text(&bare, layout, sizeof layout),
            y->sharers == 1         ? "whole"
            : y->shard == PLAN_NODE ? "node"
                                    : "all",
            (long long)y->rows, (double)y->memory / 1e9, y->linear + y->attention + y->small, y->exchange, y->ring,
            y->weights, y->gather, y->step, y->segment, y->fits ? "" : "  does not fit");
}

// What a group takes of itself is chosen for the job that the model does by itself, and does not leave the usual layout
// for a small lead. Where this job's best is another one, it is for the user to say so.
static void print_automatic(const struct plan_report *r, FILE *to)
{
    char text[32], better[32];
    struct plan_row best = *r->rows;
    if (r->automatic.guide == 0 || r->n_rows == 0 || !best.fits) return;
    best.sharers = 1; // the mesh alone
    if (memcmp(&best.shape, &r->automatic, sizeof best.shape) == 0) {
        fprintf(to, "--layout auto takes the same\n");
        return;
    }
    for (int i = 0; i < r->n_rows; i++) {
        struct plan_row y = r->rows[i];
        if (memcmp(&y.shape, &r->automatic, sizeof y.shape) != 0) continue;
        y.sharers = 1;
        fprintf(to, "--layout auto takes %s, %.4g s a step", plan_text(&y, text, sizeof text), y.step);
        if (plan_is_faster(&best, &y))
            fprintf(to, "; say --layout %s to have the fastest", plan_text(&best, better, sizeof better));
        fprintf(to, "\n");
        return;
    }
}

static void print_verdict(const struct plan_report *r, FILE *to)
{
    char text[32];
    const struct plan_row *best = r->rows;
    if (r->n_rows > 0 && best->fits) {
        double hours = best->segment / added(r);
        fprintf(to, "fastest: %s, %.4g s a step, %.4g s a segment of %.2f s of video: an hour takes %.3g %s\n",
                plan_text(best, text, sizeof text), best->step, best->segment, added(r), hours < 1 ? hours * 60 : hours,
                hours < 1 ? "minutes" : "hours");
        fprintf(to, "its memory of a rank: weights %.3g, keys %.3g, work %.3g GB\n", (double)best->held / 1e9,
                (double)best->caches / 1e9, (double)best->work / 1e9);
    }
    print_automatic(r, to);
    if (fewer_win(r))
        fprintf(to, "fewer would be faster: %d as %s, %.4g s a segment; start them with -n %d\n", ranks_of(&r->fewer),
                plan_text(&r->fewer, text, sizeof text), r->fewer.segment, ranks_of(&r->fewer));
}

void plan_print(const struct plan_report *r, FILE *to)
{
    const struct plan_job *j = &r->job;
    fprintf(to, "plan: %s in %s, %dx%d, %lld frames (%lld tokens), %d branch%s, %d steps, on %d rank%s\n", r->model,
            r->dtype, r->height, r->width, (long long)j->pictures, (long long)(j->frames * j->gh * j->gw), j->branches,
            j->branches == 1 ? "" : "es", j->steps, r->n, r->n == 1 ? "" : "s");
    print_rates(r, to);
    fprintf(to, "%-9s %-6s %8s %8s  %9s %8s %8s %8s %8s  %9s %9s\n", "layout", "weight", "rows", "GB", "compute",
            "heads", "ring", "weights", "gather", "step s", "segment s");
    for (int i = 0; i < r->n_rows; i++) print_row(&r->rows[i], to);
    print_verdict(r, to);
}

// ---- for machines

static json_t *row_json(const struct plan_row *y)
{
    return json_pack("{si si si si sI sb sI sI sI sI sI sI sI sf sf sf sf sf sf sf sf sf}", "guide", y->shape.guide,
                     "ring", y->shape.ring, "heads", y->shape.heads, "sharers", y->sharers, "rows", (json_int_t)y->rows,
                     "fits", y->fits, "memory_bytes", (json_int_t)y->memory, "weights_bytes", (json_int_t)y->held,
                     "keys_bytes", (json_int_t)y->caches, "work_bytes", (json_int_t)y->work, "exchange_bytes",
                     (json_int_t)y->exchange_bytes, "ring_bytes", (json_int_t)y->ring_bytes, "weight_wire_bytes",
                     (json_int_t)y->weight_bytes, "compute_s", y->linear + y->attention + y->small, "exchange_s",
                     y->exchange, "ring_s", y->ring, "weights_s", y->weights, "gather_s", y->gather, "step_s", y->step,
                     "edges_s", y->edges, "segment_s", y->segment, "hours_an_hour", 0.0);
}

static json_t *priced(const struct plan_report *r, const struct plan_row *y)
{
    json_t *j = row_json(y);
    json_object_set_new(j, "hours_an_hour", json_real(y->segment / added(r)));
    return j;
}

void plan_print_json(const struct plan_report *r, FILE *to)
{
    const struct plan_rates *y = &r->rates;
    json_t *rows = json_array();
    for (int i = 0; i < r->n_rows; i++) json_array_append_new(rows, priced(r, &r->rows[i]));
    json_t *all = json_pack("{ss ss ss si si si s{sf sf sf sf sf sf sf si sI sb} so}", "model", r->model, "dtype",
                            r->dtype, "rates_from", r->from, "height", r->height, "width", r->width, "ranks", r->n,
                            "rates", "linear", y->linear, "attention", y->attention, "conv", y->conv, "copy", y->copy,
                            "near", y->near, "far", y->far, "latency", y->latency, "node", y->node, "memory",
                            (json_int_t)y->memory, "hides", y->hides, "layouts", rows);
    if (fewer_win(r)) json_object_set_new(all, "fewer", priced(r, &r->fewer));
    json_dumpf(all, to, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    fputc('\n', to);
    json_decref(all);
}
