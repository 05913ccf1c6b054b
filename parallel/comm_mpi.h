// The world of mpirun: processes, host memory, messages by Open MPI.
#ifndef PARALLEL_COMM_MPI_H
#define PARALLEL_COMM_MPI_H

#include "parallel/comm.h"

// Starts MPI; once per process. E_FATAL when the library refuses. Closing the world ends MPI, except after a fault,
// when a tidy end could hang.
int comm_mpi_open(struct comm **out, struct err *e);

#endif
