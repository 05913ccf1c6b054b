// The planner's table and what follows from it, for people and for machines.
#ifndef WORKER_PLAN_PRINT_H
#define WORKER_PLAN_PRINT_H

#include "parallel/plan.h"

#include <stdio.h>

struct plan_report {
    const char *model, *dtype; // names
    const char *from;          // where the rates come from
    int height, width;         // of the picture
    int n;                     // ranks
    struct plan_model net;
    struct plan_job job;
    struct plan_rates rates;
    const struct plan_row *rows; // as plan_list orders them
    int n_rows;
    struct mesh_shape automatic; // what --layout auto takes; guide 0: a layout was asked for
    bool has_fewer;              // with `fewer`, the fastest of less ranks
    struct plan_row fewer;
};

void plan_print(const struct plan_report *r, FILE *to);
void plan_print_json(const struct plan_report *r, FILE *to);

#endif
