// One segment of a tiny film, from words and voice to frames, on any table of ops: 32 x 48 pixels, 17 frames or 9, a
// tiny model of random weights with transformer and text in BF16.
#ifndef TESTS_GPUSIM_FILM_H
#define TESTS_GPUSIM_FILM_H

#include "tests/gpusim/sim.h"
#include "worker/render.h"

enum { FILM_SHORT = 9, FILM_STEPS = 2, FILM_STEPS_MOST = 3 };
enum { FILM_H = 32, FILM_W = 48, FILM_FRAMES = 17, FILM_FRAME_BYTES = FILM_H * FILM_W * 3 / 2 };

struct film {
    uint8_t yuv[FILM_FRAMES * FILM_FRAME_BYTES];
    int64_t n_frames;
    bool has_tail;
    int ends;                                // as struct film_how has it
    struct sim_counts step[FILM_STEPS_MOST]; // what the device was asked for in each
};

// Makes the model in a folder of its own; 0, or not.
int film_begin(void);
void film_end(void);
// How it is rendered besides the table; zero is one rank, weights on the device.
struct film_how {
    int frames; // 0: FILM_FRAMES
    int steps;  // 0: FILM_STEPS
    int ends;   // the job is cancelled after that step; 0: never
    const struct mesh *mesh;
    bool share_weights, stream_weights;
};
// On a device that the caller opened. Only one rank of a mesh has frames (`f` not NULL). The film must be whole.
void film_render(struct dev *d, struct film_how how, struct film *f);
// Bytes of two films apart: the worst, and on average.
int film_apart(const struct film *a, const struct film *b, double *average);

#endif
