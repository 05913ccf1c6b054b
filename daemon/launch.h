// How the processes of a group are started: one worker as it is, several by mpirun.
//
// mpirun does not die with its parent by itself, so it is started through `longtake __launch PARENT mpirun ...`, a
// hidden verb of this program that asks to be killed with its parent and then becomes mpirun; the ranks ask the same of
// mpirun. So whoever is killed, and however, nobody is left.
#ifndef DAEMON_LAUNCH_H
#define DAEMON_LAUNCH_H

#include "proto/base/arena.h"
#include "proto/spec.h"

enum { LAUNCH_ARGS = 80 };

extern const char *const launch_shards[];  // names of struct launch_ranks' shard, ends with NULL
extern const char *const launch_weights[]; // likewise of weights
// Likewise of its device: auto, which is the CPU, cpu, cuda (a rank takes the card of its number on the machine).
extern const char *const launch_devices[];

// How many ranks, how they share a job, and on what they work.
struct launch_ranks {
    int n;              // 0: 1
    const char *layout; // as the worker takes it, or NULL
    int shard;          // of launch_shards; 0: the worker chooses
    int weights;        // of launch_weights; 0: the worker chooses
    int device;         // of launch_devices
};

struct launch {
    const char *self;   // this program
    const char *worker; // its program
    const char *folder; // of the group alone: sockets, what MPI keeps in files
    const char *model, *cache;
    const struct spec *spec;
    struct launch_ranks ranks;
};

// argv[0] is a path; the strings lie in `a` or are the caller's. E_FATAL names the program that is missing.
int launch_arguments(char *argv[LAUNCH_ARGS], struct arena *a, const struct launch *l, struct err *e);
// The verb: argv[0..argc) are PARENT and the command. Comes back only with an exit code.
int launch_main(int argc, char **argv);
// What a group's log tells of its end. True: the launcher says which rank ended first ("rank 2 ended on signal 9").
// Else the last line, unless it only tells of good days, or nothing; without what could disturb a terminal.
bool launch_last_words(const char *log, char *to, size_t n);

#endif
