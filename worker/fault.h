// Weights are mapped, and a file that shrinks under its map is a bus error at the next touch. The kernel's word for
// that would tell nobody which file it was.
#ifndef WORKER_FAULT_H
#define WORKER_FAULT_H

// From here on a bus error in a mapped file writes one sentence that names the file to stderr and ends the process. Of
// several ranks it names this one too; -1: alone, or not known yet.
void fault_watch(int rank);

#endif
