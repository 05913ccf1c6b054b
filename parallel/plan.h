// Which layout: every legal way in which a number of ranks can render a segment, the fastest first.
//
// Who measures, prints and obeys is the caller's affair.
#ifndef PARALLEL_PLAN_H
#define PARALLEL_PLAN_H

#include "parallel/plan_cost.h"

#include <stddef.h>

// Every legal layout of `n` ranks, those that fit first, the fastest first; at most `room`. Returns how many.
int plan_list(struct plan_row *out, int room, int n, const struct plan_model *m, const struct plan_job *j,
              const struct plan_rates *r);
// The fastest layout that fits into less than `n` ranks. False: none does.
bool plan_fewer(struct plan_row *out, int n, const struct plan_model *m, const struct plan_job *j,
                const struct plan_rates *r);
// 0, or E_INPUT when not even the leanest of the rows fits: what it needs, what there is, and the way out.
int plan_check(const struct plan_row *rows, int n_rows, const struct plan_rates *r, struct err *e);

// "1x2x4 node": guide x ring x heads, and where the weights are unless whole.
const char *plan_text(const struct plan_row *row, char *text, size_t n);

#endif
