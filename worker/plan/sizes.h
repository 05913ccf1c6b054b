// What the planner must know of a network: from the shapes in a model folder, read without the weights, or by the name
// of a published model or its tiny twin.
#ifndef WORKER_PLAN_SIZES_H
#define WORKER_PLAN_SIZES_H

#include "parallel/plan.h"
#include "proto/model.h"
#include "worker/synth/parts.h"

// `speakers` chooses the adapter, `size` is of an activation and a weight: 4 or 2 bytes. E_INPUT names what is missing.
int sizes_of_folder(struct plan_model *out, const struct model *m, int speakers, int size, struct err *e);
// What a job wants that says nothing of itself: the folder's defaults, a picture of 16:9.
int sizes_of_job(struct plan_job *out, const struct model *m, int speakers, struct err *e);
void sizes_of_list(struct plan_model *out, const struct synth_sizes *s, int size);

#endif
