// The verb `plan` of longtake-worker: which layout would be the fastest, and whether it fits.
#ifndef WORKER_PLAN_MAIN_H
#define WORKER_PLAN_MAIN_H

// argv[0] is "plan". By one process or by all ranks of mpirun: rates are measured together, rank 0 prints. Returns the
// exit status: 0 done, 2 usage, 3 the model is not in order or no layout fits, 1 failed.
int plan_main(int argc, char **argv);

#endif
