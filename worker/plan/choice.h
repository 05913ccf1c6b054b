// What --layout auto takes: a mesh for jobs of 1, 2 and 3 branches, foretold from measured rates, decided once.
//
// A mesh decides the last bits of a sum, and two measurements of one machine are never quite the same. So what was
// decided is kept in the working folder, which lies with the jobs: whoever goes on with them finds it there.
#ifndef WORKER_PLAN_CHOICE_H
#define WORKER_PLAN_CHOICE_H

#include "kernels/dev.h"
#include "parallel/plan.h"
#include "worker/set.h"

enum { CHOICE_BRANCHES = 3 };

struct choice {
    struct mesh_shape of[CHOICE_BRANCHES]; // by branches - 1; guide 0: none is legal
    char advice[256];                      // that fewer ranks would be faster; "": they would not
};

struct choice_for {
    int n; // ranks
    struct plan_wish wish;
    bool streamed; // the blocks stay with the host
    struct plan_model net;
    struct plan_job job; // as the model has it by default
};

// From given rates. E_INPUT: the weights alone do not fit; says how much they take and how much there is.
int choice_make(struct choice *out, const struct choice_for *f, const struct plan_rates *r, struct err *e);

// Whether the weights fit as chosen, where a rank may use `memory` bytes and a machine has `node` ranks; E_INPUT as
// above.
int choice_fits(const struct choice *c, const struct choice_for *f, int node, int64_t memory, struct err *e);

// "1x1x2 2x1x1 1x1x2"
const char *choice_text(const struct choice *c, char *text, size_t n);
// One line of layouts, one of advice. Where the file is there already, *c becomes what it says: the first one who
// decides decides for all. Without room for it nothing is kept. Files of the folder that nobody has read for a season
// are removed.
void choice_keep(struct choice *c, const struct choice_for *f, const char *file);
// False: there is none, or it is not of this kind, or somebody else's.
bool choice_read(struct choice *out, const struct choice_for *f, const char *file);

// Collective: read from the folder or measured, which takes about a second, and kept. `world` is what the ranks will
// talk over. With one rank, or nothing to choose from, nothing is measured. E_BUSY: what was kept does not fit into the
// memory that is there now.
int choice_decide(struct choice *out, const struct set_options *o, struct plan_wish wish, struct dev *d,
                  struct comm *world, const char *folder, struct err *e);

#endif
