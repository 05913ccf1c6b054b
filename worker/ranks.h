// The ranks of this program, and how they share a job.
//
// Life: ranks_open (the launcher's ranks, or this process alone), ranks_tie (each to its own cores), ranks_use (their
// devices), ranks_same (all are the same program with the same weights), ranks_wish, then ranks_lay once per job: the
// mesh fits the job's branches of guidance. All calls but the questions are collective, and what they refuse is told
// alike on every rank: the lowest one speaks.
#ifndef WORKER_RANKS_H
#define WORKER_RANKS_H

#include "parallel/mesh.h"

#include <stddef.h>
#include <stdint.h>

struct ranks;

// E_INPUT: the launcher has started several processes and this build has no MPI.
int ranks_open(struct ranks **out, struct err *e);
void ranks_close(struct ranks **r);

int ranks_count(const struct ranks *r);
int ranks_number(const struct ranks *r); // of this one; 0 speaks for all
int ranks_here(const struct ranks *r);   // that run on this machine
// Collective: the process of each rank; 0 where that is on another machine.
void ranks_processes(const struct ranks *r, int32_t *pid);
struct comm *ranks_comm(const struct ranks *r); // of all, over host memory
// Whether the ranks can still be heard; when not, this process can only end.
bool ranks_lost(const struct ranks *r);
// The worst code of all ranks, with its sentence.
int ranks_agree(const struct ranks *r, int rc, struct err *e);

// Gives each rank of a machine its part of the cores that they all may use, unless the launcher has parted them.
// Call it before any thread is started. Returns the number of threads for this rank: `threads`, or where that is 0 as
// many as its cores.
int ranks_tie(const struct ranks *r, int threads);
// E_INPUT unless `n` bytes are the same on every rank; the sentence names a rank that has others, and `what` they are.
int ranks_same(const struct ranks *r, const char *what, const void *bytes, size_t n, struct err *e);

// What ops work on; where its memory is not the host's, the mesh talks over NCCL. E_INPUT: this build has none.
int ranks_use(struct ranks *r, struct dev *d, struct err *e);
struct comm *ranks_card(const struct ranks *r); // of all, over the devices' memory; NULL: it is the host's, or one rank

// "2x1x4", guide x ring x heads; a 0 or "auto" leaves that to ranks_lay.
int ranks_read_layout(struct mesh_shape *out, const char *text, struct err *e);
// What ranks_lay takes for jobs of 1, 2, .. n branches, as far as the wish leaves it open (guide 0: nothing is said).
// Before ranks_wish.
void ranks_prefer(struct ranks *r, const struct mesh_shape *shapes, int n);
// What the layout is to be; `n_heads` of the model. Refuses what cannot be had. Opens a mesh without guide ranks,
// unless the wish has some: for weights that are to be shared.
int ranks_wish(struct ranks *r, struct mesh_shape wish, int n_heads, struct err *e);
// Weights are shared along the sequence: from now on the guide axis stays as it is.
void ranks_hold_guide(struct ranks *r);
// The mesh for a job with `n_branches`; pointers to it stay valid.
int ranks_lay(struct ranks *r, int n_branches, struct err *e);
const struct mesh *ranks_mesh(const struct ranks *r); // NULL: alone
// The ranks among which weights are shared: of one sequence, and with `node` on one machine. The caller owns *out.
int ranks_sharers(const struct ranks *r, bool node, struct comm **out, struct err *e);

#endif
