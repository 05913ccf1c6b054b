// The verb `weights` of longtake-worker: makes a model of random weights, tells what a file or folder holds.
#ifndef WORKER_WEIGHTS_MAIN_H
#define WORKER_WEIGHTS_MAIN_H

// argv[0] is "weights". Results go to stdout, sentences to stderr. Returns the exit status: 0 done (inspect: whole), 1
// failed, 2 usage, 3 what was inspected is not whole or not readable, 130 interrupted.
int weights_main(int argc, char **argv);

#endif
