// Parts of bench_comm: what links do, and what one segment costs by one rank and by several.
#ifndef BENCH_COMM_H
#define BENCH_COMM_H

#include "parallel/comm.h"

double comm_bench_now(void); // seconds

// By all ranks of `world`: time and rate of the collectives by size. Rank 0 prints a table.
void links_bench(struct comm *world);

// The scene of the layouts: a random model and what a segment of it should be, shared by ranks as threads, made anew by
// ranks as processes.
struct scene;
int scene_open(struct scene **out, struct err *e);
void scene_close(struct scene **s);
// By all ranks of a world of two: every layout of two, beside one rank with two threads; rank 0 prints.
int scene_bench(const struct scene *s, struct comm *world, struct err *e);

#endif
