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
// Whether a segment by `a` takes clearly less time than one by `b`: by more than a prediction can be trusted to tell.
bool plan_is_faster(const struct plan_row *a, const struct plan_row *b);

struct plan_wish {
    struct mesh_shape shape; // 0: any
    bool spread;             // weights are; then the guide axis has one rank, unless the shape says otherwise
};
// The layout that `n` ranks take of themselves: what mesh_plan chooses, unless one of the wished ones is clearly
// faster, or it does not fit and another one does. A small lead decides nothing, so that two measurements of one
// machine decide alike. E_INPUT: no layout is legal.
int plan_choose(struct plan_row *out, int n, struct plan_wish w, const struct plan_model *m, const struct plan_job *j,
                const struct plan_rates *r, struct err *e);
// How many layouts plan_choose has to choose from.
int plan_choices(int n, struct plan_wish w, const struct plan_model *m, int branches);

// 0, or E_INPUT when not even the leanest of the rows fits: what it needs, what there is, and the way out.
int plan_check(const struct plan_row *rows, int n_rows, const struct plan_rates *r, struct err *e);

// "1x2x4 node": guide x ring x heads, and where the weights are unless whole.
const char *plan_text(const struct plan_row *row, char *text, size_t n);

#endif
