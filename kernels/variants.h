// Ways to do an op: of several, a device takes the first that is meant for its architecture and right on it.
//
// A list names for each op its ways, the one to be preferred first and the plainest last. When a device is opened each
// is tried against the reference on a few small cases; one that is wrong is dropped with a line in the log that names
// it, and the next is tried. So a new way of doing an op is one more row and one more file.
#ifndef KERNELS_VARIANTS_H
#define KERNELS_VARIANTS_H

#include "kernels/table.h"
#include "kernels/trial.h"

struct op_variant {
    const char *op, *name;       // rows of one op stand together
    int from, to;                // architectures that it is for, as 10 major + minor; to 0: all later ones
    void (*fill)(struct ops *o); // puts it into its slots, which may be several
    const struct op_case *cases;
    int n_cases;
};

// Fills the slots of all ops in the list. What was dropped also stands in the device's name, since results may differ
// in their last bits. E_FATAL: an op has no way left that is right, or one faulted, after which a card does nothing
// more.
int variants_settle(struct dev *d, int arch, const struct op_variant *list, int n, struct err *e);

#endif
