// The self-test of a device: every op of its table against the reference on random input, with error, time and rate.
#ifndef WORKER_SELFTEST_H
#define WORKER_SELFTEST_H

#include "kernels/dev.h"

#include <stdio.h>

// Prints a line an op and dtype and one of verdict. 0, or E_FATAL when an op is wrong or the device faults.
int selftest_run(struct dev *d, FILE *to, struct err *e);

#endif
