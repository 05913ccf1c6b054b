// What a rank can do: measured here and now, or stated of a device that is not at hand.
#ifndef WORKER_PLAN_RATES_H
#define WORKER_PLAN_RATES_H

#include "kernels/dev.h"
#include "parallel/plan.h"

// By all ranks of `world` at once, in about a second; all get the same figures, those of the slowest. `rows` is what a
// rank would work on. Collective. A fault of one rank's device is one on all.
int rates_probe(struct plan_rates *out, struct dev *d, struct comm *world, const struct plan_model *m, int64_t rows,
                struct err *e);

// Bytes that a rank may use, `here` of them being on this machine; the least of all ranks. Collective.
int64_t rates_memory(const struct dev *d, struct comm *world, int here);

struct rates_device {
    const char *name;
    struct plan_rates rates; // `node`: what one is usually built with
    const char *from;        // where the figures come from
};
// E_INPUT lists the names.
int rates_stated(const struct rates_device **out, const char *name, struct err *e);

#endif
