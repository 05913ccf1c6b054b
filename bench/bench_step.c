// bench_step [--device NAME] [--tiny]: what a step of the 14B network takes on a device, measured.
//
// Networks of one and of three blocks of the published widths, random weights in memory, run a whole forward at
// 480x832, 81 frames, each several times after a warm one; the difference is two blocks, so a forward of all blocks
// follows without 28 GB of weights. Steps of one to three branches stand beside what others published. --tiny is the
// tiny twin at 64x64, 9 frames, to see that the program runs.
#include "bench/given.h"
#include "bench/twin.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 5, FEW = 1, MORE = 3 };

struct measure {
    struct dev *d;
    struct synth_sizes sizes;
    int w, h, frames;
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Median seconds of a forward of so many blocks; negative on failure.
static double forward(const struct measure *m, int layers, struct err *e)
{
    void (*const lists[])(struct synth_list *, const struct synth_sizes *) = {list_dit, list_adapter, NULL};
    struct synth_sizes s = m->sizes;
    struct twin twin = {0};
    struct dit *dit = NULL;
    double took[RUNS];
    s.layers = layers;
    twin_new(&twin, DT_BF16, &s, lists);
    struct dit_config want = {.n_heads = s.heads, .eps = 1e-6f, .text_len = (int)s.text_len};
    int rc = dit_new(&dit, m->d, twin.w, &want, DT_BF16, e);
    if (rc == 0) {
        struct dev_arena *a = dev_arena_new(m->d, "step", 0);
        struct given g;
        given_new(&g, m->d, dit, a, m->frames, m->h, m->w);
        for (int i = -1; i < RUNS && rc == 0; i++) {
            int64_t begun = clock_us();
            dit_forward(dit, a, g.out, &g.in, NULL);
            rc = dev_sync(m->d, e);
            if (i >= 0) took[i] = (double)(clock_us() - begun) * 1e-6;
        }
        dev_arena_free(&a);
    }
    dit_free(&dit);
    twin_free(&twin);
    if (rc < 0) return rc;
    qsort(took, RUNS, sizeof *took, by_size);
    return took[RUNS / 2];
}

int main(int argc, char **argv)
{
    struct measure m = {.sizes = twin_sizes(0), .w = 832, .h = 480, .frames = 81};
    const char *device = "cuda";
    struct err e = {0};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tiny") == 0)
            m.sizes = synth_tiny, m.w = m.h = 64, m.frames = 9;
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
        else {
            fprintf(stderr, "usage: bench_step [--device NAME] [--tiny]\n");
            return EXIT_FAILURE;
        }
    }
    log_init(LOG_WARN, "bench_step", 0);
    if (dev_open(&m.d, device, 0, &e) < 0) {
        fprintf(stderr, "bench_step: %s\n", e.text);
        return EXIT_FAILURE;
    }
    int layers = (int)m.sizes.layers;
    double few = forward(&m, FEW, &e), more = few < 0 ? few : forward(&m, MORE, &e);
    if (more < 0) {
        fprintf(stderr, "bench_step: %s\n", e.text);
        dev_close(&m.d);
        return EXIT_FAILURE;
    }
    double block = (more - few) / (MORE - FEW), all = few + block * (layers - FEW);
    printf("%s, %dx%d, %d frames, BF16: %.4f s a forward of %d block, %.4f s of %d, so %.4f s a block\n", dev_name(m.d),
           m.w, m.h, m.frames, few, FEW, more, MORE, block);
    printf(
        "a forward of all %d blocks %.3f s; a step of 1 branch %.3f s, of 2 %.3f s, of 3 %.3f s, voice part included\n",
        layers, all, all, 2 * all, 3 * all);
    dev_close(&m.d);
    return EXIT_SUCCESS;
}
