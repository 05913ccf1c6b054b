// Inside of worker/synth: the tensors of one file, in order, and what values each is drawn from.
#ifndef WORKER_SYNTH_LIST_H
#define WORKER_SYNTH_LIST_H

#include "worker/weights/outfile.h"

// Uniform in centre - amplitude .. centre + amplitude.
struct draw {
    float centre, amplitude;
};

struct synth_list {
    const char *label; // salts the draws: the same name in two files gets other values
    uint64_t seed;
    enum dtype dtype;
    struct tensor_head *head;
    struct draw *draw;
    int64_t n, capacity;
};
void list_free(struct synth_list *l);
int64_t list_bytes(const struct synth_list *l);
int64_t list_values(const struct synth_list *l);

// One tensor. The name is made printf style.
void list_add(struct synth_list *l, struct draw d, int n, const int64_t *shape, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
// <prefix>.weight, whose outputs have `gain` times the deviation of inputs of the product of all axes but the first,
// and <prefix>.bias.
void list_layer(struct synth_list *l, double gain, int n, const int64_t *shape, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
// <prefix>.weight alone.
void list_weight(struct synth_list *l, double gain, int n, const int64_t *shape, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
// <prefix>.weight around 1 and <prefix>.bias around 0, [n] each.
void list_norm(struct synth_list *l, int64_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// <name> around 1.
void list_gain(struct synth_list *l, int n, const int64_t *shape, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

// Elements [from, from + n) of tensor i, in its dtype.
void list_fill(const struct synth_list *l, int64_t i, int64_t from, int64_t n, void *out);

#endif
