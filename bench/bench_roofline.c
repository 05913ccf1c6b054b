// bench_roofline [FILE]: what a step should take on cards that were not at hand. A prediction, and marked as one.
//
// The published 14B network runs once on a device that only counts (bench/tally.h): the list of ops of one forward at
// 480x832, 81 frames, with their shapes, is that of the program. An op takes the longer of its operations at the card's
// rate and its bytes at the card's copy rate; the rates are those that `longtake plan --device` states of each card and
// nobody has measured with this program. FILE is what `test_gpusim_bytes --csv` prints: bytes of an op are then the
// least ones times what gpusim counted of them (its worst row of that op in BF16), else the least.
//
// The trap: this is what the kernels would take if they reached those rates one after another with nothing between; it
// knows no launches that come late, no clocks that fall under load.
#include "bench/given.h"
#include "bench/tally.h"
#include "worker/plan/rates.h"
#include "worker/synth/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CARDS = 3, FRAMES = 81, H = 480, W = 832, STEPS = 40, COUNTED = 64 };
static const char *const cards[CARDS] = {"h100", "a100", "4090"};

// Others' figures for the same network and size without the voice part, which adds 8 %.
static const struct {
    const char *card, *what;
    int branches, steps;
    double seconds;
} published[] = {
    {"h100", "a step of 2 branches, LightX2V on one H100", 2, 1, 5.18},
    {"a100", "a clip of 40 steps of 2 branches, Wan's own program on one A800 (TeaCache's page)", 2, STEPS, 735},
};
static const double voice = 1.08;

// ---- what gpusim counted

static struct {
    char op[24];
    double of_least;
} counted[COUNTED];
static int n_counted;

static double of_least(const char *op)
{
    for (int i = 0; i < n_counted; i++)
        if (strcmp(counted[i].op, op) == 0) return counted[i].of_least;
    return 1;
}

static int read_counted(const char *path)
{
    char line[256], op[24], dtype[8], size[32];
    double least, moved, ratio;
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "bench_roofline: cannot read %s\n", path);
        return -1;
    }
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%23[^,],%7[^,],%31[^,],%lf,%lf,%lf", op, dtype, size, &least, &moved, &ratio) != 6) continue;
        int i = 0;
        if (strcmp(dtype, "BF16") != 0) continue;
        while (i < n_counted && strcmp(counted[i].op, op) != 0) i++;
        if (i == COUNTED) continue;
        if (i == n_counted) {
            memcpy(counted[n_counted++].op, op, sizeof op);
            counted[i].of_least = ratio;
        }
        counted[i].of_least = fmax(counted[i].of_least, ratio);
    }
    fclose(f);
    return 0;
}

// ---- the forward

// Weights that nobody may look at: addresses alone.
static struct weights *hollow(const struct synth_sizes *s, struct err *e)
{
    struct synth_list l = {.label = "roofline", .dtype = DT_BF16};
    struct weights *w = NULL;
    list_dit(&l, s);
    list_adapter(&l, s);
    void *space =
        mmap(NULL, (size_t)list_bytes(&l) + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED || weights_new(&w, e) < 0) return NULL;
    char *at = space;
    for (int64_t i = 0; i < l.n; i++) {
        tensor t = tensor_of(at, DT_BF16, l.head[i].n, l.head[i].shape);
        weights_put(w, l.head[i].name, t);
        at += tensor_bytes(t);
    }
    list_free(&l);
    return w;
}

static int count_forward(struct tally *t, const struct synth_sizes *s, int64_t *weights_bytes, struct err *e)
{
    struct dit *dit = NULL;
    struct weights *w = hollow(s, e);
    struct dit_config want = {.n_heads = s->heads, .eps = 1e-6f, .text_len = (int)s->text_len};
    if (!w || dit_new(&dit, t->dev, w, &want, DT_BF16, e) < 0) return -1;
    struct dev_arena *a = dev_arena_new(t->dev, "forward", 0);
    struct given g;
    given_new(&g, t->dev, dit, a, FRAMES, H, W);
    tally_forget(t);
    dit_forward(dit, a, g.out, &g.in, NULL);
    *weights_bytes = dit_bytes(dit);
    for (int64_t i = 0; i < weights_count(w); i++) {
        tensor one = NO_TENSOR;
        if (weights_get(w, weights_name(w, i), &one, NULL) == 0) *weights_bytes += tensor_bytes(one);
    }
    int rc = dev_sync(t->dev, e);
    dev_arena_free(&a);
    dit_free(&dit);
    weights_free(&w);
    return rc;
}

// ---- seconds

static double seconds_of(const struct tally_row *r, const struct plan_rates *of)
{
    double rate = strcmp(r->op, "attention") == 0 ? of->attention : of->linear;
    return (double)r->calls * fmax(r->work / rate, r->bytes * of_least(r->op) / of->copy);
}

static int by_time(const void *a, const void *b)
{
    const struct rates_device *h = NULL;
    if (rates_stated(&h, cards[0], NULL) < 0) return 0;
    double x = seconds_of(a, &h->rates), y = seconds_of(b, &h->rates);
    return (x < y) - (x > y);
}

static void print_ops(const struct tally *t, const struct rates_device *const *of, double *forward)
{
    int64_t calls = 0;
    double work = 0, moved[2] = {0};
    printf("%-14s %-28s %6s %9s %9s", "op", "output", "calls", "TFLOP", "GB");
    for (int k = 0; k < CARDS; k++) printf(" %8s s", of[k]->name);
    printf("\n");
    for (int i = 0; i < t->n; i++) {
        const struct tally_row *r = &t->row[i];
        double n = (double)r->calls;
        printf("%-14s %-28s %6lld %9.2f %9.2f", r->op, r->shape, (long long)r->calls, n * r->work / 1e12,
               n * r->bytes * of_least(r->op) / 1e9);
        for (int k = 0; k < CARDS; k++) {
            double s = seconds_of(r, &of[k]->rates);
            forward[k] += s;
            printf(" %10.4f", s);
        }
        printf("\n");
        calls += r->calls;
        work += n * r->work;
        if (r->work == 0) {
            moved[0] += n * r->bytes;
            moved[1] += n * r->bytes * of_least(r->op);
        }
    }
    printf("%-43s %6lld %9.2f %9s", "one forward", (long long)calls, work / 1e12, "");
    for (int k = 0; k < CARDS; k++) printf(" %10.3f", forward[k]);
    printf("\nElement-wise ops: %.1f GB at least, %.1f GB by the bytes that gpusim counts: %.3f of the least\n\n",
           moved[0] / 1e9, moved[1] / 1e9, moved[0] > 0 ? moved[1] / moved[0] : 1);
}

static void print_steps(const struct rates_device *const *of, const double *forward, int64_t weights)
{
    printf("PREDICTION, not measured on a device: seconds of a step, voice part included, one card\n%-9s", "branches");
    for (int k = 0; k < CARDS; k++) printf(" %10s", of[k]->name);
    for (int branches = 1; branches <= 3; branches++) {
        printf("\n%-9d", branches);
        for (int k = 0; k < CARDS; k++) printf(" %10.2f", branches * forward[k]);
    }
    printf("\n");
    for (int k = 0; k < CARDS; k++)
        if (weights > of[k]->rates.memory)
            printf(
                "%s: the %.1f GB of weights do not fit its %.0f GB; streamed at %.0f GB/s a pass of them takes %.2f s, "
                "behind %.2f s of work\n",
                of[k]->name, (double)weights / 1e9, (double)of[k]->rates.memory / 1e9, of[k]->rates.near / 1e9,
                (double)weights / of[k]->rates.near, forward[k]);
    printf("\nPublished by others, without the voice part; x %.2f for it; beside the prediction\n", voice);
    for (size_t i = 0; i < sizeof published / sizeof *published; i++)
        for (int k = 0; k < CARDS; k++) {
            if (strcmp(published[i].card, cards[k]) != 0) continue;
            double ours = published[i].branches * published[i].steps * forward[k];
            printf("%-84s %7.2f s, x %.2f = %7.2f; predicted %7.2f (%.2f of it)\n", published[i].what,
                   published[i].seconds, voice, voice * published[i].seconds, ours,
                   ours / (voice * published[i].seconds));
        }
    printf("4090: nothing is published of this network at this size\n");
}

int main(int argc, char **argv)
{
    struct tally t;
    struct err e = {0};
    const struct rates_device *of[CARDS];
    double forward[CARDS] = {0};
    int64_t weights = 0;
    if (argc > 1 && read_counted(argv[1]) < 0) return EXIT_FAILURE;
    if (tally_open(&t, &e) < 0 || count_forward(&t, &synth_published, &weights, &e) < 0) {
        fprintf(stderr, "bench_roofline: %s\n", e.text);
        return EXIT_FAILURE;
    }
    for (int k = 0; k < CARDS; k++) {
        if (rates_stated(&of[k], cards[k], &e) < 0) {
            fprintf(stderr, "bench_roofline: %s\n", e.text);
            return EXIT_FAILURE;
        }
        printf("%-5s taken as: products %.0f TFLOP/s, attention %.0f, memory %.1f TB/s (%s)\n", of[k]->name,
               of[k]->rates.linear / 1e12, of[k]->rates.attention / 1e12, of[k]->rates.copy / 1e12, of[k]->from);
    }
    printf("\nOne forward of the 14B network, %dx%d, %d frames, BF16: counted\n", H, W, FRAMES);
    qsort(t.row, (size_t)t.n, sizeof *t.row, by_time);
    print_ops(&t, of, forward);
    print_steps(of, forward, weights);
    tally_close(&t);
    return EXIT_SUCCESS;
}
