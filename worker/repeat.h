// Forwards that are asked for again and again on the same tensors, one launch each.
//
// The first time a forward is run plainly: it meets its shapes and takes its memory. The second time it is recorded,
// and from then on repeated, as long as every tensor lies where it lay and every number is what it was: another
// picture, branch, cache decision or piece of memory is another forward. Where a device has no records, or ranks or
// weights that come from elsewhere take part, all run plainly. Results are the same bytes either way: the first record
// that a device repeats is held against the same forward run plainly, and one with other bytes is the device's last.
#ifndef WORKER_REPEAT_H
#define WORKER_REPEAT_H

#include "worker/models/dit.h"

enum { REPEAT_BRANCHES = 4, REPEAT_MOST = 8 };

// What stands in a record of one branch, beside the model.
struct repeat_branch {
    tensor of[13];
    int speakers;
    bool skip, wide;
};
struct repeat_entry {
    const struct dit *m;
    int64_t mark; // of the arena: where scratch begins
    int n;        // branches; 0: no entry
    struct repeat_branch branch[REPEAT_BRANCHES];
    struct dev_record *record; // from the second time on
};
struct repeat {
    struct repeat_entry of[REPEAT_MOST]; // a ring
    int64_t n;
};

// dit_forward_branches without a listener. `r` NULL: plainly.
void repeat_forward(struct repeat *r, const struct dit *m, const struct mesh *mesh, struct dev_arena *a,
                    const tensor *out, const struct dit_in *in, int n);
// Forgets all; before the device is closed.
void repeat_release(struct repeat *r);

#endif
